"""Which crops of an image a teacher labels: drawn at random, laid out by a policy, or another file's.

Each way of drawing gives the boxes for an image of known size when called, and in `work` what the loader's
`ImagePool` needs to cut them from an image that is not open yet.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from fkdx import _C
from fkdx.image import image_size
from fkdx.image.random_boxes import RATIO, SCALE, crop_stream, random_boxes
from fkdx.image.steps import are_steps
from fkdx.labels import ImageLabels, LabelFile, boxes_from_ratios
from fkdx.loader.pool import Work
from fkdx.stores import Store

Crops = tuple[np.ndarray, np.ndarray]  # boxes (M, 4) int32, flips (M,) bool


class Draw(Protocol):
    """A way to choose the M = `crops` crops of every image; `view` is what it needs of a loader's `View`."""

    crops: int

    @property
    def view(self) -> dict[str, Any]: ...

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        """The crops of an image of `size` (height, width). Raises ValueError where it has none."""

    def work(self, source: Store, image: int) -> Work:
        """How a pool cuts them. Raises OSError or ValueError where the image cannot be used."""

    def provenance(self) -> dict:
        """What a label file's header says of them."""


@dataclass(frozen=True)
class RandomCrops:
    """`crops` random-resized crops and flips, drawn from (seed, key, crop index) alone.

    `scale` is the range of a crop's share of the image's area, `ratio` that of its width / height, `flip` the
    probability that it is mirrored, `first` the index of the first crop. Raises ValueError for an empty range
    or one out of bounds.
    """

    crops: int
    seed: int = 0
    scale: tuple[float, float] = SCALE
    ratio: tuple[float, float] = RATIO
    flip: float = 0.5
    first: int = 0

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise ValueError(f"crops, got {self.crops}, expected at least 1")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale, got {self.scale}, expected 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1] < 1e6:
            raise ValueError(f"ratio, got {self.ratio}, expected 0 < low <= high")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip, got {self.flip}, expected a probability")

    @cached_property
    def view(self) -> dict[str, Any]:
        return {"boxes": "random", "random": _C.RandomCrops(self.scale, self.ratio, self.flip)}

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        ranges = {"scale": self.scale, "ratio": self.ratio, "flip": self.flip, "first": self.first}
        return random_boxes(size, self.seed, key, self.crops, **ranges)

    def work(self, source: Store, image: int) -> Work:
        return Work(
            images=[image],
            counts=[self.crops],
            boxes=np.empty((self.crops, 4), np.int32),
            flips=np.empty(self.crops, np.uint8),
            streams=[crop_stream(self.seed, source.keys[image])],
            first_crops=[self.first],
        )

    def provenance(self) -> dict:
        return {"policy": "random resized crop", **asdict(self)}


@dataclass(frozen=True)
class SquareCrops:
    """Squares whose sides are parts (`sides`, each in (0, 1]) of the image's shorter side, at fixed places.

    `places` are (vertical, horizontal) positions: 0 is the first pixel, 1 the last. With `both` every square
    comes twice, as it is and mirrored. Raises ValueError for a side out of its range.
    """

    sides: tuple[float, ...]
    places: tuple[tuple[float, float], ...]
    both: bool = False

    def __post_init__(self) -> None:
        if not self.sides or not all(0 < side <= 1 for side in self.sides):
            raise ValueError(f"sides, got {list(self.sides)}, expected parts of the shorter side, in (0, 1]")

    @property
    def crops(self) -> int:
        return len(self.sides) * len(self.places) * (2 if self.both else 1)

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        boxes = []
        for part in self.sides:
            side = max(1, round(part * min(size)))
            for down, right in self.places:
                boxes.append((round(down * (size[0] - side)), round(right * (size[1] - side)), side, side))
        flips = [False] * len(boxes) + [True] * (len(boxes) if self.both else 0)
        return np.array(boxes * (2 if self.both else 1), np.int32), np.array(flips)


