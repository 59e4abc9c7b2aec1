"""Which classes there are and what their numbers are: one rule for every store and every program.

The classes of a folder are its sorted subfolders, those without an image too; hidden ones (`.name`) and those
that systems leave behind (`lost+found`, `@eaDir`, `__MACOSX`, `$RECYCLE.BIN`, ...) never count. Where the
names are the numbers 0 ... C-1, they stand in the order of numbers: class k is output k of a model. So do
names of one word and padded numbers, as far as their width goes (new000 ... new10449). A file of class names,
in order, replaces the rule; so do the names in a label file.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fkdx.stores.imagenet import SYNSET, synsets_of
from fkdx.stores.store import Store, hidden


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, sorted as text; the numbers 0 ... C-1 in their own order, padded behind a word too.

    >>> in_order(["10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"])[-1]
    '10'
    >>> in_order(["new100", "new11", *(f"new{number:02d}" for number in range(100) if number != 11)])[11:13]
    ['new11', 'new12']
    """
    names = set(names)
    numbers = [str(number) for number in range(len(names))]
    if names.issuperset(numbers):
        return numbers
    padded = any(re.search(r"(^|\D)0\d+$", name) for name in names)
    return (padded and _counted(names)) or sorted(names)


def _counted(names: Iterable[str]) -> list[str] | None:
    """Names of one word and the numbers 0 ... C-1, in the order of numbers; None for others."""
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if not all(parts) or len({part[1] for part in parts}) > 1:
        return None
    number_of = {part[0]: int(part[2]) for part in parts}
    ordered = sorted(number_of, key=number_of.__getitem__)
    return ordered if [number_of[name] for name in ordered] == list(range(len(parts))) else None


def class_folders(root: str) -> list[str]:
    """The class folders of an image folder, in order. No image is looked for."""
    with os.scandir(root) as entries:
        return in_order(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))


def class_numbers(store: Store, names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """The class names in order and the class (N,) int32 of every image, -1 where it has none.

    Args:
        names: all classes in order, of a label file or a file of class names; default: the store's own order.

    Raises ValueError where an image's class is not among `names`, naming the image.
    """
    if names is None or list(names) == store.class_names:
        return list(store.class_names), store.class_of
    check_unique(names, "class names")
    numbers = numbers_among(store.class_names, names)
    class_of = np.append(numbers, np.int32(-1))[store.class_of]  # -1 stays -1
    strange = np.flatnonzero((class_of < 0) & (store.class_of >= 0))
    if len(strange):
        image, count = int(strange[0]), len(np.unique(store.class_of[strange]))
        told = "; they are numbers: say whose with --classes" if all_numbers(store.class_names) else ""
        raise ValueError(
            f"classes: {count} classes of images are not among the {len(names)} expected, for example "
            f"'{store.class_names[store.class_of[image]]}' of {store.keys[image]}; expected names such as "
            f"'{names[0]}'{told}, {store.path}"
        )
    return list(names), class_of


def check_same_order(store: Store, labels: str) -> None:
    """Raises ValueError unless the classes of a store are sure to be counted as by labels that name none."""
    if follows_folders(store):
        return
    names = store.class_names
    got = f"such as {', '.join(names[:3])}"
    if store.numbered and all_numbers(names):
        got = f"numbers without names, such as {names[0]}"
    raise ValueError(
        f"classes: labels that name no classes count sorted folders, but the images' classes are {got}; say "
        "what their numbers mean with --classes FILE, the names in order (`open_store(..., classes)`), or "
        f"that they are those of the labels with --classes labels, {store.path}, {labels}"
    )


def follows_folders(store: Store) -> bool:
    """Whether the classes of a store stand in the order of sorted folders for sure, or somebody gave them."""
    unnamed = store.numbered and all_numbers(store.class_names)
    return store.told or (not unnamed and are_sorted(store.class_names))


def are_sorted(names: Sequence[str]) -> bool:
    """Whether class names, or their synsets, are sorted as text, as folders are; or only count classes."""
    ordered = (list(known) == sorted(known) for known in (names, synsets_of(names)))
    return any(ordered) or are_placeholders(names)


def numbers_among(found: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """(n,) int32 place among `names` of every class name found in a store, -1 where it has none there.

    Names join as they are; those that are left by ImageNet's synsets ("tench, Tinca tinca" is n01440764).
    """
    number_of = {name: number for number, name in enumerate(names)}
    numbers = [number_of.get(name, -1) for name in found]
    if -1 in numbers:
        number_of = {synset: number for number, synset in enumerate(synsets_of(names))}
        synsets = synsets_of(found)
        numbers = [
            number_of.get(synset, -1) if number < 0 else number for synset, number in zip(synsets, numbers)
        ]
    return np.array(numbers, np.int32)


def numbers_as_told(found: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The same for a file of class names that was given for this store: names in it that are all numbers,
    none of which a class is called, are class numbers."""
    if all_numbers(found) and not set(found) & set(names):
        return np.array([int(name) if int(name) < len(names) else -1 for name in found], np.int32)
    return numbers_among(found, names)


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether class names only count: one word and the numbers 0 ... C-1 in order, as in distilled sets.

    Plain numbers count where they are padded with zeros; others may be names.

    >>> are_placeholders(["new000", "new001"]), are_placeholders(["00000", "00001"])
    (True, True)
    >>> are_placeholders(["n01440764", "n01443537"]), are_placeholders(["0", "1"])
    (False, False)
    """
    return len(names) > 1 and names[0] != "0" and _counted(names) == list(names)


def all_numbers(names: Sequence[str]) -> bool:
    return bool(names) and all(name.isdecimal() for name in names)


def check_all_classed(store: Store, class_of: np.ndarray) -> None:
    """Raises ValueError, naming the first, where an image has no class."""
    bare = np.flatnonzero(class_of < 0)
    if len(bare):
        raise ValueError(
            f"classes: {len(bare)} of {len(class_of)} images have no class, expected <class>/<name>, got "
            f"{store.keys[int(bare[0])]}, {store.path}"
        )


def check_unique(names: Sequence[str], what: str, path: str | os.PathLike = "") -> None:
    """Raises ValueError where a class name is there twice."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        where = f", {path}" if path else ""
        raise ValueError(
            f"{what}: got '{repeated[0]}' twice ({len(repeated)} such names), expected each class once{where}"
        )


def read_classes(path: str | os.PathLike) -> list[str]:
    """Class names in order, one a line of a UTF-8 file; of lines such as "n01440764 tench" the synsets.

    Raises ValueError where there are none, or one is there twice.
    """
    names = read_lines(path)
    if not names:
        raise ValueError(f"class names: got an empty file, expected one name a line, {path}")
    if all(SYNSET.match(name) for name in names):
        names = synsets_of(names)
    check_unique(names, "class names", path)
    return names


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 text file that are not empty, without a byte order mark."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"text file: no such file, {path}")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")  # names may have other ends of lines
    except UnicodeDecodeError as error:
        raise ValueError(f"text file: got {error.reason}, expected UTF-8, {path}") from None
    return [line.strip() for line in lines if line.strip()]
