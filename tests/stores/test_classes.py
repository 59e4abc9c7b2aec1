"""One rule for class numbers: every program and every store, with empty, hidden and numbered folders."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import draw_black, draw_images
from loading import Data
from store_writers import STORES, SYNSETS, number
from storing import write_tar

from fkdx import CropLoader, LabelWriter, ValidationLoader
from fkdx.stores import (
    ImageFolder,
    Store,
    TarShards,
    are_placeholders,
    class_numbers,
    in_order,
    open_store,
    read_classes,
    read_lines,
)
from fkdx.stores.imagenet import with_words
from fkdx.stores.store import LEFT_BEHIND


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Classes a, b, c, d with images in all but b, and folders that are no classes."""
    root = draw_black(tmp_path / "images", [f"{name}/{i}.jpg" for name in "acd" for i in range(3)], rng)
    draw_black(root, [f"{name}/1.jpg" for name in (".ipynb_checkpoints", *LEFT_BEHIND)], rng)
    (root / "b").mkdir()
    return root


def test_order() -> None:
    assert in_order(["b", "a", "b"]) == ["a", "b"]
    assert in_order(map(str, range(12))) == [str(n) for n in range(12)]
    assert in_order(["1", "10", "2"]) == ["1", "10", "2"]  # not 0 ... C-1: names like any others
    assert in_order(["00", "1"]) == ["00", "1"]
    assert in_order([]) == []


def test_padded_numbers_behind_a_word_are_in_their_order() -> None:
    """As LPQLD writes 10,450 classes with three digits; torch's order of folders is that of text."""
    names = [f"new{number:03d}" for number in range(1200)]
    assert sorted(names) != names
    assert in_order(names[::-1]) == names
    for other in (
        names[1:],
        [*names[:-1], "new1300"],
        ["old1199", *names[:-1]],
        [f"c{n}" for n in range(12)],
    ):
        assert in_order(other[::-1]) == sorted(other)
    assert are_placeholders(names)
    assert not are_placeholders(sorted(names))


def test_synsets_with_their_words() -> None:
    names = ["n01440764", "dog", "n99999999", "n02051845 pelican"]
    assert with_words(names) == ["n01440764 tench", *names[1:]]
    assert with_words(["a", "b"]) == ["a", "b"]


def test_empty_and_hidden_folders(folder: Path) -> None:
    store = ImageFolder(folder)
    assert store.class_names == ["a", "b", "c", "d"]
    assert len(store) == 9
    assert store.class_of.tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]


def test_both_loaders_number_alike(folder: Path) -> None:
    loader, validation = CropLoader(folder, None, 3, 1, 8), ValidationLoader(folder, 9, 8)
    assert loader.classes == validation.classes == ["a", "b", "c", "d"]
    for batch in (*loader, *validation):
        assert [loader.classes[c] for c in batch.classes.tolist()] == [key[0] for key in batch.keys]
    loader.close(), validation.close()


# ---- labels that name no classes ---------------------------------------------------------------------------


def unnamed_labels(path: Path, keys: list[str], classes: int) -> Path:
    with LabelWriter(path, "hard", num_classes=classes, crops=1, ratios=True) as writer:
        for key in keys:
            writer.add(key, [[0, 0, 1, 1]], [False], [1], None)
    return path


def classes_of(store: Store, labels: Path) -> dict[str, int]:
    """The class of every image beside labels without class names, by the image's own name."""
    loader = CropLoader(store, labels, 1, 1, 8)
    found = {batch.keys[0].rpartition("/")[2]: int(batch.classes[0]) for batch in loader}
    loader.close()
    return found


@pytest.mark.parametrize("write", STORES, ids=lambda write: write.__name__)
def test_sorted_folders_in_every_store(data: Data, tmp_path: Path, write: Callable) -> None:
    """By the folder, the image's name or the names of the numbers, all of them sorted."""
    labels = unnamed_labels(tmp_path / "x.fkdl", data.keys, len(SYNSETS))
    found = classes_of(open_store(write(data, tmp_path)), labels)
    assert found == {key.rpartition("/")[2]: SYNSETS.index(key.split("/")[0]) for key in data.keys}


def other_numbers(data: Data, to: Path, named: bool) -> tuple[Path, list[str]]:
    """WebDataset shards that count classes backwards, under synsets or running numbers; and the keys."""
    members, keys = {}, []
    for i, key in enumerate(data.keys):
        stem = key.split("/")[1].removesuffix(".JPEG") if named else f"{i:05}"
        members |= {f"{stem}.jpg": (data.root / key).read_bytes(), f"{stem}.cls": b"%d" % (2 - number(key))}
        keys.append(f"{stem}.jpg")
    return write_tar(to / "x.tar", members), keys


