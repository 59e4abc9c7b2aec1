"""`fkdx repack`: the same bytes in shards, whatever they come from, however often it is stopped."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from loading import rows, write_labels
from store_writers import PACKED, draw_synsets
from storing import contents, names, touch, write_tar

from fkdx import CropLoader
from fkdx.cli import main
from fkdx.commands.repack import make_plan, repack
from fkdx.stores import ImageFolder, IndexedImages, Store, open_store


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    return draw_black(tmp_path / "train", [f"{c}/{i}.jpg" for c in "abc" for i in range(20)], rng)


def test_same_bytes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["repack", str(folder), "-o", str(tmp_path / "out"), "--shard-size", "10k"]) == 0
    said = capsys.readouterr().out
    shards = sorted((tmp_path / "out").glob("*.tar"))
    total = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert f"60 images, {total:,} bytes, into {len(shards)} shards" in said
    assert len(shards) > 2
    store = open_store(tmp_path / "out")
    assert isinstance(store, IndexedImages)
    assert contents(store) == contents(ImageFolder(folder))
    assert store.class_names == ["a", "b", "c"]
    assert main(["repack", str(folder), "-o", str(tmp_path / "out"), "--shard-size", "10k"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [
        ".fkdi",
        ".json",
        *[".tar"] * len(shards),
    ]


def test_numbered_classes_keep_their_numbers(folder: Path, tmp_path: Path) -> None:
    members = {}
    for i, path in enumerate(sorted(folder.rglob("*.jpg"))):
        members |= {
            f"{i:04}.jpg": path.read_bytes(),
            f"{i:04}.cls": str("cab".index(path.parent.name)).encode(),
        }
    store = open_store(write_tar(tmp_path / "wds.tar", members))
    repack(store, tmp_path / "out", 10**9)
    made = open_store(tmp_path / "out")
    assert (list(made.keys), names(made)) == (list(store.keys), names(store))
    assert made.class_of.tolist() == store.class_of.tolist()


def test_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, store = tmp_path / "out", ImageFolder(folder)
    calls, encoded = [], ImageFolder.encoded

    def fail_late(self: ImageFolder, image: int) -> bytes:
        calls.append(image)
        if len(calls) == 35:
            raise OSError("pulled the plug")
        return encoded(self, image)

    monkeypatch.setattr(ImageFolder, "encoded", fail_late)
    with pytest.raises(OSError, match="plug"):
        repack(store, out, 10_000)
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 0 < len(done) < make_plan(store, 10_000).shards
    repack(store, out, 10_000)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert contents(open_store(out)) == contents(store)
    with pytest.raises(ValueError, match=r"repack: folder, begun with, got .*choose another folder"):
        repack(store, out, 20_000)


def test_shards_that_change_meanwhile(folder: Path, tmp_path: Path) -> None:
    first, second = ((folder / f"a/{i}.jpg").read_bytes() for i in (1, 2))
    store = open_store(write_tar(tmp_path / "x.tar", {"a/1.jpg": first, "a/2.jpg": second}))
    write_tar(tmp_path / "x.tar", {"a/1.jpg": second + b"longer", "a/2.jpg": first})
    touch(tmp_path / "x.tar")
    with pytest.raises(RuntimeError, match=r"the file has changed since it was opened; .*x\.tar"):
        repack(store, tmp_path / "out", 10**9)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["repack.json"]


def test_ctrl_c_says_how_to_go_on(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFolder, "encoded", stop)
    assert main(["repack", str(folder), "-o", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "fkdx repack: stopped; repeat the command to go on where it was\n"


@pytest.mark.parametrize("write", PACKED, ids=lambda write: write.__name__)
def test_compressed_stores(tmp_path: Path, write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that were compressed; stopped in the middle and gone on with; then the folder's batches."""
    data = draw_synsets(tmp_path / "synsets")
    store, out = open_store(write(data, tmp_path)), tmp_path / "out"
    whole, kind, calls = contents(ImageFolder(data.root)), type(store), []
    own = kind.encoded

    def fail_late(self: Store, image: int) -> bytes:
        calls.append(image)
        if len(calls) == 12:
            raise OSError("pulled the plug")
        return own(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "encoded", fail_late)
        with pytest.raises(OSError, match="plug"):
            repack(store, out, 10_000)
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 0 < len(done) < make_plan(store, 10_000).shards
    assert repack(store, out, 10_000) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    made = contents(open_store(out))
    assert {key.rpartition("/")[2]: image for key, image in made.items()} == {
        key.rpartition("/")[2]: image for key, image in whole.items()
    }
    shown = []
    for root in (data.root, out):
        loader = CropLoader(root, data.labels, 8, 2, 32, threads=1)
        shown.append([row for batch in loader for row in rows(batch)])
        loader.close()
    assert shown[0] == shown[1]


