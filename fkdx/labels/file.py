"""LabelFile: a label file, or a folder of shards, as a sequence of images."""

import hashlib
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fkdx import _C
from fkdx.errors import refuse
from fkdx.labels import layout
from fkdx.labels.header import check_same_labels, read_header
from fkdx.labels.moments import Moments
from fkdx.labels.shards import open_set
from fkdx.labels.standard import Standard

Io = Literal["mmap", "pread", "preload"]


@dataclass(frozen=True, slots=True)
class Mixes:
    """What M crops were mixed with before the teacher saw them.

    Attributes:
        partners: M keys of the other images; None for a crop that is not mixed.
        boxes: (M, 4) of the other crops, like the crops' own boxes.
        flips: (M,) bool of the other crops.
        operations: (M,) integers, the sum of MIXUP (1: lambda a + (1 - lambda) b) and CUTMIX (2, after it)
            of `fkdx.labels.layout`, or 0.
        lambdas: (M,) float32, the weight of the image itself in mixup.
        mix_boxes: (M, 4) int32 top, left, height, width of the rectangle that cutmix takes from the partner,
            in pixels of the mixed image.
    """

    partners: Sequence[str | None]
    boxes: np.ndarray
    flips: np.ndarray
    operations: np.ndarray
    lambdas: np.ndarray
    mix_boxes: np.ndarray

    def __getitem__(self, crops: slice) -> "Mixes":
        return Mixes(*(getattr(self, field.name)[crops] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """The labels of all M crops of one image.

    Attributes:
        key: path of the image relative to the data set's folder.
        boxes: (M, 4) int32 top, left, height, width in pixels; float32 fractions of the image in files with
            ratios.
        flips: (M,) bool.
        ids: (M, K) classes; (M, 0) for dense kinds and embeddings. A view of the file (uint16 or uint32) in
            plain files, else int32.
        values: (M, K) probabilities or logits; ones for hard labels; the embeddings of a crop one behind the
            other. A view of the file (float16 or float32) in plain files, else float32.
        image_size: (H, W) in pixels, None if unknown.
        tails: (M,) float32 for `topk_logits`, else None.
        mixes: `Mixes` in files of mixed crops, else None.
        extra: parameters of further operations, uninterpreted.
    """

    key: str
    boxes: np.ndarray
    flips: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    image_size: tuple[int, int] | None
    tails: np.ndarray | None = None
    mixes: Mixes | None = None
    extra: bytes = b""


class Keys(Sequence[str]):
    """The keys of a label file in order, decoded on access."""

    def __init__(self, native: "_C.LabelSet") -> None:
        self._native = native

    def __len__(self) -> int:
        return self._native.images

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self._native.key(j) for j in range(*i.indices(len(self)))]
        return self._native.key(i + len(self) if i < 0 else i)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._native.find(key) >= 0

    def __repr__(self) -> str:
        return f"<{len(self)} keys>"

    def __reduce__(self) -> tuple:
        """As a list: the file need not be there any more."""
        return list, (self[:],)


class LabelFile(Sequence[ImageLabels]):
    """The labels of a data set: read-only, thread-safe and picklable (a copy opens the file again).

    `labels[i]` and `labels[key]` are an image's labels, `labels.gather` those of a mini-batch.

    Args:
        path: a label file, a folder of shards, or its `manifest.json`.
        io: `mmap`; `pread`, which reads each image's labels on access (for network file systems; it also
            raises FormatError if a file is truncated while open, which ends the process with SIGBUS under
            `mmap`); or `preload`, which reads the file into memory.

    Attributes:
        header: the JSON header as a dictionary (of the first shard, with the sizes in the manifest).
        kind, encoding, value_type: see docs/format.md.
        num_classes, k: C and K; K = C for dense kinds. For embeddings there are no classes (0), and K is the
            number of values of a crop.
        embeddings: the embeddings of a crop, one or two: {name: its size D}; empty for other kinds.
        crops: number of crops of every image; None if it varies, see `crop_counts`.
        classes: class names, None if unknown.
        ratios: whether boxes are fractions of the image, whose size is unknown.
        mix_size: side of the mixed images in pixels; 0 where crops are not mixed.
        extra_operations: names of further operations that were applied to the labelled crops.
        extra_form: how their parameters are stored, `json`, `steps` or `paired steps`; None without any.
        keys: all keys, a sequence in byte order (of each shard).

    Raises OSError, and FormatError (a ValueError) if the file is incomplete, damaged or of another format.

    Example:
        >>> import fkdx
        >>> boxes, flips = [[0, 0, 60, 80], [10, 10, 40, 40]], [False, True]
        >>> with fkdx.LabelWriter("two.fkdl", num_classes=10, k=2, crops=2, overwrite=True) as writer:
        ...     for key in ("cat/1.jpg", "dog/1.jpg"):
        ...         writer.add(key, boxes, flips, [[3, 1], [3, 7]], [[0.75, 0.125], [0.5, 0.25]], (60, 80))
        >>> labels = fkdx.LabelFile("two.fkdl")
        >>> len(labels), labels.keys[0], labels["dog/1.jpg"].ids.tolist()
        (2, 'cat/1.jpg', [[3, 1], [3, 7]])
        >>> boxes, flips, ids, values = labels.gather([0, 1], [[1], [0]])  # crop 1 and crop 0
        >>> values.tolist()
        [[[0.5, 0.25]], [[0.75, 0.125]]]
    """

    def __init__(self, path: str | os.PathLike, io: Io = "mmap") -> None:
        self.path, self.io = os.fspath(path), io
        paths, sizes = open_set(self.path)
        self._native = _C.LabelSet(paths, io)
        facts = self._native.facts()
        self.header: dict[str, Any] = read_header(self._native.files()[0])
        if sizes and isinstance(self.header.get("dataset"), dict):
            self.header["dataset"]["sizes"] = sizes
        self.kind = layout.KINDS[facts["kind"]]
        self.encoding = layout.ENCODINGS[facts["encoding"]]
        self.value_type = layout.VALUE_TYPES[facts["value_type"]]
        self.k: int = facts["k"]
        self._classes: int = facts["num_classes"]  # as stored: of embeddings the size of the first
        self.num_classes = 0 if self.kind == "embedding" else self._classes
        self.embeddings = self._embeddings()
        self.crops: int | None = facts["crops"] or None
        self.classes = self._class_names()
        self.ratios = bool(facts["required"] & layout.RATIO_BOXES)
        self.mix_size: int = facts["mix_size"]
        self.extra_operations: list[str] = self.header.get("extra", {}).get("operations", [])
        self.extra_form: str | None = self.header.get("extra", {}).get("form")
        self.keys = Keys(self._native)
        self._required = facts["required"]

    def _embeddings(self) -> dict[str, int]:
        if self.kind != "embedding":
            return {}
        sizes = [self._classes, self.k - self._classes]
        named = self.header.get("embeddings", {})
        if list(named.values()) != [size for size in sizes if size]:
            got = f"got {named}, expected sizes {sizes}"
            raise _C.FormatError(f"LabelFile: embeddings in the header, {got}, {self.path}")
        return dict(named)

    def _class_names(self) -> list[str] | None:
        names = self.header.get("classes")
        if names is not None and self.num_classes and len(names) != self.num_classes:
            got = f"got {len(names)} names, expected {self.num_classes}"
            raise _C.FormatError(f"LabelFile: classes in the header, {got}, {self.path}")
        return names

    @property
    def moments(self) -> dict[str, Moments]:
        """Mean and spread of each embedding over all crops, and how many are zero vectors."""
        parts = [read_header(file).get("moments", {}) for file in self._native.files()]
        none = {name: Moments.none(size) for name, size in self.embeddings.items()}
        try:
            return {
                name: sum((Moments.from_header(part[name]) for part in parts), start)
                for name, start in none.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise _C.FormatError(f"LabelFile: moments in the header, got {error!r}, {self.path}") from None

    @property
    def teachers_moments(self) -> dict[str, Moments]:
        """The moments of the teacher's embeddings, where those that are stored have been standardised."""
        done, moved, first = self.standard, {}, 0
        for name, each in self.moments.items():
            own = slice(first, first := first + self.embeddings[name])
            mean = each.mean * done.divisor[own] + done.mean[own]
            moved[name] = replace(each, mean=mean, squares=each.squares * done.divisor[own] ** 2)
        return moved

    @property
    def standard(self) -> Standard:
        """How the embeddings were standardised before they were stored, see `Standard.teachers`."""
        entries = [read_header(file).get("standardised", {}) for file in self._native.files()]
        try:
            if any(entry != entries[0] for entry in entries):
                raise ValueError("others in other shards")
            return Standard.from_header(entries[0], self.embeddings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _C.FormatError(
                f"LabelFile: standardised in the header, got {error!r}, {self.path}"
            ) from None

    @property
    def layout(self) -> tuple[str | int, ...]:
        """Everything that determines how an image's labels are stored."""
        return (self.kind, self.encoding, self.value_type, self._classes, self.k, self._required)

    def __len__(self) -> int:
        return self._native.images

    def __getitem__(self, image: int | str) -> ImageLabels:  # type: ignore[override]  # keys, but no slices
        """KeyError or IndexError if there is no such image."""
        image = self.find(image) if isinstance(image, str) else self._number(image)
        data, crops, height, width, flips, extra, extra_bytes = self._native.block(image)
        size = None if self.ratios else (height, width)
        if self.encoding == "plain" and self.value_type != "int8":
            boxes, ids, values, tails = self._plain_views(data, crops)
        else:
            every = np.arange(crops)[None]
            boxes, _, ids, values = (part[0] for part in self.gather([image], every))
            tails = self._native.gather_tails([image], every)[0] if self.kind == "topk_logits" else None
        return ImageLabels(
            key=self.keys[image],
            boxes=boxes,
            flips=np.unpackbits(data[flips:extra], count=crops, bitorder="little").view(bool),
            ids=ids,
            values=values,
            image_size=size,
            tails=tails,
            mixes=self._mixes(image, crops) if self.mix_size else None,
            extra=data[extra : extra + extra_bytes].tobytes(),
        )

    def _plain_views(self, data: np.ndarray, crops: int) -> tuple:
        dtype = layout.record_dtype(self.kind, self.value_type, self._classes, self.k, self._required)
        records = data[: crops * dtype.itemsize].view(dtype)
        boxes = records["box"] if self.ratios else records["box"].astype(np.int32)
        ids = np.empty((crops, 0), np.int32) if self.kind in layout.WITHOUT_IDS else records["ids"]
        values = np.ones((crops, 1), np.float32) if self.kind == "hard" else records["values"]
        return boxes, ids, values, records["tail"] if self.kind == "topk_logits" else None

    def _mixes(self, image: int, crops: int) -> Mixes:
        mixes = self._native.gather_mixes([image], np.arange(crops)[None])
        partners, boxes, operations, lambdas, mix_boxes = (part[0] for part in mixes)
        names = [self.keys[p] if o & layout.MIXED else None for p, o in zip(partners.tolist(), operations)]
        return Mixes(
            partners=names,
            boxes=boxes,
            flips=(operations & layout.PARTNER_FLIPPED) > 0,
            operations=operations & layout.MIXED,
            lambdas=lambdas,
            mix_boxes=mix_boxes,
        )

    def _number(self, image: int) -> int:
        """Counted from the end where it is negative. IndexError, TypeError."""
        try:
            number = operator.index(image)
        except TypeError:
            refuse("LabelFile", "image", repr(image), "its number or its key", self.path, error=TypeError)
        if not -len(self) <= number < len(self):
            refuse("LabelFile", "image", number, f"0 to {len(self) - 1}", self.path, error=IndexError)
        return number % len(self)

    def __iter__(self) -> Iterator[ImageLabels]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def find(self, key: str) -> int:
        """The number of the image with this key. Raises KeyError if there is none."""
        image = self._native.find(key)
        if image < 0:
            raise KeyError(f"LabelFile.find: no labels for '{key}', {self.path}")
        return image

    def gather(
        self, images: ArrayLike, crops: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Some crops of some images, in one native call; see `ImageLabels`.

        Args:
            images: (n,) numbers of images.
            crops: (n, m) numbers of their crops.

        Returns:
            boxes (n, m, 4) int32 (float32 with ratios), flips (n, m) bool, ids (n, m, K) int32 (K = 0 for
            dense kinds and embeddings), values (n, m, K) float32.

        Raises IndexError for numbers out of range, ValueError for other arguments, FormatError if labels are
        damaged.
        """
        return self._native.gather(_numbers(images), _numbers(crops))

    def gather_tails(self, images: ArrayLike, crops: ArrayLike) -> np.ndarray:
        """(n, m) float32 tails of `topk_logits`; arguments and errors as in `gather`."""
        return self._native.gather_tails(_numbers(images), _numbers(crops))

    def extra(self, image: int) -> bytes:
        """The parameters of further operations of one image; errors as in `gather`."""
        data, *_, start, size = self._native.block(image)
        return data[start : start + size].tobytes()

    def gather_mixes(self, images: ArrayLike, crops: ArrayLike) -> tuple[np.ndarray, ...]:
        """What crops were mixed with; arguments and errors as in `gather`.

        Returns:
            partners (n, m) uint32 numbers of images, boxes (n, m, 4), operations (n, m) uint8 (the sum of
            MIXUP, CUTMIX and PARTNER_FLIPPED of `fkdx.labels.layout`), lambdas (n, m) float32, mix boxes
            (n, m, 4) int32. See `Mixes`.
        """
        return self._native.gather_mixes(_numbers(images), _numbers(crops))

    def key_arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The keys of each file or shard, as they lie in it: where each starts (N + 1,) uint32, and the text
        (bytes,) uint8."""
        return [self._native.key_arrays(number) for number in range(len(self._native.files()))]

    def forget(self) -> None:
        """Lets go of the memory of everything that was read from the map, as after a look at all crops; it
        comes back from the file when it is used again."""
        self._native.forget()

    @property
    def crop_counts(self) -> np.ndarray:
        """(N,) uint32: number of crops of each image; 0 for one that is only a partner of mixed crops."""
        return self._index()["crops"]

    @property
    def image_sizes(self) -> np.ndarray:
        """(N, 2) uint16: height and width of each image in pixels; 0 if unknown."""
        return self._index()["size"]

    @property
    def digest(self) -> str:
        """A digest of the contents in hex: files (or sets of shards) with equal digests have the same
        bytes."""
        digests = b"".join(file["digest"] for file in self._native.files())
        return hashlib.blake2b(digests, digest_size=16).hexdigest()

    @property
    def size(self) -> int:
        """Size of the file, or of all shards, in bytes."""
        return sum(file["bytes"] for file in self._native.files())

    def verify(self, advance: Callable[[int], object] = lambda size: None) -> None:
        """Checks every byte against all rules of docs/format.md; calls `advance` with the size of each step.

        Raises FormatError for the first fault.
        """
        check_same_labels(self._native.files())
        for number, file in enumerate(self._native.files()):
            self._native.verify(number)
            if _digest(file["path"], file["bytes"] - layout.FOOTER_SIZE, advance) != file["digest"]:
                raise _C.FormatError(f"LabelFile: wrong digest; the file is damaged, {file['path']}")
        self._native.check_images()

    def _index(self) -> np.ndarray:
        parts = [self._native.index_bytes(i).view(layout.INDEX) for i in range(len(self._native.files()))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __reduce__(self) -> tuple:
        return LabelFile, (self.path, self.io)

    def __repr__(self) -> str:
        if self.embeddings:
            named = ", ".join(f"{name} {size}" for name, size in self.embeddings.items())
            return f"LabelFile({self.path!r}: {len(self)} images, embeddings {named}, {self.value_type})"
        return (
            f"LabelFile({self.path!r}: {len(self)} images x {self.crops or 'varying'} crops, {self.kind}, "
            f"K = {self.k} of {self.num_classes} classes, {self.encoding}, {self.value_type})"
        )


def _numbers(given: ArrayLike) -> np.ndarray:
    """Of images or crops. ValueError for numbers that are not whole, such as the bits of a mask."""
    numbers = np.asarray(given)
    if numbers.dtype.kind not in "iu" and numbers.size:
        refuse("LabelFile.gather", "images and crops", numbers.dtype, "integers")
    return numbers


def _digest(path: str, size: int, advance: Callable[[int], object]) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while size > 0 and (data := file.read(min(size, 1 << 20))):
            digest.update(data)
            size -= len(data)
            advance(len(data))
    return digest.digest()
