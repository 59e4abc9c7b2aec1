"""Images that are parts of larger files, found by scanning these: what tar, zip and MDS have in common."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx.stores.classes import hidden, in_order
from fkdx.stores.keys import Keys
from fkdx.stores.store import Place, Store, folder_of


@dataclass(slots=True)
class Entry:
    """One image in a shard.

    Attributes:
        name: as the shard names it.
        offset, length: of its bytes in the shard.
        key: what the shard says its file was called (`filename`); default: its name.
        label: its class, as a number or a name, where the shard says it; otherwise its first folder is it.
    """

    name: str
    offset: int
    length: int
    key: str | None = None
    label: int | str | None = None


class Shards(Store):
    """Images inside files, read by offset.

    Attributes:
        shards: the files.
    """

    def __init__(
        self,
        path: str,
        shards: Sequence[str],
        scan: Callable[[str], Iterable[Entry]],
        part: str = "",
        classes: list[str] | None = None,
    ) -> None:
        self.path, self.shards = path, list(shards)
        entries: list[Entry] = []
        ends = [0]
        with tqdm(self.shards, unit="shard", desc="reading shards", delay=2, disable=None) as bar:
            for shard in bar:
                entries += [entry for entry in scan(shard) if not _in_hidden_folder(entry.name)]
                ends.append(len(entries))
        if not entries:
            raise FileNotFoundError(f"open_store: no images in {len(self.shards)} files, {self.path}")
        shard_of = np.repeat(np.arange(len(self.shards), dtype=np.int32), np.diff(ends))
        self._fill(entries, shard_of, part, classes)

    def _fill(self, entries: list[Entry], shard_of: np.ndarray, part: str, classes: list[str] | None) -> None:
        names = [entry.name for entry in entries]
        below = part.strip("/") + "/" if part else common_folders(names)
        if part:
            kept = [i for i, name in enumerate(names) if name.startswith(below)]
            if not kept:
                raise FileNotFoundError(
                    f"open_store: no images below '{part}', got names such as {names[0]}, {self.path}"
                )
            entries, shard_of = [entries[i] for i in kept], shard_of[kept]
        keys = [entry.key or entry.name.removeprefix(below) for entry in entries]
        self.keys, order = self._sorted(keys, shard_of)
        if keys != (names := [entry.name for entry in entries]):
            aliases, at = Keys.sort(names, self.path)
            self.aliases = aliases, np.argsort(order)[at]
        self.shard_of = shard_of[order]
        self.offsets = np.array([entry.offset for entry in entries], np.int64)[order]
        self.lengths = np.array([entry.length for entry in entries], np.int64)[order]
        labels = [entries[i].label for i in order.tolist()]
        self.numbered = any(isinstance(label, int) for label in labels)
        self.class_names, self.class_of = number_labels(labels, self.keys, classes, self.path)

    def _sorted(self, keys: list[str], shard_of: np.ndarray) -> tuple[Keys, np.ndarray]:
        """The keys in order. ValueError, naming both shards, where one is there twice."""
        if len(set(keys)) < len(keys):
            first: dict[str, int] = {}
            for i, key in enumerate(keys):
                if (other := first.setdefault(key, i)) != i:
                    one, two = self.shards[shard_of[other]], self.shards[shard_of[i]]
                    where = f"in two shards, {one} and {two}" if one != two else f"twice in {one}"
                    raise ValueError(f"open_store: image '{key}' is {where}, expected each image once")
        return Keys.sort(keys, self.path)

    def place(self, image: int) -> Place:
        shard = self.shards[self.shard_of[image]]
        return shard, int(self.offsets[image]), int(self.lengths[image])

    @property
    def reading_order(self) -> np.ndarray:
        return np.lexsort((self.offsets, self.shard_of))

    def sizes(self) -> np.ndarray:
        return self.lengths


def common_folders(names: Sequence[str]) -> str:
    """The folders above the class folders that all names lie in, such as `train/` or
    `ILSVRC/Data/CLS-LOC/train/`; empty where there are none."""
    above = [name.split("/")[:-2] for name in names]
    first, last = min(above), max(above)  # what these two share, all do
    shared = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(first, last))]
    return "".join(f"{folder}/" for folder in shared)


def number_labels(
    labels: list[int | str | None], keys: Keys, classes: list[str] | None, path: str
) -> tuple[list[str], np.ndarray]:
    """The class names in order and the class (N,) int32 of every image, from what shards say of them.

    Numbers are class numbers: their names are `classes`, or else the folders of the canonical keys where each
    number has one folder and each folder one number, or else the numbers themselves.
    """
    numbered = [isinstance(label, int) for label in labels]
    if not any(numbered):
        texts = [label if label is not None else folder_of(key) for label, key in zip(labels, keys)]
        names = in_order(filter(None, texts)) if classes is None else classes
        number_of = {name: number for number, name in enumerate(names)}
        strange = next((i for i, text in enumerate(texts) if text and text not in number_of), None)
        if strange is not None:
            raise ValueError(
                f"classes: got '{texts[strange]}' of {keys[strange]}, expected one of "
                f"{len(names)} names, {path}"
            )
        return names, np.array([number_of.get(text, -1) for text in texts], np.int32)
    if not all(numbered):
        odd = next(i for i, label in enumerate(labels) if not isinstance(label, int))
        raise ValueError(
            f"classes: got {labels[odd]!r} of {keys[odd]}, expected a number as others have, {path}"
        )
    most = len(classes) - 1 if classes is not None else 2**24 - 1
    beyond = next((i for i, label in enumerate(labels) if not 0 <= label <= most), None)
    if beyond is not None:
        raise ValueError(
            f"classes: number, got {labels[beyond]} of {keys[beyond]}, expected 0 to {most}, {path}"
        )
    class_of = np.array(labels, np.int64)
    return classes or _names_of_numbers(class_of, keys), class_of.astype(np.int32)


def _names_of_numbers(class_of: np.ndarray, keys: Keys) -> list[str]:
    numbers = [str(number) for number in range(int(class_of.max()) + 1)]
    folders: dict[int, str] = {}
    for number, key in zip(class_of.tolist(), keys):
        folder = _C.canonical_key(key).rpartition("/")[0]
        if not folder or folders.setdefault(number, folder) != folder:
            return numbers
    if len(set(folders.values())) < len(folders):
        return numbers
    return [folders.get(number, name) for number, name in enumerate(numbers)]


def _in_hidden_folder(name: str) -> bool:
    return any(part != "." and part != ".." and hidden(part) for part in name.split("/")[:-1])


def shard_files(paths: Iterable[str | os.PathLike]) -> Iterator[str]:
    """The paths as str. FileNotFoundError where one is no file."""
    for path in map(os.fspath, paths):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"open_store: no such file, {path}")
        yield path
