"""Which data set a label file belongs to: keys and the fingerprint."""

import hashlib
from collections.abc import Iterable

MAX_KEY = 4096


def check_key(key: str) -> bytes:
    """The UTF-8 bytes of a key, the path of an image relative to the data set's folder.

    Raises ValueError if the key is empty, longer than 4,096 bytes, absolute or not valid Unicode, or if it
    has a part that is empty, `.` or `..`, a backslash, a control character or a drive letter.
    """
    try:
        data = key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"key: text, got {key!r}, expected valid Unicode ({error.reason})") from None
    if not 1 <= len(data) <= MAX_KEY:
        raise ValueError(f"key: length, got {len(data)} bytes, expected 1 to {MAX_KEY}, {key[:80]!r}")
    if "\\" in key or min(data) < 32 or data[1:2] == b":":
        raise ValueError(
            f"key: characters, got {key!r}, expected no backslash, control character or drive letter"
        )
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(
            f"key: path, got {key!r}, expected a relative path without empty parts, '.' and '..'"
        )
    return data


def fingerprint(files: Iterable[tuple[str, int]]) -> dict[str, int | str]:
    """The fingerprint of a data set from the (key, size in bytes) of its image files, in any order.

    It goes into the header of a label file as `dataset`. Two data sets with equal fingerprints have files of
    the same names and sizes.
    """
    digest = hashlib.blake2b(digest_size=16)
    count = total = 0
    for key, size in sorted((key.encode(), size) for key, size in files):
        digest.update(key + b"\0%d\n" % size)
        count += 1
        total += size
    return {"images": count, "bytes": total, "digest": digest.hexdigest()}
