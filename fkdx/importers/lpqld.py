"""LPQLD: batches in one flat folder, made small by pruning, by float16 boxes and by the top K logits.

    <root>/sampler_indices_batch.json   {"<n>": [number of the image of every row of batch n], ...}
    <root>/batch_<n>.tar                a torch.save of
    [0] coords  float16 (B, 4)   (top/H, left/W, height/H, width/W)
    [1] flip    bool (B,)        mirrored after the crop; or
        cutout  float32 (B, 7)   ImageNet-21K: centre, height and width (fractions), colour of a rectangle
    [ ] only with RandAugment: its parameters
    [2] partner uint8 (B,)       as in `batch_files`, like the next two
    [3] lambda  float
    [4] box     4 x uint8
    [5] logits  float16 (B, K)   the largest ones; or (B, C), all of them, without
    [6] ids     int16 (B, K)     their classes

Batches are numbered through all epochs. Their number in an epoch is known, but one epoch of a pruned set was
cut short. (Xiao and He, "Soft Label Pruning and Quantization for Large-Scale Dataset Distillation",
TPAMI 2026.)
"""

import json
import re
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.batch_files import (
    BATCH_FILE,
    BatchFile,
    BatchLabels,
    check_array,
    checked_batch,
    numbered,
)
from fkdx.importers.foreign_labels import Settings, Unreadable
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels
from fkdx.labels.boxes import boxes_from_half_ratios

_refuse = partial(refuse, "lpqld", error=FormatError)

INDEX_FILE = "sampler_indices_batch.json"
NO_TAIL = np.finfo(np.float32).min  # log of nothing; label files keep finite tails
LABEL_TYPES = {"MR": "renormalise", "MS": "uniform"}  # what the other classes get, as the header says it


