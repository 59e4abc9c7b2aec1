"""FKD and MEAL-V2 soft labels: one `.tar` file per image, a `torch.save` of [coords, flip, label].

    coords  float32 or float16 (N, 4)   (top/H, left/W, height/H, width/W)
    flip    bool (N,)                   mirrored after the crop
    label   float (N, 2, K)             class ids (as floats) and probabilities of the top K
            float (N, 2)                "smoothing": class id and its probability
            int64 (N,)                  "hard": class id
            float (N, C)                "ori": probabilities of all classes

Paths end in `<class>/<image stem>.tar`, inside any number of folders. (Shen and Xing, "A Fast Knowledge
Distillation Framework for Visual Recognition", ECCV 2022.)
"""

import json
from functools import partial
from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.fkd_export import FACTS
from fkdx.importers.foreign_labels import UNREADABLE, ForeignLabels, Layout, Settings, find_files, first_file
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels, boxes_from_ratios, fingerprint
from fkdx.stores import in_order

_refuse = partial(refuse, "FkdLabels", error=FormatError)

# FKD's name of a label type -> (our kind, rule for the classes that are not stored)
LABEL_TYPES = {
    "hard": ("hard", "none"),
    "smoothing": ("smoothing", "uniform"),
    "marginal_smoothing": ("topk", "uniform"),
    "marginal_renorm": ("topk", "renormalise"),
    "ori": ("dense", "none"),
}


class FkdLabels(ForeignLabels):
    name = "fkd"
    about = "FKD and MEAL-V2: <class>/<image>.tar, a torch.save of [coords, flip, label]"

    @classmethod
    def matches(cls, path: Path) -> bool:
        first = first_file(path, ".tar")
        return (
            first is not None and not first.name.startswith("batch_") and not first.name.endswith(".pth.tar")
        )

    def __init__(self, path: Path, settings: Settings) -> None:
        files = find_files(path, ".tar")
        if not files:
            raise FormatError(f"FkdLabels: folder, got no .tar file, expected <class>/<image>.tar, {path}")
        self.root, self.images = path, settings.images
        self.files = dict(sorted(self._files_by_key(files, settings).items()))
        self.keys = list(self.files)
        folders = self.images.classes if self.images else in_order(key.split("/")[0] for key in self.keys)
        count = settings.num_classes or (len(settings.classes) if settings.classes else len(folders))
        self.classes = settings.classes or (folders if len(folders) == count else None)
        self.label_type = _label_type(settings.label_type)
        self._counts = _told_counts(path)
        self.layout = self._layout(count, settings)
        self.provenance = {"source": {"format": self.name, **fingerprint(files.items())}}
        if self.layout.kind == "topk":
            self.provenance["tail"] = LABEL_TYPES[self.label_type][1] if self.label_type else "unknown"

    def _files_by_key(self, files: dict[str, int], settings: Settings) -> dict[str, str]:
        by_key: dict[str, str] = {}
        for file in files:
            parts = file.removesuffix(".tar").split("/")
            stem = "/".join(parts[-2:])
            if self.images is None and len(parts) < 2:
                _refuse(
                    "path", f"'{file}'", "<class>/<image>.tar (or --images, to look the image up)", self.root
                )
            key = self.images.find([stem, parts[-1]], file) if self.images else None
            key = key or stem + settings.image_suffix  # a missing image is reported when it is read
            if key in by_key:
                got = f"two files for '{key}' ('{by_key[key]}' and '{file}')"
                _refuse("files", got, "one; give the folder of one split", self.root)
            by_key[key] = file
        if self.images:
            self.images.check_some_found(by_key, self.root)
        return by_key

    def _layout(self, num_classes: int, settings: Settings) -> Layout:
        path, label = self._first_label()
        kind, k, crops, is_half = self._shape(label, path)
        if kind == "dense":
            if settings.num_classes and settings.num_classes != k:
                _refuse("dense labels", f"{k} classes", f"{settings.num_classes}", path)
            num_classes = k
        if is_half and kind != "dense" and num_classes > 2049:
            got = f"class ids kept as float16, of {num_classes} classes"
            _refuse("labels", got, "at most 2049: float16 cannot represent all larger ids", path)
        if kind != "dense":
            self._check_count(label, kind, k, num_classes, settings, path)
        return Layout(kind, num_classes, k, None if self._counts else crops, ratios=self.images is None)

    def _check_count(
        self, label: np.ndarray, kind: str, k: int, num_classes: int, settings: Settings, path: Path
    ) -> None:
        """Raises FormatError if the number of classes is too small for the labels."""
        largest = _split(label, kind)[0].max()
        too_large = num_classes <= largest < 1 << 31  # what is no class at all is refused when it is read
        if not too_large and k <= num_classes:
            return
        names = f"class {int(largest)}" if too_large else f"{k} classes for each crop"
        if settings.num_classes or settings.classes:
            known = f"--{'num-classes' if settings.num_classes else 'classes'} gives {num_classes}"
            remedy = "correct it"
        else:
            known = f"only {num_classes} class folders are known"
            remedy = (
                "give the number of the teacher's classes with --num-classes, or their names with --classes"
            )
        raise FormatError(f"FkdLabels: the labels name {names}, but {known}; {remedy}, {path}")

    def _first_label(self) -> tuple[Path, np.ndarray]:
        """The first readable label array."""
        errors = []
        for file in self.files.values():
            try:
                return self.root / file, _read_parts(self.root / file)[2]
            except UNREADABLE as error:
                errors.append(error)
        raise errors[0]

    def _shape(self, label: np.ndarray, path: Path) -> tuple[str, int, int, bool]:
        """(kind, K, crops, whether float16) of a label array."""
        dense = self.label_type == "ori"
        is_half = label.dtype == np.float16
        if label.ndim == 1 and label.dtype.kind in "iu":
            kind, k = "hard", 1
        elif label.ndim == 3 and label.shape[1] == 2 and label.dtype.kind == "f":
            kind, k = "topk", label.shape[2]
        elif label.ndim == 2 and label.dtype.kind == "f":
            kind, k = ("smoothing", 1) if label.shape[1] == 2 and not dense else ("dense", label.shape[1])
        else:
            _refuse("label", f"{label.dtype} {label.shape}", "(N, 2, K), (N, 2), (N,) or (N, C)", path)
        expected = LABEL_TYPES[self.label_type][0] if self.label_type else kind
        if kind != expected:
            _refuse("label", f"kind {kind}", f"{expected}, as --label-type says", path)
        return kind, k, len(label), is_half

    def read_image(self, number: int) -> ImageLabels:
        key = self.keys[number]
        path = self.root / self.files[key]
        coords, flips, label = _read_parts(path)
        kind, k, crops, _ = self._shape(label, path)
        layout = self.layout
        known = self._counts or {layout.crops}
        if (kind, k) != (layout.kind, layout.k) or crops not in known:
            counts = " or ".join(map(str, sorted(known)))
            expected = f"{layout.kind} of {counts} crops, K = {layout.k}, as in the first file"
            _refuse("labels", f"{kind} of {crops} crops, K = {k}", expected, path)
        # If FKD left out an incomplete last segment, it did so in the labels only.
        coords, flips = coords[:crops], flips[:crops]
        size = self.images.size(key) if self.images else None
        ids, values = _split(label, kind)
        if ids is not None:
            ids = _whole_ids(ids, layout.num_classes, path)
        return ImageLabels(key, _boxes(coords, size, path), flips, ids, values, size)


