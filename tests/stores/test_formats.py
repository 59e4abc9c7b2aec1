"""The same images kept by every store, each written by its own library: the same batches, bit for bit."""

import gzip
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import Data, rows
from store_writers import EVERY, PACKED, STORES, SYNSETS, official_tar, plain_tar, stored_zip
from storing import contents, touch, write_tar

from fkdx import CropLoader, LabelFile, LabelWriter
from fkdx.loader import Batch
from fkdx.stores import TarShards, images_of_labels, open_store, write_store_index


def batches(store: object, labels: Path) -> list[list[tuple]]:
    """Every row of two epochs."""
    loader = CropLoader(store, labels, 8, 2, 32, seed=9, threads=2)
    found = [list(rows(batch)) for _ in range(2) for batch in loader]
    loader.close()
    return found


@pytest.mark.parametrize("write", STORES, ids=lambda write: write.__name__)
def test_same_batches(data: Data, tmp_path: Path, write: Callable[[Data, Path], object]) -> None:
    store = open_store(write(data, tmp_path))
    assert len(store) == len(data.keys)
    assert store.class_names == list(SYNSETS)
    assert batches(store, data.labels) == batches(data.root, data.labels)
    some = [3, 0, 2]
    assert store.places(some) == [store.place(image) for image in some]
    assert sorted(store.sizes().tolist()) == sorted((data.root / key).stat().st_size for key in data.keys)


@pytest.mark.parametrize("write", [*EVERY, *PACKED], ids=lambda write: write.__name__)
def test_a_worker_process_gets_the_store_whole(data: Data, tmp_path: Path, write: Callable) -> None:
    """Where it is not a fork, in which the store just is: on macOS."""
    store = open_store(write(data, tmp_path))
    encoded = [store.encoded(image) for image in range(len(store))]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.keys == store.keys
    assert copy.class_names == store.class_names
    assert [copy.encoded(image) for image in range(len(copy))] == encoded


# ---- bad input ------------------------------------------------------------------------------------------


