"""The same images kept by every store, each written by its own library: the same batches, bit for bit."""

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import encode
from loading import Data, rows, write_labels
from storing import write_tar

from fkdx import CropLoader
from fkdx.loader import Batch
from fkdx.stores import open_store

SYNSETS = ("n01440764", "n02018795", "n04286575")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """17 images of three synsets under ImageNet's names, and their labels."""
    rng, root = np.random.default_rng(5), tmp_path_factory.mktemp("formats")
    keys = [f"{SYNSETS[i % 3]}/{SYNSETS[i % 3]}_{7 * i}.JPEG" for i in range(17)]
    for i, key in enumerate(keys):
        path = root / "images/train" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng, ("4:2:0", "progressive", "gray", "cmyk")[i % 4], 60 + i, 80))
    classes = [*SYNSETS, *"defghij"]
    labels = write_labels(root / "labels.fkdl", root / "images/train", keys, rng, classes=classes)
    return Data(root / "images/train", labels, sorted(keys))


def number(key: str) -> int:
    return SYNSETS.index(key.split("/")[0])


def batches(store: object, labels: Path) -> list[list[tuple]]:
    """Every row of two epochs."""
    loader = CropLoader(store, labels, 8, 2, 32, seed=9, threads=2)
    found = [list(rows(batch)) for _ in range(2) for batch in loader]
    loader.close()
    return found


# ---- one writer a store ------------------------------------------------------------------------------------


def plain_tar(data: Data, to: Path) -> Path:
    with tarfile.open(to / "train.tar", "w") as tar:
        tar.add(data.root, arcname="train")
    return to / "train.tar"


def official_tar(data: Data, to: Path) -> Path:
    """ILSVRC2012_img_train.tar: a tar file of one tar file a synset."""
    members = {}
    for synset in SYNSETS:
        files = {path.name: path.read_bytes() for path in sorted((data.root / synset).iterdir())}
        members[f"{synset}.tar"] = write_tar(to / "inner.tar", files).read_bytes()
    (to / "inner.tar").unlink()
    return write_tar(to / "ILSVRC2012_img_train.tar", members)


def timm_shards(data: Data, to: Path) -> Path:
    """timm/imagenet-1k-wds: .jpg, .cls and .json with the file's name."""
    webdataset = pytest.importorskip("webdataset")
    for shard in range(2):
        with webdataset.TarWriter(str(to / f"imagenet1k-train-{shard:04}.tar")) as sink:
            for key in data.keys[shard::2]:
                note = {"filename": key, "label": number(key), "height": 1, "width": 1}
                jpg = (data.root / key).read_bytes()
                stem = key.split("/")[1].removesuffix(".JPEG")
                sink.write({"__key__": stem, "jpg": jpg, "cls": number(key), "json": note})
    return to / "imagenet1k-train-*.tar"


def shards_of_stems(data: Data, to: Path) -> Path:
    """WebDataset shards whose members are named by the image alone."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(to / "0.tar")) as sink:
        for key in reversed(data.keys):
            stem = key.split("/")[1].removesuffix(".JPEG")
            sink.write({"__key__": stem, "jpg": (data.root / key).read_bytes(), "cls": number(key)})
    return to


def numbered_shards(data: Data, to: Path) -> Path:
    """WebDataset shards whose members are running numbers, named in .json."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(to / "0.tar")) as sink:
        for i, key in enumerate(data.keys):
            note = {"filename": key, "label": number(key)}
            sink.write({"__key__": f"{i:08}", "jpeg": (data.root / key).read_bytes(), "json": note})
    return to / "0.tar"


def stored_zip(data: Data, to: Path) -> str:
    """As Kaggle keeps it: all splits in one archive."""
    with zipfile.ZipFile(to / "kaggle.zip", "w") as archive:
        for key in data.keys:
            archive.write(data.root / key, f"ILSVRC/Data/CLS-LOC/train/{key}")
        archive.writestr("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", b"another image")
    return f"{to / 'kaggle.zip'}::ILSVRC/Data/CLS-LOC/train"


def listed(data: Data, to: Path) -> Path:
    (data.root / "list.txt").write_text("\n".join(data.keys))
    return data.root / "list.txt"


def mds(data: Data, to: Path) -> Path:
    streaming = pytest.importorskip("streaming")
    columns = {"image": "bytes", "filename": "str", "label": "int"}
    with streaming.MDSWriter(out=str(to / "mds"), columns=columns, size_limit=20_000) as out:
        for key in data.keys:
            name = key.split("/")[1]
            out.write({"image": (data.root / key).read_bytes(), "filename": name, "label": number(key)})
    return to / "mds"


STORES = [plain_tar, official_tar, timm_shards, shards_of_stems, numbered_shards, stored_zip, listed, mds]


@pytest.mark.parametrize("write", STORES, ids=lambda write: write.__name__)
def test_same_batches(data: Data, tmp_path: Path, write: Callable[[Data, Path], object]) -> None:
    store = open_store(write(data, tmp_path))
    assert len(store) == len(data.keys)
    assert store.class_names == list(SYNSETS)
    assert batches(store, data.labels) == batches(data.root, data.labels)
    assert sorted(store.sizes().tolist()) == sorted((data.root / key).stat().st_size for key in data.keys)


# ---- Hugging Face parquet ----------------------------------------------------------------------------------


