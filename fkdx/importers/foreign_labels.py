"""What every importer offers: a set of labels that is opened once, then read image by image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fkdx._C import FormatError, ImageError
from fkdx.importers.images import Images
from fkdx.labels import ImageLabels
from fkdx.stores import hidden

Axes = Literal["as-upstream", "corrected"]
AXES = get_args(Axes)
UNREADABLE = (FormatError, ImageError, OSError)


@dataclass(frozen=True)
class Settings:
    """What the user has to say about labels because their files do not.

    All formats use `num_classes`, `classes` (names in class order), `images` (the data set's folder) and
    `image_suffix` (used if there are no `images`). The others are for one or a few formats each.
    """

    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    images: Images | None = None
    image_suffix: str = ".JPEG"
    label_type: str | None = None  # fkd, lpqld: what the labels mean
    mix_size: int | None = None  # batch files, reinforcement: side in pixels of the crops that were mixed
    seed: int = 42  # sre2l: seed of the sampler; label maps: seed of the crops
    lost_operations: Literal["none", "accept"] | None = None  # tinyvit: none were applied, or accept the loss
    scale: tuple[float, float] = (0.08, 1.0)  # tinyvit, label maps: share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # tinyvit, label maps: width / height
    crops: int = 200  # label maps: number to draw of each image
    k: int = 5  # label maps: number of classes to keep of each crop
    map_axes: Axes = "as-upstream"  # label maps: see there


@dataclass(frozen=True)
class Layout:
    """The shape of the label file that is made of the labels; see `fkdx.labels.LabelWriter`."""

    kind: str
    num_classes: int
    k: int
    crops: int | None  # of every image; None if it varies
    ratios: bool = False
    mix_size: int = 0  # side of mixed images in pixels
    operations: tuple[str, ...] = ()  # further operations with parameters stored for each image
    form: Literal["json", "steps", "paired steps"] = "json"  # of those parameters; the loader repeats steps


@dataclass(frozen=True)
class Unreadable:
    """An image whose labels could not be read, and why."""

    key: str
    reason: str


class ForeignLabels:
    """Labels in another project's format. A subclass opens them in `__init__` and returns those of one image
    in `read_image`.

    `keys` are ascending; images are numbered in that order. `provenance` goes into the label file's header.
    """

    name: ClassVar[str]  # as in `--format`
    about: ClassVar[str]  # one line for `--help`

    keys: Sequence[str]
    layout: Layout
    classes: Sequence[str] | None = None
    provenance: dict[str, Any]
    notes: Sequence[str] = ()  # what the user should know before using the labels
    origin: Sequence[tuple[str, Any]] = ()  # where they lie and how they are read, in JSON's values

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether the folder looks like this format; reads a few names or one file."""
        raise NotImplementedError

    def __init__(self, path: Path, settings: Settings) -> None:
        raise NotImplementedError

    def read_image(self, number: int) -> ImageLabels:
        """Labels of image `number`; raises FormatError, ImageError or OSError if they are unreadable."""
        raise NotImplementedError

    def read(self, numbers: range) -> Iterator[ImageLabels | Unreadable]:
        """Labels of some images in order; an unreadable one is reported as `Unreadable`, not skipped."""
        for number in numbers:
            try:
                yield self.read_image(number)
            except UNREADABLE as error:
                yield Unreadable(self.keys[number], str(error))


def find_files(root: Path, suffix: str) -> dict[str, int]:
    """All files under `root` that end in `suffix`, sorted: {path relative to root, with "/": size in bytes}.

    Hidden ones, such as macOS puts into archives, do not count.
    """
    sizes: dict[str, int] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if hidden(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(name + "/")
                elif name.endswith(suffix):
                    sizes[name] = entry.stat().st_size
    return dict(sorted(sizes.items()))


def number_samples(images: Images) -> np.ndarray:
    """For each image, in the order of torchvision's ImageFolder, its number in the order of keys."""
    number_of = {key: number for number, key in enumerate(images.keys)}
    return np.array([number_of[key] for key in images.samples], np.int32)


def first_file(root: Path, suffix: str) -> Path | None:
    """The first file under `root` that ends in `suffix`, folder by folder; None if there is none. Hidden ones
    do not count."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in sorted(names):
            if name.endswith(suffix) and not hidden(name):
                return Path(folder, name)
    return None
