"""From uint8 crops to what a network eats, in one pass: normalised, mixed, rounded, channels-last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fkdx import _C
from fkdx.batch.mix import Mix
from fkdx.errors import expect

_expect = partial(expect, "prepare")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def prepare(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    mix: Mix | None = None,
) -> Tensor:
    """``(images / 255 - mean) / std``, mixed with a partner's pixels first where `mix` says so.

    Args:
        images: (B, H, W, 3) uint8 on the CPU or a CUDA device; copied first where not contiguous.
        mean, std: one a channel, in units of [0, 1].
        dtype: float32, bfloat16 or float16; computed in float32 and rounded once, with the
            same bits on the CPU and on a GPU.
        mix: parameters of the rows, on the images' device, with partners of the same size.

    Returns:
        (B, 3, H, W) of `dtype` in channels-last memory, on the images' device.

    Raises:
        ValueError: wrong shape, dtype, device, std or mix.
        IndexError: a partner that is not there; on CUDA the row becomes NaN instead.

    Example:
        >>> import fkdx
        >>> import torch
        >>> crops = torch.full((2, 32, 32, 3), 255, dtype=torch.uint8)
        >>> images = fkdx.prepare(crops, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> tuple(images.shape), round(images[0, 0, 0, 0].item(), 4)
        ((2, 3, 32, 32), 2.0)
    """
    _expect(
        images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3,
        "images",
        (tuple(images.shape), images.dtype),
        "(B, H, W, 3) uint8",
    )
    _expect(images.device.type in ("cpu", "cuda"), "images' device", images.device, "cpu or cuda")
    _expect(
        np.shape(mean) == np.shape(std) == (3,) and all(map(math.isfinite, (*mean, *std))) and min(std) > 0,
        "mean and std",
        (mean, std),
        "3 finite numbers each, std positive",
    )
    _expect(max(mean) <= 1, "mean", mean, "units of [0, 1]: divide one that is meant for bytes by 255")
    _expect(dtype in _DTYPES, "dtype", dtype, "float32, bfloat16 or float16")
    if mix is not None:
        _check_mix(mix, images)
    if images.is_cuda and not hasattr(_C, "prepare_cuda"):
        raise RuntimeError("prepare: fkdx was built without CUDA; install nvcc and build again")
    images = images.contiguous()
    out = torch.empty(images.shape, dtype=dtype, device=images.device)
    scale = [1 / (255 * s) for s in std]
    bias = [-m / s for m, s in zip(mean, std)]
    mixing = (0, 0, 0) if mix is None else _addresses(mix)
    arguments = (
        images.data_ptr(),
        out.data_ptr(),
        mixing,
        images.shape[:3],
        scale,
        bias,
        _DTYPES.index(dtype),
    )
    others = None if mix is None or mix.others is None else (mix.others.data_ptr(), len(mix.others))
    if images.is_cuda:
        device = images.device.index
        _C.prepare_cuda(*arguments, device, torch._C._cuda_getCurrentRawStream(device), others)
    else:
        _C.prepare_cpu(*arguments, torch.get_num_threads(), others)
    return out.permute(0, 3, 1, 2)


def _addresses(mix: Mix) -> tuple[int, int, int]:
    return mix.partners.data_ptr(), mix.boxes.data_ptr(), mix.blend.data_ptr()


def _check_mix(mix: Mix, images: Tensor) -> None:
    rows = len(images)
    for name, shape, dtype in (
        ("partners", (rows,), torch.int64),
        ("boxes", (rows, 4), torch.int32),
        ("blend", (rows,), torch.float32),
    ):
        part = getattr(mix, name)
        got = (tuple(part.shape), *_memory(part))
        _expect(
            got == (shape, dtype, images.device, True),
            f"mix.{name}",
            got,
            (shape, dtype, images.device, True),
        )
    if mix.others is not None:
        got = (tuple(mix.others.shape[1:]), *_memory(mix.others))
        expected = (tuple(images.shape[1:]), torch.uint8, images.device, True)
        _expect(got == expected, "mix.others", got, expected)
    if images.is_cpu:  # a look at those of a GPU would wait for it
        boxes, (height, width) = mix.boxes.numpy().astype(np.int64), images.shape[1:3]
        beyond = boxes[:, :2] + boxes[:, 2:] > (height, width)
        outside = np.flatnonzero((boxes < 0).any(1) | beyond.any(1))
        if len(outside):
            row = outside[0]
            inside = f"one inside {height} x {width} pixels, the size that Mixer.draw is given"
            _expect(False, f"mix.boxes of row {row}", boxes[row].tolist(), inside)


def _memory(tensor: Tensor) -> tuple:
    return tensor.dtype, tensor.device, tensor.is_contiguous()
