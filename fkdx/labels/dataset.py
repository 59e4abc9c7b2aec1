"""Which data set a label file belongs to: keys and the fingerprint."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

MAX_KEY = 4096
_DIGITS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_MARKS = 4096  # of a size in bytes its last 12 bits are kept, in two digits


def check_key(key: str) -> bytes:
    """The UTF-8 bytes of a key, the path of an image relative to the data set's folder.

    Raises ValueError if the key is empty, longer than 4,096 bytes, absolute or not valid Unicode, or if it
    has a part that is empty, `.` or `..`, a backslash, a control character or a drive letter.
    """
    if not isinstance(key, str):
        raise ValueError(f"key: got {key!r}, expected a text")
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


def same_fingerprint(one: Mapping, other: Mapping) -> bool:
    """Whether two fingerprints are equal; one of them may have `sizes` besides."""
    return all(one.get(name) == other.get(name) for name in ("images", "bytes", "digest"))


def size_marks(sizes: np.ndarray) -> str:
    """The `sizes` of a fingerprint, from the bytes (N,) of the images in the order of their keys.

    By these the few images whose files differ can be named.
    """
    marks = np.asarray(sizes, np.int64) % _MARKS
    return _DIGITS[np.stack([marks >> 6, marks & 63], axis=1)].tobytes().decode()


def differing_sizes(
    dataset: Mapping, sizes: np.ndarray, numbers: np.ndarray | None = None
) -> np.ndarray | None:
    """Which of the sizes in bytes (N,) of images, in the order of keys, are not those of a fingerprint; None
    where it does not say them, or of another number of images.

    numbers: (N,) those of these images among all that the fingerprint is of; None: they are all.
    """
    said, images = str(dataset.get("sizes", "")).encode(), dataset.get("images")
    if len(said) != 2 * (images or 0) or (numbers is None and len(sizes) != images):
        return None
    marks = np.frombuffer(said, np.uint8).reshape(-1, 2)
    if numbers is not None:
        marks = marks[numbers]
    expected = np.frombuffer(size_marks(sizes).encode(), np.uint8).reshape(-1, 2)
    return np.flatnonzero((marks != expected).any(axis=1))
