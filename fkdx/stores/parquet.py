"""Images in parquet files, as Hugging Face's data sets keep them: read by row group, not by byte range."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx.stores.row_groups import (
    RowGroups,
    count_without_bytes,
    group_starts,
    image_columns,
    label_column,
    no_bytes,
    odd_label_type,
    open_parquet,
)
from fkdx.stores.shards import Entry, Shards, shard_files
from fkdx.stores.store import Place, is_apple_double


class ParquetFiles(Shards):
    """Parquet files with a column `image` of {bytes, path} and, usually, a column `label`.

    The key is the image's path, behind the name of its class where images of several classes are called the
    same: Hugging Face's writer drops the folders of `cat/1.jpg` and `dog/1.jpg`. Without a path it is the
    number of the row, such as `00000017.jpg`, in the order of the files. Class names come from the files' own
    metadata. A page of a column is compressed as a whole, so that single images have no place in the file;
    `offsets` are rows. They are read in the order of rows to label them, to evaluate on them, to index and to
    repack them.
    """

    sequential = True

    def __init__(
        self, paths: list[str | os.PathLike], part: str = "", classes: list[str] | None = None
    ) -> None:
        files = list(shard_files(paths))
        self._groups, self._before = RowGroups(), 0
        path = files[0] if len(files) == 1 else os.path.dirname(files[0]) or "."
        first = open_parquet(files[0])
        super().__init__(path, files, self._scan, part, classes, class_names(first))
        self._say_what_labels_are(odd_label_type(first))

    def _scan(self, path: str) -> Iterator[Entry]:
        file = open_parquet(path)
        image, leaf, path_leaf = image_columns(file, path)
        label = label_column(file)
        self._groups.check(path)
        if (names := class_names(file)) != self._said:
            got = str(names)[:200]
            raise ValueError(
                f"ParquetFiles: class names, got {got}, expected those of {self.shards[0]}, {path}"
            )
        wanted = [name for name in (path_leaf, label) if name]
        for group, first in enumerate(group_starts(file).tolist()):
            if empty := count_without_bytes(file, group, leaf):
                raise no_bytes(path, f"{empty} rows from row {first} on")
            count = file.metadata.row_group(group).num_rows
            rows = file.read_row_group(group, columns=wanted) if wanted else None
            names = _texts(rows, image, path_leaf) if path_leaf else [None] * count
            labels = rows.column(label).to_pylist() if label else [None] * count
            for row, (name, said) in enumerate(zip(names, labels), first):
                yield Entry(name or f"{self._before + row:08}.jpg", row, 0, label=said)
        self._before += file.metadata.num_rows

    def _fill(self, entries: list[Entry], *more: Any) -> None:
        if len({entry.name for entry in entries}) < len(entries):
            for entry in entries:
                named = isinstance(entry.label, int) and 0 <= entry.label < len(self._said or ())
                folder = self._said[entry.label] if named else entry.label
                if isinstance(folder, str) and "/" not in entry.name:
                    entry.name = f"{folder}/{entry.name}"
        super()._fill(entries, *more)

    def place(self, image: int) -> Place:
        """Names the row for messages; no file lies there."""
        return f"{self.shards[self.shard_of[image]]}, row {self.offsets[image]}", 0, -1

    def encoded(self, image: int) -> bytes:
        return self._groups.read(self.shards[self.shard_of[image]], int(self.offsets[image]))

    def head(self, image: int) -> bytes:
        return self.encoded(image)

    def rough_sizes(self) -> np.ndarray:
        return rough_sizes(self.shards, self.shard_of, self.offsets)

    def sizes(self) -> np.ndarray:
        """Bytes of every image; all of them are read for it once."""
        if not self.lengths.any():
            order = self.reading_order.tolist()
            for image in tqdm(order, unit="image", desc="sizes of images", delay=2, disable=None):
                self.lengths[image] = len(self.encoded(image))
        return self.lengths


def rough_sizes(shards: list[str], shard_of: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) int64 bytes of images in parquet files, every one that of the mean of its row group."""
    sizes = np.zeros(len(rows), np.int64)
    for number, path in enumerate(shards):
        metadata = open_parquet(path).metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        means = [group.total_byte_size // max(group.num_rows, 1) for group in groups]
        here = np.flatnonzero(shard_of == number)
        sizes[here] = np.repeat(means, [group.num_rows for group in groups])[rows[here].astype(np.int64)]
    return sizes


def split_files(folder: str) -> list[str]:
    """The parquet files of a folder, or of its `data/`. ValueError where they are of several splits."""
    for place in (folder, os.path.join(folder, "data")):
        found = sorted(_parquet_files(place)) if os.path.isdir(place) else []
        names = map(os.path.basename, found)
        splits = sorted({name.partition("-")[0] for name in names if "-of-" in name})
        if len(splits) > 1:
            raise ValueError(
                f"open_store: parquet files, got the splits {', '.join(splits)}, expected one; give "
                f"'{place}/{splits[0]}-*.parquet', {place}"
            )
        if found:
            return found
    return []


def class_names(file: Any) -> list[str] | None:
    """The names of a ClassLabel column, from Hugging Face's metadata in the file; None where it has none."""
    label = label_column(file)
    said = (file.schema_arrow.metadata or {}).get(b"huggingface")
    if said is None or label is None:
        return None
    try:
        names = json.loads(said)["info"]["features"][label]["names"]
        plain = [re.sub(r"\s+", " ", name).strip() for name in names]
    except (ValueError, KeyError, TypeError):  # metadata of another form: the numbers have no names
        return None
    return plain if plain and isinstance(names, list) else None


def _texts(rows: Any, image: str, leaf: str) -> list[str | None]:
    column = rows.column(image if leaf == f"{image}.path" else leaf).combine_chunks()
    return (column.field("path") if leaf == f"{image}.path" else column).to_pylist()


def _parquet_files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if _is_parquet(entry.name))


def _is_parquet(name: str) -> bool:
    """Not of the facts that Hugging Face's image folders have beside the images."""
    return name.lower().endswith(".parquet") and name != "metadata.parquet" and not is_apple_double(name)
