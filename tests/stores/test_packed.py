"""Images in compressed files, deflated zip entries or MDS shards: whole, or an error with the path."""

import bz2
import gzip
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from loading import Data
from store_writers import PACKED, compress, deflated_zip, mds, mds_by_its_layout, packed_mds

from fkdx import CropLoader, ImageError, ValidationLoader
from fkdx.loader.verify_images import verify_images
from fkdx.stores import open_store, unpack, write_store_index
from fkdx.stores.mds import MdsShards
from fkdx.stores.unpacking import LARGEST_IMAGE

METHODS = ["br", "bz2", "gz", "snappy", "zstd"]


def contents(store: object) -> dict[str, bytes]:
    return {store.keys[i].rpartition("/")[2]: store.encoded(i) for i in store.reading_order.tolist()}


def expected(data: Data) -> dict[str, bytes]:
    return {key.rpartition("/")[2]: (data.root / key).read_bytes() for key in data.keys}


@pytest.mark.parametrize("write", PACKED, ids=lambda write: write.__name__)
def test_same_bytes_but_no_training(data: Data, tmp_path: Path, write: Callable) -> None:
    path = write(data, tmp_path)
    store = open_store(path)
    assert contents(store) == expected(data)
    assert store.sizes().tolist() == [len(store.encoded(i)) for i in range(len(store))]
    with pytest.raises(ValueError, match=rf"compressed archives cannot give; run `fkdx repack {path} -o"):
        CropLoader(path, data.labels, 8, 2, 32)
    with pytest.raises(ValueError, match=r"index: images, got compressed ones, .*`fkdx repack` makes shards"):
        write_store_index(store, str(tmp_path / "x.fkdi"))


# ---- zip ------------------------------------------------------------------------------------------------


