"""Which store a path means."""

import glob
import os
import re
import warnings
from collections.abc import Sequence

from fkdx.errors import refuse
from fkdx.stores.classes import class_folders, read_classes
from fkdx.stores.folder import ImageFolder
from fkdx.stores.indexed import SUFFIX, indexed, keys_of_folder, listed, open_index
from fkdx.stores.mds import MdsShards, is_mds
from fkdx.stores.names import NamedImages
from fkdx.stores.parquet import ParquetFiles, split_files
from fkdx.stores.store import Store, is_apple_double, is_image
from fkdx.stores.tar import TarShards
from fkdx.stores.zip import ZipFiles

FORMS = """\
DATA, where the images are, is one of
  a folder of images, <class>/<name>.jpg, in whatever depth
  a text file (.txt) with one path a line, relative to its own folder
  a tar file, a folder of tar files, or a pattern, 'train-*.tar' or 'train-{0000..1023}.tar': WebDataset
    shards (.jpg with .cls or .json), plain archives, or the official ILSVRC2012_img_train.tar, read in place
  a zip file, or a folder of them
  a folder of MosaicML shards (index.json)
  a data index (.fkdi), which `fkdx index` writes beside one of these, where it is found by itself
  a parquet file, a pattern, or a folder of them, as Hugging Face keeps images
Parquet files, zip files with deflated entries and compressed MosaicML shards are to label, to evaluate on
and to repack; training needs `fkdx repack` first.
A part of an archive is named behind it: 'archive.zip::ILSVRC/Data/CLS-LOC/train'.
A file with names or classes of the images is named behind all that, 'ILSVRC2012_img_val.tar@synsets.txt'. It
has one line an image, in the order of the images' names, or lines NAME VALUE (Kaggle's LOC_val_solution.csv,
Caffe's val.txt); a value is a key, <class>/<name>.jpg, or a class: a synset, a name or a number. ImageNet's
development kit (.tar.gz), or its ground-truth file beside meta.mat, is one too.
Class numbers mean what --classes FILE says: the class names in order, one a line."""

_PART, _NAMES = "::", "@"
_BRACES = re.compile(r"\{(?:(\d{1,6})\.\.(\d{1,6})|([^{}]*,[^{}]*))\}")


def open_store(
    root: "str | os.PathLike | list | Store", classes: "Sequence[str] | str | os.PathLike | None" = None
) -> Store:
    """The store that `root` means, see FORMS: a folder, a file, a pattern, a list of tar files, or a store.

    Args:
        classes: all class names in order, or a file with one a line. Class numbers of WebDataset, MDS or
            parquet shards, and folders that are called 0, 1, 2, ..., are numbers of these.

    Raises:
        FileNotFoundError: nothing there, or no images in it.
        ValueError: tar files beside class folders, a class that is not among `classes`, classes for a store
            that is open; whatever the store refuses.
    """
    if isinstance(root, Store):
        if classes is not None:
            refuse("open_store", "classes", "names for a store", "them where that was opened", root.path)
        return root
    if isinstance(classes, str | os.PathLike):
        classes = read_classes(classes)
    elif classes is not None:
        classes = list(classes)
    if isinstance(root, list | tuple):
        store = _open_files(list(map(os.fspath, root)), "", classes)
    else:
        store = _open_path(os.fspath(root), classes)
    store.told = classes is not None
    if store.complaint:
        warnings.warn(store.complaint, stacklevel=2)
    return store


def split_names(root: str) -> tuple[str, str | None]:
    """`DATA@FILE` in two; FILE is None where none is named: an `@` may also be part of a path."""
    if _PART not in root and (os.path.exists(root) or glob.glob(root)):
        return root, None
    ends = [at for at, letter in enumerate(root) if letter == _NAMES and at and _PART not in root[at:]]
    files = [at for at in ends if os.path.isfile(root[at + 1 :])]
    at = (files or ends[-1:] or [len(root)])[0]
    return root[:at], root[at + 1 :] or None


