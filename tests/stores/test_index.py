"""The data index: what it says, when it is used, and what happens to a damaged or stale one."""

import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import store_writers
from images import draw_black
from loading import Data
from store_writers import mds_by_its_layout
from storing import contents, touch, write_tar

from fkdx import FormatError, reference
from fkdx.cli import main
from fkdx.stores import (
    DataIndex,
    FileList,
    ImageFolder,
    IndexedImages,
    Store,
    index_path,
    open_store,
    write_store_index,
)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    root = draw_black(tmp_path / "train", [f"{c}/{i}.jpg" for c in "abc" for i in range(30)], rng)
    (root / "empty").mkdir()
    return root


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """Two WebDataset shards with class numbers and names."""
    for shard in range(2):
        members = {}
        for key in list(ImageFolder(folder).keys)[shard::2]:
            stem = key.replace("/", "_").removesuffix(".jpg")
            members[f"{stem}.jpg"] = (folder / key).read_bytes()
            members[f"{stem}.json"] = f'{{"filename": "{key}", "label": {"abc".index(key[0])}}}'.encode()
        write_tar(tmp_path / f"wds/train-{shard:04}.tar", members)
    return tmp_path / "wds"


def same(store: Store, other: Store) -> bool:
    return (
        list(store.keys) == list(other.keys)
        and store.class_names == other.class_names
        and np.array_equal(store.class_of, other.class_of)
        and np.array_equal(store.sizes(), other.sizes())
        and contents(store) == contents(other)
    )


def test_index_of_shards(shards: Path, capsys: pytest.CaptureFixture) -> None:
    plain = open_store(shards)
    assert main(["index", str(shards)]) == 0
    assert "90 images of 3 classes" in capsys.readouterr().out
    store = open_store(shards)
    assert isinstance(store, IndexedImages)
    assert same(store, plain)
    assert store.aliases[0] == plain.aliases[0]
    assert np.array_equal(store.aliases[1], plain.aliases[1])
    assert [tuple(size) for size in store.index.column("pixels").tolist()] == [
        plain.image_size(i) for i in range(90)
    ]
    assert isinstance(open_store(shards / "train-*.tar"), IndexedImages)
    renamed = open_store(shards, ["x", "y", "z"])
    assert renamed.class_names == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"class of c/0.jpg, got 2, expected 0 to 1, .*wds"):
        open_store(shards, ["x", "y"])


def test_index_of_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = list(ImageFolder(folder).keys)
    assert main(["index", str(folder)]) == 0
    monkeypatch.setattr("fkdx.stores.indexed.list_folder", None)  # nobody lists it any more
    store = open_store(folder)
    assert list(store.keys) == plain
    assert store.class_names == ["a", "b", "c", "empty"]


def test_second_reader(shards: Path, tmp_path: Path) -> None:
    store = open_store(shards)
    write_store_index(store, str(tmp_path / "x.fkdi"))
    parts = reference.stores.read_data_index((tmp_path / "x.fkdi").read_bytes())
    assert reference.stores.decode_keys(parts["keys"]) == list(store.keys)
    assert np.frombuffer(parts["offset"], "<u8").tolist() == store.offsets.tolist()
    assert np.frombuffer(parts["length"], "<u4").tolist() == store.lengths.tolist()
    assert np.frombuffer(parts["shard"], "<u4").tolist() == store.shard_of.tolist()
    assert np.frombuffer(parts["class"], "<i4").tolist() == store.class_of.tolist()
    pixels = np.frombuffer(parts["pixels"], "<u2").reshape(-1, 2).tolist()
    assert pixels == [list(store.image_size(i)) for i in range(len(store))]
    names = reference.stores.decode_keys(parts["aliases"])
    for name, image in zip(names, np.frombuffer(parts["alias of"], "<u4")):
        assert name == store.keys[int(image)].replace("/", "_")


