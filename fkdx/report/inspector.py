"""Images to look at: which ones, their boxes, their crops as the student sees them, their classes."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fkdx._C import ImageError
from fkdx.image import decode_crops
from fkdx.labels import LabelFile
from fkdx.report.crops import read_crops
from fkdx.report.survey import Survey
from fkdx.stores import Store, images_of_labels

ROWS = 3000  # of the table of images, in a page without a server
SHOWN = 5  # classes of a crop
THUMBNAIL = 420  # pixels, the longer side of an image

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """What the table of images can be sorted by: name of the number, title of its column."""

    score: str = "mean largest probability"
    spread: str = "spread between crops"
    entropy: str = "entropy"
    unity: str = "crops that agree with each other"
    agreement: str = "crops that agree with the folder"


class Inspector:
    """Rows and pictures of the images of one label file, or of two over the same crops.

    Args:
        labels: the label file.
        found: its survey.
        names: the C class names.
        source: its images; None: no pictures.
        size: pixels, the side of a crop as the student sees it.
        interpolation: "bilinear" or "bicubic".
        other: a label file of another teacher over the same crops.
    """

    def __init__(
        self,
        labels: LabelFile,
        found: Survey,
        names: Sequence[str],
        source: Store | None = None,
        size: int = 112,
        interpolation: str = "bilinear",
        other: LabelFile | None = None,
    ) -> None:
        self.labels, self.found, self.names = labels, found, names
        self.source, self.size, self.interpolation, self.other = source, size, interpolation, other
        self._image_of = None if source is None else images_of_labels(source, labels)

    def row(self, image: int) -> Row:
        """The line of an image in the table."""
        numbers = {name: _number(getattr(self.found.per_image, name)[image]) for name in vars(Columns())}
        majority, true = int(self.found.per_image.majority[image]), int(self.found.truth[image])
        return {
            "image": image,
            "key": self.labels.keys[image],
            "folder": self.names[true] if true >= 0 else None,
            "teacher": self.names[majority] if majority >= 0 else None,
            "crops": int(self.labels.crop_counts[image]),
            **numbers,
        }

    def detail(self, image: int, most: int | None = None) -> Row:
        """An image with `most` of its crops (evenly spread; None: all): boxes as parts of the image, classes.

        `picture` and each crop's `picture` are data URLs, None where there are no images.
        """
        count = int(self.labels.crop_counts[image])
        part = 0 if most is None or most >= count else most
        crops = read_crops(self.labels, np.array([image]), part)
        height, width = (int(n) for n in self.labels.image_sizes[image])
        encoded, fault = self._encoded(image)
        picture = None
        if encoded is not None:
            picture, (height, width), fault = _thumbnail(encoded, self.labels.keys[image])
        others = self._others(image, part)
        return {
            **self.row(image),
            "picture": picture,
            "fault": fault,
            "shape": [height, width],
            "boxes": [
                {
                    "crop": int(crops.crops[0, j]),
                    "box": _fractions(crops.boxes[0, j], height, width, self.labels.ratios),
                    "flip": bool(crops.flips[0, j]),
                    "classes": self._classes(crops.ids[0, j], crops.values[0, j]),
                    "other": others[j] if others else None,
                    "picture": self.crop(encoded, crops.boxes[0, j], crops.flips[0, j]) if picture else None,
                }
                for j in range(crops.ids.shape[1])
            ],
        }

    def one_crop(self, image: int, best: bool) -> Row:
        """The crop of an image whose label is the surest, or the least sure, with its picture."""
        crops = read_crops(self.labels, np.array([image]), self.found.crops_of)
        largest = crops.values[0, :, 0]
        j = int(largest.argmax() if best else largest.argmin())
        encoded, _ = self._encoded(image)
        return {
            **self.row(image),
            "picture": None if encoded is None else self.crop(encoded, crops.boxes[0, j], crops.flips[0, j]),
            "classes": self._classes(crops.ids[0, j], crops.values[0, j]),
        }

    def crop(self, encoded: bytes, box: np.ndarray, flip: bool) -> str | None:
        """A crop, cut as the student's loader cuts it, as a data URL; None where that fails."""
        if self.labels.ratios:
            return None
        try:
            pixels = decode_crops(encoded, box[None], np.array([flip]), self.size, self.interpolation)[0]
        except (ImageError, ValueError):
            return None
        return _jpeg(Image.fromarray(pixels))

    def _classes(self, ids: np.ndarray, values: np.ndarray) -> list[Row]:
        return [
            {"class": self.names[int(c)], "p": round(float(p), 4)}
            for c, p in zip(ids[:SHOWN].tolist(), values[:SHOWN].tolist())
        ]

    def _others(self, image: int, part: int) -> list[list[Row]] | None:
        """The other teacher's classes of the same crops."""
        if self.other is None:
            return None
        there = self.other.find(self.labels.keys[image])
        crops = read_crops(self.other, np.array([there]), part)
        return [self._classes(ids, values) for ids, values in zip(crops.ids[0], crops.values[0])]

    def _encoded(self, image: int) -> tuple[bytes | None, str | None]:
        """The bytes of an image, or None and why."""
        if self.source is None:
            return None, None
        place = int(self._image_of[image])
        if place < 0:
            return None, "this image is not in the folder"
        try:
            return self.source.encoded(place), None
        except (OSError, ValueError, RuntimeError) as error:
            return None, f"this image cannot be read: {getattr(error, 'strerror', None) or error}"