def test_zip_entries_that_cannot_be_read_in_place(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    for method, name in ((zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a/1.jpg", b"x" * 1000)
        with pytest.raises(
            ValueError, match=rf"a/1.jpg, got an entry compressed by {name}, .*unpack it.*x.zip"
        ):
            open_store(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.jpg", b"x" * 1000)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"a/1.jpg, got an encrypted entry.*x.zip"):
        open_store(path)
    path.write_bytes(whole[:500])
    with pytest.raises(ValueError, match=r"not a whole zip file.*x.zip"):
        open_store(path)


def test_nested_tar_cut_in_the_middle(data: Data, tmp_path: Path) -> None:
    path = official_tar(data, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"not a whole tar file.*ILSVRC2012_img_train.tar"):
        open_store(path)
    inner = write_tar(tmp_path / "inner.tar", {"1.jpg": b"x" * 1000}).read_bytes()[:1100]
    write_tar(path, {"n01440764.tar": inner})
    with pytest.raises(ValueError, match=r"not a whole tar file.*'n01440764.tar' inside .*img_train.tar"):
        open_store(path)


@pytest.mark.parametrize(
    "name", ["../a/1.jpg", "/a/1.jpg", "a//1.jpg", "a/./1.jpg", "a\\1.jpg", "a/\udcff.jpg"]
)
def test_member_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"file name, got .*rename the file.*x.tar"):
        open_store(write_tar(tmp_path / "x.tar", {name: b"x"}))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"1.jpg": b"x", "1.cls": b" "}, r"1.cls, got nothing, expected a class number.*x.tar"),
        ({"1.jpg": b"x", "1.cls": b"-1"}, r"number, got -1 of 1.jpg, expected 0 to.*x.tar"),
        ({"1.jpg": b"x", "1.cls": b"3", "2.jpg": b"x"}, r"got None of 2.jpg, expected a number.*x.tar"),
        ({"1.jpg": b"x", "1.cls": b"3", "2.jpg": b"", "2.cls": b"ant"}, r"2.cls, got 'ant', expected a cl"),
        ({"1.jpg": b"x", "1.cls": b"1.5"}, r"1.cls, got '1.5', expected a class number, .*x.tar"),
        ({"1.jpg": b"x", "1.cls": b"\xff"}, r"1.cls, got '.*xff', expected a class number, .*x.tar"),
        ({"1.jpg": b"x", "1.CLS": b"1 2"}, r"1.CLS, got '1 2', expected a class number, .*x.tar"),
        ({"1.jpg": b"x", "1.cls": b"1", "1.json": b'{"label": 2}'}, r"1.json, got class 2, expected 1 as"),
        ({"1.jpg": b"x", "1.json": b"{"}, r"1.json, expected JSON.*x.tar"),
    ],
)  # fmt: skip
def test_class_members(tmp_path: Path, members: dict[str, bytes], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        open_store(write_tar(tmp_path / "x.tar", members))


def test_classes_in_words_are_not_read_and_that_is_said(tmp_path: Path) -> None:
    """A text may be a caption; where the folder is the class, nothing is lost."""
    said = b'{"label": "a cat on a mat"}'
    members = {
        "1.jpg": b"x",
        "1.json": said,
        "2.jpg": b"x",
        "2.json": said,
        "ant/3.jpg": b"x",
        "ant/3.json": said,
    }
    with pytest.warns(
        UserWarning, match=r"2 of 3 images have no class: .* 'a cat on a mat' of 1.jpg; give .*x.tar"
    ):
        store = open_store(write_tar(tmp_path / "x.tar", members))
    assert store.class_of.tolist() == [-1, -1, 0]
    (tmp_path / "classes.txt").write_text("ant\nbee\nant\n")
    assert open_store(f"{tmp_path / 'x.tar'}@{tmp_path / 'classes.txt'}").class_of.tolist() == [0, 1, 0]


def test_two_images_of_one_sample_are_two_images(tmp_path: Path) -> None:
    members = {
        "1.left.jpg": b"x",
        "1.right.jpg": b"yy",
        "1.cls": b"3",
        "2.jpg": b"z",
        "2.png": b"zz",
        "2.cls": b"4",
    }
    store = open_store(write_tar(tmp_path / "x.tar", members))
    assert list(store.keys) == ["1.left.jpg", "1.right.jpg", "2.jpg", "2.png"]
    assert store.class_of.tolist() == [3, 3, 4, 4]


def test_names_that_only_look_the_same(data: Data, tmp_path: Path) -> None:
    """macOS writes letters and accents apart; labels name them in one."""
    composed, apart = ("ant/\u00fc.jpg", "ant/u\u0308.jpg")
    content = (data.root / data.keys[0]).read_bytes()
    (tmp_path / "images/ant").mkdir(parents=True)
    for name in (apart, "ant/1.jpg"):
        (tmp_path / "images" / name).write_bytes(content)
    with LabelWriter(tmp_path / "y.fkdl", "hard", num_classes=2, crops=1, ratios=True) as writer:
        for key in ("ant/1.jpg", composed):
            writer.add(key, [[0, 0, 1, 1]], [False], [1], None)
    archive = write_tar(tmp_path / "x.tar", {apart: content, "ant/1.jpg": content})
    said = r"'ant/\\xfc.jpg' and 'ant/u\\u0308.jpg' look the same but are two names: .*convmv"
    for images in (tmp_path / "images", archive):
        with pytest.raises(ValueError, match=said):
            CropLoader(images, tmp_path / "y.fkdl", 1, 1, 8)


def test_tar_files_that_end_early_or_go_on(data: Data, tmp_path: Path) -> None:
    """Nothing is lost in silence: cut behind a member, two archives in one file, a compressed one."""
    whole = plain_tar(data, tmp_path).read_bytes()
    end = open_store(tmp_path / "train.tar").place(3)
    (tmp_path / "cut.tar").write_bytes(whole[: -(-(end[1] + end[2]) // 512) * 512])
    with pytest.raises(ValueError, match=r"not a whole tar file .it ends behind an image.*cut.tar"):
        open_store(tmp_path / "cut.tar")
    (tmp_path / "two.tar").write_bytes(whole + write_tar(tmp_path / "x.tar", {"a/1.jpg": b"x"}).read_bytes())
    with pytest.raises(ValueError, match=r"more data behind the archive's end .*several in one.*two.tar"):
        open_store(tmp_path / "two.tar")
    (tmp_path / "packed.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError, match=r"a compressed tar file, expected a plain one.*gunzip.*packed.tar"):
        open_store(tmp_path / "packed.tar")


def test_links_in_a_tar_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"

    def write(**link: object) -> Path:
        with tarfile.open(path, "w") as tar:
            image = tarfile.TarInfo("a/1.jpg")
            image.size = 3
            tar.addfile(image, io.BytesIO(b"one"))
            member = tarfile.TarInfo("b/2.jpg")
            member.type, member.linkname = link["type"], link["to"]
            tar.addfile(member)
        return path

    store = open_store(write(type=tarfile.LNKTYPE, to="a/1.jpg"))
    assert contents(store) == {"a/1.jpg": b"one", "b/2.jpg": b"one"}
    for kind, to in ((tarfile.LNKTYPE, "a/0.jpg"), (tarfile.SYMTYPE, "../a/1.jpg")):
        with pytest.raises(ValueError, match=r"b/2.jpg, got a link to .*jpg, .*-dereference, .*x.tar"):
            open_store(write(type=kind, to=to))


def test_suffixes_in_mixed_case(tmp_path: Path) -> None:
    store = open_store(
        write_tar(tmp_path / "x.tar", {"1.JPG": b"x", "1.CLS": b"1", "2.jpeg": b"", "2.cls": b"0"})
    )
    assert list(store.keys) == ["1.JPG", "2.jpeg"]
    assert store.class_of.tolist() == [1, 0]


def test_class_numbers_with_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.jpg": b"x", "1.cls": b"2", "2.jpg": b"y", "2.cls": b"0"})
    store = open_store(path, ["ant", "bee", "cat"])
    assert store.class_names == ["ant", "bee", "cat"]
    assert store.class_of.tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"number, got 2 of 1.jpg, expected 0 to 1"):
        open_store(path, ["ant", "bee"])


def test_parts_of_archives(data: Data, tmp_path: Path) -> None:
    path = stored_zip(data, tmp_path).partition("::")[0]
    with pytest.raises(FileNotFoundError, match=r"no images below 'nowhere'.*kaggle.zip"):
        open_store(f"{path}::nowhere")
    assert len(open_store(f"{path}::ILSVRC/Data/CLS-LOC/val")) == 1


# ---- what systems leave behind --------------------------------------------------------------------------


def with_notes_of_macos(members: dict[str, bytes]) -> dict[str, bytes]:
    """Beside every file the one that macOS keeps its attributes in, and a folder's own."""
    found = {}
    for name, data in members.items():
        folder, slash, file = name.rpartition("/")
        found |= {f"{folder}{slash}._{file}": b"\0\5\x16\7", name: data, f"{folder}{slash}.DS_Store": b"Bud1"}
    return found


def test_apple_double_files_are_no_images(data: Data, tmp_path: Path) -> None:
    """Folder, list, tar, WebDataset, official archive and zip: `._1.jpg` and `__MACOSX` are not there."""
    keys = data.keys[:4]
    files = {key: (data.root / key).read_bytes() for key in keys}
    for name, content in with_notes_of_macos(files).items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    listed = [name for name in with_notes_of_macos(files) if name.endswith(".JPEG")]
    (tmp_path / "folder/list.txt").write_text("\n".join(listed))
    plain = write_tar(tmp_path / "plain.tar", with_notes_of_macos(files))
    numbered = {
        f"{i}.{suffix}": value
        for i, key in enumerate(keys)
        for suffix, value in (
            ("jpg", files[key]),
            ("cls", b"%d" % i),
            ("json", b'{"filename": "%s"}' % key.encode()),
        )
    }
    web = write_tar(tmp_path / "web.tar", with_notes_of_macos(numbered))
    inner = {}
    for synset in {key.split("/")[0] for key in keys}:
        own = {key.split("/")[1]: files[key] for key in keys if key.startswith(synset)}
        inner[f"{synset}.tar"] = write_tar(tmp_path / "inner/x.tar", with_notes_of_macos(own)).read_bytes()
    official = write_tar(tmp_path / "official.tar", with_notes_of_macos(inner))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for key, content in files.items():
            archive.writestr(f"train/{key}", content)
            archive.writestr(f"__MACOSX/train/._{key.split('/')[1]}", b"x" * 99, zipfile.ZIP_DEFLATED)
    for root in (tmp_path / "folder", tmp_path / "folder/list.txt", plain, web, official, tmp_path / "x.zip"):
        store = open_store(root)
        assert not store.sequential
        assert {key: store.encoded(i) for i, key in enumerate(store.keys)} == files, root


# ---- canonical keys -------------------------------------------------------------------------------------


def test_names_that_are_not_clear(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    members = {key.replace(".JPEG", ".jpg"): (data.root / key).read_bytes() for key in data.keys}
    members[data.keys[0].replace(".JPEG", ".png")] = b"another"
    with pytest.raises(ValueError, match=rf"1 names fit more .*{data.keys[0]} against .*jpg and .*png"):
        CropLoader(write_tar(tmp_path / "x.tar", members), data.labels, 8, 2, on_missing="ignore")


@pytest.mark.parametrize("on_missing", ["raise", "ignore"])
def test_labels_whose_canonical_keys_collide(tmp_path: Path, on_missing: str) -> None:
    """Two labels want one image, twice over: refused with both examples, whoever asks for the images."""
    with LabelWriter(tmp_path / "x.fkdl", "hard", num_classes=2, crops=1, ratios=True) as writer:
        for key in ("ant/1.jpg", "ant/1.png", "bee/2.jpg", "bee/2.png", "bee/3.jpg"):
            writer.add(key, [[0, 0, 1, 1]], [False], [1], None)
    path = write_tar(tmp_path / "x.tar", {"ant/1.webp": b"x", "bee/2.webp": b"y", "bee/3.webp": b"z"})
    said = (
        r"2 names fit more than one label .*: labels ant/1.jpg and ant/1.png against images ant/1.webp; "
        r"labels bee/2.jpg and bee/2.png against images bee/2.webp; give the images .*x.tar, .*x.fkdl"
    )
    with pytest.raises(ValueError, match=said):
        CropLoader(path, tmp_path / "x.fkdl", 1, 1, 8, on_missing=on_missing)
    with pytest.raises(ValueError, match=said):
        images_of_labels(open_store(path), LabelFile(tmp_path / "x.fkdl"))


def test_exact_names_come_first(data: Data, tmp_path: Path) -> None:
    """An image under another suffix does not take the place of the one that the label names."""
    members = {key: (data.root / key).read_bytes() for key in data.keys}
    members[data.keys[0].replace(".JPEG", ".png")] = b"another"
    loader = CropLoader(write_tar(tmp_path / "x.tar", members), data.labels, 34, 2, 32, on_missing="ignore")
    (batch,) = loader
    assert isinstance(batch, Batch)
    assert sorted(set(batch.keys)) == data.keys
    loader.close()


@pytest.mark.parametrize("indexed", [False, True])
def test_shards_that_change_under_a_loader(data: Data, tmp_path: Path, indexed: bool) -> None:
    """Within an epoch, and before one: also before the first, when offsets are known but nothing is read."""
    path = plain_tar(data, tmp_path)
    if indexed:
        write_store_index(open_store(path), f"{path}.fkdi")
    whole = path.read_bytes()
    for begun in (False, True):
        path.write_bytes(whole)
        if indexed:
            write_store_index(TarShards([path]), f"{path}.fkdi")
        loader = CropLoader(path, data.labels, 4, 2, 32, prefetch=1, threads=1)
        batches = iter(loader)
        if begun:
            next(batches)
        with path.open("r+b") as file:  # never shorter, for threads that read meanwhile
            os.pwrite(file.fileno(), b"\0", 2000)
        touch(path)
        with pytest.raises(RuntimeError, match=r"the file has changed since .*open.*train.tar"):
            list(batches)
        with pytest.raises(RuntimeError, match=r"the file has changed since it was opened.*train.tar"):
            next(iter(loader))
        loader.close()


def test_missing_images_are_errors_when_read(data: Data, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "x")
    labels = data.labels
    loader = CropLoader(tmp_path / "x", labels, 34, 2, 32)
    (tmp_path / "x" / data.keys[4]).unlink()
    with pytest.raises(OSError, match=f"cannot open .*{data.keys[4]}"):
        next(iter(loader))
    loader.close()
    with pytest.raises(ValueError, match=f"1 of 17 labels have no image .such as {data.keys[4]}"):
        CropLoader(tmp_path / "x", labels, 34, 2, 32, check_images=True)
    with pytest.raises(ValueError, match=f"do not match.*such as {data.keys[4]}"):
        CropLoader(tmp_path / "x", labels, 34, 2, 32)