def test_an_index_elsewhere(shards: Path, folder: Path, tmp_path: Path) -> None:
    for number, data in enumerate((shards, folder)):
        path = tmp_path / f"else/{number}.fkdi"
        path.parent.mkdir(exist_ok=True)
        assert main(["index", str(data), "-o", str(path)]) == 0
        assert same(open_store(path), open_store(data))
    touch(shards / "train-0000.tar")
    with pytest.raises(ValueError, match=r"train-0000.tar has changed; run `fkdx index` again, .*0.fkdi"):
        open_store(tmp_path / "else/0.fkdi")


def test_moved_data(shards: Path, tmp_path: Path) -> None:
    main(["index", str(shards)])
    shards.rename(tmp_path / "moved")
    assert isinstance(open_store(tmp_path / "moved"), IndexedImages)


def test_stale_indexes_are_written_anew(shards: Path, folder: Path) -> None:
    main(["index", str(shards)])
    write_tar(shards / "train-0001.tar", {"new.jpg": (folder / "a/1.jpg").read_bytes(), "new.cls": b"0"})
    touch(shards / "train-0001.tar")
    with pytest.warns(UserWarning, match=r"train-0001.tar has changed; the files are read again"):
        store = open_store(shards)
    assert "new.jpg" in store.keys
    assert same(open_store(shards), store)
    assert isinstance(open_store(shards), IndexedImages)
    write_tar(shards / "train-0002.tar", {"more.jpg": b"x", "more.cls": b"0"})
    with pytest.warns(UserWarning, match="it is of other files"):
        assert "more.jpg" in open_store(shards).keys
    main(["index", str(folder)])
    (folder / "b/new.jpg").write_bytes(b"x")
    touch(folder / "b")
    line = r"train/b has changed; the folder is listed again \(`fkdx index` renews its index\), .*train.fkdi"
    for _ in range(2):  # it is read without the index until that is written anew
        with pytest.warns(UserWarning, match=line):
            assert "b/new.jpg" in open_store(folder).keys
    with pytest.warns(UserWarning, match="has changed"):
        assert main(["index", str(folder)]) == 0
    assert "b/new.jpg" in open_store(folder).keys