def test_gzip_files_are_unpacked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = (folder / "a/1.jpg").read_bytes()
    (folder / "a/1.jpg").write_bytes(gzip.compress(whole))
    assert main(["repack", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert "1 images were gzip files; they are unpacked" in capsys.readouterr().out
    assert contents(open_store(tmp_path / "out"))["a/1.jpg"] == whole
    (folder / "a/1.jpg").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match=r"damaged gz data .*a/1.jpg in .*train"):
        repack(ImageFolder(folder), tmp_path / "again", 10**9)


def test_classes_without_an_image_are_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "aa").mkdir()
    repack(open_store(folder), tmp_path / "out", 10**9)
    assert open_store(tmp_path / "out").class_names == open_store(folder).class_names
    assert "aa" in open_store(folder).class_names


def test_shards_among_the_images(folder: Path) -> None:
    """The folder would become a class, and shift the numbers of others."""
    with pytest.raises(
        ValueError, match=r"--output, got a folder among the images, .* outside of them, .*/new"
    ):
        repack(open_store(folder), folder / "new", 10**9)
    assert not (folder / "new").exists()


def test_folders_with_other_shards(folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "out/x.tar", {"a/1.jpg": b"x"})
    with pytest.raises(ValueError, match=r"the folder holds something else; .*out"):
        repack(ImageFolder(folder), tmp_path / "out", 10**9)


@pytest.mark.parametrize("size", ["0", "much", "-1G"])
def test_sizes_that_are_none(folder: Path, tmp_path: Path, size: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["repack", str(folder), "-o", str(tmp_path / "out"), "--shard-size", size])
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["10k", "1G"])
def test_the_index_is_found(folder: Path, tmp_path: Path, size: str) -> None:
    """Of several shards, and of one."""
    assert main(["repack", str(folder), "-o", str(tmp_path / "out"), "--shard-size", size]) == 0
    assert isinstance(open_store(tmp_path / "out"), IndexedImages)


def test_labels_of_images_without_folders_fit_the_shards(tmp_path: Path, rng: np.random.Generator) -> None:
    """A table has their classes. Labels that were made on class folders fit as well."""
    keys = sorted(f"{c}/{c[0]}.{i}.jpg" for c in ("an ant", "bee") for i in range(6))
    root, flat, names = tmp_path / "train", tmp_path / "flat", [key.partition("/")[2] for key in keys]
    draw_black(root, keys, rng)
    draw_black(flat, names, rng)
    for key, name in zip(keys, names):
        shutil.copy(root / key, flat / name)
    table = "".join(f"{name},{key.partition('/')[0]}\n" for name, key in zip(names, keys))
    (tmp_path / "classes.csv").write_text(table)
    told = f"{flat}@{tmp_path}/classes.csv"
    repack(open_store(told), tmp_path / "out", 10**9)
    assert [*open_store(tmp_path / "out").keys] == keys
    classes = ["an ant", "bee", *"cdefghij"]
    for place, folder, own in ((told, flat, names), (root, root, keys)):
        labels = write_labels(tmp_path / f"{folder.name}.fkdl", folder, own, rng, classes=classes)
        shown = []
        for images in (place, tmp_path / "out"):
            loader = CropLoader(images, labels, 8, 2, 16)
            shown.append([row for batch in loader for row in rows(batch)])
            loader.close()
        assert shown[0] == shown[1]


def test_images_of_one_stem_keep_their_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    """What is said of `1` would be said of both `1.jpg` and `1.png`."""
    parquet = pytest.importorskip("pyarrow.parquet")
    files = ["1.jpg", "1.png", "2.jpg"]
    draw_black(tmp_path, files, rng)
    images = [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in files]
    about = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    table = parquet.core.pa.table({"image": images, "label": [0, 1, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    parquet.write_table(table, tmp_path / "x.parquet")
    repack(open_store(tmp_path / "x.parquet"), tmp_path / "out", 10**9)
    made = open_store(tmp_path / "out")
    assert [*made.keys] == ["ant/1.jpg", "bee/1.png", "bee/2.jpg"]
    assert (made.class_of.tolist(), made.class_names) == ([0, 1, 1], ["ant", "bee"])
