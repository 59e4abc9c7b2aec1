"""Batches of stored crops with their targets.

Which crops are shown when is a pure function (`sampler`). The boxes and targets of a batch are its `plan`,
made by `labelled_crops` or `drawn_crops`. Pixels are written to `slots` by the threads of `pool`. The pool
does not need torch, so the loaders are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fkdx.loader.batches import Batch
    from fkdx.loader.crop_loader import CropLoader
    from fkdx.loader.validation_loader import ValidationLoader

_HOMES = {"Batch": "batches", "CropLoader": "crop_loader", "ValidationLoader": "validation_loader"}

__all__ = ["Batch", "CropLoader", "ValidationLoader"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fkdx.loader' has no attribute '{name}'")
    return getattr(import_module(f"fkdx.loader.{_HOMES[name]}"), name)