def parquet(data: Data, to: Path, **changes: object) -> Path:
    """ILSVRC/imagenet-1k: shuffled rows of {bytes, path} and a ClassLabel, small row groups."""
    arrow = pytest.importorskip("pyarrow")
    order = np.random.default_rng(1).permutation(len(data.keys))
    keys = [data.keys[i] for i in order]
    names = [f"{key.split('/')[1].removesuffix('.JPEG')}_{key.split('/')[0]}.JPEG" for key in keys]
    images = [{"bytes": (data.root / key).read_bytes(), "path": name} for key, name in zip(keys, names)]
    table = {"image": images, "label": [number(key) for key in keys], **changes}
    features = {"image": {"_type": "Image"}, "label": {"names": list(SYNSETS), "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    made = arrow.table(table).replace_schema_metadata(said)
    (to / "data").mkdir(exist_ok=True)
    path = to / "data/train-00000-of-00001.parquet"
    arrow.parquet.write_table(made, path, row_group_size=4) if hasattr(arrow, "parquet") else None
    return to


@pytest.fixture
def pyarrow_parquet() -> None:
    pytest.importorskip("pyarrow.parquet")


@pytest.mark.usefixtures("pyarrow_parquet")
def test_parquet(data: Data, tmp_path: Path) -> None:
    store = open_store(parquet(data, tmp_path))
    assert store.class_names == list(SYNSETS)
    assert {store.encoded(i) for i in range(len(store))} == {
        (data.root / key).read_bytes() for key in data.keys
    }
    for i, key in enumerate(store.keys):
        synset = store.class_names[store.class_of[i]]
        assert store.encoded(i) == (data.root / synset / key.replace(f"_{synset}", "")).read_bytes()
    with pytest.raises(ValueError, match=r"run `fkdx repack .* -o DIR` and train on DIR"):
        next(iter(CropLoader(store, data.labels, 8, 2, 32)))


@pytest.mark.usefixtures("pyarrow_parquet")
def test_bad_parquet(data: Data, tmp_path: Path) -> None:
    folder = parquet(data, tmp_path / "a" if (tmp_path / "a").mkdir() is None else tmp_path)
    path = folder / "data/train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"not a whole parquet file.*train-00000"):
        open_store(folder)
    path.write_bytes(whole)
    (folder / "data/validation-00000-of-00001.parquet").write_bytes(whole)
    with pytest.raises(ValueError, match=r"splits train, validation, expected one; give '.*train-\*.parquet"):
        open_store(folder)
    (tmp_path / "b").mkdir()
    with pytest.raises(
        ValueError, match=r"columns, got image string, .* expected one struct of bytes and path"
    ):
        open_store(parquet(data, tmp_path / "b", image=data.keys))
    (tmp_path / "c").mkdir()
    paths = [{"bytes": None, "path": key} for key in data.keys]
    paths[0]["bytes"] = b""
    store = open_store(parquet(data, tmp_path / "c", image=paths))
    with pytest.raises(ValueError, match=r"got no bytes, expected an image: these files hold paths"):
        store.encoded(1)


# ---- bad input ------------------------------------------------------------------------------------------


def test_zip_entries_that_cannot_be_read_in_place(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", b"x" * 1000)
    with pytest.raises(ValueError, match=r"a/1.jpg, got a compressed entry.*fkdx repack.*x.zip"):
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
        ({"1.jpg": b"x", "1.cls": b"3", "2.jpg": b"", "2.cls": b"ant"}, r"'ant' of 2.jpg"),
        ({"1.jpg": b"x", "1.json": b"{"}, r"1.json, expected JSON.*x.tar"),
    ],
)  # fmt: skip
def test_class_members(tmp_path: Path, members: dict[str, bytes], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        open_store(write_tar(tmp_path / "x.tar", members))


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


# ---- canonical keys -------------------------------------------------------------------------------------


def test_names_that_are_not_clear(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    members = {key.replace(".JPEG", ".jpg"): (data.root / key).read_bytes() for key in data.keys}
    members[data.keys[0].replace(".JPEG", ".png")] = b"another"
    with pytest.raises(ValueError, match=rf"1 names fit more .*{data.keys[0]} against .*jpg and .*png"):
        CropLoader(write_tar(tmp_path / "x.tar", members), data.labels, 8, 2, on_missing="ignore")


def test_exact_names_come_first(data: Data, tmp_path: Path) -> None:
    """An image under another suffix does not take the place of the one that the label names."""
    members = {key: (data.root / key).read_bytes() for key in data.keys}
    members[data.keys[0].replace(".JPEG", ".png")] = b"another"
    loader = CropLoader(write_tar(tmp_path / "x.tar", members), data.labels, 34, 2, 32, on_missing="ignore")
    (batch,) = loader
    assert isinstance(batch, Batch)
    assert sorted(set(batch.keys)) == data.keys
    loader.close()


def test_shards_that_change_under_a_loader(data: Data, tmp_path: Path) -> None:
    path = plain_tar(data, tmp_path)
    loader = CropLoader(path, data.labels, 34, 2, 32)
    next(iter(loader))
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + b"\0" + whole[2001:])
    with pytest.raises(RuntimeError, match=r"the file has changed since this loader opened it.*train.tar"):
        next(iter(loader))
    loader.close()


def test_missing_images_are_errors_when_read(data: Data, tmp_path: Path) -> None:
    import shutil

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
