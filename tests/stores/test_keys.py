"""Tables of keys against plain Python lists, dictionaries and the slow twins."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fkdx import _C, LabelFile, LabelWriter, reference
from fkdx.labels import write_manifest
from fkdx.stores import FileList, ImageFolder, Keys, keys_of_labels

LETTERS = ["a", "b", "\u00e9", "\u9be8", "n01440764", "_", ".jpg", ".JPEG", ".png", ".", "1", "20", "-"]


def draw_name(rng: np.random.Generator) -> str:
    return "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), rng.integers(1, 6))) + "x"


def draw_keys(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct keys with 0 to 3 folders."""
    keys = {"/".join(draw_name(rng) for _ in range(rng.integers(1, 5))) for _ in range(count)}
    return [str(key) for key in rng.permutation(sorted(keys))]


def test_order_and_lookup(rng: np.random.Generator) -> None:
    names = draw_keys(rng, 400)
    keys, order = Keys.sort(names, "here")
    assert list(keys) == keys[:] == sorted(names, key=str.encode)
    assert [names[i] for i in order] == list(keys)
    assert keys[-1] == keys[len(keys) - 1]
    for i in rng.integers(0, len(names), 50):
        assert keys[keys.find(names[i])] == names[i]
        assert names[i] in keys
    assert keys.find("never") == -1
    assert not {"never", 3} & {key for key in ("never", 3) if key in keys}
    with pytest.raises(IndexError, match=f"got {len(keys)}, expected 0 to {len(keys) - 1}"):
        keys[len(keys)]
    some = np.sort(rng.choice(len(keys), 40, replace=False))
    assert list(keys.take(some)) == [keys[int(i)] for i in some]


def test_join(rng: np.random.Generator) -> None:
    names = draw_keys(rng, 300)
    left, _ = Keys.sort(names[:200], "")
    right, _ = Keys.sort(names[100:], "")
    place = {key: i for i, key in enumerate(right)}
    assert left.table.join(right.table).tolist() == [place.get(key, -1) for key in left]


def test_folders(rng: np.random.Generator) -> None:
    keys, _ = Keys.sort(draw_keys(rng, 300), "")
    folders = sorted({key.split("/")[0] for key in keys if "/" in key}, key=str.encode)
    assert keys.table.first_folders() == folders
    number = {folder: i for i, folder in enumerate(folders[::2])}
    expected = [number.get(key.split("/")[0], -1) if "/" in key else -1 for key in keys]
    assert keys.table.classes_of(folders[::2]).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_coded_keys(rng: np.random.Generator, count: int) -> None:
    keys, _ = Keys.sort(draw_keys(rng, 2 * count)[:count], "")
    coded, blocks = keys.table.code()
    assert reference.stores.decode_keys(coded.tobytes()) == list(keys)
    assert Keys(_C.KeyTable.decode(coded, count, "here")) == keys
    assert len(blocks) == -(-count // 64) + 1
    assert blocks[-1] == len(coded)
    for block in blocks[:-1]:
        assert coded[block : block + 2].tolist() == [0, 0]


def test_damaged_coded_keys(rng: np.random.Generator) -> None:
    coded, _ = Keys.sort(draw_keys(rng, 100), "")[0].table.code()
    for _ in range(2000):
        bad = coded.copy()
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        with suppress(ValueError):  # or keys that are as good as any: the section's CRC finds these
            _C.KeyTable.decode(bad[: rng.integers(len(bad) + 1)], 90, "here.fkdi").check("here.fkdi")


def test_canonical_keys_against_the_slow_twin(rng: np.random.Generator) -> None:
    for key in draw_keys(rng, 2000):
        for name in ("", "cat"):
            assert _C.canonical_key(key, name) == reference.stores.canonical_key(key, name)


@pytest.mark.parametrize(
    ("key", "canonical"),
    [
        ("n02018795/n02018795_1761.JPEG", "n02018795/n02018795_1761"),
        ("train/n02018795/n02018795_1761.JPEG", "n02018795/n02018795_1761"),
        ("n02018795_1761_n02018795.JPEG", "n02018795/n02018795_1761"),
        ("n02018795_1761.jpg", "n02018795/n02018795_1761"),
        ("ILSVRC2012_val_00000001_n01751748.JPEG", "n01751748/ILSVRC2012_val_00000001"),
        ("cat/1.tar.gz", "cat/1.tar.gz"),
        ("cat/.jpg", "cat/.jpg"),
        ("00000017.JpG", "00000017"),
    ],
)
def test_canonical_keys(key: str, canonical: str) -> None:
    assert _C.canonical_key(key) == canonical


def test_listing_against_os_walk(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [name for name in draw_keys(rng, 300) if all(ord(c) < 0xD800 for c in name)]
    for name in names:
        path = tmp_path / "data" / f"{name}{('.jpg', '.PNG', '.txt')[rng.integers(3)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * int(rng.integers(1, 100)))
    os.symlink(tmp_path / "data", tmp_path / "linked")
    expected = []
    for folder, folders, files in os.walk(tmp_path / "data"):
        folders[:] = [name for name in folders if not name.startswith(".")]
        expected += [
            os.path.relpath(os.path.join(folder, file), tmp_path / "data")
            for file in files
            if file.lower().endswith((".jpg", ".png")) and not file.startswith("._")
        ]
    for root in ("data", "linked"):
        store = ImageFolder(tmp_path / root)
        assert list(store.keys) == sorted(expected, key=str.encode)
        sizes = [(tmp_path / "data" / key).stat().st_size for key in store.keys]
        assert store.sizes().tolist() == sizes


def test_links_that_lead_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.symlink(tmp_path, tmp_path / "a/back")
    with pytest.raises((ValueError, OSError), match=r"no link that leads back|cannot list"):
        len(ImageFolder(tmp_path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are not there, such as .*/2.jpg"):
        FileList(tmp_path, ["1.jpg", "2.jpg"]).sizes()


@pytest.mark.parametrize("overlapping", [False, True])
def test_keys_of_sharded_labels(tmp_path: Path, rng: np.random.Generator, overlapping: bool) -> None:
    keys = [f"a/{i:02}.jpg" for i in range(20)]
    halves = (keys[::2], keys[1::2]) if overlapping else (keys[:7], keys[7:])
    shards = []
    for number, half in enumerate(halves):
        shards.append(tmp_path / f"{number:05}.fkdl")
        with LabelWriter(shards[-1], "hard", num_classes=2, crops=1) as writer:
            for key in half:
                writer.add(key, [[0, 0, 4, 4]], [False], [1], None, (4, 4))
    labels = LabelFile(write_manifest(tmp_path, shards))
    found, order = keys_of_labels(labels)
    assert list(found) == keys
    assert (order is not None) == overlapping
    numbers = range(20) if order is None else order
    assert [labels.keys[int(i)] for i in numbers] == keys


def test_a_set_with_more_keys_than_one_table_holds() -> None:
    class Labels:
        path = "labels"

        def key_arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
            text = np.broadcast_to(np.uint8(97), 2**31)  # takes no memory
            return [(np.array([0, 2**31], np.uint32), text)] * 2

    with pytest.raises(ValueError, match="bytes of all keys, got 4294967296, expected at most 4294967295"):
        keys_of_labels(Labels())
