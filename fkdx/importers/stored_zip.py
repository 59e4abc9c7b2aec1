"""The zip files that `torch.save` writes: entries stored without compression, nothing else.

A general zip reader accepts far more than these files need (compression, duplicate names, overlapping
entries, headers that contradict each other). Everything beyond what `torch.save` writes is refused here.
"""

import struct
import zlib
from functools import partial

from fkdx._C import FormatError
from fkdx.errors import refuse

_refuse = partial(refuse, "read_stored_zip", "file", error=FormatError)

Buffer = bytes | memoryview

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_MAX_ENTRIES = 4096
_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8


def read_stored_zip(data: Buffer, path: str, check_crc: bool = True) -> dict[str, memoryview]:
    """Entries of a stored-only zip as {name: bytes}, views into `data`.

    Raises FormatError if the file is truncated or damaged, if an entry is compressed, encrypted, duplicated
    or overlaps another, if a name is unsafe, or if the two headers of an entry disagree.
    """
    view = memoryview(data)
    try:
        return _entries(view, path, check_crc)
    except (struct.error, UnicodeDecodeError) as error:
        _refuse(f"damaged header ({error})", "a whole zip file", path)


def _entries(view: memoryview, path: str, check_crc: bool) -> dict[str, memoryview]:
    count, start, end = _central_directory(view, path)
    entries: dict[str, memoryview] = {}
    position, floor = start, 0
    for _ in range(count):
        header = _CENTRAL.unpack_from(view, position)
        signature, _, _, flags, method, _, _, crc, packed, size, name_len, extra_len, note_len, *_, offset = (
            header
        )
        name = bytes(view[position + 46 : position + 46 + name_len])
        position += 46 + name_len + extra_len + note_len
        if signature != b"PK\1\2" or position > end:
            _refuse("a broken central directory", "a whole zip file", path)
        if method or packed != size or flags & _ENCRYPTED:
            _refuse("a compressed or encrypted entry", "stored entries only", path)
        body = _local_body(view, offset, (flags, crc, size, name), path)
        if offset < floor or body + size > start:
            _refuse("overlapping entries", "entries one after the other", path)
        floor = body + size
        if check_crc and zlib.crc32(view[body:floor]) != crc:
            _refuse(f"a wrong checksum in entry {name!r}", "an undamaged file", path)
        text = _safe_name(name, path)
        if text in entries:
            _refuse(f"entry {text!r} twice", "every name once", path)
        entries[text] = view[body:floor]
    if position != end:
        _refuse("bytes after the central directory", "a zip file and nothing else", path)
    return entries


def _central_directory(view: memoryview, path: str) -> tuple[int, int, int]:
    """(entries, first byte, byte after the last) of the central directory."""
    at = len(view) - _END.size
    if at < 0 or bytes(view[at : at + 4]) != b"PK\5\6":
        _refuse("no end record", "a whole zip file (this one may be truncated)", path)
    _, disk, first_disk, here, count, size, start, note = _END.unpack_from(view, at)
    end = start + size
    if disk or first_disk or note or here != count or count > _MAX_ENTRIES or end > at:
        _refuse("an end record that does not fit the file", "a whole zip file", path)
    if end == at:
        return count, start, end
    if end + _END64.size + _LOCATOR64.size != at:
        _refuse("bytes between the central directory and the end record", "a zip file and nothing else", path)
    long = _END64.unpack_from(view, end)
    locator = _LOCATOR64.unpack_from(view, end + _END64.size)
    if long[0] != b"PK\6\6" or long[6:] != (count, count, size, start) or locator[:3] != (b"PK\6\7", 0, end):
        _refuse("two end records that disagree", "one central directory", path)
    return count, start, end


def _local_body(view: memoryview, offset: int, central: tuple[int, int, int, bytes], path: str) -> int:
    """First byte of an entry's data; the local header must say what the central one says."""
    flags, crc, size, name = central
    header = _LOCAL.unpack_from(view, offset)
    signature, _, local_flags, method, _, _, local_crc, local_packed, local_size, name_len, extra_len = header
    body = offset + _LOCAL.size + name_len + extra_len
    local = (local_crc, local_packed, local_size)
    agrees = local == (crc, size, size) or (flags & _SIZES_FOLLOW and local == (0, 0, 0))
    local_name = view[offset + _LOCAL.size : offset + _LOCAL.size + name_len]
    if signature != b"PK\3\4" or method or local_flags != flags or local_name != name or not agrees:
        _refuse(f"two headers of entry {name!r} that disagree", "equal headers", path)
    return body


def _safe_name(name: bytes, path: str) -> str:
    text = name.decode("utf-8")
    parts = text.split("/")
    if "" in parts or ".." in parts or "\\" in text or not text.isprintable():
        _refuse(f"entry name {text!r}", "a relative name", path)
    return text
