"""Parquet files: read in the order of their rows, to label, to evaluate on, to index and to repack them."""

from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from loading import Data, write_labels
from store_writers import SYNSETS, WORDS, arrow_table, parquet, parquet_rows
from storing import touch

from fkdx import CropLoader, ValidationLoader
from fkdx.commands.repack import repack
from fkdx.loader.verify_images import verify_images
from fkdx.stores import Store, open_store, write_store_index

pytest.importorskip("pyarrow.parquet")
ROWS = "data/train-00000-of-00001.parquet"


def file_of(data: Data, key: str) -> bytes:
    """The bytes of the image whose row has this path."""
    stem, _, synset = key.removesuffix(".JPEG").rpartition("_")
    return (data.root / synset / f"{stem}.JPEG").read_bytes()


def check_store(store: Store, data: Data) -> None:
    assert store.sequential
    assert store.class_names == list(
        SYNSETS
    )  # of words, which the files' metadata has, and paths with synsets
    assert len(store) == len(data.keys)
    for image, key in enumerate(store.keys):
        assert store.encoded(image) == file_of(data, key)
        assert key.endswith(f"_{store.class_names[store.class_of[image]]}.JPEG")
    assert store.sizes().tolist() == [len(file_of(data, key)) for key in store.keys]
    ordered = [store.keys[int(i)] for i in store.reading_order]
    assert ordered == [row["path"] for row in parquet_rows(data)[0]]


def test_rows(data: Data, tmp_path: Path) -> None:
    check_store(open_store(parquet(data, tmp_path)), data)


