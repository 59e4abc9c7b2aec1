"""LabelWriter: the only code that writes label files."""

import hashlib
import json
import os
from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fkdx import _C
from fkdx._version import __version__
from fkdx.errors import refuse
from fkdx.files import AtomicFile
from fkdx.labels import layout
from fkdx.labels.arrays import GivenArrays, partner_numbers
from fkdx.labels.dataset import check_key
from fkdx.labels.file import ImageLabels, LabelFile, Mixes
from fkdx.labels.layout import align64
from fkdx.labels.moments import Moments, moments_of


class LabelWriter:
    """Writes a label file; a context manager. The file appears, complete, when the block ends without an
    exception.

    Args:
        path: the file to write, usually `*.fkdl`.
        kind: `topk`, `hard`, `smoothing`, `dense`, `dense_logits`, `topk_logits` or `embedding`.
        num_classes: C; none for embeddings.
        k: number of classes kept per crop; may be omitted for dense kinds (C), and for `hard` and `smoothing`
            (1).
        crops: number of crops of every image, or None if it varies.
        classes: C names in class order, if known.
        provenance: where the labels come from; any JSON object.
        dataset: `fingerprint(...)` of the data set.
        encoding: `plain`, or `compact` (about 40 % smaller, see `value_type`).
        value_type: `float16`, `float32`, `log8` (only compact `topk` and `smoothing`: at most 2.4 % off) or
            `int8` (only embeddings: a scale for each, codes of -127 to 127). Default: in compact files `log8`
            or `int8` where possible, otherwise `float16`.
        embeddings: {name: size D} of the one or two embeddings of a crop, for kind `embedding`.
        standardised: means and divisors by which the embeddings given to this writer have been standardised,
            as `fkdx convert --standardise` does it.
        ratios: boxes are fractions of the image because its size is unknown.
        images: all keys, for crops that mix two images; partners may have no crops themselves.
        mix_size: side of the mixed images in pixels.
        extra: `{"operations": [names], "form": "json"}` (or "steps", see docs/format.md) if images carry
            parameters of further operations.
        repair: fix and count faulty crops instead of refusing them.
        overwrite: replace an existing file.

    Raises ValueError for arguments that contradict each other, FileExistsError, BlockingIOError (another
    writer).

    Example:
        >>> import fkdx
        >>> with fkdx.LabelWriter("one.fkdl", num_classes=10, k=2, crops=1, overwrite=True) as writer:
        ...     writer.add(
        ...         "cat/1.jpg",
        ...         boxes=[[10, 20, 100, 120]],  # top, left, height, width in pixels
        ...         flips=[True],
        ...         ids=[[3, 1]],  # the teacher's top-2 classes ...
        ...         values=[[0.75, 0.125]],  # ... and their probabilities
        ...         image_size=(375, 500),
        ...     )
        >>> fkdx.LabelFile("one.fkdl")[0].boxes.tolist()
        [[10, 20, 100, 120]]
    """

    def __init__(
        self,
        path: str | os.PathLike,
        kind: layout.Kind = "topk",
        *,
        num_classes: int = 0,
        k: int | None = None,
        crops: int | None = None,
        classes: list[str] | None = None,
        provenance: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None,
        encoding: layout.Encoding = "plain",
        value_type: layout.ValueType | None = None,
        ratios: bool = False,
        images: list[str] | None = None,
        mix_size: int = 0,
        extra: dict[str, Any] | None = None,
        embeddings: dict[str, int] | None = None,
        standardised: dict[str, Any] | None = None,
        repair: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.kind, self.crops = kind, crops
        self._sizes = _embedding_sizes(kind, num_classes, embeddings, self.path)
        self.num_classes = num_classes = self._sizes[0] if self._sizes else num_classes
        self.k = sum(self._sizes) or _kept(kind, num_classes, k)
        self._moments = [Moments.none(size) for size in self._sizes]
        self.repair = repair
        self.repairs = dict.fromkeys(("boxes", "values", "sums", "ids", "duplicates"), 0)
        if classes is not None and len(classes) != num_classes:
            refuse("LabelWriter", "classes", f"{len(classes)} names", num_classes, path)
        if classes is not None and not all(isinstance(name, str) for name in classes):
            refuse("LabelWriter", "classes", list(classes)[:3], "names, as text", path)
        if classes is not None and len(set(classes)) < len(classes):
            repeated = next(name for name in classes if list(classes).count(name) > 1)
            raise ValueError(f"LabelWriter: classes, got '{repeated}' twice, expected each name once, {path}")
        objects = {"provenance": provenance, "dataset": dataset, "extra": extra, "standardised": standardised}
        for name, value in objects.items():
            if not isinstance(value, dict | None):
                refuse("LabelWriter", name, repr(value)[:80], "a dict, which becomes a JSON object", path)
        if crops is not None and not 1 <= crops <= layout.MAX_CROPS:
            raise ValueError(f"LabelWriter: crops, got {crops}, expected 1 to {layout.MAX_CROPS}, {path}")
        self._partners = partner_numbers(images, mix_size, path)
        required = layout.RATIO_BOXES * ratios + layout.TWO_VIEWS * (images is not None)
        required += layout.EXTRA_OPERATIONS * (extra is not None)
        if value_type is None:
            value_type = default_value_type(kind, encoding)
        if kind == "hard" and value_type != "none":
            expected = "none: hard labels are class ids without values"
            refuse("LabelWriter", "value type", value_type, expected, path)
        self.value_type = value_type
        numbers = (
            _number("kind", kind, layout.KINDS),
            _number("encoding", encoding, layout.ENCODINGS),
            _number("value_type", value_type, layout.VALUE_TYPES),
        )
        self._required = required
        self._arrays = GivenArrays(kind, self.k, crops, ratios, self._partners)
        self._layout = (kind, encoding, value_type, num_classes, self.k, required)
        self._codec = _C.LabelCodec(*numbers, num_classes, self.k, required, mix_size, len(self._partners))
        self._header = {
            "created_by": f"fkdx {__version__}",
            **({"classes": list(classes)} if classes is not None else {}),
            **({"dataset": dataset} if dataset is not None else {}),
            **({"embeddings": dict(embeddings)} if embeddings else {}),
            **({"standardised": standardised} if standardised else {}),
            "provenance": provenance or {},
            **({"extra": extra} if extra is not None else {}),
        }
        self._begin(numbers, mix_size, overwrite)

    def _begin(self, numbers: tuple[int, int, int], mix_size: int, overwrite: bool) -> None:
        def preamble(identity: bytes) -> bytes:
            return layout.PREAMBLE.pack(
                layout.MAGIC, *layout.VERSION, self._required, 0, *numbers, 0, self.num_classes, self.k,
                self.crops or 0, mix_size, identity, 0,
            )  # fmt: skip

        seed = preamble(bytes(16)) + _json(self._header)
        self._id = hashlib.blake2b(seed, digest_size=16).digest()
        self._index: dict[bytes, bytes] = {}  # key: index entry
        self._digest = hashlib.blake2b(digest_size=32)
        self._length = 0
        self._file: AtomicFile | None = AtomicFile(self.path, overwrite)
        sealed = preamble(self._id)
        self._write(sealed + _C.crc32c(sealed).to_bytes(4, "little"))

    # ---- images --------------------------------------------------------------------------------------------

    def add(
        self,
        key: str,
        boxes: ArrayLike,
        flips: ArrayLike,
        ids: ArrayLike | None = None,
        values: ArrayLike | None = None,
        image_size: tuple[int, int] | None = None,
        *,
        tails: ArrayLike | None = None,
        mixes: Mixes | None = None,
        extra: bytes = b"",
    ) -> None:
        """Adds the crops of one image, in any order of images.

        Args:
            key: the image's path relative to the data set's folder, with `/`.
            boxes: (M, 4) integers: top, left, height, width in pixels of the image; with `ratios`, floats:
                top / H, left / W, height / H, width / W.
            flips: (M,) bool.
            ids: (M, K) integers, the classes of `values`; (M,) for hard labels. Rows may be in any order.
            values: (M, K), or (M, C) for dense kinds: probabilities or logits; none for hard labels; the
                embeddings of a crop one behind the other.
            image_size: (H, W) of the decoded image in pixels; not needed with `ratios`.
            tails: (M,) for `topk_logits`: the log of the sum of exp over the classes that are not kept; minus
                infinity where all are.
            mixes: what the crops were mixed with, if the writer was given `images`.
            extra: parameters of further operations, if the writer was given `extra`.

        Raises ValueError with the key if it is not a clean relative path or was added before, or if a box, id
        or value is out of range. Nothing of this image is written then, and the writer can be used further.
        """
        if self._file is None:
            raise RuntimeError(f"LabelWriter.add: the writer is closed; open a new one, {self.path}")
        name = check_key(key)
        try:
            if name in self._index:
                raise ValueError("the key was added before")
            if self._partners and key not in self._partners:
                raise ValueError("the key is not one of `images`")
            arrays = self._arrays.of_image(boxes, flips, ids, values, tails, mixes)
            height, width = self._arrays.image_size(image_size)
            if extra and not self._required & layout.EXTRA_OPERATIONS:
                raise ValueError("extra bytes, expected none in this file")
            block, repairs = self._codec.encode(height, width, arrays, extra, self.repair)
        except ValueError as error:
            raise ValueError(f"LabelWriter.add: {key}: {error}, {self.path}") from None
        for sort, count in zip(self.repairs, repairs):
            self.repairs[sort] += count
        if self._sizes:
            self._count_block(block, len(arrays["flips"]), height, width)
        self._add_block(name, block, len(arrays["flips"]), height, width, len(extra))

    def add_many(
        self,
        keys: list[str],
        boxes: ArrayLike,
        flips: ArrayLike,
        ids: ArrayLike | None = None,
        values: ArrayLike | None = None,
        image_sizes: ArrayLike | None = None,
        *,
        tails: ArrayLike | None = None,
    ) -> None:
        """Adds N images with M crops each in one native call: the bytes of `add` for each, in this order.

        Args:
            keys: N keys.
            boxes, flips, ids, values, tails: as in `add`, with another dimension N in front, so (N, M, 4),
                (N, M), (N, M, K) and so on.
            image_sizes: (N, 2) heights and widths; not needed with `ratios`.

        Raises ValueError as `add` does, with the first key that is refused; none of the N images is written
        then. Files of mixed crops and of further operations take one image at a time.
        """
        if self._file is None:
            raise RuntimeError(f"LabelWriter.add_many: the writer is closed; open a new one, {self.path}")
        if not len(keys):
            return
        names = [check_key(key) for key in keys]
        try:
            if self._required & (layout.TWO_VIEWS | layout.EXTRA_OPERATIONS):
                raise ValueError("mixed crops or further operations, expected plain crops; use `add`")
            new = dict.fromkeys(names)
            if len(new) < len(names) or not new.keys().isdisjoint(self._index):
                raise ValueError(
                    f"key, got '{_repeated(names, self._index)}' twice, expected each image once"
                )
            arrays = self._arrays.of_images(len(keys), boxes, flips, ids, values, tails)
            sizes = self._arrays.image_sizes(len(keys), image_sizes)
            blocks, entries, repairs = self._codec.encode_many(
                keys, sizes, arrays, self.repair, self._id, self._length
            )
        except ValueError as error:
            raise ValueError(f"LabelWriter.add_many: {error}, {self.path}") from None
        for sort, count in zip(self.repairs, repairs):
            self.repairs[sort] += count
        start, size = self._length, len(entries) // len(names)
        self._write(blocks)
        for i, name in enumerate(names):
            self._index[name] = entries[i * size : (i + 1) * size]
        if self._sizes:
            facts = np.frombuffer(entries, layout.INDEX)
            edges = [*(facts["offset"] - start).tolist(), len(blocks)]
            for entry, first, last in zip(facts, edges[:-1], edges[1:]):
                self._count_block(blocks[first:last], int(entry["crops"]), *entry["size"].tolist())

    def add_image(self, image: ImageLabels) -> None:
        """Adds the labels of an image of another label file; see `add`."""
        self.add(
            image.key,
            image.boxes,
            image.flips,
            image.ids,
            image.values,
            image.image_size,
            tails=image.tails,
            mixes=image.mixes,
            extra=image.extra,
        )

    def copy_image(self, labels: LabelFile, image: int) -> None:
        """Adds image number `image` of a label file of the same layout by copying its bytes.

        What the other file counted, `add_counts` adds. Raises ValueError if layouts or numbers of crops
        differ, for files of mixed crops (their partners are numbers of another file), and if the key was
        added before.
        """
        key = labels.keys[image]
        data, crops, height, width, _, _, extra = labels._native.block(image)
        name = key.encode()
        if self._partners or self._layout != labels.layout or self.crops not in (None, crops):
            raise ValueError(f"LabelWriter.copy_image: {key}: layout, got another one, {labels.path}")
        if name in self._index:
            raise ValueError(f"LabelWriter.copy_image: {key}: the key was added before, {self.path}")
        self._add_block(name, data.tobytes(), crops, height, width, extra)

    def add_counts(self, labels: LabelFile, copied: bool = True) -> None:
        """Adds what another file counted while it was written: repairs, and if all its images were `copied`
        with `copy_image`, the moments of its embeddings."""
        for fault, count in labels.header.get("repairs", {}).items():
            self.repairs[fault] = self.repairs.get(fault, 0) + count  # a later version may mend more
        if self._sizes and copied:
            self._count(list(labels.moments.values()))

    def _count_block(self, block: bytes, crops: int, height: int, width: int) -> None:
        stored, _ = self._codec.decode_values(height, width, block, crops)
        self._count(moments_of(stored, self._sizes))

    def _count(self, moments: list[Moments]) -> None:
        self._moments = [sum_ + more for sum_, more in zip(self._moments, moments)]

    def _add_block(self, key: bytes, block: bytes, crops: int, height: int, width: int, extra: int) -> None:
        entry = layout.ENTRY.pack(self._length, crops, height, width, extra)
        crc = _C.crc32c(block, _C.crc32c(self._id + entry + key))
        self._write(block)
        self._index[key] = entry + crc.to_bytes(4, "little")

    # ---- end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Completes the file and puts it in place."""
        if self._file is None:
            return
        for key in self._partners:
            if key.encode() not in self._index:
                self._add_block(key.encode(), b"", 0, 0, 0, 0)
        if any(self.repairs.values()):
            self._header["repairs"] = self.repairs
        if self._sizes:
            named = zip(self._header["embeddings"], self._moments)
            self._header["moments"] = {name: moments.to_header() for name, moments in named}
        try:
            parts = self._write_parts()
            self._file.sync()
            footer = layout.FOOTER.pack(
                *parts, 0, self._digest.digest(), self._id, self._length + layout.FOOTER_SIZE
            )
            self._write(footer + _C.crc32c(footer).to_bytes(4, "little") + layout.END_MAGIC)
            self._file.commit()
        except BaseException:
            self.abort()
            raise
        self._file = None

    def _write_parts(self) -> list[int]:
        """Writes header, index and keys; returns their places and CRCs in the order of the footer."""
        keys = sorted(self._index)
        if (total := sum(map(len, keys))) > layout.MAX_KEY_BYTES:
            raise ValueError(
                f"LabelWriter: bytes of all keys, got {total}, expected at most {layout.MAX_KEY_BYTES}; "
                f"write a sharded set, {self.path}"
            )
        starts = np.zeros(len(keys) + 1, "<u4")
        np.cumsum([len(key) for key in keys], out=starts[1:])
        header = _json(self._header)
        if len(header) > layout.MAX_HEADER:
            raise ValueError(
                f"LabelWriter: header, got {len(header)} bytes, expected at most {layout.MAX_HEADER}"
            )
        index = b"".join(self._index[key] for key in keys)
        names = starts.tobytes() + b"".join(keys)
        places, crcs = [], []
        for part in (header, index, names):
            padded = part.ljust(align64(len(part)), b"\0")
            places.append(self._length)
            crcs.append(_C.crc32c(padded))
            self._write(padded)
        return [places[0], len(header), places[1], len(keys), places[2], len(names), *crcs]

    def abort(self) -> None:
        """Removes everything written."""
        if self._file is not None:
            self._file.abort()
            self._file = None

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except BaseException:
            self.abort()
            raise
        self._digest.update(data)
        self._length += len(data)

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _repeated(names: list[bytes], known: Container[bytes]) -> str:
    """The first name that was there before."""
    return next(name for i, name in enumerate(names) if name in known or name in names[:i]).decode()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # numpy's numbers, NaN ...
        raise ValueError(f"LabelWriter: header, {error}, expected what JSON has") from None


def _kept(kind: str, num_classes: int, k: int | None) -> int:
    if kind.startswith("dense"):
        return num_classes
    if k is not None:
        return k
    if kind in ("hard", "smoothing"):
        return 1
    raise ValueError(f"LabelWriter: k, expected for {kind} labels")


def _embedding_sizes(
    kind: str, num_classes: int, embeddings: dict[str, int] | None, path: str
) -> tuple[int, ...]:
    """The sizes of a crop's embeddings in order; none for other kinds."""
    if kind != "embedding":
        if embeddings:
            refuse("LabelWriter", "embeddings", embeddings, f"none for {kind} labels", path)
        return ()
    if num_classes:
        refuse("LabelWriter", "num_classes", num_classes, "none for embeddings, which have no classes", path)
    sizes = tuple(embeddings.values()) if embeddings else ()
    if not (1 <= len(sizes) <= 2 and all(1 <= size <= layout.MAX_EMBEDDING for size in sizes)):
        expected = f"one or two names with sizes of 1 to {layout.MAX_EMBEDDING}"
        refuse("LabelWriter", "embeddings", embeddings, expected, path)
    return sizes


def default_value_type(kind: str, encoding: str) -> layout.ValueType:
    """How values are stored where nobody asks for a type."""
    if kind == "hard":
        return "none"
    if kind == "embedding" and encoding == "compact":
        return "int8"
    return "log8" if encoding == "compact" and kind in ("topk", "smoothing") else "float16"


def _number(what: str, name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise ValueError(f"LabelWriter: {what}, got '{name}', expected one of {', '.join(names)}")
    return names.index(name)
