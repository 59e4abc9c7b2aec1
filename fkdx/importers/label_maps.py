"""ReLabel and TokenLabeling: a map of top-5 logits over the whole image, turned into labels of drawn crops.

    <class>/<image>.pt   float (2, 5, H, W): [0] logits, [1] class ids as floats
    ReLabel: float32, 15 x 15; TokenLabeling: float16

The label of a crop is the softmax of the logits averaged over it by RoI-align (one bin, torchvision's
sampling); classes that a cell does not name have logit 0 there. Crops are drawn here, once, so that training
needs no maps.

ReLabel's maps show the whole image. TokenLabeling's were made of timm's Resize and CenterCrop and show the
centre crop only, although its crops are those of the whole image; `corrected` does not change that. It also
flipped image and map before it cut the crop, so that with exchanged axes the rows of a flipped crop are those
of the mirrored left and right.

Both projects gave the box to RoI-align as (top, left, bottom, right), but it expects (left, top, right,
bottom), so they pooled the transposed region. `as-upstream` repeats that, `corrected` does not. (Yun et
al., "Re-labeling ImageNet", CVPR 2021; Jiang et al., "All Tokens Matter", NeurIPS 2021.)
"""

from functools import partial
from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.image.random_boxes import random_boxes
from fkdx.importers.foreign_labels import AXES, ForeignLabels, Layout, Settings, find_files, first_file
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels, fingerprint

_refuse = partial(refuse, "LabelMaps", error=FormatError)


