"""Labels stored batch by batch: what SRe2L, CDA, CV-DD, FADRM, LPLD, LPQLD, G-VBSM and EDC have in common.

    <root>/epoch_<e>/batch_<b>.tar, a torch.save of
    [0] coords  float32 (B, 4)   (top/H, left/W, height/H, width/W)
    [1] flip    bool (B,)        mirrored after the crop
    [2] partner int64 (B,)       row of the same batch that a row was mixed with, or None
    [3] lambda  float            of the whole batch, or None
    [4] box     4 ints           cutmix: first row, first column, last row, last column (exclusive), or None
    [5] logits  float (B, C)     of the teacher for the mixed crops

The resized crops were mixed: mixup `lambda x + (1 - lambda) x[partner]`, or cutmix `x[box] =
x[partner][box]`. Every epoch passes over the data set once, so an image has one crop per epoch. Each format
has another way to say which image a row belongs to: see `BatchLabels.orders`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.image.steps import encode
from fkdx.importers.cutouts import are_cutouts, check_cutouts, cutout_steps
from fkdx.importers.foreign_labels import ForeignLabels, Layout, Settings, Unreadable, number_samples
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels, Mixes, boxes_from_ratios
from fkdx.labels.layout import CUTMIX, MIXUP

_refuse = partial(refuse, "read_batch", error=FormatError)

BLOCK_BYTES = 1 << 30  # labels gathered at a time
BATCH_FILE = r"batch_(\d+)\.tar"
UNMIXED = 0
USUAL_SIZE = 224  # pixels of the crops' side, if no CutMix box tells it


@dataclass(frozen=True)
class BatchFile:
    """One file: B rows. `mix_box` is top, left, height, width in pixels of the mixed image."""

    coords: np.ndarray
    flips: np.ndarray
    partners: np.ndarray | None
    operation: int
    lam: float
    mix_box: tuple[int, int, int, int]
    logits: np.ndarray
    indices: np.ndarray | None = None  # numbers of images in the order of an image folder, if stored
    parts: int = 6
    ids: np.ndarray | None = None  # lpqld: classes of the logits, if only the largest are stored
    cutouts: np.ndarray | None = None  # lpld, lpqld: what was painted over the crops


def read_batch(path: Path, mapped: bool = False, cutouts: bool = False) -> BatchFile:
    """Reads and checks one batch file; `mapped` leaves the logits on disk and skips the checksum.

    cutouts: whether part 1 may be cutouts in place of flips.
    """
    value = read_torch_file(path, mapped)
    if type(value) is not list or len(value) not in (6, 7, 8):
        _refuse("file", f"a {type(value).__name__}", "a list of 6 to 8 parts", path)
    coords, flips = value[:2]
    if isinstance(coords, np.ndarray) and coords.dtype != np.float32:
        _refuse("coords", str(coords.dtype), "float32", path)
    if are_cutouts(flips) and not cutouts:
        _refuse("part 1", "cutout parameters", "flips; only LPLD and LPQLD have cutouts", path)
    indices = value[6] if len(value) > 6 else None
    if indices is not None:
        check_array("indices", indices, (None,), "i", path)
    return checked_batch(value[:6], path, indices=indices, parts=len(value))


def checked_batch(stored: list, path: Path, **more: Any) -> BatchFile:
    """A batch of the six parts that all formats have, and what else its format stores.

    Where cutouts are stored in place of flips, nothing was mirrored.
    """
    coords, flips, partners, lam, box, logits = stored
    check_array("logits", logits, (None, None), "f", path)
    rows = len(logits)
    if are_cutouts(flips):
        check_cutouts(flips, rows, partners, path)
        more["cutouts"], flips = flips, np.zeros(rows, bool)
    check_array("coords", coords, (rows, 4), "f", path)
    check_array("flips", flips, (rows,), "b", path)
    operation, mix_box = UNMIXED, (0, 0, 0, 0)
    if partners is not None:
        check_array("partners", partners, (rows,), "i", path)
        if rows and not (partners.min() >= 0 and partners.max() < rows):
            _refuse("partners", "rows outside the batch", f"0 ... {rows - 1}", path)
        operation, mix_box = _mix(lam, box, path)
    for name in ("indices", "ids"):
        if more.get(name) is not None and len(more[name]) != rows:
            _refuse(name, f"{len(more[name])} rows", f"{rows}, as many as logits", path)
    lam = float(lam) if operation == MIXUP else 1.0
    return BatchFile(coords, flips, partners, operation, lam, mix_box, logits, **more)


def _mix(lam: Any, box: Any, path: Path) -> tuple[int, tuple[int, int, int, int]]:
    if type(lam) not in (float, int) or not 0 <= lam <= 1:
        _refuse("lambda", f"a {type(lam).__name__}", "a number in 0 ... 1", path)
    if box is None:
        return MIXUP, (0, 0, 0, 0)
    if type(box) not in (list, tuple) or len(box) != 4 or any(type(edge) is not int for edge in box):
        _refuse("box", f"a {type(box).__name__}", "4 whole numbers", path)
    top, left, bottom, right = box
    if not (0 <= top <= bottom <= 65_535 and 0 <= left <= right <= 65_535):
        _refuse("box", str(box), "top <= bottom, left <= right", path)
    if top == bottom or left == right:
        return UNMIXED, (0, 0, 0, 0)  # an empty rectangle: nothing was pasted
    return CUTMIX, (top, left, bottom - top, right - left)


def check_array(what: str, value: Any, shape: tuple[int | None, ...], kind: str, path: Path) -> None:
    fits = isinstance(value, np.ndarray) and value.ndim == len(shape) and value.dtype.kind == kind
    if not fits or any(size not in (None, stored) for size, stored in zip(shape, value.shape)):
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        _refuse(what, got, f"an array of shape {shape}".replace("None", "any"), path)


class BatchLabels(ForeignLabels):
    """A folder of batches. A subclass returns in `orders` which image every row belongs to."""

    def __init__(self, path: Path, settings: Settings) -> None:
        if settings.images is None:
            raise FormatError(
                f"{self.name}: these labels do not name their images; give the folder with --images, {path}"
            )
        self.root, self.images, self.size = path, settings.images, settings.mix_size or USUAL_SIZE
        self.files = self.batches()
        self._sizes: dict[int, tuple[int, int]] = {}
        self._check_batches(settings.mix_size)
        self.mix_size, self.notes = check_mix_size(settings.mix_size, self.largest_edge, self.mixed)
        if settings.mix_size is None and self.reaching == 1:
            self.notes.append("only one box reaches that far: if the crops were larger, give --mix-size")
        self.keys = self.images.keys
        self.classes = settings.classes or self.images.classes
        self.kind, self.num_classes = self.kind_and_classes(settings)
        self._check_told(settings)
        if len(self.classes) != self.num_classes:
            self.classes = None
        self._place_rows([np.asarray(order) for order in self.orders(settings)])
        crops = np.unique(self.counts)
        self.layout = Layout(
            self.kind,
            self.num_classes,
            self.row["logits"].shape[0],
            int(crops[0]) if len(crops) == 1 else None,
            mix_size=self.mix_size if self.mixed else 0,
        )
        if "cutout" in self.row.names:
            self.layout = replace(self.layout, operations=("erase",), form="steps")
        self.provenance = {
            "source": {"format": self.name, "epochs": len(self.files), "batch": self.rows[0][0]}
        }

    def _check_told(self, settings: Settings) -> None:
        """Raises FormatError where the user told of another number of classes than the files hold."""
        names = settings.classes and len(settings.classes)
        for option, told in (("--num-classes", settings.num_classes), ("--classes", names)):
            if told and told != self.num_classes:
                _refuse("classes", f"{told} of {option}", f"the {self.num_classes} of the files", self.root)

    def batches(self) -> list[list[str]]:
        """Files of every epoch, relative to the root."""
        return _batch_files(self.root)

    def read_file(self, file: str, mapped: bool = False) -> BatchFile:
        """Reads and checks one of the files; see `read_batch`."""
        return read_batch(self.root / file, mapped)

    def kind_and_classes(self, settings: Settings) -> tuple[str, int]:
        """The kind of the label file, and C."""
        return "dense_logits", self.row["logits"].shape[0]

    def orders(self, settings: Settings) -> list[np.ndarray]:
        """For every epoch, the image of each stored row, as its number in the order of an image folder."""
        raise NotImplementedError

    def _check_batches(self, mix_size: int | None) -> None:
        """Reads all files once: checks checksums, widths, batch sizes; finds the largest CutMix edge."""
        self.rows: list[list[int]] = []
        self.mixed, self.row = False, None
        self.largest_edge, self.reaching = 0, 0  # of all CutMix boxes, and how many reach it
        total = sum(len(epoch) for epoch in self.files)
        with tqdm(total=total, unit=" batches", desc=f"{self.name}: checking", disable=None) as bar:
            for epoch in self.files:
                self.rows.append([])
                for file in epoch:
                    batch = self.read_file(file)
                    self.check_batch(batch, self.root / file)
                    if batch.cutouts is not None:
                        cutout_steps(batch.cutouts, self.size)
                    self.row = self.row or _row_dtype(batch)
                    if _row_dtype(batch) != self.row:
                        expected = f"{self.row['logits']} as in the first file, and the same other parts"
                        _refuse(
                            "logits", f"{batch.logits.dtype} {batch.logits.shape}", expected, self.root / file
                        )
                    self.mixed = self.mixed or batch.operation != UNMIXED
                    top, left, height, width = batch.mix_box
                    edge = max(top + height, left + width)
                    self.reaching = self.reaching * (edge <= self.largest_edge) + (edge >= self.largest_edge)
                    self.largest_edge = max(self.largest_edge, edge)
                    if mix_size and self.largest_edge > mix_size:
                        expected = f"one inside {mix_size} pixels (--mix-size)"
                        _refuse("box", str(batch.mix_box), expected, self.root / file)
                    self.rows[-1].append(len(batch.logits))
                    bar.update()
        self.batch_size = self.rows[0][0]
        for epoch, rows in zip(self.files, self.rows):
            if any(count != self.batch_size for count in rows[:-1]) or rows[-1] > self.batch_size:
                _refuse("batch sizes", str(sorted(set(rows))), "equal but for the last", self.root / epoch[0])

    def check_batch(self, batch: BatchFile, path: Path) -> None:
        """Checks what a format demands of its files beyond what all have in common."""

    def _place_rows(self, orders: list[np.ndarray]) -> None:
        """Makes `place[e, image]` the row of an image in epoch e, -1 if it has none."""
        number = number_samples(self.images)
        self.order: list[np.ndarray] = []
        self.place = np.full((len(orders), len(self.keys)), -1, np.int32)
        for epoch, (order, rows) in enumerate(zip(orders, self.rows)):
            stored, path = sum(rows), self.root / self.files[epoch][0]
            if len(order) < stored:
                _refuse("rows", f"{stored} in epoch {epoch}", f"at most {len(order)} images", path)
            order = order[:stored]
            if stored and not (order.min() >= 0 and order.max() < len(self.keys)):
                _refuse("image numbers", "one outside the folder", f"0 ... {len(self.keys) - 1}", path)
            images = number[order]
            if len(np.unique(images)) != stored:
                _refuse("images", "one twice in an epoch", "each once", path)
            self.order.append(images)
            self.place[epoch, images] = np.arange(stored)
        self.counts = (self.place >= 0).sum(axis=0)

    def read(self, numbers: range) -> Iterator[ImageLabels | Unreadable]:
        step = max(1, BLOCK_BYTES // (self.row.itemsize * len(self.files)))
        for first in range(numbers.start, numbers.stop, step):
            images = np.arange(first, min(first + step, numbers.stop))
            block = self._gather(images)
            for row, image in enumerate(images):
                yield self._labels(int(image), block[row][self.place[:, image] >= 0])

    def _gather(self, images: np.ndarray) -> np.ndarray:
        """The rows of some images in all epochs: (images, epochs) records."""
        block = np.zeros((len(images), len(self.files)), self.row)
        for epoch, files in enumerate(self.files):
            place = self.place[epoch, images]
            order = self.order[epoch]
            batches = np.where(place < 0, -1, place // self.batch_size)
            for batch_number in np.unique(batches[batches >= 0]):
                chosen = np.flatnonzero(batches == batch_number)
                start = batch_number * self.batch_size
                batch = self.read_file(files[batch_number], mapped=True)
                block[chosen, epoch] = self._rows(batch, place[chosen] - start, order[start:])
        return block

    def _labels(self, image: int, rows: np.ndarray) -> ImageLabels | Unreadable:
        key = self.keys[image]
        if len(rows) == 0:
            return Unreadable(key, "no labels of this image are stored")
        try:
            size = self.image_size(image)
            boxes = self.boxes(rows["coords"], size)
            mixes = self._mixes(rows) if self.mixed else None
        except (ValueError, OSError) as error:
            return Unreadable(key, str(error))
        cut = "cutout" in rows.dtype.names
        extra = encode(cutout_steps(rows["cutout"], self.size)) if cut else b""
        return ImageLabels(key, boxes, rows["flip"], None, rows["logits"], size, mixes=mixes, extra=extra)

    def _rows(self, batch: BatchFile, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Records of some rows of a batch; `images` are those of all its rows."""
        records = np.zeros(len(rows), self.row)
        records["coords"] = batch.coords[rows]
        records["flip"] = batch.flips[rows]
        records["logits"] = batch.logits[rows]
        if batch.ids is not None:
            records["ids"] = batch.ids[rows]
        if batch.cutouts is not None:
            records["cutout"] = batch.cutouts[rows]
        if batch.operation != UNMIXED:
            partners = batch.partners[rows]
            records["partner"] = images[partners]
            records["partner_coords"] = batch.coords[partners]
            records["partner_flip"] = batch.flips[partners]
            records["operation"] = batch.operation
            records["lam"] = batch.lam
            records["mix_box"] = batch.mix_box
        return records

    def boxes(self, coords: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Pixels of crops that are stored as fractions of an image."""
        return boxes_from_ratios(coords, *size)

    def image_size(self, image: int) -> tuple[int, int]:
        """(height, width) of an image; its header is read once."""
        if image not in self._sizes:
            self._sizes[image] = self.images.size(self.keys[image])
        return self._sizes[image]

    def _mixes(self, rows: np.ndarray) -> Mixes:
        mixed = rows["operation"] != UNMIXED
        boxes = np.zeros((len(rows), 4), np.int32)
        sizes = np.array(
            [
                self.image_size(image) if is_mixed else (0, 0)
                for image, is_mixed in zip(rows["partner"].tolist(), mixed)
            ]
        )
        for size in np.unique(sizes[mixed], axis=0):
            same = mixed & (sizes == size).all(axis=1)
            boxes[same] = self.boxes(rows["partner_coords"][same], tuple(size.tolist()))
        partners = [
            self.keys[image] if is_mixed else None for image, is_mixed in zip(rows["partner"].tolist(), mixed)
        ]
        return Mixes(
            partners=partners,
            boxes=boxes,
            flips=rows["partner_flip"],
            operations=rows["operation"],
            lambdas=rows["lam"],
            mix_boxes=rows["mix_box"],
        )


def check_mix_size(given: int | None, largest_edge: int, mixed: bool) -> tuple[int, list[str]]:
    """The side of the crops that were mixed, as it was given or as boxes show it, and what to say of it.

    CutMix boxes are clipped at the crop's edge, so that the largest edge of many boxes is the side.
    """
    if not mixed or not largest_edge:
        return given or USUAL_SIZE, []
    if given is None:
        return largest_edge, [
            f"crops of {largest_edge} pixels were mixed, as the largest CutMix edge says (--mix-size)"
        ]
    if given > largest_edge:
        return given, [
            f"no CutMix box reaches beyond {largest_edge} pixels, but --mix-size is {given}: is it right?"
        ]
    return given, []


def _row_dtype(batch: BatchFile) -> np.dtype:
    """One crop and what it was mixed with."""
    k = batch.logits.shape[1]
    return np.dtype(
        [
            ("coords", batch.coords.dtype, 4),
            ("flip", "?"),
            ("partner", "i4"),
            ("partner_coords", batch.coords.dtype, 4),
            ("partner_flip", "?"),
            ("operation", "u1"),
            ("lam", "f4"),
            ("mix_box", "i4", 4),
            ("logits", batch.logits.dtype, k),
            *([] if batch.ids is None else [("ids", "i4", k)]),
            *([] if batch.cutouts is None else [("cutout", "f4", batch.cutouts.shape[1])]),
        ]
    )


def _batch_files(root: Path) -> list[list[str]]:
    """Files of every epoch, relative to the root, both counted from 0 without a gap."""
    epochs = numbered(root, r"epoch_(\d+)")
    return [[f"{epoch}/{file}" for file in numbered(root / epoch, BATCH_FILE)] for epoch in epochs]


def numbered(folder: Path, pattern: str) -> list[str]:
    """Names of the files or folders that match, in the order of their numbers from 0 on."""
    names = {
        int(match[1]): name.name for name in folder.iterdir() if (match := re.fullmatch(pattern, name.name))
    }
    if not names or sorted(names) != list(range(len(names))):
        _refuse("files", f"numbers {sorted(names)[:3]} ...", "all numbers from 0 on", folder)
    return [names[number] for number in range(len(names))]
