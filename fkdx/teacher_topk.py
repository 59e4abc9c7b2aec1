"""What is stored of a teacher's answer: softmax and the K largest probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_probabilities(logits: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The K most probable classes of every row and their probabilities, in descending order.

    Args:
        logits: (B, C) float32, bfloat16 or float16.
        k: 1 <= k <= C.
        temperature: divides the logits.

    Returns:
        ids (B, K) int32 and values (B, K) float32, ``softmax(logits / temperature)`` at these ids.

    Raises:
        ValueError: k or temperature out of range, logits not a matrix.
    """
    if logits.ndim != 2 or not 1 <= k <= logits.shape[1]:
        raise ValueError(
            f"topk_probabilities: k, got {k} of {tuple(logits.shape)}, expected 1 <= k <= C of (B, C)"
        )
    if not temperature > 0:
        raise ValueError(f"topk_probabilities: temperature, got {temperature}, expected a positive number")
    scaled = logits.float() / temperature
    values, ids = scaled.topk(k, dim=1)
    values = torch.exp(values - scaled.logsumexp(1, keepdim=True))
    return ids.to(torch.int32), values