@pytest.mark.parametrize("label", [0.5, [1], True], ids=str)
def test_labels_that_are_no_classes(tmp_path: Path, label: object) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = {
        "image": [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": "ant/1.jpg"}],
        "label": [label] * 2,
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "X.PARQUET")
    with pytest.warns(
        UserWarning, match=r"1 of 2 images have no class: the labels are (double|list.*|bool), exp"
    ):
        assert open_store(tmp_path).class_of.tolist() == [-1, 0]


def test_index(data: Data, tmp_path: Path) -> None:
    folder = parquet(data, tmp_path)
    write_store_index(open_store(folder), f"{folder / ROWS}.fkdi")
    store = open_store(folder)
    assert store.index.about["store"] == "parquet"
    check_store(store, data)
    check_store(open_store(f"{folder / ROWS}.fkdi"), data)
    assert store.index.column("pixels").tolist() == [list(store.image_size(i)) for i in range(len(store))]


def test_training_names_repack(data: Data, tmp_path: Path) -> None:
    for labels in (data.labels, None):
        with pytest.raises(ValueError, match=r"random order.*run `fkdx repack .* -o DIR` and train on DIR"):
            CropLoader(parquet(data, tmp_path), labels, 8, 2, 32)


@pytest.mark.parametrize("world", [1, 2])
def test_validation(data: Data, tmp_path: Path, world: int) -> None:
    """The same pixels and classes as from the folder, whatever the order."""

    def images(root: Path) -> dict[bytes, int]:
        shown = {}
        for rank in range(world):
            loader = ValidationLoader(root, 5, 32, classes=list(SYNSETS), rank=rank, world_size=world)
            for batch in loader:
                shown |= {pixels.numpy().tobytes(): int(c) for pixels, c in zip(batch.images, batch.classes)}
            loader.close()
        return shown

    assert images(parquet(data, tmp_path)) == images(data.root)


def test_images_that_cannot_be_read(data: Data, tmp_path: Path) -> None:
    images, _ = parquet_rows(data)
    images[3]["bytes"] = images[3]["bytes"][:300]
    images[5]["bytes"] = b""
    path = arrow_table(tmp_path / "x.parquet", {"image": images})
    bad = list(verify_images(str(path), progress=False))
    assert {image.key for image in bad} == {images[3]["path"], images[5]["path"]}
    assert all("x.parquet, row" in image.reason for image in bad)


def test_plain_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    """A column of bytes and one of names, as img2dataset and others write."""
    root = draw_black(tmp_path, ["b.jpg", "a.jpg"], rng)
    columns = {
        "jpg": [(root / name).read_bytes() for name in ("b.jpg", "a.jpg")],
        "filename": ["x/b.jpg", "y/a.jpg"],
    }
    store = open_store(arrow_table(tmp_path / "x.parquet", columns))
    assert list(store.keys) == ["x/b.jpg", "y/a.jpg"]
    assert store.class_names == ["x", "y"]
    assert store.encoded(1) == (root / "a.jpg").read_bytes()
    store = open_store(arrow_table(tmp_path / "y.parquet", {"jpg": columns["jpg"], "label": [1, 0]}))
    assert list(store.keys) == ["00000000.jpg", "00000001.jpg"]
    assert store.class_of.tolist() == [1, 0]


def test_names_that_several_classes_share(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in what Hugging Face's writer makes of class folders."""
    keys = [f"{c}/{i}.jpg" for c in ("an ant", "bee") for i in range(5)]
    root = draw_black(tmp_path / "train", keys, rng)
    labels = write_labels(tmp_path / "l.fkdl", root, keys, rng, classes=["an ant", "bee", *"cdefghij"])
    images = [{"bytes": (root / key).read_bytes(), "path": key.partition("/")[2]} for key in keys]
    for number, label in enumerate(([0] * 5 + [1] * 5, ["an ant"] * 5 + ["bee"] * 5)):
        columns = {"image": images, "label": label}
        names = ["an ant", "bee"] if number == 0 else None
        store = open_store(arrow_table(tmp_path / f"{number}.parquet", columns, names))
        assert (list(store.keys), store.class_names) == (keys, ["an ant", "bee"])
        repack(store, tmp_path / f"out{number}", 10**9)
        assert len(list(CropLoader(tmp_path / f"out{number}", labels, 4, 2, 16))) == 5
    columns["label"] = [1] * 10
    with pytest.raises(
        ValueError, match=r"image '.*0\.jpg' is twice in .*x\.parquet, expected each image once"
    ):
        open_store(arrow_table(tmp_path / "x.parquet", columns, ["an ant", "bee"]))


def test_words_without_synsets(data: Data, tmp_path: Path) -> None:
    """Class numbers keep the names that the files say where paths have none."""
    images, classes = parquet_rows(data)
    for i, image in enumerate(images):
        image["path"] = f"{i}.jpg"
    path = arrow_table(tmp_path / "x.parquet", {"image": images, "label": classes}, WORDS)
    assert open_store(path).class_names == WORDS
    path = arrow_table(tmp_path / "y.parquet", {"image": images, "label": classes}, WORDS[:2])
    with pytest.raises(ValueError, match=r"number, got 2 of .*, expected 0 to 1.*y.parquet"):
        open_store(path)


def test_what_macos_leaves_behind(data: Data, tmp_path: Path) -> None:
    parquet(data, tmp_path)
    (tmp_path / "data/._train-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7")
    assert len(open_store(tmp_path)) == len(data.keys)


def test_not_whole(data: Data, tmp_path: Path) -> None:
    path = parquet(data, tmp_path) / ROWS
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"not a whole parquet file.*train-00000"):
        open_store(tmp_path)
    path.write_bytes(whole)
    path.with_name("validation-00000-of-00001.parquet").write_bytes(whole)
    with pytest.raises(ValueError, match=r"splits train, validation, expected one; give '.*train-\*.parquet"):
        open_store(tmp_path)


def test_other_columns(data: Data, tmp_path: Path) -> None:
    path = arrow_table(tmp_path / "x.parquet", {"image": data.keys})
    with pytest.raises(ValueError, match=r"columns, got image string, expected one of images, .*x.parquet"):
        open_store(path)
    images, _ = parquet_rows(data)
    path = arrow_table(tmp_path / "y.parquet", {"one": images, "two": images})
    with pytest.raises(ValueError, match=r"columns, got one struct.*two struct.*expected one of images"):
        open_store(path)


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"info": null}', '{"info": {"features": {"label": {"names": "abc"}}}}', "1", b"\xff"]
)
def test_metadata_of_another_form(tmp_path: Path, said: str | bytes) -> None:
    """The numbers keep no names, and nothing else is lost."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table({"image": [b"x", b"y"], "label": [1, 0]}).replace_schema_metadata(
        {"huggingface": said}
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    store = open_store(tmp_path / "x.parquet")
    assert (store.class_names, store.class_of.tolist()) == (["0", "1"], [1, 0])


def test_paths_instead_of_images(data: Data, tmp_path: Path) -> None:
    images, _ = parquet_rows(data)
    images[6]["bytes"] = None
    path = arrow_table(tmp_path / "x.parquet", {"image": images})
    with pytest.raises(
        ValueError,
        match=r"1 rows from row 4 on, got no bytes.*paths instead of images; write it again.*x.parquet",
    ):
        open_store(path)
    every = [{"bytes": None, "path": row["path"]} for row in images]  # a column of no type at all
    path = arrow_table(tmp_path / "y.parquet", {"image": every})
    with pytest.raises(ValueError, match=r"all rows, got no bytes, .*paths instead of images.*y.parquet"):
        open_store(path)


def test_files_that_change(data: Data, tmp_path: Path) -> None:
    images, _ = parquet_rows(data)
    path = arrow_table(tmp_path / "x.parquet", {"image": images})
    store = open_store(path)
    assert store.encoded(0)
    arrow_table(path, {"image": images[::-1]})
    touch(path)
    with pytest.raises(
        RuntimeError, match=r"the file has changed since it was opened; open it again, .*x.parq"
    ):
        [store.encoded(image) for image in range(len(store))]


def test_files_of_other_classes(data: Data, tmp_path: Path) -> None:
    images, classes = parquet_rows(data)
    for number, names in enumerate((WORDS, WORDS[::-1])):
        columns = {"image": images[number::2], "label": classes[number::2]}
        arrow_table(tmp_path / f"{number}.parquet", columns, names)
    with pytest.raises(
        ValueError, match=r"class names, got .'spotlight, spot'.*expected those of .*0.parquet"
    ):
        open_store(tmp_path)
