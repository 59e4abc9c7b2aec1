"""Targets and losses: the algebra of soft targets, fused cross-entropy, losses against a teacher's logits."""

from fkdx.loss.cross_entropy import binary_cross_entropy, loss_and_grad, soft_cross_entropy
from fkdx.loss.target import SparseTarget

__all__ = ["SparseTarget", "binary_cross_entropy", "loss_and_grad", "soft_cross_entropy"]