def choose(found: Survey, count: int) -> dict[str, list[int]]:
    """Images for the page by why they are shown, about `count` in all, none of them twice."""
    numbers = found.per_image
    seen: set[int] = set()
    groups: dict[str, list[int]] = {}
    kinds: list[tuple[str, np.ndarray, float]] = [
        ("The teacher disagrees with the folder", numbers.agreement - numbers.score, 0.35),
        ("Crops differ most", -numbers.spread, 0.25),
        ("The teacher is least sure", -numbers.entropy, 0.2),
        (
            "Evenly taken",
            np.arange(len(numbers.score)) % max(1, len(numbers.score) // max(count // 5, 1)),
            0.2,
        ),
    ]
    for title, order, part in kinds:
        some = [int(i) for i in _smallest(order, count) if int(i) not in seen][: max(1, round(part * count))]
        seen.update(some)
        if some:
            groups[title] = some
    return groups


def table_rows(found: Survey, most: int = ROWS) -> list[int]:
    """Images of the table: all, or those that lead the order of some column, and evenly spread ones."""
    images = len(found.per_image.score)
    if images <= most:
        return list(range(images))
    share = most // (2 * len(vars(Columns())) + 2)
    chosen: set[int] = set(np.linspace(0, images - 1, 2 * share).round().astype(int).tolist())
    for name in vars(Columns()):
        numbers = getattr(found.per_image, name)
        chosen.update(_smallest(numbers, share).tolist(), _smallest(-numbers, share).tolist())
    return sorted(chosen)


def gallery(
    inspector: Inspector, count: int, best: bool, advance: Callable[[], object] = lambda: None
) -> list[Row]:
    """The crops with the surest or the least sure labels of all, at most one an image."""
    numbers = inspector.found.per_image
    order = -numbers.highest if best else numbers.lowest
    rows = []
    for image in _smallest(order, count).tolist():
        rows.append(inspector.one_crop(image, best))
        advance()
    return rows


def _smallest(numbers: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` smallest numbers, NaN left out, in order."""
    known = np.flatnonzero(np.isfinite(numbers))
    if count < len(known):
        known = known[np.argpartition(numbers[known], count)[:count]]
    return known[np.argsort(numbers[known], kind="stable")]


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _fractions(box: np.ndarray, height: int, width: int, ratios: bool) -> list[float]:
    """top, left, height, width as parts of the image."""
    sides = (1, 1, 1, 1) if ratios else (height, width, height, width)
    return [round(float(edge) / max(side, 1), 5) for edge, side in zip(box, sides)]


def _thumbnail(encoded: bytes, key: str) -> tuple[str | None, tuple[int, int], str | None]:
    """A small picture as a data URL, the image's height and width, and what went wrong."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            size = image.height, image.width
            small = image.convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            return _jpeg(small), size, None
    except Exception as error:  # Pillow's plugins raise whatever they like
        return None, (0, 0), f"this image cannot be decoded: {error}"


def _jpeg(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
