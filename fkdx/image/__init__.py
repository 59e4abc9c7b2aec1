"""Images on the CPU: crops cut from encoded images, random boxes, and augmentation that can be repeated."""

from fkdx.image.crops import (
    INTERPOLATIONS,
    decode_crops,
    decoder,
    harmless_warnings,
    image_size,
    installed_rule,
    pillow_difference,
    resize_crops,
    validation_crop,
)

__all__ = [
    "INTERPOLATIONS",
    "decode_crops",
    "decoder",
    "harmless_warnings",
    "image_size",
    "installed_rule",
    "pillow_difference",
    "resize_crops",
    "validation_crop",
]
