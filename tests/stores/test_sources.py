"""Folders, lists and tar shards: the same keys in whatever order files are listed, errors that name the
path."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from fkdx.stores.sources import FileList, ImageFolder, Source, TarShards, open_source, read_lines

FILES = {"b/2.JPEG": b"bb", "a/1.jpg": b"a", "b/10.png": b"ccc", "a/deep/x.webp": b"dddd"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key, data in {**FILES, "b/notes.txt": b"no image"}.items():
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "images"


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def contents(source: Source) -> dict[str, bytes]:
    found = {}
    for i, key in enumerate(source.keys):
        path, offset, length = source.place(i)
        with open(path, "rb") as file:
            file.seek(offset)
            found[key] = file.read(length)
    return found


def test_image_folder(folder: Path) -> None:
    source = ImageFolder(folder)
    assert source.keys == sorted(FILES)
    assert source.classes == ["a", "a", "b", "b"]
    assert contents(source) == FILES


def test_file_list(folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_text("b/2.JPEG\n\na/1.jpg\n")
    source = open_source(listed)
    assert source.keys == ["a/1.jpg", "b/2.JPEG"]
    assert contents(source) == {key: FILES[key] for key in source.keys}
    assert FileList(folder, ["x.jpg"]).classes == [None]
    with pytest.raises(ValueError, match=r"listed twice.*x.jpg"):
        FileList(folder, ["x.jpg", "x.jpg"])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_shards(tmp_path: Path, form: int) -> None:
    long = "c/" + "x" * 150 + "ä.jpg"
    first = write_tar(
        tmp_path / "0.tar", {"./a/1.jpg": b"a", "b/2.JPEG": b"bb", "a/1.json": b"{}"}, format=form
    )
    write_tar(tmp_path / "1.tar", {long if form != tarfile.USTAR_FORMAT else "c/x.jpg": b"long"}, format=form)
    for root in (tmp_path, tmp_path / "*.tar", [first, tmp_path / "1.tar"]):
        source = open_source(root)
        assert len(source) == 3
        assert source.classes == ["a", "b", "c"]
        assert list(contents(source).values()) == [b"a", b"bb", b"long"]


def test_tar_classes_come_from_cls_members(tmp_path: Path) -> None:
    members = {"0001.jpg": b"x", "0001.cls": b"17", "0002.cls": b"3\n", "0002.png": b"y"}
    source = TarShards([write_tar(tmp_path / "0.tar", members)])
    assert source.keys == ["0001.jpg", "0002.png"]
    assert source.classes == ["17", "3"]


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
            open_source(root)
    with pytest.raises(FileNotFoundError, match="no images"):
        open_source(tmp_path)


def test_links_and_dots_in_names(folder: Path) -> None:
    os.symlink(folder / "a", folder / "linked")
    (folder / "a.b").mkdir()
    (folder / "a.b/x.y.JPG").write_bytes(b"z")
    assert {"linked/1.jpg", "a.b/x.y.JPG"} <= set(ImageFolder(folder).keys)


def test_names_that_are_not_utf8(folder: Path) -> None:
    (folder / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"got b'a/caf\\xe9'..., expected UTF-8; rename the file.*images"):
        ImageFolder(folder)


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("grey whale \r\n\n\u9be8\n".encode())
    assert read_lines(tmp_path / "names.txt") == ["grey whale", "\u9be8"]
