"""Damaged indexes, archives and shards whose checksums hold: refused, or images that lie inside the file."""

import json
import random
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from storing import write_tar

from fkdx import FormatError
from fkdx.stores import DataIndex, open_store, write_store_index
from fkdx.stores.index import write_index

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import containers


def test_random_damage(run_seed: int) -> None:
    for number in range(150):
        containers.attempt(random.Random(f"{run_seed} {number}"))


def write_changed(path: Path, about: dict, without: str = "", **changes: np.ndarray) -> None:
    """The index of the tar file beside it with other columns, or without one."""
    index = DataIndex(path)
    columns = {
        name: np.array(index.column(name))
        for name in ("offset", "length", "shard", "class")
        if name != without
    }
    columns |= changes
    write_index(path, {**index.about, **about}, index.keys(), columns)


CHANGES = {
    "no class": ({}, {"without": "class"}, "section 'class', expected one"),
    "no length": ({}, {"without": "length"}, "section 'length', expected one"),
    "offset": ({}, {"offset": np.array([2**40, 0])}, "numbers of 'offset'"),
    "length": ({}, {"length": np.array([2**32 - 1, 0])}, "numbers of 'offset'"),
    "shard": ({}, {"shard": np.array([0, 1])}, "numbers of 'shard'"),
    "class": ({}, {"class": np.array([0, 2])}, "numbers of 'class'"),
    "class below": ({}, {"class": np.array([0, -2])}, "numbers of 'class'"),
    "classes": ({"classes": [1, 2]}, {}, "part 'about'"),
    "files": ({"files": [{"path": 1}]}, {}, "part 'about'"),
    "no files": ({"files": []}, {}, "part 'about'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_says_what_cannot_be(change: str, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a/1.jpg": b"one", "b/2.jpg": b"two"})
    path = tmp_path / "kept.fkdi"
    write_store_index(open_store(tar), str(path), pixels=False)
    about, columns, said = CHANGES[change]
    write_changed(path, about, **columns)
    with pytest.raises(FormatError, match=said):
        open_store(path)


def test_an_index_of_more_keys_than_bytes(tmp_path: Path) -> None:
    data = bytearray(containers.index_bytes())
    struct.pack_into("<Q", data, 16, 2**60)
    (tmp_path / "x.fkdi").write_bytes(containers.sealed(bytes(data)))
    with pytest.raises(FormatError, match="number of keys"):
        DataIndex(tmp_path / "x.fkdi").keys()


def test_odd_zip_files(tmp_path: Path) -> None:
    """A version that Python does not know; an entry without a name; an entry that ends behind the file."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"one")
    data = (tmp_path / "x.zip").read_bytes()
    at = data.index(b"PK\1\2")
    for offset, form, value in ((6, "<H", 255), (24, "<I", 2**20), (28, "<H", 0)):
        changed = bytearray(data)
        struct.pack_into(form, changed, at + offset, value)
        (tmp_path / "x.zip").write_bytes(changed)
        with pytest.raises(ValueError, match=r"ZipFiles: .*x\.zip"):
            open_store(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("samples", -1),
        ("column_sizes", [None, -8]),
        ("column_names", "xy"),
        ("column_names", [1, 2]),
        ("format", 3),
    ],
)
def test_odd_mds_indexes(where: str, value: object, tmp_path: Path) -> None:
    index = json.loads(json.dumps(containers.MDS_INDEX))
    (tmp_path / "shard.00000.mds").write_bytes(containers.mds_shard())
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert len(open_store(tmp_path)) == len(containers.IMAGES)
    index["shards"][0][where] = value
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"MdsShards: .*index\.json"):
        open_store(tmp_path)


def test_an_mds_shard_without_its_first_number(tmp_path: Path) -> None:
    index = json.loads(json.dumps(containers.MDS_INDEX))
    for data in (b"", b"\1\0", b"\xff\xff\xff\xff"):
        index["shards"][0]["raw_data"]["bytes"] = len(data)
        (tmp_path / "index.json").write_text(json.dumps(index))
        (tmp_path / "shard.00000.mds").write_bytes(data)
        with pytest.raises(ValueError, match=r"MdsShards: the table of samples is cut off.*00000\.mds"):
            open_store(tmp_path)


@pytest.mark.parametrize("encoding", ["pil", "ndarray:uint8", "jpegarray", "of tomorrow"])
def test_mds_columns_that_hold_no_image_file(encoding: str, tmp_path: Path) -> None:
    index = json.loads(json.dumps(containers.MDS_INDEX))
    index["shards"][0]["column_encodings"][0] = encoding
    (tmp_path / "shard.00000.mds").write_bytes(containers.mds_shard())
    (tmp_path / "index.json").write_text(json.dumps(index))
    said = rf"columns, got .'image': '{encoding}'.*, expected an 'image' encoded as jpeg, png, bytes; .*\.mds"
    with pytest.raises(ValueError, match=said):
        open_store(tmp_path)


def test_mds_labels_that_are_no_classes(tmp_path: Path) -> None:
    index = json.loads(json.dumps(containers.MDS_INDEX))
    names, encodings = (index["shards"][0][f"column_{what}"] for what in ("names", "encodings"))
    encodings[names.index("label")] = "float64"
    (tmp_path / "shard.00000.mds").write_bytes(containers.mds_shard())
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.warns(
        UserWarning, match=r"images have no class: the labels are float64, expected whole numbers"
    ):
        assert (open_store(tmp_path).class_of == -1).all()


def test_mds_shards_that_are_cut(tmp_path: Path) -> None:
    index, whole = json.loads(json.dumps(containers.MDS_INDEX)), containers.mds_shard()
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / "shard.00000.mds").write_bytes(whole[:-10])
    said = rf"shard, got {len(whole) - 10} bytes, expected {len(whole)} by the index; copy it again, .*\.mds"
    with pytest.raises(ValueError, match=said):
        open_store(tmp_path)
    index["shards"][0]["raw_data"]["bytes"] -= 10
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"a sample does not fill its place at offset \d+, .*00000\.mds"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", ["../a/1.jpg", "/a/1.jpg", "a\\1.jpg", "a//1.jpg"])
def test_names_in_zip_files(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(ValueError, match=r"file name, got .*rename the file.*x\.zip"):
        open_store(tmp_path / "x.zip")


def test_a_class_number_beyond_64_bits(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"1.jpg": b"x", "1.cls": b"99999999999999999999"})
    with pytest.raises(ValueError, match=r"classes: number, got 99999999999999999999 of 1\.jpg"):
        open_store(tar)
