"""Images inside tar files, read in place: plain archives, WebDataset shards, tar files inside a tar file."""

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

from fkdx.errors import refuse
from fkdx.stores.shards import Entry, Shards, shard_files
from fkdx.stores.store import is_image, left_behind


class Note(NamedTuple):
    """What a .cls or .json member says of its image: its key, its class number, or a text instead."""

    key: str | None = None
    label: int | None = None
    text: str | None = None


_LARGEST_NOTE = 1 << 20  # bytes of a .cls or .json member
_NUMBER = re.compile(rb"-?[0-9]+")
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")  # gzip, zstd, bzip2, xz


class TarShards(Shards):
    """Tar files whose members are images.

    WebDataset: `x.cls` holds the class number of `x.jpg`, `x.json` its `filename`, which then is
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
        self._texts: dict[int, str] = {}
        super().__init__(path, paths, _scan, part, classes)
        unread = [image for image in self._texts if self.class_of[image] < 0]
        if unread:
            image, text = unread[0], self._texts[unread[0]]
            self.complaint = (
                f"{len(unread)} of {len(self)} images have no class: the label in .json is no number, and a "
                f"text may be a caption, such as {text!r} of {self.keys[image]}; give their "
                f"classes in a file, DATA@FILE, {self.path}"
            )

    def _keep(self, entries: list[Entry]) -> None:
        self._texts = {i: entry.text for i, entry in enumerate(entries) if entry.text is not None}


def _scan(shard: str) -> Iterator[Entry]:
    """The images of one shard."""
    with open(shard, "rb") as file:
        yield from _scan_file(file, 0, "", shard)


def _scan_file(file: BinaryIO, base: int, folder: str, shard: str) -> Iterator[Entry]:
    """The images of a tar file that begins at `base` of the shard; their names begin with `folder`."""
    images: dict[str, list[Entry]] = {}  # by stem
    notes: dict[str, Note] = {}
    faults: dict[str, ValueError] = {}  # of notes, which matter where there is an image
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # kept by tarfile for ever otherwise
                name = member.name.removeprefix("./")
                stem, suffix = os.path.splitext(name)
                suffix = ".jpg" if is_image(name) else suffix.lower()
                if left_behind(name) or suffix not in (".jpg", *_NOTES, ".tar", ".gz", ".tgz"):
                    continue
                if suffix in (".gz", ".tgz"):
                    _check_not_tar(name, shard)
                    continue
                if member.islnk() or member.issym():
                    images.setdefault(stem, []).append(_linked(member, images, folder, shard))
                elif not member.isfile():
                    continue
                elif member.issparse():
                    expected = "a plain one; make the archive without --sparse"
                    refuse("TarShards", member.name, "a sparse file", expected, shard)
                elif suffix == ".jpg":
                    entry = Entry(folder + name, base + member.offset_data, member.size)
                    images.setdefault(stem, []).append(entry)
                elif suffix in _NOTES:
                    try:
                        note = _NOTES[suffix](_text(tar, member, shard), name, shard)
                        notes[stem] = _agreed(notes.get(stem), note, name, shard)
                    except ValueError as error:
                        faults.setdefault(stem, error)
                elif not folder:
                    inner = tar.extractfile(member)
                    yield from _scan_file(inner, member.offset_data, f"{stem}/", shard)
            _check_end(tar)
    except (tarfile.TarError, EOFError) as error:
        where = f"'{folder.rstrip('/')}.tar' inside {shard}" if folder else shard
        raise ValueError(_fault(file, error, where)) from error
    yield from _noted(images, notes, faults)


def _noted(
    images: dict[str, list[Entry]], notes: dict[str, Note], faults: dict[str, ValueError]
) -> Iterator[Entry]:
    """The images with what the notes of their names say of them: of `1` for `1.jpg`; also for `1.image.jpg`,
    where there are none of `1.image`, as WebDataset understands names. The image is called `1.jpg` then."""
    if not notes and not faults:
        yield from chain.from_iterable(images.values())
        return
    of_sample = Counter(_sample(stem) for stem, entries in images.items() for _ in entries)
    for stem, entries in images.items():
        own = stem in notes or stem in faults
        said, others = (stem, len(entries)) if own else (_sample(stem), of_sample[_sample(stem)])
        if said in faults:
            raise faults[said]
        key, label, text = notes.get(said, Note())
        if said != stem and said in notes:
            key = key or said + os.path.splitext(entries[0].name)[1]
        for entry in entries:
            entry.key, entry.label, entry.text = key if others == 1 else None, label, text
            yield entry


def _sample(stem: str) -> str:
    """A name up to the first dot behind its folders."""
    folders, slash, name = stem.rpartition("/")
    return folders + slash + name.partition(".")[0]


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> bytes:
    if member.size > _LARGEST_NOTE:
        refuse("TarShards", f"bytes of {member.name}", member.size, f"at most {_LARGEST_NOTE}", shard)
    return tar.extractfile(member).read()


def _check_not_tar(name: str, shard: str) -> None:
    if name.lower().endswith((".tar.gz", ".tgz")):
        refuse("TarShards", name, "a compressed tar file", "a plain one inside; unpack it", shard)


def _fault(file: BinaryIO, error: Exception, where: str) -> str:
    """What is wrong with a file that is no whole tar file."""
    file.seek(0)
    head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(_COMPRESSED):
        expected = "a plain one, whose images can be read in place; unpack it (gunzip, zstd -d)"
        return f"TarShards: got a compressed tar file, expected {expected}, {where}"
    try:
        if len(head) == tarfile.BLOCKSIZE:
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return f"TarShards: got no tar file, expected images as `fkdx index --help` lists them, {where}"
    expected = "one that ends with zeros; copy it again"
    return f"TarShards: not a whole tar file ({error}), expected {expected}, {where}"


def _linked(member: tarfile.TarInfo, images: dict[str, list[Entry]], folder: str, shard: str) -> Entry:
    """An image that is a hard link to one before it. ValueError for other links."""
    linked = member.linkname.removeprefix("./")
    known = member.islnk() and is_image(member.name)
    before = images.get(os.path.splitext(linked)[0], ()) if known else ()
    found = next((entry for entry in before if entry.name == folder + linked), None)
    if found is None:
        raise ValueError(
            f"TarShards: {member.name}, got a link to {member.linkname}, expected a file; make the archive "
            f"with tar --dereference --hard-dereference, {shard}"
        )
    return Entry(folder + member.name.removeprefix("./"), found.offset, found.length)


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a broken header, and the end of the file, for the end of the archive; a whole archive
    ends with zeros, and nothing is behind them."""
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if any(block):
        raise tarfile.ReadError(f"broken header at offset {tar.offset}")
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends behind an image")
    at = tar.offset + tarfile.BLOCKSIZE
    while block := tar.fileobj.read(1 << 20):
        if any(block):
            raise tarfile.ReadError(
                f"more data behind the archive's end at offset {at}; is it several in one?"
            )
        at += len(block)


