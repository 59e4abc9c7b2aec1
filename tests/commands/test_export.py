"""`fkdx export`: tables and matrices hold what the label file holds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from label_draws import write_labels

from fkdx import cli
from fkdx.importers import parquet_export
from fkdx.importers.parquet_export import export_parquet
from fkdx.importers.pred_probs import export_pred_probs, mean_probabilities
from fkdx.labels import KINDS, LabelFile, LabelWriter
from fkdx.labels.layout import CLASS_KINDS

C, K = 30, 4


def export(labels: Path, output: Path, form: str, *more: str) -> int:
    return cli.main(["export", str(labels), "-o", str(output), "--to", form, *more])


# ---- parquet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"ratios": True}, {"mix_size": 64}, {"crops": None}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds_the_labels(rng, tmp_path: Path, kind: str, options: dict, monkeypatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet_export, "GROUP_BYTES", 500)  # several row groups
    k = {"hard": 1, "smoothing": 1}.get(kind, K)
    write_labels(tmp_path / "a.fkdl", rng, kind, num_classes=C, k=k, **options)
    labels = LabelFile(tmp_path / "a.fkdl")
    assert export(tmp_path / "a.fkdl", tmp_path / "a.parquet", "parquet") == 0
    table = parquet.read_table(tmp_path / "a.parquet")
    facts = json.loads(table.schema.metadata[b"fkdx"])
    assert (facts["kind"], facts["num_classes"], facts["header"]) == (kind, labels.num_classes, labels.header)
    rows = table.to_pylist()
    assert len(rows) == labels.crop_counts.sum()
    for image in labels:
        for crop in range(len(image.flips)):
            check_row(rows.pop(0), image, crop)


def check_row(row: dict, image, crop: int) -> None:
    assert (row["key"], row["crop"], row["flip"]) == (image.key, crop, image.flips[crop])
    assert row["box"] == image.boxes[crop].tolist()
    np.testing.assert_array_equal(np.float32(row["values"]), image.values[crop].astype(np.float32))
    assert row.get("ids", []) == image.ids[crop].tolist()
    assert row.get("tail") == (None if image.tails is None else image.tails[crop])
    if image.mixes is not None:
        mix = image.mixes
        assert row["partner"] == mix.partners[crop]
        assert (row["partner_box"], row["mix_box"]) == (
            mix.boxes[crop].tolist(),
            mix.mix_boxes[crop].tolist(),
        )
        found = (row["partner_flip"], row["operation"], row["lambda"])
        assert found == (mix.flips[crop], mix.operations[crop], mix.lambdas[crop])


def write_steps(path: Path, extra: bytes) -> LabelFile:
    options = {"num_classes": C, "k": 1, "extra": {"operations": ["erase"], "form": "steps"}}
    with LabelWriter(path, **options) as writer:
        boxes = [[0, 0, 5, 5], [1, 1, 5, 5]]
        writer.add("a/b.png", boxes, [False, True], [[1], [2]], [[0.5], [0.25]], (9, 9), extra=extra)
    return LabelFile(path)


def test_steps_are_a_column_of_json(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    steps = [[["erase", 0, 0, 0.5, 0.5]], []]
    labels = write_steps(tmp_path / "a.fkdl", json.dumps(steps).encode())
    assert export_parquet(labels, labels, tmp_path / "a.parquet") == 2
    column = parquet.read_table(tmp_path / "a.parquet").column("operations").to_pylist()
    assert [json.loads(text) for text in column] == steps


@pytest.mark.parametrize("extra", [b"[[]]", b"{}", b"\xff"])
def test_operations_of_another_form(tmp_path: Path, extra: bytes) -> None:
    pytest.importorskip("pyarrow")
    labels = write_steps(tmp_path / "a.fkdl", extra)
    with pytest.raises(ValueError, match="further operations, got other than one for each crop of a/b"):
        export_parquet(labels, labels, tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_parquet_without_pyarrow(rng, tmp_path: Path, monkeypatch, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(tmp_path / "a.fkdl", tmp_path / "a.parquet", "parquet") > 0
    assert "run: pip install 'fkdx[parquet]'" in capsys.readouterr().err


# ---- pred-probs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["smoothing", "renorm"])
@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_probabilities_are_the_mean_over_crops(rng, tmp_path: Path, kind: str, tail: str) -> None:
    k = {"hard": 1, "smoothing": 1}.get(kind, K)
    write_labels(tmp_path / "a.fkdl", rng, kind, num_classes=C, k=k, value_type=None)
    labels = LabelFile(tmp_path / "a.fkdl")
    assert export(tmp_path / "a.fkdl", tmp_path / "p.npy", "pred-probs", "--tail", tail) == 0
    found = np.load(tmp_path / "p.npy")
    assert (found.shape, found.dtype) == ((len(labels), C), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (tmp_path / "p.keys.txt").read_text().splitlines() == list(labels.keys)
    for row, image in zip(found, labels):
        np.testing.assert_allclose(row, plain_mean(image, kind, tail), atol=2e-3)


def plain_mean(image, kind: str, tail: str) -> np.ndarray:
    """The mean of full rows of probabilities."""
    rows = np.zeros((len(image.flips), C))
    for crop, row in enumerate(rows):
        values = image.values[crop].astype(np.float64)
        if kind.endswith("logits"):
            rest = [] if image.tails is None else [float(image.tails[crop])]
            values = np.exp(values) / np.exp([*values, *rest]).sum()
        ids = np.arange(C) if kind.startswith("dense") else image.ids[crop]
        others = 0 if len(ids) == C or tail == "renorm" else (1 - values.sum()) / (C - len(ids))
        row[:] = max(others, 0)
        row[ids] = values / (values.sum() if tail == "renorm" else 1)
    return rows.mean(axis=0)


def test_one_image(rng, tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "a.fkdl", num_classes=4, k=1, value_type="float32") as writer:
        writer.add("a/b.png", [[0, 0, 5, 5]] * 2, [0, 1], [[1], [2]], [[0.5], [0.25]], (9, 9))
    labels = LabelFile(tmp_path / "a.fkdl")
    of_first, of_second = np.array([1, 3, 1, 1]) / 6, np.array([1, 1, 1, 1]) / 4
    np.testing.assert_allclose(mean_probabilities(labels, labels[0]), (of_first + of_second) / 2, rtol=1e-6)


def test_mixed_labels_are_of_two_images(rng, tmp_path: Path) -> None:
    write_labels(tmp_path / "a.fkdl", rng, mix_size=64)
    labels = LabelFile(tmp_path / "a.fkdl")
    with pytest.raises(ValueError, match="mixed crops, which show two images"):
        export_pred_probs(labels, labels, tmp_path / "p.npy")


def test_an_image_without_crops(rng, tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "a.fkdl", num_classes=4, k=1) as writer:
        writer.add("a/b.png", np.empty((0, 4), int), [], np.empty((0, 1), int), np.empty((0, 1)), (9, 9))
    labels = LabelFile(tmp_path / "a.fkdl")
    with pytest.raises(ValueError, match=r"no crop of a/b\.png, expected at least one"):
        export_pred_probs(labels, labels, tmp_path / "p.npy")


# ---- fiftyone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["topk", "hard", "dense", "topk_logits"])
def test_predictions_for_fiftyone(rng, tmp_path: Path, kind: str) -> None:
    k = {"hard": 1}.get(kind, K)
    write_labels(tmp_path / "a.fkdl", rng, kind, num_classes=C, k=k, value_type=None)
    labels = LabelFile(tmp_path / "a.fkdl")
    assert export(tmp_path / "a.fkdl", tmp_path / "labels.json", "fiftyone") == 0
    found = json.loads((tmp_path / "labels.json").read_text())
    assert found["classes"] == (labels.classes or [str(c) for c in range(C)])
    assert len(found["labels"]) == len(labels)
    for image in labels:
        shown, mean = found["labels"][image.key.rsplit(".", 1)[0]], plain_mean(image, kind, "smoothing")
        assert shown["confidence"] == pytest.approx(mean.max(), abs=3e-3)
        assert mean[shown["label"]] == pytest.approx(mean.max(), abs=3e-3)
        rows = image.values if kind == "dense" else image.ids[:, :1]  # values are in descending order
        best = rows.argmax(axis=1) if kind == "dense" else rows[:, 0]
        assert shown["attributes"]["agreement"] == pytest.approx((best == shown["label"]).mean(), abs=1e-3)


def test_keys_that_fiftyone_takes_for_one(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "t.fkdl", rng, sizes=dict.fromkeys(("a/1.jpg", "a/1.png"), (9, 9)))
    assert export(tmp_path / "t.fkdl", tmp_path / "x.json", "fiftyone") == 1
    assert "two called 'a/1', expected one" in capsys.readouterr().err


def test_mixed_labels_are_not_for_fiftyone(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng, mix_size=64)
    assert export(tmp_path / "a.fkdl", tmp_path / "labels.json", "fiftyone") == 1
    assert "mixed crops, which show two images" in capsys.readouterr().err


def test_what_exists_stays(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng)
    (tmp_path / "p.npy").write_bytes(b"mine")
    assert export(tmp_path / "a.fkdl", tmp_path / "p.npy", "pred-probs") == 1
    assert "exists; remove it, or ask to overwrite it" in capsys.readouterr().err
    assert (tmp_path / "p.npy").read_bytes() == b"mine"
    assert export(tmp_path / "a.fkdl", tmp_path / "p.npy", "pred-probs", "--overwrite") == 0


def test_keys_that_exist_stay(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng)
    (tmp_path / "p.keys.txt").write_text("mine")
    assert export(tmp_path / "a.fkdl", tmp_path / "p.npy", "pred-probs") == 1
    assert "p.keys.txt exists; remove it, or ask to overwrite it" in capsys.readouterr().err
    assert ((tmp_path / "p.keys.txt").read_text(), (tmp_path / "p.npy").exists()) == ("mine", False)
    assert export(tmp_path / "a.fkdl", tmp_path / "p.npy", "pred-probs", "--overwrite") == 0
    assert (tmp_path / "p.keys.txt").read_text().splitlines() == list(LabelFile(tmp_path / "a.fkdl").keys)


def test_a_file_where_a_folder_is_to_be_written(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng)
    assert export(tmp_path / "a.fkdl", tmp_path / "a.fkdl", "fkd", "--overwrite") == 1
    assert "--output, got a file, expected a folder, or another --to" in capsys.readouterr().err


def test_tail_is_for_probabilities(rng, tmp_path: Path, capsys) -> None:
    write_labels(tmp_path / "a.fkdl", rng)
    assert export(tmp_path / "a.fkdl", tmp_path / "f", "fkd", "--tail", "renorm") > 0
    assert "expected it with pred-probs or fiftyone" in capsys.readouterr().err