def test_index_of_a_part(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for split in ("train", "val"):
            for name in ("a/1.jpg", "b/1.jpg"):
                archive.write(folder / name, f"data/{split}/{name}")
    main(["index", f"{tmp_path / 'x.zip'}::data/train"])
    assert isinstance(open_store(f"{tmp_path / 'x.zip'}::data/train"), IndexedImages)
    with pytest.warns(UserWarning, match="it is of the part 'data/train', not of 'data/val'"):
        assert len(open_store(f"{tmp_path / 'x.zip'}::data/val")) == 2
    assert isinstance(open_store(f"{tmp_path / 'x.zip'}::data/train"), IndexedImages)


def test_an_index_of_more_shards_is_left_alone(shards: Path) -> None:
    """Its entry points took a while."""
    write_tar(shards / "train-0002.tar", {"c/more.jpg": b"x", "c/more.cls": b"2"})
    assert main(["index", str(shards), "--entry-points"]) == 0
    some = [shards / "train-0000.tar", shards / "train-0001.tar"]
    for files in (3, 2):  # once it fits nothing any more, it is written anew
        with pytest.warns(UserWarning, match="it is of other files; the files are read again"):
            assert len(open_store(some)) == 90
        assert len(DataIndex(shards / "train.fkdi").about["files"]) == files
        touch(shards / "train-0002.tar")


def test_index_of_a_list(folder: Path) -> None:
    path = folder / "list.txt"
    names = [key for key in ImageFolder(folder).keys if key[0] != "b"]
    path.write_text("\n".join(names))
    assert main(["index", str(path)]) == 0
    for store in (open_store(path), open_store(f"{path}.fkdi")):
        assert same(store, FileList.read(path))
    path.write_text("\n".join(names[:3]))
    with pytest.warns(UserWarning, match=r"list.txt has changed; the list is read again .*renews"):
        assert list(open_store(path).keys) == sorted(names[:3])
    with pytest.raises(ValueError, match=r"list.txt has changed; run `fkdx index` again"):
        open_store(f"{path}.fkdi")


def test_stores_go_to_other_processes_with_their_index(shards: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "list.txt").write_text("a/1.jpg\nb/1.jpg\n")
    (tmp_path / "names.txt").write_text("\n".join(f"x/{i}.jpg" for i in range(90)))
    for data in (shards, folder / "list.txt", folder):
        assert main(["index", str(data)]) == 0
    for data in (shards, f"{folder}.fkdi", folder / "list.txt", f"{shards}@{tmp_path / 'names.txt'}"):
        store = open_store(data)
        assert same(pickle.loads(pickle.dumps(store)), store)


def test_index_of_a_list_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("list.txt").write_text("a/1.jpg\nb/1.jpg\n")
    plain = contents(open_store("list.txt"))
    assert main(["index", "list.txt"]) == 0
    assert open_store("list.txt").index is not None
    assert contents(open_store("list.txt")) == plain


@pytest.mark.parametrize("name", [".", "./", "../train/.", "a/.."])
def test_index_of_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It lies beside the folder, not in it: there it would change the folder."""
    monkeypatch.chdir(folder)
    assert main(["index", name]) == 0
    assert (folder.parent / "train.fkdi").is_file()
    monkeypatch.setattr("fkdx.stores.indexed.list_folder", None)
    with warnings.catch_warnings(action="error"):
        assert len(open_store(name).keys) == len(open_store(folder).keys) == 90


def test_an_index_among_the_images_is_refused(folder: Path) -> None:
    for place in (folder, folder / "a"):
        with pytest.raises(ValueError, match=r"place, got a folder of the images, expected one outside"):
            write_store_index(open_store(folder), str(place / "x.fkdi"))


def test_the_index_of_another_folder_is_not_taken(folder: Path, tmp_path: Path) -> None:
    main(["index", str(folder)])
    shutil.copytree(folder, tmp_path / "more")
    shutil.copy(tmp_path / "train.fkdi", tmp_path / "more.fkdi")
    (tmp_path / "more/a/new.jpg").write_bytes((folder / "a/1.jpg").read_bytes())
    with pytest.warns(UserWarning, match=r"it is of other files; the folder is listed again"):
        assert "a/new.jpg" in open_store(tmp_path / "more").keys


def grow_folder(folder: Path) -> Path:
    shutil.copy(folder / "a/1.jpg", folder / "a/new.jpg")
    return folder


def grow_list(folder: Path) -> Path:
    with (folder / "list.txt").open("a") as lines:
        lines.write("a/2.jpg\n")
    return folder / "list.txt"


def exchange(folder: Path) -> Path:
    """As many images under the same names, at other places."""
    images = [(folder / f"a/{i}.jpg").read_bytes() for i in (1, 2)]
    write_tar(folder / "x.tar", {"a/1.jpg": images[1] + b"longer", "a/2.jpg": images[0]})
    touch(folder / "x.tar")
    return folder / "x.tar"


@pytest.mark.parametrize("change", [grow_folder, grow_list, exchange])
def test_images_that_change_while_they_are_indexed(folder: Path, change: Callable, tmp_path: Path) -> None:
    (folder / "list.txt").write_text("a/1.jpg\n")
    write_tar(folder / "x.tar", {f"a/{i}.jpg": (folder / f"a/{i}.jpg").read_bytes() for i in (1, 2)})
    path = {grow_folder: folder, grow_list: folder / "list.txt", exchange: folder / "x.tar"}[change]
    store = ImageFolder(folder) if path == folder else open_store(path)
    assert len(store.keys)
    change(folder)
    with pytest.raises(RuntimeError, match=rf"has changed since it was opened; open it again, {path}"):
        write_store_index(store, str(tmp_path / "x.fkdi"))
    assert not (tmp_path / "x.fkdi").exists()


def test_a_file_that_is_too_large_for_an_image(folder: Path, tmp_path: Path) -> None:
    with (folder / "a/huge.jpg").open("wb") as file:
        file.truncate(2**32)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"bytes of a/huge.jpg, got 4294967296, expected at most 4294967295"):
        write_store_index(open_store(folder), str(tmp_path / "x.fkdi"))


def test_a_warning_about_images_is_kept(folder: Path, tmp_path: Path) -> None:
    image = (folder / "a/1.jpg").read_bytes()
    write_tar(tmp_path / "x.tar", {"1.jpg": image, "1.json": b'{"label": "a cat on a mat"}'})
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of 1 images have no class: .*'a cat on a mat' of 1.jpg"):
            store = open_store(tmp_path / "x.tar")
        write_store_index(store, index_path([str(tmp_path / "x.tar")]))
    assert isinstance(store, IndexedImages)


def test_stores_without_an_index(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"x/{i}.jpg" for i in range(len(ImageFolder(folder)))))
    assert main(["index", f"{folder}@{tmp_path / 'names.txt'}"]) == 1
    for store in (open_store(f"{folder}@{tmp_path / 'names.txt'}"), FileList(folder, ["a/1.jpg"])):
        with pytest.raises(ValueError, match=r"expected a store by itself; `fkdx repack`"):
            write_store_index(store, str(tmp_path / "x.fkdi"))


def test_every_flipped_bit_and_every_cut_is_found(shards: Path, rng: np.random.Generator) -> None:
    main(["index", str(shards)])
    path = Path(index_path([str(p) for p in sorted(shards.glob("*.tar"))]))
    whole = path.read_bytes()
    DataIndex(path).verify()
    used = np.zeros(len(whole), bool)  # all but padding
    used[: 64 + 48 * int.from_bytes(whole[12:16], "little")] = True
    for offset, length, _ in DataIndex(path)._sections.values():
        used[offset : offset + length] = True
    for at in rng.choice(np.flatnonzero(used), 400):
        bad = bytearray(whole)
        bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=r"DataIndex: .*train.fkdi"):
            DataIndex(path).verify()
    for size in rng.integers(0, len(whole), 100):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"train.fkdi"):
            DataIndex(path)
    path.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match=r"the file is incomplete.*the files are read again"):
        open_store(shards)


def test_sections_of_the_future(shards: Path) -> None:
    main(["index", str(shards)])
    path = shards / "train.fkdi"
    whole = bytearray(path.read_bytes())
    entry = whole.index(b"pixels\0")
    for flags, raises in ((0, False), (1, True)):
        whole[entry : entry + 16] = b"of tomorrow".ljust(16, b"\0")
        whole[entry + 36] = flags
        count = int.from_bytes(whole[12:16], "little")
        whole[56:60] = reference.labels.crc32c(bytes(whole[64 : 64 + 48 * count])).to_bytes(4, "little")
        whole[60:64] = reference.labels.crc32c(bytes(whole[:60])).to_bytes(4, "little")
        path.write_bytes(whole)
        if raises:
            with pytest.raises(FormatError, match="section, got 'of tomorrow', expected a newer fkdx"):
                DataIndex(path)
        else:
            assert "of tomorrow" in DataIndex(path)


def test_index_of_shards_that_were_added_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of a folder of MDS shards is that of the shards that its index.json names."""
    monkeypatch.setattr(store_writers, "number", lambda key: "abc".index(key[0]))
    keys = list(ImageFolder(folder).keys)
    store = mds_by_its_layout(Data(folder, tmp_path, keys[:10]), tmp_path)
    assert main(["index", str(store)]) == 0
    assert len(open_store(store)) == 10
    (tmp_path / "more").mkdir()
    more = mds_by_its_layout(Data(folder, tmp_path, keys[20:25]), tmp_path / "more")
    index, added = (json.loads((place / "index.json").read_text()) for place in (store, more))
    added["shards"][0]["raw_data"]["basename"] = "shard.00002.mds"
    (more / "shard.00000.mds").rename(store / "shard.00002.mds")
    (store / "index.json").write_text(json.dumps({**index, "shards": index["shards"] + added["shards"]}))
    with pytest.warns(UserWarning, match="it is of other files"):
        assert len(open_store(store)) == 15
