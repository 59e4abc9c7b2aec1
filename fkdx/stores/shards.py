"""Images that are parts of larger files, found by scanning these: what tar, zip and MDS have in common."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx.stores.classes import in_order, numbers_as_told
from fkdx.stores.imagenet import SYNSET
from fkdx.stores.keys import Keys
from fkdx.stores.store import Place, Stamp, Store, changed, folder_of, is_apple_double, stamp_of


@dataclass(slots=True)
class Entry:
    """One image in a shard.

    Attributes:
        name: as the shard names it.
        offset, length: of its bytes in the shard.
        key: what the shard says its file was called (`filename`); default: its name.
        label: its class, as a number or a name, where the shard says it; otherwise its first folder is it.
        text: what the shard says instead of a class number.
    """

    name: str
    offset: int
    length: int
    key: str | None = None
    label: int | str | None = None
    text: str | None = None


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
        said: list[str] | None = None,
    ) -> None:
        self.path, self.shards, self._said = path, list(shards), said
        self._stamps: list[Stamp] = []
        entries: list[Entry] = []
        ends = [0]
        with tqdm(self.shards, unit="shard", desc="reading shards", delay=2, disable=None) as bar:
            for shard in bar:
                self._stamps.append(stamp_of(shard))
                entries += [entry for entry in scan(shard) if not is_apple_double(entry.name)]
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
        entries = [entries[i] for i in order.tolist()]
        self.offsets = np.array([entry.offset for entry in entries], np.int64)
        self.lengths = np.array([entry.length for entry in entries], np.int64)
        self._keep(entries)
        labels = [entry.label for entry in entries]
        self.numbered = any(isinstance(label, int) for label in labels)
        self.class_names, self.class_of = number_labels(labels, self.keys, classes, self.path, self._said)

    def _keep(self, entries: list[Entry]) -> None:
        """For a store that needs more of its entries, in the order of keys, than where they lie."""

    def _say_what_labels_are(self, kind: str | None) -> None:
        """A warning where images have no class, and labels are of a kind that none can be read from."""
        bare = int((self.class_of < 0).sum())
        if kind and bare:
            self.complaint = (
                f"{bare} of {len(self)} images have no class: the labels are {kind}, expected whole numbers "
                f"or text; write them again, or give the classes in a file, DATA@FILE, {self.path}"
            )

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

    def check_unchanged(self) -> None:
        for path, stamp in zip(self.shards, self._stamps):
            if stamp_of(path) != stamp:
                raise changed(path)

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
    labels: Sequence[int | str | None],
    keys: Keys,
    classes: list[str] | None,
    path: str,
    said: list[str] | None = None,
) -> tuple[list[str], np.ndarray]:
    """The class names in order and the class (N,) int32 of every image, from what shards say of them.

    Args:
        labels: a class number or name of every image; None: the first folder of its key is its class.
        classes: all class names in order, given for this store.
        said: names of the class numbers, from the store itself.
    """
    numbered = [isinstance(label, int) for label in labels]
    if not any(numbered):
        return _number_names(labels, keys, classes, path)
    if not all(numbered):
        odd = next(i for i, label in enumerate(labels) if not isinstance(label, int))
        raise ValueError(
            f"classes: got {labels[odd]!r} of {keys[odd]}, expected a number as others have, {path}"
        )
    names = classes or said
    most = 2**24 - 1 if names is None else len(names) - 1
    beyond = next((i for i, label in enumerate(labels) if not 0 <= label <= most), None)
    if beyond is not None:
        raise ValueError(
            f"classes: number, got {labels[beyond]} of {keys[beyond]}, expected 0 to {most}, {path}"
        )
    class_of = np.array(labels, np.int64)
    return classes or _names_of_numbers(class_of, keys, said), class_of.astype(np.int32)


def _number_names(
    labels: Sequence[str | None], keys: Keys, classes: list[str] | None, path: str
) -> tuple[list[str], np.ndarray]:
    texts = [label if label is not None else folder_of(key) for label, key in zip(labels, keys)]
    found = in_order(filter(None, texts))
    numbers = np.arange(len(found)) if classes is None else numbers_as_told(found, classes)
    number_of = dict(zip(found, numbers.tolist()))
    class_of = np.array([number_of[text] if text else -1 for text in texts], np.int32)
    strange = next((i for i, text in enumerate(texts) if text and class_of[i] < 0), None)
    if strange is not None:
        raise ValueError(
            f"classes: got '{texts[strange]}' of {keys[strange]}, expected one of {len(classes)} names such "
            f"as '{classes[0]}', {path}"
        )
    return found if classes is None else classes, class_of


def _names_of_numbers(class_of: np.ndarray, keys: Keys, said: list[str] | None) -> list[str]:
    """What class numbers mean: the folders of the canonical keys, if each number has one folder and each
    folder one number; of a store that names its numbers only synsets; or else those names, or the numbers."""
    plain = said or [str(number) for number in range(int(class_of.max()) + 1)]
    folders: dict[int, str] = {}
    for number, key in zip(class_of.tolist(), keys):
        folder = _C.canonical_key(key).rpartition("/")[0]
        strange = said is not None and not SYNSET.fullmatch(folder)
        if strange or not folder or folders.setdefault(number, folder) != folder:
            return plain
    if len(set(folders.values())) < len(folders):
        return plain
    return [folders.get(number, name) for number, name in enumerate(plain)]


def shard_files(paths: Iterable[str | os.PathLike]) -> Iterator[str]:
    """The paths as str. FileNotFoundError where one is no file."""
    for path in map(os.fspath, paths):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"open_store: no such file, {path}")
        yield path