def changed_zip(path: Path, at: int, form: str, value: int) -> Path:
    """The same archive; a field of its first directory entry and of that entry's own header is another."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\1\2") + at, value)
    struct.pack_into(form, data, data.index(b"PK\3\4") + at - 2, value)
    path.write_bytes(data)
    return path


def one_image(path: Path, data: bytes = bytes(range(256)) * 40) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", data)
    return path


@pytest.mark.parametrize(
    ("at", "form", "value", "text"),
    [
        (16, "<I", 7, r"CRC, got \d+, expected 7; copy it again, a/1.jpg in .*x.zip"),
        (24, "<I", 5000, r"size, got more, expected 5000 bytes, a/1.jpg in .*x.zip"),
        (24, "<I", 20_000, r"size, got 10240, expected 20000 bytes, a/1.jpg in .*x.zip"),
        (24, "<I", 2**31, r"bytes of a/1.jpg, got 2147483648, expected at most 268435456, .*x.zip"),
        (20, "<I", 2**20, r"a/1.jpg ends behind the file; .*x.zip"),
    ],
)
def test_deflated_entries_that_lie(tmp_path: Path, at: int, form: str, value: int, text: str) -> None:
    path = changed_zip(one_image(tmp_path / "x.zip"), at, form, value)
    with pytest.raises(ValueError, match=text):
        open_store(path).encoded(0)


def test_a_bomb(tmp_path: Path) -> None:
    """Sixteen megabytes that say they are ten bytes: no more than these are unpacked."""
    path = changed_zip(one_image(tmp_path / "x.zip", bytes(2**24)), 24, "<I", 10)
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"size, got more, expected 10 bytes, a/1.jpg in .*x.zip"):
        open_store(path).encoded(0)


def test_damaged_deflated_data(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    """Any damage to any entry is found, by the decompressor or by the CRC."""
    path = deflated_zip(data, tmp_path)
    whole = path.read_bytes()
    for info in zipfile.ZipFile(path).infolist():
        name = info.filename.removeprefix("train/")
        broken = bytearray(whole)
        begin = info.header_offset + 30 + len(info.filename)
        broken[begin + int(rng.integers(info.compress_size))] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        store = open_store(path)
        with pytest.raises(ValueError, match=rf"{name} in .*train.zip"):
            store.encoded(store.keys.find(name))


def test_a_damaged_entry_among_others(data: Data, tmp_path: Path) -> None:
    """It is named, skipped or raised like any unreadable file; the others are shown."""
    path = deflated_zip(data, tmp_path)
    broken = bytearray(path.read_bytes())
    info = zipfile.ZipFile(path).infolist()[1]
    broken[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 255
    path.write_bytes(broken)
    name = info.filename.removeprefix("train/")
    (bad,) = verify_images(path)
    assert bad.key == name
    assert f"{name} in {path}" in bad.reason
    loader = ValidationLoader(path, 4, 32, on_error="skip")
    shown = [key for batch in loader for key in batch.keys]
    assert sorted([*shown, *loader.skipped]) == data.keys
    assert loader.skipped == {name: bad.reason}
    with pytest.raises(ImageError, match=f"{name} in .*train.zip"):
        list(ValidationLoader(path, 4, 32))


def test_an_entry_under_the_header_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.jpg", b"one")
        archive.writestr("a/2.jpg", b"two")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"a/1.jpg", b"a/3.jpg", 1))
    with pytest.raises(ValueError, match=r"a/1.jpg, got no header at its place; .*x.zip"):
        open_store(path)


# ---- MDS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [mds, mds_by_its_layout])
@pytest.mark.parametrize("method", METHODS)
def test_compressed_shards(data: Data, tmp_path: Path, write: Callable, method: str) -> None:
    assert contents(open_store(write(data, tmp_path, method))) == expected(data)


def test_a_shard_that_is_unpacked_already(data: Data, tmp_path: Path) -> None:
    """mosaicml-streaming unpacks shards beside the compressed ones: these are read in place."""
    path = packed_mds(data, tmp_path)
    for shard in json.loads((path / "index.json").read_text())["shards"]:
        packed = path / shard["zip_data"]["basename"]
        packed.with_suffix("").write_bytes(
            unpack(packed.read_bytes(), "zstd", shard["raw_data"]["bytes"], "")
        )
    store = open_store(path)
    assert not store.sequential
    assert contents(store) == expected(data)
    packed.with_suffix("").unlink()  # one of them is read from the compressed file
    assert contents(open_store(path)) == expected(data)


def test_damaged_shards(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    """Found by the decompressor, or by the hash that the index has."""
    path = packed_mds(data, tmp_path)
    shard = sorted(path.glob("*.zstd"))[1]
    whole = shard.read_bytes()
    for _ in range(20):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        shard.write_bytes(broken)
        with suppress(ValueError):  # or a bit of a header that changes nothing
            assert contents(open_store(path)) == expected(data)
    shard.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=rf"shard, got \d+ bytes, expected \d+ by the index.*{shard.name}"):
        open_store(path)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"index names 1 shards that are not there, .*00001.mds"):
        open_store(path)


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        ("raw_data", {"bytes": 10}, r"size, got more, expected 10 bytes, .*00000.mds.gz"),
        ("raw_data", {"bytes": 2**20}, r"size, got \d+, expected 1048576 bytes, .*00000.mds.gz"),
        ("raw_data", {"bytes": 2**32}, r"bytes, got 4294967296, expected below 4294967296, .*00000.mds.gz"),
        ("raw_data", {"hashes": {"sha1": "0"}}, r"sha1, got \w+, expected 0 by the index.*00000.mds.gz"),
        (
            "compression",
            "lz4",
            r"compression, got lz4, expected one of br, .*without compression.*index.json",
        ),
        ("compression", 7, r"not an index of MDS shards"),
        ("zip_data", {"basename": "../x"}, r"not an index of MDS shards .*file name '../x'.*index.json"),
        ("zip_data", None, r"not an index of MDS shards"),
    ],
)
def test_indexes_that_lie(data: Data, tmp_path: Path, where: str, value: object, text: str) -> None:
    path = mds_by_its_layout(data, tmp_path, "gz")
    index = json.loads((path / "index.json").read_text())
    if isinstance(value, dict):
        index["shards"][0][where] |= value
    else:
        index["shards"][0][where] = value
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=text):
        open_store(path)


def test_a_shard_that_changes(data: Data, tmp_path: Path) -> None:
    store = open_store(mds_by_its_layout(data, tmp_path, "gz"))
    assert isinstance(store, MdsShards)
    shard = Path(store.shards[0])
    shard.write_bytes(shard.read_bytes() + b"\0")
    with pytest.raises(RuntimeError, match=rf"the file has changed since it was opened.*{shard.name}"):
        contents(store)


# ---- what unpacks ---------------------------------------------------------------------------------------


def packed(data: bytes, method: str) -> bytes:
    if method == "deflate":
        deflater = zlib.compressobj(wbits=-15)
        return deflater.compress(data) + deflater.flush()
    return compress(data, method)


@pytest.mark.parametrize("method", ["deflate", *METHODS])
def test_unpack(method: str, rng: np.random.Generator) -> None:
    data = rng.integers(0, 4, 100_000, np.uint8).tobytes()
    small = packed(data, method)
    assert unpack(small, method, len(data), "x") == unpack(small, method, None, "x") == data
    for size, got in ((len(data) - 1, "more"), (0, "more"), (len(data) + 1, "100000")):
        with pytest.raises(ValueError, match=rf"size, got {got}, expected {size} bytes, x"):
            unpack(small, method, size, "x")
    for broken in (small[:-1], small[: len(small) // 2], b"", b"junk" * 9):
        with pytest.raises(ValueError, match=r"unpack: .*, x$"):
            unpack(broken, method, len(data), "x")


@pytest.mark.parametrize("method", ["bz2", "gz"])
def test_unpack_no_more_than_an_image(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fkdx.stores.unpacking.LARGEST_IMAGE", 1000)
    assert LARGEST_IMAGE == 2**28
    bomb = {"bz2": bz2, "gz": gzip}[method].compress(bytes(1001))
    with pytest.raises(ValueError, match=r"size, got more, expected at most 1000 bytes, x"):
        unpack(bomb, method, None, "x")


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        ValueError, match=r"reading zstd needs pyarrow; run: pip install 'fkdx\[parquet\]', x"
    ):
        unpack(b"x", "zstd", 1, "x")
