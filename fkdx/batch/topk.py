"""What is stored of a teacher's answer: softmax and the K largest probabilities."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fkdx import _C
from fkdx.errors import expect

_expect = partial(expect, "topk_probabilities")

_FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def topk_probabilities(
    logits: Tensor, k: int, temperature: float = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """The K most probable classes of every row and their probabilities, in descending order.

    On CUDA one kernel reads each logit once (K <= 16, C <= 22528); elsewhere torch computes the same.

    Args:
        logits: (B, C) float32, bfloat16 or float16.
        k: 1 <= k <= C.
        temperature: divides the logits.
        dtype: of the values, float32 or float16.

    Returns:
        ids (B, K) int32 and values (B, K), ``softmax(logits / temperature)`` at these ids.

    Raises:
        ValueError: logits not a matrix or of another dtype; k, temperature or dtype out of range.

    Example:
        >>> import fkdx
        >>> import torch
        >>> ids, values = fkdx.topk_probabilities(torch.tensor([[0.0, 2.0, 1.0]]).log1p(), k=2)
        >>> ids.tolist(), [round(value, 4) for value in values[0].tolist()]
        ([[1, 2]], [0.5, 0.3333])
    """
    shape = tuple(logits.shape)
    _expect(
        logits.ndim == 2 and logits.dtype in _FLOATS,
        "logits",
        (shape, logits.dtype),
        "(B, C) of 16 or 32 bits",
    )
    _expect(1 <= k <= shape[1], "k", k, f"1 <= k <= {shape[1]}")
    _expect(temperature > 0, "temperature", temperature, "a positive number")
    _expect(dtype in (torch.float32, torch.float16), "dtype", dtype, "float32 or float16")
    if logits.is_cuda and hasattr(_C, "topk_cuda") and k <= _C.max_topk and shape[1] <= _C.max_topk_classes:
        return _on_cuda(logits, k, temperature, dtype)
    scaled = logits.float() / temperature
    values, ids = scaled.topk(k, dim=1)
    values = torch.exp(values - scaled.logsumexp(1, keepdim=True))
    return ids.to(torch.int32), values.to(dtype)


def _on_cuda(logits: Tensor, k: int, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = logits.detach()
    rows, classes = logits.shape
    if logits.stride(1) != 1 or (rows > 1 and logits.stride(0) < classes):
        logits = logits.contiguous()
    ids = torch.empty((rows, k), dtype=torch.int32, device=logits.device)
    values = torch.empty((rows, k), dtype=dtype, device=logits.device)
    device = logits.device.index
    _C.topk_cuda(
        *(logits.data_ptr(), _FLOATS[logits.dtype], rows, logits.stride(0), classes, k, 1.0 / temperature),
        *(ids.data_ptr(), values.data_ptr(), dtype == torch.float16),
        *(device, torch._C._cuda_getCurrentRawStream(device)),
    )
    return ids, values