class Policy:
    """The crops of a policy file: a YAML list whose entries are put one behind the other.

        - {kind: random, crops: 100, scale: [0.08, 1], ratio: [0.75, 1.333], flip: 0.5}
        - {kind: centre, side: 0.875}                           # one square; side: part of the shorter side
        - {kind: corners, side: 0.6, both: true}                # four squares, and mirrored
        - {kind: grid, sides: [1, 0.7, 0.5], steps: 3}          # 3 x 3 squares of each size

    Raises ValueError for anything else.
    """

    def __init__(self, path: str | Path, seed: int) -> None:
        self.view = {"boxes": "pixels"}
        if not Path(path).is_file():
            raise FileNotFoundError(f"policy: no such file, {path}")
        try:
            self.entries = yaml.safe_load(Path(path).read_text())
            if not isinstance(self.entries, list) or not self.entries:
                raise ValueError("expected a list of entries")
            self.parts: list[RandomCrops | SquareCrops] = []
            for entry in self.entries:
                self.parts.append(_part(entry, seed, sum(part.crops for part in self.parts)))
        except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
            raise ValueError(f"policy: {' '.join(str(error).split())}, {path}") from error
        self.crops, self.seed = sum(part.crops for part in self.parts), seed

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        drawn = [part(key, size) for part in self.parts]
        return np.concatenate([boxes for boxes, _ in drawn]), np.concatenate([flips for _, flips in drawn])

    def work(self, source: Store, image: int) -> Work:
        size = image_size(source.encoded(image))  # squares are parts of it
        boxes, flips = self(source.keys[image], size)
        return Work([image], [self.crops], boxes, flips.view(np.uint8), sizes=[size])

    def provenance(self) -> dict:
        return {"policy": self.entries, "crops": self.crops, "seed": self.seed}


def _part(entry: dict[str, Any], seed: int, first: int) -> RandomCrops | SquareCrops:
    options = dict(entry)
    kind = options.pop("kind")
    if kind == "random":
        return RandomCrops(seed=seed, first=first, **options)
    if kind == "grid":
        sides, steps = tuple(options.pop("sides")), options.pop("steps")
        line = [step / (steps - 1) for step in range(steps)] if steps > 1 else [0.5]
        return SquareCrops(sides, tuple((down, right) for down in line for right in line), **options)
    if kind in ("centre", "corners"):
        corners = tuple((down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))
        return SquareCrops((options.pop("side"),), ((0.5, 0.5),) if kind == "centre" else corners, **options)
    raise ValueError(f"kind, got {kind}, expected random, centre, corners or grid")


class CropsOfFile:
    """The crops of another label file, so that a new teacher labels what an old one did.

    Raises ValueError where its images have different numbers of crops, or where its crops were changed by
    operations that cannot be repeated.
    """

    def __init__(self, path: str | Path) -> None:
        self.labels = LabelFile(path)
        self.path = Path(path)
        if not self.labels.crops:
            raise ValueError(f"crops-from: expected the same number of crops of every image, {path}")
        operations = self.labels.extra_operations
        if operations and not are_steps(self.labels.extra_form, operations):
            raise ValueError(
                f"crops-from: its crops went through {', '.join(operations)}, expected what can be repeated, "
                f"{path}"
            )
        self.crops: int = self.labels.crops
        self.view = {"boxes": "ratios" if self.labels.ratios else "pixels"}

    def _stored(self, key: str) -> ImageLabels:
        if key not in self.labels:
            raise ValueError(f"no crops of it in {self.path}")
        return self.labels[key]

    def work(self, source: Store, image: int) -> Work:
        stored = self._stored(source.keys[image])
        return Work(
            images=[image],
            counts=[self.crops],
            boxes=np.array(stored.boxes, np.int32, order="C"),
            flips=stored.flips.view(np.uint8),
            ratios=np.array(stored.boxes, np.float32, order="C") if self.labels.ratios else None,
            sizes=[stored.image_size or (0, 0)],
        )

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        image = self._stored(key)
        if self.labels.ratios:
            return boxes_from_ratios(image.boxes, *size), image.flips
        if image.image_size != size:
            raise ValueError(f"image size, got {size}, expected {image.image_size} as in {self.path}")
        return image.boxes, image.flips

    def provenance(self) -> dict:
        return {
            "policy": f"crops of {self.path.name}",
            "crops": self.crops,
            "crops_digest": self.labels.digest,
        }
