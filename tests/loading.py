"""Images of three classes with labels, and what a loader must make of them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import label_draws
import numpy as np
from images import photo, save_image
from PIL import Image
from torchvision.transforms import functional as F

from fkdx.loader import Batch, CropLoader

CLASSES, CROPS, KEPT = ["ant", "bee", "cat"], 6, 3


@dataclass
class Data:
    root: Path
    labels: Path
    keys: list[str]

    def pixels(self, key: str) -> Image.Image:
        return Image.open(self.root / key).convert("RGB")


def draw_image(rng: np.random.Generator, path: Path, form: str = "JPEG", **options: object) -> None:
    height, width = (int(edge) for edge in rng.integers(40, 90, 2))
    save_image(path, photo(rng, height, width), form, **options)


def write_labels(
    path: Path, root: Path, keys: list[str], rng: np.random.Generator, kind: str = "topk", **options: object
) -> Path:
    """Labels of ten classes for these images; the path."""
    sizes = {key: Image.open(root / key).size[::-1] for key in keys}
    label_draws.write_labels(path, rng, kind, num_classes=10, k=KEPT, crops=CROPS, sizes=sizes, **options)
    return path


def draw_data(root: Path) -> Data:
    """23 images of three classes: JPEG of all sorts, and PNG under a JPEG's name."""
    rng = np.random.default_rng(3)
    keys = [f"{CLASSES[i % 3]}/{i}.JPEG" for i in range(23)]
    for i, key in enumerate(keys):
        form = "PNG" if i % 11 == 5 else "JPEG"
        draw_image(rng, root / "images" / key, form, **({} if form == "PNG" else {"subsampling": i % 3}))
    classes = [*CLASSES, *"defghij"]
    labels = write_labels(root / "labels.fkdl", root / "images", keys, rng, classes=classes)
    return Data(root / "images", labels, sorted(keys))


def make_loader(root: Path, **options: object) -> CropLoader:
    arguments = {
        "batch_size": 8,
        "crops_per_image": 2,
        "size": 16,
        "threads": 2,
        "on_error": "skip",
    } | options
    return CropLoader(root, None, **arguments)


def evict(files: list[Path]) -> None:
    """Their bytes are in no cache any more, where the file system has a disk and knows this call."""
    for path in files:
        with open(path, "rb") as file, suppress(OSError):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rows(batch: Batch) -> Iterator[tuple]:
    """One tuple a row, for comparisons."""
    for i, key in enumerate(batch.keys):
        yield (
            key,
            int(batch.crops[i]),
            int(batch.classes[i]),
            batch.images[i].numpy().tobytes(),
            tuple(batch.target.ids[i].tolist()),
            tuple(batch.target.values[i].tolist()),
        )


def expected_crop(
    image: Image.Image, box: np.ndarray, flip: bool, size: int, bicubic: bool = False
) -> np.ndarray:
    mode = F.InterpolationMode.BICUBIC if bicubic else F.InterpolationMode.BILINEAR
    crop = F.resized_crop(image, *(int(edge) for edge in box), [size, size], mode)
    return np.asarray(F.hflip(crop) if flip else crop)
