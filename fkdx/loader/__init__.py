"""Batches of stored crops with their targets.

What is shown when is a pure function (`sampler`); boxes and targets come from `supervision`; pixels land in
`slots`; the threads that decode are `fkdx.pool`.
"""

from fkdx.loader.batches import Batch
from fkdx.loader.crop_loader import CropLoader
from fkdx.loader.validation_loader import ValidationLoader

__all__ = ["Batch", "CropLoader", "ValidationLoader"]
