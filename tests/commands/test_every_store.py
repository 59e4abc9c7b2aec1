"""Every program that takes images takes every store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from generating import changed, make_teacher, run_options
from loading import Data, rows
from store_writers import EVERY, PACKED, SYNSETS, draw_synsets, parquet, plain_tar
from storing import write_tar

from fkdx import CropLoader, LabelFile
from fkdx.cli import main
from fkdx.commands.image_faults import match_images
from fkdx.labels import differing_sizes, size_marks, write_manifest
from fkdx.train.checkpoint import save_weights

STUDENT = ["--student", "test_resnet", "--size", "32", "--batch-size", "8", "--crops-per-image", "2"]
STUDENT += ["--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return draw_synsets(tmp_path_factory.mktemp("synsets"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
    make_teacher(path)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a store is written, apart from what the programs write."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def batches(root: object, labels: Path) -> list[tuple]:
    """All rows of an epoch but the keys, which are the same in any case."""
    loader = CropLoader(root, labels, 8, 2, 32, threads=2, drop_last=False)
    found = [row for batch in loader for row in rows(batch)]
    loader.close()
    return found


@pytest.mark.parametrize("write", [*EVERY, *PACKED], ids=lambda write: write.__name__)
def test_generate(data: Data, teacher: Path, tmp_path: Path, place: Path, write: Callable, capsys) -> None:
    """Labels made on any store belong to the folder of the same images, and give it the same batches."""
    images, labels = write(data, place), tmp_path / "labels.fkdl"
    assert main(["generate", *run_options(images, teacher, labels)]) == 0
    made = LabelFile(labels)
    assert made.classes == list(SYNSETS)
    assert len(made) == 17
    for root in (data.root, images):
        assert main(["verify", str(labels), "--images", str(root)]) == 0
        assert "differs      0 of 17" in capsys.readouterr().out
    if write not in (parquet, *PACKED):
        assert batches(images, labels) == batches(data.root, labels)
    pytest.importorskip("altair")
    assert main(["report", str(labels), "--images", str(images), "-o", str(tmp_path / "page.html")]) == 0
    assert "not in the folder" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("write", EVERY, ids=lambda write: write.__name__)
def test_index_repack_bench_verify(data: Data, tmp_path: Path, place: Path, write: Callable, capsys) -> None:
    images = str(write(data, place))
    assert main(["verify", "--images", images]) == 0
    assert main(["index", images, "-o", str(tmp_path / "x.fkdi")]) == 0
    for name in (images, str(tmp_path / "x.fkdi")):
        assert main(["repack", name, "-o", str(tmp_path / "shards" / str(len(name)))]) == 0
        assert batches(tmp_path / "shards" / str(len(name)), data.labels) == batches(data.root, data.labels)
    options = ["--crops-per-image", "2", "--batch-size", "8", "--size", "32", "--batches", "1"]
    done = main(["bench", "loader", "--data", images, "--labels", str(data.labels), *options])
    assert done == (write is parquet)
    if write is parquet:
        assert "run `fkdx repack" in capsys.readouterr().err
    (data.root / "list.txt").unlink(missing_ok=True)


@pytest.mark.parametrize("write", [*EVERY, *PACKED], ids=lambda write: write.__name__)
def test_evaluate(data: Data, teacher: Path, tmp_path: Path, place: Path, write: Callable, capsys) -> None:
    def score(images: object) -> str:
        save_weights(tmp_path / "w.safetensors", make_teacher(tmp_path / "t"), {"classes": list(SYNSETS)})
        options = ["--evaluate", "--student", "test_resnet", "--init", str(tmp_path / "w.safetensors")]
        options += ["--val", str(images), "--size", "32", "--batch-size", "8", "--device", "cpu"]
        capsys.readouterr()
        assert main(["train", *options]) == 0
        return capsys.readouterr().out

    assert score(write(data, place)) == score(data.root)


@pytest.mark.parametrize("write", EVERY, ids=lambda write: write.__name__)
def test_pack(data: Data, tmp_path: Path, place: Path, write: Callable, rng: np.random.Generator) -> None:
    """FKD's files, whose boxes are shares of an image that is looked up in the store."""
    for key in data.keys:
        corners = (0.1 + rng.random((3, 4)) / 3).astype(np.float32)
        ids = np.tile([[0.0, 1], [0.6, 0.3]], (3, 1, 1)).astype(np.float32)
        path = tmp_path / "fkd" / key.replace(".JPEG", ".tar")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            [torch.from_numpy(corners), torch.tensor([True, False, True]), torch.from_numpy(ids)], path
        )
    made = []
    for number, images in enumerate((data.root, write(data, place))):
        path = tmp_path / f"{number}.fkdl"
        options = ["--images", str(images), "--num-classes", "3", "--workers", "1", "-o", str(path)]
        assert main(["pack", str(tmp_path / "fkd"), *options]) == 0
        made.append(LabelFile(path))
    assert made[0].classes == made[1].classes == list(SYNSETS)
    assert len(made[0]) == len(made[1]) == 17
    for image in made[1]:
        stem = image.key.rpartition("/")[2].removesuffix(".JPEG").removesuffix(".jpg")
        synset = next(s for s in SYNSETS if s in image.key)
        other = made[0][f"{synset}/{stem.removesuffix('_' + synset)}.JPEG"]
        assert np.array_equal(image.boxes, other.boxes)
        assert image.image_size == other.image_size