class LpqldLabels(BatchLabels):
    name = "lpqld"
    about = "LPQLD: batch_<n>.tar in one folder, with sampler_indices_batch.json"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return path.is_dir() and (
            (path / INDEX_FILE).exists()
            or any(re.fullmatch(BATCH_FILE, entry.name) for entry in path.iterdir())
        )

    def __init__(self, path: Path, settings: Settings) -> None:
        self.label_type = _label_type(settings.label_type, path)
        self.largest_id, self.short_ids = -1, False
        super().__init__(path, settings)
        if self.largest_edge and self.largest_edge <= 255 < self.mix_size:
            _refuse("box", "edges kept as 8 bits", f"--mix-size of at most 255, not {self.mix_size}", path)
        if "ids" in self.row.names:
            self.provenance["tail"] = LABEL_TYPES[self.label_type]

    def batches(self) -> list[list[str]]:
        files = numbered(self.root, BATCH_FILE)
        images = _read_index(self.root / INDEX_FILE, len(files))
        self.images_of = dict(zip(files, images))
        bounds = _epochs(images, len(self.images.samples), self.root / INDEX_FILE)
        return [files[first:last] for first, last in pairwise(bounds)]

    def orders(self, settings: Settings) -> list[np.ndarray]:
        return [np.concatenate([self.images_of[file] for file in epoch]) for epoch in self.files]

    def read_file(self, file: str, mapped: bool = False) -> BatchFile:
        return _read_batch(self.root / file, mapped)

    def check_batch(self, batch: BatchFile, path: Path) -> None:
        named = len(self.images_of[path.name])
        if named != len(batch.logits):
            _refuse("rows", f"{len(batch.logits)}", f"{named}, as {INDEX_FILE} names images", path)
        if batch.ids is None:
            return
        if batch.ids.size and batch.ids.min() < 0:
            expected = "0 or more: ids above 32,767 do not fit into the int16 of these files"
            _refuse("class ids", str(batch.ids.min()), expected, path)
        self.short_ids = batch.ids.dtype == np.int16
        self.largest_id = max(self.largest_id, int(batch.ids.max(initial=-1)))
        if self.label_type == "MS" and not _are_probabilities(batch.logits):
            expected = "probabilities with --label-type MS: the share of the other classes is not in logits"
            _refuse("values", "logits of the largest classes", expected, path)

    def kind_and_classes(self, settings: Settings) -> tuple[str, int]:
        k = self.row["logits"].shape[0]
        if "ids" not in self.row.names:
            if settings.label_type is not None:
                _refuse("label type", settings.label_type, "none: these files hold all logits", self.root)
            return "dense_logits", k
        stored = (settings.label_type or "").partition("-")[2]
        if stored and stored != str(k):
            _refuse("label type", settings.label_type, f"{self.label_type}-{k}, as the files hold", self.root)
        num_classes = settings.num_classes or len(self.classes)
        if self.short_ids and num_classes > 1 << 15:
            _refuse("classes", num_classes, "at most 32,768, as the files keep ids as int16", self.root)
        largest = max(self.largest_id, k - 1)
        if largest >= num_classes:
            raise FormatError(
                f"lpqld: the labels name class {largest}, but only {num_classes} are known; "
                f"give the number of the teacher's classes with --num-classes, {self.root}"
            )
        return "topk" if self.label_type == "MS" else "topk_logits", num_classes

    def boxes(self, coords: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if coords.dtype == np.float16:
            return boxes_from_half_ratios(coords, *size)
        return super().boxes(coords, size)

    def _labels(self, image: int, rows: np.ndarray) -> ImageLabels | Unreadable:
        labels = super()._labels(image, rows)
        if isinstance(labels, Unreadable):
            return labels
        more: dict[str, Any] = {}
        if "ids" in rows.dtype.names:
            more["ids"] = rows["ids"]
        if self.kind == "topk_logits":
            tail = NO_TAIL if self.layout.k < self.num_classes else -np.inf
            more["tails"] = np.full(len(rows), tail, np.float32)
        return replace(labels, **more)


def _label_type(given: str | None, path: Path) -> str:
    """MR or MS; a name may end in K, as in the original's options."""
    name = (given or "MR").partition("-")[0]
    if name == "MRS":
        expected = "MR or MS: MRS needs the smallest logit of each crop, which LPQLD's writer never saves"
        _refuse("label type", given, expected, path)
    if name not in LABEL_TYPES:
        _refuse("label type", given, f"one of {', '.join(LABEL_TYPES)}", path)
    return name


def _read_index(path: Path, batches: int) -> list[np.ndarray]:
    """Numbers of the images of every batch, in the order of an image folder."""
    if not path.exists():
        expected = "the file that names the images of the batches; copy it there"
        if path.parent.name.startswith("epoch_"):
            expected += ". For batches in folders of epochs, give the folder above"
        _refuse("index", "none", expected, path)
    expected = f"a list of whole numbers for each of batches 0 ... {batches - 1}"
    try:
        index = json.loads(path.read_bytes())
        images = [np.array(index.pop(str(batch))) for batch in range(batches)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        _refuse("index", repr(error), expected, path)
    if any(numbers.ndim != 1 or numbers.dtype.kind != "i" for numbers in images):
        _refuse("index", "something else than lists of numbers", expected, path)
    if index:
        _refuse("index", f"batch {min(index)[:20]}, which has no file", expected, path)
    return images


def _epochs(batches: list[np.ndarray], images: int, path: Path) -> list[int]:
    """Where epochs begin and end, as numbers of batches: [0, ..., len(batches)].

    All epochs have the same number of batches, but for one, which is usually the last. It lies where no
    epoch names an image twice.
    """
    size = len(batches[0])
    drops_last = all(len(batch) == size for batch in batches)
    whole = max(1, images // size if drops_last else -(-images // size)) if size else 1
    short = len(batches) % whole

    @cache
    def names_once(first: int, last: int) -> bool:
        numbers = np.concatenate(batches[first:last] or [[]])
        return len(np.unique(numbers)) == len(numbers)

    for before in reversed(range(len(batches) // whole + 1 if short else 1)):
        bounds = [
            *range(0, before * whole + 1, whole),
            *range(before * whole + short, len(batches) + 1, whole),
        ]
        if all(names_once(first, last) for first, last in pairwise(bounds)):
            return sorted(set(bounds))
    got = "one twice in an epoch"
    _refuse("images", got, f"each once (the folder of --images has {images}: is it the right one?)", path)


def _read_batch(path: Path, mapped: bool) -> BatchFile:
    value = read_torch_file(path, mapped)
    if type(value) is not list or len(value) not in (6, 7, 8):
        _refuse("file", f"a {type(value).__name__}", "a list of 6 to 8 parts", path)
    if len(value) == 8 or (len(value) == 7 and isinstance(value[2], list | tuple)):
        expected = "none: RandAugment came before the crop, and its parameters were rounded to float16"
        _refuse("part 2", "RandAugment's parameters", expected, path)
    coords, flips, partners, lam, box, logits, *ids = value
    check_array("logits", logits, (None, None), "f", path)
    rows, k = logits.shape
    more: dict[str, Any] = {"parts": len(value)}
    if ids:
        check_array("class ids", ids[0], (None, k), "i", path)
        more["ids"] = ids[0]
    if isinstance(coords, np.ndarray) and coords.dtype not in (np.float16, np.float32):
        _refuse("coords", str(coords.dtype), "float16", path)
    return checked_batch(
        [coords, flips, _rows_of(partners, rows, path), lam, _edges(box), logits], path, **more
    )


def _rows_of(partners: Any, rows: int, path: Path) -> Any:
    """Partners as signed integers."""
    if not isinstance(partners, np.ndarray) or partners.dtype != np.uint8:
        return partners
    if rows > 256:
        _refuse(
            "partners", f"uint8 in a batch of {rows}", "at most 256 rows: larger numbers were cut off", path
        )
    return partners.astype(np.int64)


def _edges(box: Any) -> Any:
    """A box of four arrays of one number each as four numbers."""
    if type(box) is not list:
        return box
    arrays = all(isinstance(edge, np.ndarray) and edge.shape == () for edge in box)
    return [edge.item() for edge in box] if arrays else box


def _are_probabilities(values: np.ndarray) -> bool:
    sums = values.sum(axis=1, dtype=np.float64)
    return bool((values >= 0).all() and (sums <= 1.001).all())
