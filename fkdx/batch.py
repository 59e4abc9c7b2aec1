"""From uint8 crops to what a network eats, in one pass: normalised, mixed, rounded, channels-last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fkdx.mix import Mix

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
        images: (B, H, W, 3) uint8, contiguous, on any device.
        mean, std: one a channel, in units of [0, 1].
        dtype: float32, bfloat16 or float16; everything before is float32, rounded once.
        mix: parameters of the rows, on the images' device.

    Returns:
        (B, 3, H, W) of `dtype` in channels-last memory, on the images' device.

    Raises:
        ValueError: wrong shape, dtype, device, std or mix.
    """
    _expect(
        images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3,
        "images",
        (tuple(images.shape), images.dtype),
        "(B, H, W, 3) uint8",
    )
    _expect(
        len(mean) == 3 and len(std) == 3 and min(std) > 0, "mean and std", (mean, std), "3 each, std positive"
    )
    _expect(dtype in _DTYPES, "dtype", dtype, "float32, bfloat16 or float16")
    if mix is not None:
        _expect(len(mix.lam) == len(images), "mix", len(mix.lam), f"{len(images)} rows")
        _expect(mix.boxes.device == images.device, "mix's device", mix.boxes.device, images.device)
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    if mix is not None:
        pixels = torch.where(
            _inside(mix, images),
            pixels + mix.blend[:, None, None, None] * (pixels[mix.permutation] - pixels),
            pixels,
        )
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64, device=images.device))
    bias = -torch.tensor(mean, dtype=torch.float64, device=images.device) * 255 * scale
    normal = pixels * scale.float()[:, None, None] + bias.float()[:, None, None]
    return normal.to(dtype, memory_format=torch.channels_last)


def _inside(mix: Mix, images: Tensor) -> Tensor:
    """(B, 1, H, W): is the pixel inside the row's box?"""
    top, left, height, width = (part[:, None, None, None] for part in mix.boxes.unbind(1))
    y = torch.arange(images.shape[1], device=images.device)[:, None]
    x = torch.arange(images.shape[2], device=images.device)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)


def _expect(ok: bool, what: str, got: object, expected: object) -> None:
    if not ok:
        raise ValueError(f"prepare: {what}, got {got}, expected {expected}")