class LabelMaps(ForeignLabels):
    """Both formats; a subclass sets the type of its maps, and whether they were flipped before the cut."""

    dtype: np.dtype
    flips_maps = False

    @classmethod
    def matches(cls, path: Path) -> bool:
        first = first_file(path, ".pt")
        if first is None:
            return False
        value = read_torch_file(first)
        return isinstance(value, np.ndarray) and value.dtype == cls.dtype and value.shape[:2] == (2, 5)

    def __init__(self, path: Path, settings: Settings) -> None:
        if settings.images is None:
            _refuse("labels", "no images", "--images: crops are drawn in pixels of the images", path)
        if settings.map_axes not in AXES:
            refuse("LabelMaps", "map_axes", f"'{settings.map_axes}'", f"one of {', '.join(AXES)}")
        self.root, self.images, self.settings = path, settings.images, settings
        files = find_files(path, ".pt")
        self.files: dict[str, str] = {}
        for file in files:
            stem = "/".join(file.removesuffix(".pt").split("/")[-2:])
            key = self.images.find([stem], file) or stem + settings.image_suffix
            if key in self.files:
                _refuse("maps", f"two of '{key}'", "one; give the folder of one split", path)
            self.files[key] = file
        self.images.check_some_found(self.files, path)
        self.keys = sorted(self.files)
        self.classes = settings.classes or self.images.classes
        num_classes = settings.num_classes or len(self.classes)
        if len(self.classes) != num_classes:
            self.classes = None
        if self.dtype == np.float16 and num_classes > 2049:
            got = f"class ids kept as float16, of {num_classes} classes"
            _refuse("labels", got, "at most 2049: float16 cannot represent all larger ids", path)
        self.layout = Layout("topk", num_classes, min(settings.k, num_classes), settings.crops)
        self.notes = [f"boxes are pooled {settings.map_axes} (--map-axes)"]
        if self.flips_maps:
            self.notes.append("the maps show the centre crop of each image, not the whole of it")
        crop = {"scale": settings.scale, "ratio": settings.ratio, "seed": settings.seed, "flip": 0.5}
        self.provenance = {
            "source": {"format": self.name, "map_axes": settings.map_axes, **fingerprint(files.items())},
            "crop": crop,
            "tail": "uniform",
            "temperature": 1.0,
        }

    def read_image(self, number: int) -> ImageLabels:
        key, settings = self.keys[number], self.settings
        path = self.root / self.files[key]
        ids, logits = _read_map(path, self.dtype, self.layout.num_classes)
        size = self.images.size(key)
        boxes, flips = random_boxes(
            size, settings.seed, key, settings.crops, scale=settings.scale, ratio=settings.ratio
        )
        classes, pooled = self._pool(ids, logits, boxes, flips, size)
        kept, values = _top(classes, pooled, self.layout.num_classes, self.layout.k)
        return ImageLabels(key, boxes, flips, kept, values, size)

    def _pool(
        self, ids: np.ndarray, logits: np.ndarray, boxes: np.ndarray, flips: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The classes of a map (U,), and their logits (M, U) in the boxes (M, 4)."""
        upstream = self.settings.map_axes == "as-upstream"
        classes, pooled = pool_regions(ids, logits, _regions(boxes, size, swapped=upstream))
        if upstream and self.flips_maps:
            mirrored = boxes.copy()
            mirrored[:, 1] = size[1] - boxes[:, 1] - boxes[:, 3]
            regions = _regions(mirrored, size, swapped=True)
            _, flipped = pool_regions(ids[:, :, ::-1], logits[:, :, ::-1], regions)
            pooled = np.where(flips[:, None], flipped, pooled)
        return classes, pooled


class RelabelMaps(LabelMaps):
    name = "relabel"
    about = "ReLabel: <class>/<image>.pt, float32 maps (2, 5, 15, 15)"
    dtype = np.dtype(np.float32)


class TokenLabelingMaps(LabelMaps):
    name = "token-labeling"
    about = "TokenLabeling: <class>/<image>.pt, float16 maps (2, 5, H, W)"
    dtype = np.dtype(np.float16)
    flips_maps = True


def _regions(boxes: np.ndarray, size: tuple[int, int], swapped: bool) -> np.ndarray:
    """Boxes (M, 4) as float32 fractions (M, 4) top, left, bottom, right of the image, computed as upstream;
    `swapped`: with rows and columns exchanged."""
    parts = (boxes / np.array([*size, *size])).astype(np.float32)
    regions = np.concatenate([parts[:, :2], parts[:, :2] + parts[:, 2:]], axis=1)
    return regions[:, [1, 0, 3, 2]] if swapped else regions


def pool_regions(ids: np.ndarray, logits: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits averaged over regions of a map, as torchvision's `roi_align` to one bin.

    Args:
        ids, logits: (5, H, W), class and logit of the map's cells.
        regions: (M, 4) float32 top, left, bottom, right as fractions of the map.

    Returns:
        classes (U,) that the map names, ascending; pooled (M, U) float64, their logits. Classes that a cell
        does not name have logit 0 in it.
    """
    classes, slots = np.unique(ids, return_inverse=True)
    height, width = logits.shape[1:]
    dense = np.zeros((len(classes), height, width))
    rows, columns = np.mgrid[:height, :width]
    dense[slots.reshape(ids.shape), rows, columns] = logits  # the last one if a cell names a class twice
    over_rows = _bin_weights(regions[:, 0], regions[:, 2], height)
    over_columns = _bin_weights(regions[:, 1], regions[:, 3], width)
    return classes, np.einsum("my,uyx,mx->mu", over_rows, dense, over_columns, optimize=True)


def _bin_weights(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """(M, cells): the weight of each cell in the average over start ... end (fractions of the map).

    RoI-align samples a bin at ceil(length) evenly spaced points and interpolates between cell centres; a bin
    is at least one cell long. Points more than a cell outside have no weight. Places are float32, as
    torchvision's: their rounding may add a point.
    """
    scale, half, one = np.float32(cells), np.float32(0.5), np.float32(1)
    start, end = np.float32(start) * scale - half, np.float32(end) * scale - half
    length = np.maximum(end - start, one)
    weights = np.zeros((len(start), cells))
    for row, (first, size) in enumerate(zip(start, length)):
        points = int(np.ceil(size))
        at = first + (np.arange(points, dtype=np.float32) + half) * size / np.float32(points)
        inside = (at >= -1) & (at <= cells)
        at = np.clip(at[inside], 0, cells - 1)
        low = at.astype(np.int64)
        np.add.at(weights[row], low, (1 - (at - low)) / points)
        np.add.at(weights[row], np.minimum(low + 1, cells - 1), (at - low) / points)
    return weights


def _top(classes: np.ndarray, pooled: np.ndarray, num_classes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The K most probable classes of each row of logits; unnamed classes have logit 0."""
    unnamed = np.setdiff1d(np.arange(num_classes), classes)[:k]  # they are equal, so take the first ones
    names = np.concatenate([classes, unnamed])
    logits = np.concatenate([pooled, np.zeros((len(pooled), len(unnamed)))], axis=1)
    top = pooled.max(axis=1, initial=0, keepdims=True)
    rest = (num_classes - len(classes)) * np.exp(-top[:, 0])
    total = np.exp(pooled - top).sum(axis=1) + rest
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    probs = np.exp(np.take_along_axis(logits, order, axis=1) - top) / total[:, None]
    return names[order], probs.astype(np.float32)


def _read_map(path: Path, dtype: np.dtype, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    value = read_torch_file(path)
    if (
        not isinstance(value, np.ndarray)
        or value.ndim != 4
        or value.shape[:2] != (2, 5)
        or value.dtype != dtype
    ):
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        _refuse("map", got, f"{dtype} (2, 5, H, W)", path)
    logits, ids = value.astype(np.float64)
    if not (ids.size and np.isfinite(logits).all() and ids.min() >= 0 and ids.max() < num_classes):
        _refuse("map", "logits or class ids out of range", f"finite logits of {num_classes} classes", path)
    if not np.array_equal(ids, np.rint(ids)):
        _refuse("class ids", "fractions", "whole numbers", path)
    return ids.astype(np.int64), logits
