"""Folders, lists and tar shards: the same keys in whatever order files are listed, errors that name the
path."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from storing import contents, names, write_tar

from fkdx.stores import FileList, ImageFolder, TarShards, open_store

FILES = {"b/2.JPEG": b"bb", "a/1.jpg": b"a", "b/10.png": b"ccc", "a/deep/x.webp": b"dddd"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key, data in {**FILES, "b/notes.txt": b"no image"}.items():
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "images"


def test_image_folder(folder: Path) -> None:
    store = ImageFolder(folder)
    assert store.keys == sorted(FILES)
    assert names(store) == ["a", "a", "b", "b"]
    assert contents(store) == FILES


def test_file_list(folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("b/2.JPEG\n\na/1.jpg\n")
    store = open_store(listed)
    assert store.keys == ["a/1.jpg", "b/2.JPEG"]
    assert contents(store) == {key: FILES[key] for key in store.keys}
    assert names(FileList(folder, ["x.jpg"])) == [None]
    with pytest.raises(ValueError, match=r"'x.jpg' twice.*images"):
        FileList(folder, ["x.jpg", "x.jpg"])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_shards(tmp_path: Path, form: int) -> None:
    long = "c/" + "x" * 150 + "ä.jpg"
    first = write_tar(
        tmp_path / "0.tar", {"./a/1.jpg": b"a", "b/2.JPEG": b"bb", "a/1.json": b"{}"}, format=form
    )
    write_tar(tmp_path / "1.tar", {long if form != tarfile.USTAR_FORMAT else "c/x.jpg": b"long"}, format=form)
    for root in (tmp_path, tmp_path / "*.tar", [first, tmp_path / "1.tar"]):
        store = open_store(root)
        assert len(store) == 3
        assert names(store) == ["a", "b", "c"]
        assert list(contents(store).values()) == [b"a", b"bb", b"long"]


def test_tar_classes_come_from_cls_members(tmp_path: Path) -> None:
    members = {"0001.jpg": b"x", "0001.cls": b"17", "0002.cls": b"3\n", "0002.png": b"y"}
    store = TarShards([write_tar(tmp_path / "0.tar", members)])
    assert store.keys == ["0001.jpg", "0002.png"]
    assert names(store) == ["17", "3"]


@pytest.mark.parametrize(("label", "found"), [("1", 1), ("1.0", 1), ("1.5", -1), ("[1]", -1), ("true", -1)])
def test_class_numbers_in_json(tmp_path: Path, label: str, found: int) -> None:
    members = {"x.jpg": b"x", "x.json": f'{{"label": {label}}}'.encode()}
    store = TarShards([write_tar(tmp_path / "x.tar", members)])
    assert store.class_of.tolist() == [found]
    assert ("1 of 1 images have no class: the label in .json is no number" in store.complaint) == (found < 0)


def test_tar_errors(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "0.tar", {"a.jpg": b"x"})
    two = write_tar(tmp_path / "1.tar", {"a.jpg": b"x"})
    with pytest.raises(ValueError, match=r"'a.jpg' is in two shards.*0.tar.*1.tar"):
        TarShards([one, two])
    whole = write_tar(tmp_path / "whole.tar", {"a.jpg": b"x", "b.jpg": b"y"}).read_bytes()
    for broken in (whole[:700], whole[:1100], whole[:1024] + b"\1" * 512 + whole[1536:]):
        (tmp_path / "cut.tar").write_bytes(broken)
        with pytest.raises(ValueError, match=r"not a whole tar file.*cut.tar"):
            TarShards([tmp_path / "cut.tar"])
    with pytest.raises(FileNotFoundError, match="no images in"):
        TarShards([write_tar(tmp_path / "empty.tar", {"a.txt": b"x"})])


def test_nothing_there(tmp_path: Path) -> None:
    for root in (tmp_path / "no", tmp_path / "no*.tar"):
        with pytest.raises(FileNotFoundError, match="no"):
            open_store(root)
    with pytest.raises(FileNotFoundError, match="no images"):
        len(open_store(tmp_path))


def test_a_list_of_names_with_unusual_letters(folder: Path) -> None:
    """For Python these end a line."""
    keys = ["a/\u2028.jpg", "a/x\u0085y.jpg"]
    for key in keys:
        (folder / key).write_bytes(b"x")
    (folder / "list.txt").write_text("\r\n".join(keys))
    assert sorted(open_store(folder / "list.txt").keys) == sorted(keys)


def test_suffixes_in_capitals(folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/A.TAR", {"c/1.jpg": b"x"})
    assert list(open_store(tmp_path / "tars").keys) == ["c/1.jpg"]
    (tmp_path / "zips").mkdir()
    with zipfile.ZipFile(tmp_path / "zips/A.ZIP", "w") as archive:
        archive.writestr("c/1.jpg", b"x")
    assert list(open_store(tmp_path / "zips").keys) == ["c/1.jpg"]
    (folder / "LIST.TXT").write_text("a/1.jpg")
    assert list(open_store(folder / "LIST.TXT").keys) == ["a/1.jpg"]
    (folder / "CLASSES.CSV").write_text("image,synset,more\na/1.jpg,ant,x\n")
    assert names(open_store(f"{folder}/LIST.TXT@{folder}/CLASSES.CSV")) == ["ant"]


def test_classes_for_a_store_that_is_open(folder: Path) -> None:
    store = open_store(folder)
    assert open_store(store) is store
    with pytest.raises(
        ValueError, match="classes, got names for a store, expected them where that was opened"
    ):
        open_store(store, ["b", "a"])


def test_links_and_dots_in_names(folder: Path) -> None:
    os.symlink(folder / "a", folder / "linked")
    (folder / "a.b").mkdir()
    (folder / "a.b/x.y.JPG").write_bytes(b"z")
    assert {"linked/1.jpg", "a.b/x.y.JPG"} <= set(ImageFolder(folder).keys)


def test_tar_files_beside_class_folders(folder: Path) -> None:
    write_tar(folder / "left.tar", {"c/1.jpg": b"x"})
    with pytest.raises(ValueError, match=r"1 tar files \(left.tar, ...\) beside 2 folders .*'.*tar'"):
        open_store(folder)
    assert names(open_store(folder / "*.tar")) == ["c"]


def test_what_no_label_file_can_hold(folder: Path) -> None:
    for name in ("back\\slash.jpg", "tab\t.jpg", "new\nline.jpg"):
        path = folder / "a" / name
        path.write_bytes(b"x")
        with pytest.raises(ValueError, match=r"file name, got .*can hold.*rename the file.*images"):
            ImageFolder(folder).keys  # noqa: B018
        path.unlink()


def test_what_is_no_file(folder: Path) -> None:
    os.symlink("nowhere.jpg", folder / "a/link.jpg")
    with pytest.raises(ValueError, match=r"a link to nothing, .*restore.*a/link.jpg"):
        ImageFolder(folder).keys  # noqa: B018
    (folder / "a/link.jpg").unlink()
    os.symlink("link.jpg", folder / "a/link.jpg")
    with pytest.raises(OSError, match=r"cannot stat .*a/link.jpg: Too many levels of symbolic links"):
        ImageFolder(folder).keys  # noqa: B018
    (folder / "a/link.jpg").unlink()
    os.mkfifo(folder / "b/pipe.jpg")
    with pytest.raises(ValueError, match=r"a pipe, .* remove it, .*b/pipe.jpg"):
        ImageFolder(folder).keys  # noqa: B018


def test_names_that_are_not_utf8(folder: Path) -> None:
    (folder / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"got 'a/caf\\xe9.jpg', .*rename the file.*images"):
        ImageFolder(folder).keys  # noqa: B018
