"""fkdx: fast knowledge distillation from stored crops and packed soft labels.

The public names below are imported on first use, so that `import fkdx` needs neither torch nor a GPU.
"""

import os
from importlib import import_module

from fkdx._version import __version__

_HOMES = {
    "ImageError": "fkdx._C",
    "FormatError": "fkdx._C",
    "decode_crops": "fkdx.image",
    "resize_crops": "fkdx.image",
    "validation_crop": "fkdx.image",
    "image_size": "fkdx.image",
    "LabelFile": "fkdx.labels",
    "LabelWriter": "fkdx.labels",
    "Calibration": "fkdx.calibration",
    "CropLoader": "fkdx.loader",
    "ValidationLoader": "fkdx.loader",
    "SparseTarget": "fkdx.loss",
    "soft_cross_entropy": "fkdx.loss",
    "loss_and_grad": "fkdx.loss",
    "binary_cross_entropy": "fkdx.loss",
    "Mixer": "fkdx.batch",
    "prepare": "fkdx.batch",
    "topk_probabilities": "fkdx.batch",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name == "_C":
        return _extension()
    if name not in _HOMES:
        raise AttributeError(f"module 'fkdx' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _extension() -> object:
    """The compiled part, or what to do without it: Python finds sources before an installed fkdx."""
    try:
        return import_module("fkdx._C")
    except ModuleNotFoundError as error:
        folder = os.path.dirname(os.path.dirname(__file__))
        raise ImportError(
            "fkdx: the extension is not built for this Python, expected fkdx/_C*.so; run `pip install .` "
            f"in this folder, or leave it if fkdx is installed already, {folder}"
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
