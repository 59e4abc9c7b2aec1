"""Throws damaged images at decode_crops: it gives what an undamaged decode gives, or an ImageError.

    FKDX_IMAGES=folder python tests/fuzz/real_images.py SEED FIRST SECONDS

The images are drawn ones of every JPEG kind and of Pillow's formats, and those of a folder. Of one accepted
image in twenty the pixels are compared with Pillow's.
"""

import io
import os
import random
from functools import cache
from pathlib import Path

import numpy as np
from images import JPEG_KINDS, OWN_RULE, encode, photo
from PIL import Image
from trust.inputs import damage, try_inputs

from fkdx import ImageError, decode_crops, image_size
from fkdx.image import validation_crop

FORMATS = ("PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "DDS")
MOST = 400  # images read from the folder
LARGEST = 300_000  # bytes


@cache
def seeds() -> list[bytes]:
    folder = os.environ.get("FKDX_IMAGES", "")
    drawn = list(drawn_images())
    if not folder:
        return drawn
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = random.Random(0).sample(paths, min(MOST, len(paths)))
    return [data for path in chosen if len(data := path.read_bytes()) <= LARGEST] + 10 * drawn


def drawn_images():
    rng = np.random.default_rng(1)
    for kind in JPEG_KINDS:
        yield encode(rng, kind, 60, 80)
    for form in FORMATS:
        file = io.BytesIO()
        try:
            Image.fromarray(photo(rng, 40, 50)).save(file, form)
        except (KeyError, OSError):  # this Pillow has no such plugin
            continue
        yield file.getvalue()


def attempt(random: random.Random) -> None:
    data = damage(random.choice(seeds()), random, seeds())
    try:
        height, width = image_size(data)
        if height * width > 4_000_000:  # a changed header; its pixels would take seconds
            return
        box = random_box(random, height, width)
        crop = decode_crops(data, [box], [False], 16, resample=OWN_RULE)
        assert crop.shape == (1, 16, 16, 3)
        if random.random() < 0.1:
            assert validation_crop(data, 16, whole_file=True).shape == (16, 16, 3)
    except ImageError:
        return
    if random.random() < 0.05:
        compare(data, box, crop[0])


def random_box(random: random.Random, height: int, width: int) -> list[int]:
    rows, columns = random.randint(1, height), random.randint(1, width)
    return [random.randint(0, height - rows), random.randint(0, width - columns), rows, columns]


def compare(data: bytes, box: list[int], crop: np.ndarray) -> None:
    """With Pillow's pixels, where Pillow reads the whole file; a damaged end may not concern the box."""
    top, left, rows, columns = box
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.info.get("progressive"):  # the two libraries may smooth an incomplete one otherwise
                return
            right = image.convert("RGB").crop((left, top, left + columns, top + rows))
    except Exception:  # whatever a plugin raises
        return
    expected = np.asarray(right.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(crop, expected), f"pixels differ from Pillow's in box {box}"


if __name__ == "__main__":
    try_inputs(attempt)