def _read_parts(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value = read_torch_file(path)
    if type(value) is not list or len(value) != 3 or not all(isinstance(part, np.ndarray) for part in value):
        _refuse("file", f"a {type(value).__name__}", "a list of the arrays coords, flip, label", path)
    coords, flips, label = value
    if coords.ndim != 2 or coords.shape[1] != 4 or coords.dtype not in (np.float32, np.float16):
        _refuse("coords", f"{coords.dtype} {coords.shape}", "float32 (N, 4)", path)
    if flips.shape != coords.shape[:1] or flips.dtype != np.bool_:
        _refuse("flip", f"{flips.dtype} {flips.shape}", f"bool ({len(coords)},)", path)
    if label.ndim == 0 or not 0 < len(label) <= len(coords):
        _refuse("label", f"shape {label.shape}", f"one row a crop, at most {len(coords)}", path)
    return coords, flips, label


def _boxes(coords: np.ndarray, size: tuple[int, int] | None, path: Path) -> np.ndarray:
    """Pixels if the image's size is known, else the ratios as they are.

    float32 ratios give the original pixels at every size. float16 ratios do so below 2,048 pixels if each
    number is rounded by itself (their sums, the far edges, are not precise enough).
    """
    if coords.dtype == np.float32:
        return boxes_from_ratios(coords, *size) if size else coords
    if size is None:
        _refuse("coords", "float16", "the images (--images), without which float16 names no pixel", path)
    if max(size) > 2047:
        _refuse("coords", f"float16 of an image of {size[0]} x {size[1]}", "at most 2047 pixels", path)
    return np.rint(coords * np.array([*size, *size], np.float64)).astype(np.int32)


def _split(label: np.ndarray, kind: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Class ids, as they are stored, and values."""
    if kind == "dense":
        return None, label
    if kind == "hard":
        return label[:, None], None
    if kind == "smoothing":
        return label[:, :1], label[:, 1:]
    return label[:, 0], label[:, 1]


def _whole_ids(ids: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    """Class ids that were stored as floats, as int32; refused unless whole and in 0 ... C - 1."""
    with np.errstate(invalid="ignore"):  # NaN and 1e30 become the smallest integer, which is refused
        whole = ids.astype(np.int32)
    if not whole.view(np.uint32).max() < num_classes:  # as unsigned, negative ones are large
        expected = f"0 ... {num_classes - 1} (--num-classes says how many)"
        _refuse("class ids", f"{ids.min()} ... {ids.max()}", expected, path)
    if not (whole == ids).all():
        _refuse("class ids", "fractions", "whole numbers", path)
    return whole


def _told_counts(folder: Path) -> set[int]:
    """How many crops images may have, where `fkdx export` says that it varies; empty elsewhere."""
    path = folder / FACTS
    if not path.is_file():
        return set()
    try:
        return {int(count) for count in json.loads(path.read_text())["crops"]}
    except (ValueError, KeyError, TypeError) as error:
        _refuse("facts", f"{error!r}", '{"crops": [numbers]}, as `fkdx export` writes', path)


def _label_type(name: str | None) -> str | None:
    """The label type without the `_k5` or `_k10` that FKD's names end in; K is stored in the files."""
    if name is None:
        return None
    plain = name.split("_k")[0]
    if plain not in LABEL_TYPES:
        refuse("FkdLabels", "label type", f"'{name}'", f"one of {', '.join(LABEL_TYPES)}")
    return plain
