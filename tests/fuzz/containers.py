"""Throws damaged data indexes, tar files, zip files and MDS shards at their readers.

    python tests/fuzz/containers.py SEED FIRST SECONDS

A reader has to give images that lie inside the file, or one of its documented errors, before long. The
CRCs of most damaged indexes are made right again, so that what lies behind them is reached.
"""

import gzip
import io
import json
import os
import random
import shutil
import struct
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from trust.inputs import damage, try_inputs

from fkdx import _C
from fkdx.stores import DataIndex, open_store, write_store_index
from fkdx.stores.index import PREAMBLE, SECTION

FOLDER = Path(
    tempfile.mkdtemp(prefix="fkdx-containers-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
)
LONGEST = 20.0  # seconds of this process: sixteen million class numbers are allowed
IMAGES = {f"{name}/{i}.jpg": bytes([65 + i]) * (20 + i) for name in ("ant", "bee") for i in range(3)}


def tar_bytes(form: int = tarfile.PAX_FORMAT, members: dict[str, bytes] = IMAGES) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def web_dataset() -> bytes:
    members = {}
    for i, data in enumerate(IMAGES.values()):
        members |= {f"{i:04}.jpg": data, f"{i:04}.cls": str(i % 2).encode()}
        members[f"{i:04}.json"] = json.dumps({"filename": f"n{i}.jpg", "label": i % 2}).encode()
    return tar_bytes(members=members)


def zip_bytes(method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in IMAGES.items():
            archive.writestr(name, data)
    return file.getvalue()


def mds_shard() -> bytes:
    """The shard that MDS_INDEX is of: an image of any length, an eight-byte class."""
    samples = [
        struct.pack("<I", len(data)) + data + struct.pack("<q", i % 2)
        for i, data in enumerate(IMAGES.values())
    ]
    starts = [4 + 4 * (len(samples) + 1)]
    for sample in samples:
        starts.append(starts[-1] + len(sample))
    return struct.pack(f"<I{len(starts)}I", len(samples), *starts) + b"".join(samples)


MDS_INDEX = {
    "version": 2,
    "shards": [
        {
            "format": "mds",
            "column_names": ["image", "label"],
            "column_encodings": ["jpeg", "int64"],
            "column_sizes": [None, 8],
            "samples": len(IMAGES),
            "compression": None,
            "raw_data": {"basename": "shard.00000.mds", "bytes": len(mds_shard())},
        }
    ],
}


@cache
def index_bytes() -> bytes:
    """A data index of a tar file, which lies beside it."""
    (FOLDER / "indexed.tar").write_bytes(tar_bytes())
    write_store_index(open_store(FOLDER / "indexed.tar"), str(FOLDER / "seed.fkdi"), pixels=False)
    return (FOLDER / "seed.fkdi").read_bytes()


def sealed(data: bytes) -> bytes:
    """The index with its length and all CRCs made right, where its tables can be found."""
    out = bytearray(data)
    if len(out) < PREAMBLE.size:
        return data
    magic, major, minor, sections, images, *_ = PREAMBLE.unpack(out[: PREAMBLE.size])
    table_end = PREAMBLE.size + sections * SECTION.size
    for at in range(PREAMBLE.size, min(table_end, len(out) - SECTION.size + 1), SECTION.size):
        name, offset, length, _, flags = SECTION.unpack(out[at : at + SECTION.size])
        part = bytes(out[offset : offset + length]) if length <= len(out) else b""
        out[at : at + SECTION.size] = SECTION.pack(name, offset, length, _C.crc32c(part), flags)
    table = _C.crc32c(bytes(out[PREAMBLE.size : table_end]))
    head = PREAMBLE.pack(magic, major, minor, sections, images, len(out), table, 0)
    out[: PREAMBLE.size] = head[:60] + struct.pack("<I", _C.crc32c(head[:60]))
    return bytes(out)


def check_store(path: Path) -> None:
    """Opens a store and asks it for everything; an image must lie inside its file, or unpack to its size."""
    store = open_store(path)
    names = store.class_names
    for i, key in enumerate(store.keys):
        if store.sequential:
            with suppress(ValueError):
                found, expected = len(store.encoded(i)), store.sizes()[i]
                assert found == expected, f"{key} has {found} bytes, not {expected}"
        else:
            shard, offset, length = store.place(i)
            size = os.path.getsize(shard)
            assert 0 <= offset <= size, f"{key} lies at {offset} of {size} bytes"
            assert length == -1 or 0 <= length <= size - offset, (
                f"{key} has {length} of {size - offset} bytes"
            )
        assert -1 <= store.class_of[i] < len(names), f"{key} is of class {store.class_of[i]} of {len(names)}"


def check_index(path: Path) -> None:
    DataIndex(path).verify()
    check_store(path)


def try_index(random: random.Random) -> Callable[[], None]:
    data = damage(index_bytes(), random, [index_bytes()])
    if random.random() < 0.9:
        data = sealed(data)
    (FOLDER / "x.fkdi").write_bytes(data)
    return lambda: check_index(FOLDER / "x.fkdi")


def try_file(name: str, seeds: Callable[[], list[bytes]]) -> Callable:
    def make(random: random.Random) -> Callable[[], None]:
        path = FOLDER / name
        path.write_bytes(damage(random.choice(seeds()), random, seeds()))
        return lambda: check_store(path)

    return make


def try_mds(random: random.Random) -> Callable[[], None]:
    """A plain shard or a compressed one; it or the index is damaged."""
    packed = random.random() < 0.5
    folder = FOLDER / ("packed" if packed else "mds")
    folder.mkdir(exist_ok=True)
    shard, index = mds_shard(), json.loads(json.dumps(MDS_INDEX))
    facts, name = index["shards"][0], "shard.00000.mds"
    if packed:
        if random.random() < 0.2:
            shard = damage(shard, random, [shard])
        facts["raw_data"]["bytes"], shard, name = len(shard), gzip.compress(shard), f"{name}.gz"
        facts |= {"compression": "gz", "zip_data": {"basename": name, "bytes": len(shard)}}
    text = json.dumps(index).encode()
    if random.random() < 0.5:
        shard = damage(shard, random, [shard])
        if random.random() < 0.9:
            facts["zip_data" if packed else "raw_data"]["bytes"] = len(shard)
            text = json.dumps(index).encode()
    elif random.random() < 0.5:
        text = damage(text, random, [text])
    else:
        text = json.dumps(reworded(index, random)).encode()
    (folder / name).write_bytes(shard)
    (folder / "index.json").write_bytes(text)
    return lambda: check_store(folder)


def reworded(index: dict, random: random.Random) -> dict:
    """The index with another value in one place."""
    facts = index["shards"][0]
    place = random.choice(
        [index, facts, *(facts[part] for part in ("raw_data", "zip_data") if part in facts)]
    )
    values = (None, -1, 0, 2**40, 1.5, True, "", "../x", [], {}, ["image"], [None, None], [8, None], "mds")
    place[random.choice(list(place))] = random.choice(values)
    return index


@cache
def tars() -> list[bytes]:
    forms = [tar_bytes(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    return [*forms, web_dataset(), tar_bytes(members={"ant.tar": tar_bytes(members={"0.jpg": b"x"})})]


@cache
def zips() -> list[bytes]:
    return [zip_bytes(), zip_bytes(zipfile.ZIP_DEFLATED)]


KINDS = (try_index, try_file("x.tar", tars), try_file("x.zip", zips), try_mds)


def attempt(random: random.Random) -> None:
    check = random.choice(KINDS)(random)
    begun = time.process_time()
    with suppress(ValueError, OSError):  # FormatError is a ValueError
        check()
    assert time.process_time() - begun < LONGEST, "reading took too long"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        try_inputs(attempt)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
