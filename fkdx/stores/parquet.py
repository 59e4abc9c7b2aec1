"""Images in parquet files, as Hugging Face's data sets keep them: read by row group, not by byte range."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from fkdx.stores.keys import Keys
from fkdx.stores.shards import number_labels, shard_files
from fkdx.stores.store import Place, Store

_KEPT_GROUPS = 16  # row groups in memory: one a thread that reads in the order of rows


class ParquetFiles(Store):
    """Parquet files with a column `image` of {bytes, path} and, usually, a column `label`.

    The key is the image's path; without one it is the number of the row, such as `00000017.jpg`, in the order
    of the files. Class names come from the files' own metadata. A page of a column is compressed as a whole,
    so that single images have no place in the file: they are read in the order of rows (`reading_order`) to
    label, to index and to repack them, and are repacked for training.
    """

    def __init__(self, paths: list[str | os.PathLike], classes: list[str] | None = None) -> None:
        self.shards = list(shard_files(paths))
        self.path = self.shards[0] if len(self.shards) == 1 else os.path.dirname(self.shards[0]) or "."
        names, labels, starts = [], [], []
        for number, path in enumerate(self.shards):
            file = _open(path)
            image, label = _columns(file, path)
            names_said = _class_names(file.schema_arrow, label) if label else None
            if classes is None:
                classes = names_said
            for group in range(file.num_row_groups):
                starts.append((number, group, len(names)))
                rows = file.read_row_group(group, columns=[f"{image}.path"] + [label] * (label is not None))
                paths_said = rows.column(image).combine_chunks().field("path").to_pylist()
                names += [name or f"{len(names) + i:08}.jpg" for i, name in enumerate(paths_said)]
                labels += rows.column(label).to_pylist() if label else [None] * len(paths_said)
        if not names:
            raise FileNotFoundError(f"open_store: no images in {len(self.shards)} files, {self.path}")
        self.keys, order = Keys.sort(names, self.path)
        self._row_of, self._groups = order, starts
        self._first_rows = np.array([first for _, _, first in starts])
        in_order = [labels[i] for i in order.tolist()]
        self.numbered = any(isinstance(label, int) for label in in_order)
        self.class_names, self.class_of = number_labels(in_order, self.keys, classes, self.path)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def reading_order(self) -> np.ndarray:
        """The images in the order of their rows."""
        return np.argsort(self._row_of)

    def place(self, image: int) -> Place:
        raise ValueError(
            "ParquetFiles: training reads single images, which parquet cannot give; run "
            f"`fkdx repack {self.path} -o DIR` and train on DIR, {self.path}"
        )

    def encoded(self, image: int) -> bytes:
        row = int(self._row_of[image])
        group = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        column = self._group(group)
        found = column[row - int(self._first_rows[group])].as_py()
        if found is None:
            raise ValueError(
                f"ParquetFiles: row of {self.keys[image]}, got no bytes, expected an image: these files hold "
                f"paths instead of images, {self.shards[self._groups[group][0]]}"
            )
        return found

    def head(self, image: int) -> bytes:
        return self.encoded(image)

    def _group(self, number: int) -> Any:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        shard, group, _ = self._groups[number]
        file = _open(self.shards[shard])
        image, _ = _columns(file, self.shards[shard])
        column = file.read_row_group(group, columns=[f"{image}.bytes"]).column(image)
        column = column.combine_chunks().field("bytes")
        with self._lock:
            self._kept[number] = column
            if len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
        return column

    def rough_sizes(self) -> np.ndarray:
        sizes = np.zeros(len(self), np.int64)
        ends = np.append(self._first_rows[1:], len(self))
        for (shard, group, first), end in zip(self._groups, ends.tolist()):
            whole = _open(self.shards[shard]).metadata.row_group(group).total_byte_size
            sizes[first:end] = whole // max(end - first, 1)
        return sizes[self._row_of]

    def sizes(self) -> np.ndarray:
        sizes = np.zeros(len(self), np.int64)
        for image in self.reading_order.tolist():
            sizes[image] = len(self.encoded(image))
        return sizes


def split_files(folder: str) -> list[str]:
    """The parquet files of a folder, or of its `data/`. ValueError where they are of several splits."""
    for place in (folder, os.path.join(folder, "data")):
        found = sorted(_parquet_files(place)) if os.path.isdir(place) else []
        splits = sorted({os.path.basename(path).partition("-")[0] for path in found if "-of-" in path})
        if len(splits) > 1:
            raise ValueError(
                f"open_store: parquet files, got the splits {', '.join(splits)}, expected one; give "
                f"'{place}/{splits[0]}-*.parquet', {place}"
            )
        if found:
            return found
    return []


def _parquet_files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if entry.name.endswith(".parquet"))


def _open(path: str) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ModuleNotFoundError:
        raise ValueError(
            f"ParquetFiles: reading parquet needs pyarrow; run: pip install 'fkdx[parquet]', {path}"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"ParquetFiles: not a whole parquet file ({error}), {path}") from None


def _columns(file: Any, path: str) -> tuple[str, str | None]:
    """The columns of images and of labels."""
    import pyarrow

    schema = file.schema_arrow
    images = [field.name for field in schema if pyarrow.types.is_struct(field.type) and _is_image(field.type)]
    if len(images) != 1:
        got = ", ".join(f"{field.name} {field.type}" for field in schema)[:300]
        raise ValueError(f"ParquetFiles: columns, got {got}, expected one struct of bytes and path, {path}")
    label = next((name for name in ("label", "labels", "class", "cls") if name in schema.names), None)
    if label and not pyarrow.types.is_integer(schema.field(label).type):
        label = None if not pyarrow.types.is_string(schema.field(label).type) else label
    return images[0], label


def _is_image(kind: Any) -> bool:
    return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names of a ClassLabel column, from Hugging Face's metadata in the file."""
    import json

    said = (schema.metadata or {}).get(b"huggingface")
    if said is None:
        return None
    feature = json.loads(said).get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    return [_plain(name) for name in names] if names else None


def _plain(name: str) -> str:
    """A class name in one piece: `tench, Tinca tinca` stays what it is, space around it goes."""
    return re.sub(r"\s+", " ", name).strip()
