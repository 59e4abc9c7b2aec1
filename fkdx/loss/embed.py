"""Losses between a student's projections and a teacher's embeddings.

Both are (B, K): one embedding of D values, or two one behind the other, whose losses are averaged. Every loss
is a value a row, (B,), in float32 (float64 where the projections are); the teacher gets no gradient. A row of
the teacher that is NaN stands for no embedding (a zero vector, whose direction means nothing): it is kept
out, with loss and gradient 0.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

EmbeddingLoss = Literal["cosine", "mse", "smooth_l1", "ce"]
EMBEDDING_LOSSES = get_args(EmbeddingLoss)


def embedding_losses(
    student: Tensor,
    teacher: Tensor,
    sizes: Sequence[int] | None = None,
    loss: EmbeddingLoss = "cosine",
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """The loss of every row, (B,), the mean over its embeddings.

    Args:
        student, teacher: (B, K) of any floating dtype.
        sizes: D of each embedding, K in all; None: one.
        loss: cosine: 1 - cosine; mse: the mean of squared differences over the dimensions; smooth_l1: the
            same with Huber's function, beta 1; ce: cross-entropy of softmax(student / temperature) under
            softmax(teacher / teacher_temperature), as for a self-supervised teacher's bare outputs.

    Raises ValueError for other shapes, an unknown loss, and temperatures that are not positive.

    Example:
        >>> import torch
        >>> from fkdx.loss.embed import embedding_losses
        >>> teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> embedding_losses(torch.tensor([[6.0, 8.0], [1.0, 0.0]]), teacher).round(decimals=4).tolist()
        [0.0, 1.0]
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        got = (tuple(student.shape), tuple(teacher.shape))
        raise ValueError(
            f"embedding_losses: shapes of projections and embeddings, got {got}, expected equal (B, K)"
        )
    sizes = [student.shape[1]] if sizes is None else list(sizes)
    if sum(sizes) != student.shape[1]:
        raise ValueError(f"embedding_losses: sizes, got {sizes}, expected {student.shape[1]} in all")
    if loss not in EMBEDDING_LOSSES:
        raise ValueError(
            f"embedding_losses: loss, got '{loss}', expected one of {', '.join(EMBEDDING_LOSSES)}"
        )
    if not (temperature > 0 and teacher_temperature > 0):
        given = (temperature, teacher_temperature)
        raise ValueError(f"embedding_losses: temperatures, got {given}, expected positive numbers")
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    total = student.new_zeros(len(student))
    for ours, theirs in zip(student.split(sizes, dim=1), teacher.split(sizes, dim=1)):
        there = ~theirs.isnan().any(dim=1)
        theirs = torch.where(there[:, None], theirs, 1.0)  # any number: no NaN shall reach the gradient
        rows = _rows(loss, ours, theirs, temperature, teacher_temperature)
        total = total + torch.where(there, rows, 0.0)
    return total / len(sizes)


def _rows(loss: str, ours: Tensor, theirs: Tensor, temperature: float, teacher_temperature: float) -> Tensor:
    if loss == "cosine":
        return 1 - functional.cosine_similarity(ours, theirs, dim=1)
    if loss == "mse":
        return (ours - theirs).square().mean(dim=1)
    if loss == "smooth_l1":
        return functional.smooth_l1_loss(ours, theirs, reduction="none").mean(dim=1)
    target = torch.softmax(theirs / teacher_temperature, dim=1)
    return -(target * torch.log_softmax(ours / temperature, dim=1)).sum(dim=1)
