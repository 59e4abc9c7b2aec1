"""Images inside tar files, read in place: plain archives, WebDataset shards, tar files inside a tar file."""

import json
import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from fkdx.stores.shards import Entry, Shards, shard_files
from fkdx.stores.store import is_image

_LARGEST_NOTE = 1 << 20  # bytes of a .cls or .json member


class TarShards(Shards):
    """Tar files whose members are images.

    WebDataset: `x.cls` holds the class of `x.jpg`, a number or a name; `x.json` its `filename`, which then is
    the key, and its `label`. Without them a member's name is the key, and its first folder its class.

    The official ImageNet archive is a tar file of one tar file a class: `n01440764.tar` inside it is the
    folder `n01440764/`, and its images are read where they lie.
    """

    def __init__(
        self, shards: list[str | os.PathLike], part: str = "", classes: list[str] | None = None
    ) -> None:
        paths = list(shard_files(shards))
        if not paths:
            raise FileNotFoundError("TarShards: got no files, expected tar files")
        path = paths[0] if len(paths) == 1 else os.path.dirname(paths[0]) or "."
        super().__init__(path, paths, _scan, part, classes)


def _scan(shard: str) -> Iterator[Entry]:
    """The images of one shard."""
    with open(shard, "rb") as file:
        yield from _scan_file(file, 0, "", shard)


def _scan_file(file: BinaryIO, base: int, folder: str, shard: str) -> Iterator[Entry]:
    """The images of a tar file that begins at `base` of the shard; their names begin with `folder`."""
    images: dict[str, list[Entry]] = {}  # by stem
    notes: dict[str, tuple[str | None, int | str | None]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # kept by tarfile for ever otherwise
                if not member.isfile():
                    continue
                if member.issparse():
                    raise tarfile.ReadError(f"sparse member {member.name}, expected plain ones")
                name = member.name.removeprefix("./")
                stem, suffix = os.path.splitext(name)
                if is_image(name):
                    entry = Entry(folder + name, base + member.offset_data, member.size)
                    images.setdefault(stem, []).append(entry)
                elif suffix in (".cls", ".json"):
                    text = tar.extractfile(member).read(_LARGEST_NOTE)
                    key, label = notes.get(stem, (None, None))
                    if suffix == ".cls":
                        label = _class_note(text, name, shard)
                    else:
                        key, said = _json_note(text, name, shard)
                        label = said if label is None else label
                    notes[stem] = key, label
                elif suffix == ".tar" and not folder:
                    inner = tar.extractfile(member)
                    yield from _scan_file(inner, member.offset_data, f"{stem}/", shard)
            _check_end(tar)
    except (tarfile.TarError, EOFError) as error:
        where = f"'{folder.rstrip('/')}.tar' inside {shard}" if folder else shard
        raise ValueError(
            f"TarShards: not a whole tar file ({error}), expected one that ends with zeros; copy it again, "
            f"{where}"
        ) from error
    for stem, entries in images.items():
        for entry in entries:
            key, entry.label = notes.get(stem, (None, None))
            entry.key = key if len(entries) == 1 else None
            yield entry


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a broken header for the end of the archive; a whole archive ends with zeros."""
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"broken header at offset {tar.offset}")


def _class_note(text: bytes, name: str, shard: str) -> int | str:
    """What a .cls member says: a number, or else a name."""
    word = text.decode("utf-8", "replace").strip()
    if not word:
        raise ValueError(f"TarShards: {name}, got nothing, expected a class number, {shard}")
    return int(word) if word.lstrip("-").isdecimal() else word


def _json_note(text: bytes, name: str, shard: str) -> tuple[str | None, int | None]:
    """The file's name and the class number that a .json member says, where it does."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TarShards: {name}, expected JSON ({error}), {shard}") from None
    if not isinstance(said, dict):
        return None, None
    key, label = said.get("filename"), said.get("label")
    plain = isinstance(label, int) and not isinstance(label, bool)
    return key if isinstance(key, str) and is_image(key) else None, label if plain else None
