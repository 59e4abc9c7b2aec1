"""Batches on their way into and out of a network: normalising, mixing, the teacher's top K."""

from fkdx.batch.mix import Mix, Mixer
from fkdx.batch.prepare import IMAGENET_MEAN, IMAGENET_STD, prepare
from fkdx.batch.topk import topk_probabilities

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Mix", "Mixer", "prepare", "topk_probabilities"]