def _agreed(before: Note | None, said: Note, name: str, shard: str) -> Note:
    """What the .cls and the .json of one image say. ValueError where they say two numbers."""
    if before is None:
        return said
    if None not in (before.label, said.label) and before.label != said.label:
        raise ValueError(
            f"TarShards: {name}, got class {said.label}, expected {before.label} as its image has, {shard}"
        )
    return Note(*(old if new is None else new for old, new in zip(before, said)))


def _class_note(text: bytes, name: str, shard: str) -> Note:
    """The class number that a .cls member says."""
    word = text.strip()
    if not _NUMBER.fullmatch(word):
        got = repr(word[:40].decode("utf-8", "backslashreplace")) if word else "nothing"
        raise ValueError(f"TarShards: {name}, got {got}, expected a class number, {shard}")
    return Note(label=int(word))


def _json_note(text: bytes, name: str, shard: str) -> Note:
    """The file's name and the class number that a .json member says, where it does."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TarShards: {name}, expected JSON ({error}), {shard}") from None
    if not isinstance(said, dict):
        return Note()
    key, label = said.get("filename", said.get("file_name")), said.get("label")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    plain = isinstance(label, int) and not isinstance(label, bool)
    named = isinstance(key, str) and is_image(key)
    return Note(
        key.removeprefix("./") if named else None,
        label if plain else None,
        None if plain or label is None else str(label)[:40],
    )


_NOTES = {".cls": _class_note, ".json": _json_note}  # by suffix
