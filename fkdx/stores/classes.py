"""Which classes there are and what their numbers are: one rule for every store and every program.

The classes of a folder are its sorted subfolders, those without an image too; hidden ones (`.name`) and those
that systems leave behind (`lost+found`, `@eaDir`, `__MACOSX`) never count. Where the names are the numbers
0 ... C-1, they stand in the order of numbers: class k is output k of a model. A file of class names, in
order, replaces the rule; so do the names in a label file.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fkdx.stores.store import Store

_LEFT_BEHIND = frozenset({"lost+found", "@eaDir", "__MACOSX"})


def hidden(name: str) -> bool:
    """Whether a folder of this name is no part of the data."""
    return name.startswith(".") or name in _LEFT_BEHIND


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, sorted as text; the numbers 0 ... C-1 in their own order.

    >>> in_order(["10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"])[-1]
    '10'
    """
    names = set(names)
    numbers = [str(number) for number in range(len(names))]
    return numbers if names.issuperset(numbers) else sorted(names)


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
    number_of = {name: number for number, name in enumerate(names)}
    table = np.array([number_of.get(name, -1) for name in store.class_names] + [-1], np.int32)
    class_of = table[store.class_of]  # -1 stays -1
    strange = np.flatnonzero((class_of < 0) & (store.class_of >= 0))
    if len(strange):
        image, count = int(strange[0]), len(np.unique(store.class_of[strange]))
        raise ValueError(
            f"classes: {count} classes of images are not among the {len(names)} expected, for example "
            f"'{store.class_names[store.class_of[image]]}' of {store.keys[image]}; expected names such as "
            f"'{names[0]}', {store.path}"
        )
    return list(names), class_of


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
    """Class names in order, one a line of a UTF-8 file.

    Raises ValueError where there are none, or one is there twice.
    """
    names = read_lines(path)
    if not names:
        raise ValueError(f"class names: got an empty file, expected one name a line, {path}")
    check_unique(names, "class names", path)
    return names


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 text file that are not empty, without a byte order mark."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"text file: got {error.reason}, expected UTF-8, {path}") from None
    return [line.strip() for line in lines if line.strip()]
