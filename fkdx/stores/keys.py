"""Names of images in byte order, kept as bytes: a million of them are no million Python strings."""

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fkdx import _C
from fkdx.errors import refuse
from fkdx.labels import LabelFile
from fkdx.labels.layout import MAX_KEY_BYTES


class Keys(Sequence[str]):
    """A sorted, read-only sequence of str; `table` is what native code joins and looks up."""

    def __init__(self, table: _C.KeyTable) -> None:
        self.table = table

    @classmethod
    def sort(cls, keys: Iterable[str], path: str) -> tuple["Keys", np.ndarray]:
        """The keys in order, and where each was (N,).

        Raises ValueError, naming it and the store's `path`, where a label file cannot hold one or one is
        there twice.
        """
        table, order = _C.KeyTable.sort([os.fsencode(key) for key in keys], path)
        return cls(table), order

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self.table.key(j) for j in range(*i.indices(len(self)))]
        return self.table.key(int(i) + len(self) if i < 0 else int(i))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.find(key) >= 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Keys):
            return np.array_equal(self.table.starts, other.table.starts) and np.array_equal(
                self.table.text, other.table.text
            )
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None

    def __reduce__(self) -> tuple:
        """Its arrays, for a worker process that is not a fork."""
        return _keys_of, (self.table.starts, self.table.text)

    def find(self, key: str) -> int:
        """The key's number, -1 where there is none."""
        return self.table.find(key)

    def take(self, numbers: np.ndarray) -> "Keys":
        """Some of the keys, by ascending numbers."""
        starts, text = self.table.starts, self.table.text
        lengths = np.diff(starts)[numbers].astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(ends[-1]) + np.repeat(starts[numbers] - ends[:-1], lengths)
        return _keys_of(ends.astype(np.uint32), text[places])

    def __repr__(self) -> str:
        return f"<{len(self)} keys>"


def _keys_of(starts: np.ndarray, text: np.ndarray) -> Keys:
    return Keys(_C.KeyTable(starts, text))


def keys_of_labels(labels: LabelFile) -> tuple[Keys, np.ndarray | None]:
    """The keys of a label file in order, over its map, and the number of each image's labels (N,).

    The numbers are None where they are 0, 1, 2, ...: everywhere but in sets whose shards overlap. Raises
    ValueError for sets whose keys have more than 4 GiB.
    """
    parts = labels.key_arrays()
    if len(parts) == 1:
        return _keys_of(*parts[0]), None
    if (total := sum(len(text) for _, text in parts)) > MAX_KEY_BYTES:
        expected = f"at most {MAX_KEY_BYTES}; train on groups of shards, as docs/scale.md says"
        refuse("labels", "bytes of all keys", total, expected, labels.path)
    tables = [_keys_of(*part) for part in parts]
    ends = [(keys[0].encode(), keys[-1].encode()) for keys in tables if len(keys)]
    if all(before[1] < after[0] for before, after in pairwise(ends)):
        sizes = np.cumsum([0, *(len(text) for _, text in parts)])
        starts = [part[:-1].astype(np.int64) + base for (part, _), base in zip(parts, sizes)]
        starts = np.concatenate([*starts, sizes[-1:]]).astype(np.uint32)
        return _keys_of(starts, np.concatenate([text for _, text in parts])), None
    return Keys.sort((key for keys in tables for key in keys), labels.path)