def _open_path(path: str, classes: list[str] | None) -> Store:
    data, names = split_names(path)
    if names is None:
        return _open_data(data, classes)
    if not os.path.isfile(names):
        raise FileNotFoundError(f"open_store: no such file of names or classes, {names}")
    return NamedImages(_open_data(data, None), names, classes)


def _open_data(data: str, classes: list[str] | None) -> Store:
    path, _, part = data.partition(_PART)
    if os.path.isdir(path):
        return _open_folder(path, part, classes)
    if path.endswith(SUFFIX):
        return open_index(path, classes)
    if path.lower().endswith(".txt"):
        return listed(path, classes)
    paths = [path] if os.path.exists(path) else _matching(path)
    if not paths:
        raise FileNotFoundError(f"open_store: no such folder, file or pattern, {path}")
    return _open_files(paths, part, classes)


def _matching(pattern: str) -> list[str]:
    """The files that a pattern means; those named by braces, `train-{0000..1023}.tar`, have to be there."""
    expanded = list(dict.fromkeys(_expanded(pattern)))
    if len(expanded) == 1:
        return sorted(glob.glob(expanded[0]))
    return [path for name in expanded for path in sorted(glob.glob(name)) or [name]]


def _expanded(pattern: str) -> list[str]:
    """A pattern without its braces, as WebDataset and shells expand them: {000..999}, {train,val}."""
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    first, last, words = found.groups()
    if words:
        options = words.split(",")
    else:
        options = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for option in options for path in _expanded(before + option + after)]


def _open_files(paths: list[str], part: str, classes: list[str] | None) -> Store:
    if not paths:
        raise FileNotFoundError("open_store: got an empty list, expected tar, zip or parquet files")
    suffixes = {os.path.splitext(path)[1].lower() for path in paths}
    if suffixes == {".parquet"}:
        return indexed(lambda: ParquetFiles(paths, part, classes), paths, part, classes)
    if suffixes == {".zip"}:
        return indexed(lambda: ZipFiles(paths, part, classes), paths, part, classes)
    if suffixes & {".parquet", ".zip"}:
        raise ValueError(
            f"open_store: files, got {', '.join(sorted(suffixes))} together, expected one kind, {paths[0]}"
        )
    return indexed(lambda: TarShards(paths, part, classes), paths, part, classes)


def _open_folder(path: str, part: str, classes: list[str] | None) -> Store:
    if is_mds(path):
        return indexed(lambda: MdsShards(path, part, classes), [path], part, classes)
    folders = class_folders(path)
    zips = [] if folders else _files_in(path, ".zip")
    for files in (_files_in(path, ".tar"), zips, split_files(path)):
        if files:
            if os.path.samefile(os.path.dirname(files[0]), path):
                _check_alone(files, _others(path, folders), path)
            return _open_files(files, part, classes)
    return ImageFolder(path, classes, keys_of_folder)


def _files_in(folder: str, suffix: str) -> list[str]:
    """Files with this suffix in a folder, in whatever case; not hidden ones."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not (entry.name.startswith(".") or entry.is_dir())]
    return sorted(entry.path for entry in shown if entry.name.lower().endswith(suffix))


def _others(path: str, folders: list[str]) -> str:
    """The class folders of a folder, or images that lie in it without one, in words; empty for neither."""
    if folders:
        return f"{len(folders)} folders ('{folders[0]}', ...)"
    with os.scandir(path) as entries:
        names = (entry.name for entry in entries)
        images = (name for name in names if is_image(name) and not is_apple_double(name))
        return next((f"images ({name}, ...)" for name in images), "")


def _check_alone(files: list[str], others: str, path: str) -> None:
    """Raises ValueError where files that hold images lie beside others that do."""
    suffix = os.path.splitext(files[0])[1]
    if others:
        raise ValueError(
            f"open_store: images, got {len(files)} {suffix[1:]} files ({os.path.basename(files[0])}, ...) "
            f"beside {others}, expected one or the other; give '{path}/*{suffix}', or move the {suffix[1:]} "
            f"files elsewhere, {path}"
        )
