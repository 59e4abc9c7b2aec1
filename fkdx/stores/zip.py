"""Images inside zip files, read in place; only stored entries can be."""

import os
import struct
import zipfile
from collections.abc import Iterator

from fkdx.stores.shards import Entry, Shards, shard_files
from fkdx.stores.store import is_image

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # magic, lengths of the name and of the extra field
_ENCRYPTED = 1


class ZipFiles(Shards):
    """Zip files whose entries are images, stored without compression; a name is the key."""

    def __init__(
        self, paths: list[str | os.PathLike], part: str = "", classes: list[str] | None = None
    ) -> None:
        paths = list(shard_files(paths))
        path = paths[0] if len(paths) == 1 else os.path.dirname(paths[0]) or "."
        super().__init__(path, paths, _scan, part, classes)


def _scan(path: str) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            for info in archive.infolist():
                if not info.is_dir() and is_image(info.filename):
                    yield _entry(info, file, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"ZipFiles: not a whole zip file ({error}); copy it again, {path}") from error


def _entry(info: zipfile.ZipInfo, file, path: str) -> Entry:
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(
            f"ZipFiles: {info.filename}, got an encrypted entry, expected a plain one; unpack it, {path}"
        )
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(
            f"ZipFiles: {info.filename}, got a compressed entry, expected a stored one; `fkdx repack` copies "
            f"the images into tar shards, {path}"
        )
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise ValueError(
            f"ZipFiles: {info.filename}, got no header at its place; copy the file again, {path}"
        )
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    offset = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if offset + info.file_size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"ZipFiles: {info.filename} ends behind the file; copy the file again, {path}")
    return Entry(info.filename, offset, info.file_size)
