"""One rule for class numbers: every program and every store, with empty, hidden and numbered folders."""

import re
from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from storing import write_tar

from fkdx import CropLoader, LabelWriter, ValidationLoader
from fkdx.stores import ImageFolder, TarShards, class_numbers, in_order, open_store, read_classes, read_lines
from fkdx.stores.imagenet import with_words


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Classes a, b, c, d with images in all but b, and folders that are no classes."""
    root = draw_black(tmp_path / "images", [f"{name}/{i}.jpg" for name in "acd" for i in range(3)], rng)
    draw_black(root, [".ipynb_checkpoints/1.jpg", "lost+found/1.jpg", "@eaDir/1.jpg", "__MACOSX/1.jpg"], rng)
    (root / "b").mkdir()
    return root


def test_order() -> None:
    assert in_order(["b", "a", "b"]) == ["a", "b"]
    assert in_order(map(str, range(12))) == [str(n) for n in range(12)]
    assert in_order(["1", "10", "2"]) == ["1", "10", "2"]  # not 0 ... C-1: names like any others
    assert in_order(["00", "1"]) == ["00", "1"]
    assert in_order([]) == []


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