def test_train_on_shards(data: Data, tmp_path: Path) -> None:
    options = [*STUDENT, "--output", str(tmp_path / "run"), "--val", str(data.root)]
    options += ["--data", str(plain_tar(data, tmp_path)), "--labels", str(data.labels), "--threads", "1"]
    assert main(["train", *options]) == 0


# ---- another copy of the data, some of it encoded again ---------------------------------------------------


def again(data: Data, to: Path, keys: list[str]) -> Path:
    """The shard of another copy: some files have a few bytes more behind their end."""
    members = {key: (data.root / key).read_bytes() + b"\0\0" * (key in keys) for key in data.keys}
    return write_tar(to / "again.tar", members)


def test_images_that_differ_are_named(data: Data, teacher: Path, tmp_path: Path, capsys) -> None:
    labels = tmp_path / "labels.fkdl"
    options = run_options(data.root, teacher, labels)
    assert main(["generate", *options]) == 0
    path = again(data, tmp_path, data.keys[3:5])
    capsys.readouterr()
    assert main(["verify", str(labels), "--images", str(path)]) == 1
    said = capsys.readouterr().out
    assert "differs      2 of 17" in said
    assert all(f"{key}: other bytes" in said for key in data.keys[3:5])
    assert "corrupt" not in said
    assert main(["generate", *changed(options, output=tmp_path / "set")]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "set"), "--images", str(path)]) == 1
    assert capsys.readouterr().out.replace(f"{tmp_path / 'set'}: ", f"{labels}: ") == said
    # Sets without sizes, of earlier versions: what differs is known, which is not.
    write_manifest(tmp_path / "set", sorted((tmp_path / "set").glob("*.fkdl")))
    faults = match_images(LabelFile(tmp_path / "set"), path)
    assert (faults.fingerprint, faults.named, faults.differing) == (False, False, [])


@pytest.mark.parametrize(("few", "status"), [(1.0, 0), (0.01, 1)])
def test_training_where_images_differ(
    data: Data, teacher: Path, tmp_path: Path, few: float, status: int, capsys, monkeypatch
) -> None:
    """A few are a warning; many are other images."""
    monkeypatch.setattr("fkdx.train.checks.FEW", few)
    labels = tmp_path / "labels.fkdl"
    assert main(["generate", *run_options(data.root, teacher, labels)]) == 0
    options = [*STUDENT, "--output", str(tmp_path / "run"), "--labels", str(labels)]
    options += ["--data", str(again(data, tmp_path, data.keys[3:5])), "--threads", "1"]
    if status == 0:
        with pytest.warns(UserWarning, match=rf"differs: 2 of 17 images .* such as {data.keys[3]}"):
            assert main(["train", *options]) == 0
    else:
        assert main(["train", *options]) == 1
        assert "the images are not those that were labelled" in capsys.readouterr().err


def test_size_marks(rng: np.random.Generator) -> None:
    sizes = rng.integers(0, 2**40, 1000)
    dataset = {"images": 1000, "sizes": size_marks(sizes)}
    assert len(dataset["sizes"]) == 2000
    assert differing_sizes(dataset, sizes).tolist() == []
    changed_at = np.sort(rng.choice(1000, 7, replace=False))
    sizes[changed_at] += rng.integers(1, 4096, 7)
    assert differing_sizes(dataset, sizes).tolist() == changed_at.tolist()
    assert differing_sizes(dataset, sizes[1:]) is None
    assert differing_sizes({"images": 1000}, sizes) is None


def test_one_explanation(capsys) -> None:
    """`fkdx index --help` says what DATA may be; the other programs name it."""
    for verb in ("generate", "train", "pack", "verify", "report", "serve", "repack", "index"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert (
            "DATA@FILE" in said or "fkdx index --help" in said or "names or classes of the images" in said
        ), verb
