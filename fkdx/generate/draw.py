"""Which crops of an image a teacher labels: drawn at random, laid out by a policy, or another file's."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fkdx.image.augment import are_steps
from fkdx.image.random_boxes import random_boxes
from fkdx.labels import LabelFile, boxes_from_ratios

Crops = tuple[np.ndarray, np.ndarray]  # boxes (M, 4) int32, flips (M,) bool


@dataclass(frozen=True)
class RandomCrops:
    """`crops` random-resized crops and flips, drawn from (seed, key, crop index) alone.

    `scale` is the range of a crop's share of the image's area, `ratio` that of its width / height, `flip` the
    chance that it is mirrored, `first` the index of the first crop.
    """

    crops: int
    seed: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    first: int = 0

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        ranges = {"scale": self.scale, "ratio": self.ratio, "flip": self.flip, "first": self.first}
        return random_boxes(size, self.seed, key, self.crops, **ranges)

    def provenance(self) -> dict:
        return {"policy": "random resized crop", **asdict(self)}


@dataclass(frozen=True)
class SquareCrops:
    """Squares whose sides are parts (`sides`, each in (0, 1]) of the image's shorter side, at fixed places.

    `places` are (vertical, horizontal) positions: 0 is the first pixel, 1 the last. With `both` every square
    comes twice, as it is and mirrored.
    """

    sides: tuple[float, ...]
    places: tuple[tuple[float, float], ...]
    both: bool = False

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
        try:
            self.entries = yaml.safe_load(Path(path).read_text())
            if not isinstance(self.entries, list) or not self.entries:
                raise ValueError("expected a list of entries")
            self.parts: list[RandomCrops | SquareCrops] = []
            for entry in self.entries:
                self.parts.append(_part(entry, seed, sum(part.crops for part in self.parts)))
        except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise ValueError(f"policy: {' '.join(str(error).split())}, path {path}") from error
        self.crops, self.seed = sum(part.crops for part in self.parts), seed

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        boxes, flips = zip(*(part(key, size) for part in self.parts))
        return np.concatenate(boxes), np.concatenate(flips)

    def provenance(self) -> dict:
        return {"policy": self.entries, "crops": self.crops, "seed": self.seed}


def _part(entry: dict[str, Any], seed: int, first: int) -> RandomCrops | SquareCrops:
    options = dict(entry)
    kind = options.pop("kind")
    if kind == "random":
        part = RandomCrops(seed=seed, first=first, **options)
        part("", (100, 100))  # refuses ranges that make no sense
        return part
    if kind == "grid":
        sides, steps = tuple(options.pop("sides")), options.pop("steps")
        line = [step / (steps - 1) for step in range(steps)] if steps > 1 else [0.5]
        part = SquareCrops(sides, tuple((down, right) for down in line for right in line), **options)
    elif kind in ("centre", "corners"):
        corners = tuple((down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))
        part = SquareCrops((options.pop("side"),), ((0.5, 0.5),) if kind == "centre" else corners, **options)
    else:
        raise ValueError(f"kind, got {kind}, expected random, centre, corners or grid")
    if not all(0 < side <= 1 for side in part.sides):
        raise ValueError(f"sides, got {list(part.sides)}, expected parts of the shorter side, in (0, 1]")
    return part


class StoredCrops:
    """The crops that another label file has, so that a new teacher labels what an old one did.

    ValueError where its images have different numbers of crops, or went through what nobody can repeat.
    """

    def __init__(self, path: str | Path) -> None:
        self.labels = LabelFile(path)
        self.path = Path(path)
        if not self.labels.crops:
            raise ValueError(f"crops-from: expected the same number of crops of every image, path {path}")
        operations = self.labels.extra_operations
        if operations and not are_steps(self.labels.extra_form, operations):
            raise ValueError(
                f"crops-from: its crops went through {', '.join(operations)}, expected what can be repeated, "
                f"path {path}"
            )
        self.crops: int = self.labels.crops

    def __call__(self, key: str, size: tuple[int, int]) -> Crops:
        if key not in self.labels:
            raise ValueError(f"no crops of it in {self.path}")
        image = self.labels[key]
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
