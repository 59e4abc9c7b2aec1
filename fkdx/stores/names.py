"""A file that says what images are called, or which class they have, where their store does not."""

import csv
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fkdx.errors import refuse
from fkdx.stores.classes import all_numbers, read_lines
from fkdx.stores.imagenet import SYNSET
from fkdx.stores.keys import Keys
from fkdx.stores.selection import Selection
from fkdx.stores.shards import number_labels
from fkdx.stores.store import SUFFIXES, Store, is_image

_WHOLE = re.compile(r"(\d+)(?:\.0+)?")  # pandas writes 1.0 in a column with gaps
_IMAGE_PAIR = re.compile(  # a name with its suffix may have spaces in it
    rf"(.+?(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[\s,]+(\S.*)", re.IGNORECASE
)
_PAIR = re.compile(r"([^\s,]+)[\s,]+(\S.*)")
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"  # of ImageNet's development kit
_NAME_COLUMNS = ("file_name", "filename", "image", "path", "key")
_VALUES = ("label", "class", "target", "synset")  # columns of classes
Names = str | int


class NamedImages(Selection):
    """The images of a store under the names, or with the classes, that a file gives them.

    The file has one line an image, in the order of the images' names in the store, or lines `NAME VALUE` in
    any order, with a space, tab or comma between. A value is a key, such as `n01440764/n01440764_10026.JPEG`;
    or a class: a synset, a name or a number. Kaggle's `LOC_val_solution.csv` and Caffe's `val.txt` are such
    files. ImageNet's `ILSVRC2012_validation_ground_truth.txt` counts classes in an order of its own, which
    `meta.mat` beside it gives; the development kit as it is, a `.tar.gz`, has both.

    Raises ValueError where the file does not fit the store.
    """

    def __init__(self, store: Store, file: str | os.PathLike, classes: list[str] | None = None) -> None:
        self.file = os.fspath(file)
        values = _values(self.file, store.keys)
        if not _are_keys(values, self.file):
            super().__init__(store, store.keys, None)
            self._name(values, classes)
            return
        keys, images = Keys.sort(values, self.file)
        super().__init__(store, keys, images)
        said = None if all_numbers(store.class_names) else store.class_names
        numbers = self.class_of.tolist()
        own = numbers if store.numbered else [store.class_names[n] if n >= 0 else None for n in numbers]
        self._name(own, classes, said)

    def _name(
        self, labels: Sequence[Names | None], classes: list[str] | None, said: list[str] | None = None
    ) -> None:
        self.numbered = any(isinstance(label, int) for label in labels)
        self.class_names, self.class_of = number_labels(labels, self.keys, classes, self.file, said)


def _values(path: str, keys: Keys) -> list[Names]:
    """What the file says of every image, in the order of the store's keys."""
    if path.lower().endswith((".tar.gz", ".tgz")) or os.path.basename(path) == _TRUTH:
        values: list[Names] = read_ground_truth(path)
    else:
        lines = read_lines(path)
        values = _of_pairs(_pairs(lines, path), keys, path) or [_value(line) for line in lines]
    if len(values) != len(keys):
        refuse("names", "lines", len(values), f"{len(keys)}, one an image", path)
    return values


def _pairs(lines: list[str], path: str) -> list[tuple[str, str]]:
    """(name, value) of every line that has two. Tables with a heading, and JSON lines, name their columns:
    Hugging Face's `metadata.csv` and `metadata.jsonl`."""
    if path.lower().endswith(".jsonl"):
        return [_of_row(_json_row(line, path), path) for line in lines]
    rows = list(csv.reader(lines, skipinitialspace=True)) if path.lower().endswith(".csv") else []
    if rows and len(rows[0]) > 2:
        return [_of_row(dict(zip(rows[0], row)), path) for row in rows[1:]]
    if rows and all(len(row) == 2 for row in rows):
        return [(name, value) for name, value in rows]
    pairs = (_IMAGE_PAIR.fullmatch(line) or _PAIR.fullmatch(line) for line in lines)
    return [found.groups() for found in pairs if found]


