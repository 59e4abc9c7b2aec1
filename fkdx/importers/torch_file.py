"""Files written by `torch.save`, read without torch and without running anything in them."""

import mmap
import os
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers import plain_pickle
from fkdx.importers.known_globals import BFLOAT16, check_booleans
from fkdx.importers.stored_zip import Buffer, read_stored_zip

_refuse = partial(refuse, "read_torch_file", "file", error=FormatError)

MAX_BYTES = 1 << 32

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LEGACY_STORAGES = 256


def read_torch_file(path: str | Path, mapped: bool = False) -> Any:
    """What `torch.save` wrote to `path`, as plain data.

    Reads both containers: the zip file of torch >= 1.6, and the series of pickles before it. Returns None,
    bool, int, float, str, bytes, tuple, list, dict and numpy arrays, as saved; torch tensors become numpy
    arrays, and bfloat16 becomes float32. With `mapped`, tensors in zip files stay on disk until they are
    used, and checksums are not checked. Raises FormatError with the path for anything else (see
    `plain_pickle` and `stored_zip`), OSError if the file cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            _refuse("more than 4 GiB", "a file of one image or one batch", path)
        if mapped and size:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with its last array
            if data[:2] == b"PK":
                return _parse_zip(data, str(path), check_crc=False)
        return parse_torch_file(file.read(), str(path))


def parse_torch_file(data: bytes, path: str) -> Any:
    """Like `read_torch_file`, from the file's bytes; `path` is for messages only."""
    if data[:2] == b"PK":
        return _parse_zip(data, path)
    if data[:1] == b"\x80":
        return _parse_legacy(data, path)
    if data[257:262] == b"ustar":
        _refuse("a real tar archive", "a torch.save file; unpack the archive and give its folder", path)
    _refuse(f"first bytes {bytes(data[:4])!r}", "a torch.save file", path)


def _parse_zip(data: Buffer, path: str, check_crc: bool = True) -> Any:
    entries = read_stored_zip(data, path, check_crc)
    folder = next(iter(entries), "").partition("/")[0] + "/"
    pickled = entries.pop(folder + "data.pkl", None)
    if pickled is None:
        _refuse("no data.pkl", "a torch.save file", path)
    byteorder = entries.get(folder + "byteorder")
    if byteorder is not None and byteorder != b"little":
        _refuse(f"byte order {bytes(byteorder[:8])!r}", "little", path)

    def storage(name: str, dtype: np.dtype, count: int) -> np.ndarray:
        body = entries[f"{folder}data/{name}"]
        return _storage(body, dtype, count)

    value, end = plain_pickle.loads(bytes(pickled), path, storage)
    if end != len(pickled):
        _refuse("bytes after the pickle", "one pickle", path)
    return value


def _parse_legacy(data: bytes, path: str) -> Any:
    """Five pickles (magic, protocol, system, object, storage names), then every storage, its length first."""
    magic, at = plain_pickle.loads(data, path)
    if magic != _LEGACY_MAGIC:
        _refuse("a bare pickle", "a torch.save file", path)
    protocol, at = plain_pickle.loads(data, path, start=at)
    system, at = plain_pickle.loads(data, path, start=at)
    if protocol != _LEGACY_PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
        _refuse("an unknown legacy header", "protocol 1001, little-endian", path)

    # The storages lie behind the object that refers to them: a first pass with zeros finds where they begin.
    storages: dict[str, np.ndarray] = {}

    def zeros(name: str, dtype: np.dtype, count: int) -> np.ndarray:
        if name not in storages:
            room = len(data) - sum(known.nbytes for known in storages.values())
            if not 0 <= count * dtype.itemsize <= room or len(storages) >= _LEGACY_STORAGES:
                raise ValueError("storages larger than the file")
            storages[name] = np.zeros(count, dtype)
        return storages[name]

    _, end = plain_pickle.loads(data, path, zeros, at)
    names, end = plain_pickle.loads(data, path, start=end)
    if type(names) is not list or sorted(storages) != names:
        _refuse("storages that differ from their list", "equal names", path)
    bodies: dict[str, bytes] = {}
    for name in names:
        size = storages[name].nbytes
        bodies[name] = data[end + 8 : end + 8 + size]
        if data[end : end + 8] != struct.pack("<q", storages[name].size) or len(bodies[name]) != size:
            _refuse("a truncated or damaged storage", f"{size} bytes", path)
        end += 8 + size
    if end != len(data):
        _refuse("bytes after the last storage", "a torch.save file and nothing else", path)

    def storage(name: str, dtype: np.dtype, count: int) -> np.ndarray:
        return _storage(bodies[name], dtype, count)

    return plain_pickle.loads(data, path, storage, at)[0]


def _storage(body: Buffer, dtype: np.dtype, count: int) -> np.ndarray:
    if len(body) != count * dtype.itemsize:
        raise ValueError(f"a storage of {len(body)} bytes for {count} elements of {dtype}")
    if dtype == BFLOAT16:
        return (np.frombuffer(body, "<u2").astype("<u4") << 16).view("<f4")
    return check_booleans(np.frombuffer(body, dtype))