@pytest.mark.parametrize("named", [True, False])
def test_numbers_are_matched_only_when_told(data: Data, tmp_path: Path, named: bool) -> None:
    path, keys = other_numbers(data, tmp_path, named)
    labels = unnamed_labels(tmp_path / "x.fkdl", keys, len(SYNSETS))
    got = "such as n04286575, n02018795, n01440764" if named else "numbers without names, such as 0"
    with pytest.raises(
        ValueError, match=rf"count sorted folders, .* are {got}; say what .*--classes.*x.fkdl"
    ):
        CropLoader(path, labels, 1, 1, 8)
    backwards = {key: 2 - number(image) for key, image in zip(keys, data.keys)}
    (tmp_path / "names.txt").write_text("\n".join(SYNSETS[::-1]))
    assert classes_of(open_store(path, tmp_path / "names.txt"), labels) == backwards
    assert classes_of(open_store(path, ["0", "1", "2"]), labels) == backwards


def test_folders_that_are_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    """Ten are in the same order as text and as numbers, eleven are not."""
    for count in (10, 11):
        keys = [f"{c}/{c}.jpg" for c in range(count)]
        root = draw_images(tmp_path / str(count), keys, lambda _: np.zeros((9, 9, 3), np.uint8))
        labels = unnamed_labels(tmp_path / f"{count}.fkdl", keys, count)
        if count > 10:
            with pytest.raises(
                ValueError, match=r"count sorted folders, .* classes are such as 0, 1, 2; say"
            ):
                CropLoader(root, labels, 1, 1, 8)
        told = open_store(root, [str(c) for c in range(count)])
        assert classes_of(told, labels) == {f"{c}.jpg": c for c in range(count)}
    labels = unnamed_labels(tmp_path / "more.fkdl", keys, count + 1)  # of other classes: nothing to match
    assert set(classes_of(open_store(root), labels).values()) == {-1}


@pytest.mark.parametrize("names", [list("wxyz"), None])
def test_labels_with_and_without_names(folder: Path, tmp_path: Path, names: list[str] | None) -> None:
    keys = [key for key in ImageFolder(folder).keys if key[0] != "d"]
    classes = names and ["c", "a", "b", "d"]
    with LabelWriter(tmp_path / "l.fkdl", "hard", num_classes=4, crops=1, classes=classes) as writer:
        for key in keys:
            writer.add(key, [[0, 0, 40, 40]], [False], [1], None, (40, 40))
    loader = CropLoader(folder, tmp_path / "l.fkdl", 3, 1, 8, on_missing="ignore")
    assert loader.classes == (classes or ["a", "b", "c", "d"])
    loader.close()


def test_numbers_are_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    root = draw_black(tmp_path / "images", [f"{c}/{i}.jpg" for c in range(12) for i in range(2)], rng)
    members = {f"{n:03}.jpg": path.read_bytes() for n, path in enumerate(sorted(root.rglob("*.jpg")))}
    members |= {
        f"{n:03}.cls": path.parent.name.encode() for n, path in enumerate(sorted(root.rglob("*.jpg")))
    }
    tar = write_tar(tmp_path / "shards/0.tar", members)
    for store in (open_store(root), open_store(tar)):
        assert store.class_names == [str(n) for n in range(12)]
    validation = ValidationLoader(root, 24, 8)
    (batch,) = validation
    assert [key.split("/")[0] for key in batch.keys] == [str(c) for c in batch.classes.tolist()]
    validation.close()


def test_given_names(folder: Path) -> None:
    store = ImageFolder(folder)
    names, class_of = class_numbers(store, ["d", "c", "a"])  # b has no image, so nobody misses it
    assert names == ["d", "c", "a"]
    assert class_of.tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    with pytest.raises(
        ValueError, match=r"1 classes of images are not among the 2 .* 'd' of d/0.jpg.*images"
    ):
        class_numbers(store, ["a", "c"])
    with pytest.raises(ValueError, match="got 'a' twice"):
        class_numbers(store, ["a", "a", "c", "d"])


def test_images_without_a_class(folder: Path, rng: np.random.Generator) -> None:
    draw_black(folder, ["loose.jpg"], rng)
    for open_loader in (lambda: ValidationLoader(folder, 3, 8), lambda: CropLoader(folder, None, 3, 1, 8)):
        with pytest.raises(ValueError, match=r"1 (of 10 )?images .*loose.jpg"):
            open_loader()


def test_files_of_class_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffgrey whale \r\n\n\u9be8\n".encode())
    assert read_lines(path) == read_classes(path) == ["grey whale", "\u9be8"]
    path.write_text("crane\nmaillot\ncrane\n")
    with pytest.raises(ValueError, match=r"class names: got 'crane' twice .*names.txt"):
        read_classes(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"an empty file.*names.txt"):
        read_classes(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"expected UTF-8, .*names.txt"):
        read_classes(path)


def test_labels_with_a_name_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("classes, got 'crane' twice")):
        LabelWriter(tmp_path / "x.fkdl", num_classes=3, k=1, crops=1, classes=["crane", "crane", "dog"])


def test_tar_classes(tmp_path: Path) -> None:
    store = TarShards([write_tar(tmp_path / "0.tar", {"b/1.jpg": b"x", "a/1.jpg": b"x", "loose.jpg": b"x"})])
    assert store.class_names == ["a", "b"]
    assert store.class_of.tolist() == [0, 1, -1]
