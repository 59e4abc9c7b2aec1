"""Which store a path means."""

import glob
import os

from fkdx.stores.classes import class_folders, read_classes
from fkdx.stores.folder import FileList, ImageFolder
from fkdx.stores.indexed import SUFFIX, indexed, keys_of_folder, open_index
from fkdx.stores.mds import MdsShards
from fkdx.stores.parquet import ParquetFiles, split_files
from fkdx.stores.store import Store
from fkdx.stores.tar import TarShards
from fkdx.stores.zip import ZipFiles

FORMS = """\
DATA, where the images are, is one of
  a folder of images, <class>/<name>.jpg, in whatever depth
  a text file (.txt) with one path a line, relative to its own folder
  a tar file, a folder of tar files, or a pattern, 'train-*.tar': WebDataset shards (.jpg with .cls or .json),
    plain archives, or the official ILSVRC2012_img_train.tar, read in place
  a zip file with stored entries
  a folder of MosaicML shards (index.json)
  a data index (.fkdi), which `fkdx index` writes beside one of these, where it is found by itself
  a parquet file, a pattern, or a folder of them, as Hugging Face keeps images: to label, index and repack
A part of an archive is named behind it: 'archive.zip::ILSVRC/Data/CLS-LOC/train'."""

_PART = "::"


def open_store(
    root: "str | os.PathLike | list | Store", classes: "list[str] | str | os.PathLike | None" = None
) -> Store:
    """The store that `root` means, see FORMS: a folder, a file, a pattern, a list of tar files, or a store.

    Args:
        classes: names of the class numbers of WebDataset, MDS or parquet shards, in order, or a file with one
            a line; elsewhere all class names in order.

    Raises:
        FileNotFoundError: nothing there, or no images in it.
        ValueError: tar files beside class folders; whatever the store refuses.
    """
    if isinstance(root, Store):
        return root
    if isinstance(classes, str | os.PathLike):
        classes = read_classes(classes)
    if isinstance(root, list | tuple):
        return _open_files(list(map(os.fspath, root)), "", classes)
    path, _, part = os.fspath(root).partition(_PART)
    if os.path.isdir(path):
        return _open_folder(path, part, classes)
    if path.endswith(SUFFIX):
        return open_index(path, classes)
    if path.endswith(".txt"):
        return FileList.read(path, classes)
    paths = [path] if os.path.exists(path) else sorted(glob.glob(path))
    if not paths:
        raise FileNotFoundError(f"open_store: no such folder, file or pattern, {path}")
    return _open_files(paths, part, classes)


def _open_files(paths: list[str], part: str, classes: list[str] | None) -> Store:
    suffixes = {os.path.splitext(path)[1].lower() for path in paths}
    if suffixes == {".parquet"}:
        return ParquetFiles(paths, classes)
    if suffixes == {".zip"}:
        return indexed(lambda: ZipFiles(paths, part, classes), paths, part, classes)
    if suffixes & {".parquet", ".zip"}:
        raise ValueError(
            f"open_store: files, got {', '.join(sorted(suffixes))} together, expected one kind, {paths[0]}"
        )
    return indexed(lambda: TarShards(paths, part, classes), paths, part, classes)


def _open_folder(path: str, part: str, classes: list[str] | None) -> Store:
    if os.path.exists(os.path.join(path, "index.json")):
        return indexed(lambda: MdsShards(path, part, classes), [path], part, classes)
    shards = sorted(glob.glob(os.path.join(glob.escape(path), "*.tar")))
    folders = class_folders(path)
    if shards and folders:
        raise ValueError(
            f"open_store: images, got {len(shards)} tar files ({os.path.basename(shards[0])}, ...) beside "
            f"{len(folders)} folders ('{folders[0]}', ...), expected one or the other; give "
            f"'{path}/*.tar', or move the tar files elsewhere, {path}"
        )
    if shards:
        return _open_files(shards, part, classes)
    parquet = split_files(path)
    return ParquetFiles(parquet, classes) if parquet else ImageFolder(path, classes, keys_of_folder)