def _json_row(line: str, path: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        refuse("names", "line", line[:80], "a JSON object", path)
    return row


def _of_row(row: dict[str, Any], path: str) -> tuple[str, str]:
    name, value = (next((row[c] for c in columns if c in row), None) for columns in (_NAME_COLUMNS, _VALUES))
    if name is None or value is None:
        expected = f"one of {', '.join(_NAME_COLUMNS)} and one of {', '.join(_VALUES)}"
        refuse("names", "columns", ", ".join(row), expected, path)
    return str(name), str(value)


def _of_pairs(pairs: list[tuple[str, str]], keys: Keys, path: str) -> list[Names]:
    """The values of the names in the order of the keys; none where no name is an image's. Names may have
    folders before them where the store has none."""
    image_of = _images_by_name(keys)
    flat = not any("/" in key for key in keys)
    values: list[Names | None] = [None] * len(keys)
    for name, value in pairs:
        stem = _without_suffix(name)
        image = image_of.get(stem.rpartition("/")[2] if flat else stem.removeprefix("./"), -1)
        if image < 0:
            continue  # a heading, or an image that is not here
        if values[image] is not None:
            refuse("names", f"lines of {name}", "two", "one", path)
        values[image] = _value(value)
    bare = values.count(None)
    if bare == len(keys) and pairs and all(is_image(name) for name, _ in pairs):
        refuse("names", "name", pairs[0][0], f"one of an image, such as {keys[0]}", path)
    if 0 < bare < len(keys):
        first = keys[values.index(None)]
        refuse("names", f"lines of {first}", f"none ({bare} such images)", "one an image", path)
    return [] if bare else values


def _images_by_name(keys: Keys) -> dict[str, int]:
    """The images by key and by file name, both without suffix; -1 where that is not clear."""
    images: dict[str, int] = {}
    for image, key in enumerate(keys):
        stem = _without_suffix(key)
        for name in {stem, stem.rpartition("/")[2]}:
            images[name] = -1 if name in images else image
    return images


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0] if is_image(name) else name


def _value(text: str) -> Names:
    text = text.strip()
    if whole := _WHOLE.fullmatch(text):
        return int(whole[1])
    found = SYNSET.match(text)
    return found.group() if found and not is_image(text) else text


def _are_keys(values: Sequence[Names], path: str) -> bool:
    keys = [isinstance(value, str) and is_image(value) for value in values]
    if any(keys) and not all(keys):
        odd = values[keys.index(False)]
        refuse("names", "value", f"{odd!r}", "a name of an image, as other lines have", path)
    return all(keys)


# ---- ImageNet's development kit ----------------------------------------------------------------------------


def read_ground_truth(path: str) -> list[Names]:
    """The synset of every validation image, from the ground-truth file or the kit that holds it."""
    truth, meta = _kit(path)
    synset_of = _read_meta(meta, path)
    numbers = [int(line) if line.isdecimal() else -1 for line in truth.decode("ascii", "replace").split()]
    strange = next((number for number in numbers if number not in synset_of), None)
    if strange is not None:
        refuse("names", "number in the ground truth", strange, f"1 to {len(synset_of)}", path)
    return [synset_of[number] for number in numbers]


def _kit(path: str) -> tuple[bytes, bytes]:
    """The bytes of the ground truth and of meta.mat."""
    if os.path.basename(path) == _TRUTH:
        meta = Path(path).with_name(_META)
        if not meta.exists():
            raise ValueError(
                f"names: this file counts classes in an order of its own; put {_META} of the development kit "
                f"beside it, or give a list of synsets or of `NAME SYNSET` instead, {path}"
            )
        return Path(path).read_bytes(), meta.read_bytes()
    found = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if os.path.basename(member.name) in (_TRUTH, _META):
                    found[os.path.basename(member.name)] = tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"names: not a whole archive ({error}), {path}") from None
    if len(found) < 2:
        refuse("names", "archive without", " and ".join({_TRUTH, _META} - set(found)), "both", path)
    return found[_TRUTH], found[_META]


def _read_meta(data: bytes, path: str) -> dict[int, str]:
    """The synset of every number of the kit: the leaves of its tree."""
    try:
        from scipy import io as matlab
    except ModuleNotFoundError:
        raise ValueError(f"names: reading {_META} needs scipy; run: pip install scipy, {path}") from None
    try:
        rows = np.atleast_1d(matlab.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if not int(row["num_children"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"names: {_META} is not the kit's ({error}), {path}") from None
