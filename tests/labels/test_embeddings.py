"""Embeddings in label files: int8 codes, their error, moments, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from label_draws import draw_boxes, write_labels

from fkdx import FormatError, reference
from fkdx.labels import LabelFile, LabelWriter, write_manifest
from fkdx.labels.moments import Moments

BOX, SIZE = [0, 0, 8, 8], (8, 8)


def write(path: Path, values: np.ndarray, **options) -> LabelFile:
    """A file of one image, with one crop for each of the embeddings (M, D)."""
    values = np.asarray(values)
    options = {"embeddings": {"pooled": values.shape[1]}, **options}
    with LabelWriter(path, "embedding", **options) as writer:
        writer.add("a.jpg", [BOX] * len(values), [False] * len(values), None, values, SIZE)
    return LabelFile(path)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("encoding", ["plain", "compact"])
def test_int8_is_the_twins(tmp_path: Path, rng, encoding: str) -> None:
    values = (rng.normal(0, 1, (9, 37)) * 10.0 ** rng.integers(-6, 7, (9, 1))).astype(np.float32)
    values[4] = 0
    options = {"encoding": encoding, "value_type": "int8", "embeddings": {"cls": 30, "patches": 7}}
    stored = write(tmp_path / "a.fkdl", values, **options)[0].values
    for row, got in zip(values, stored):
        twin = [reference.labels.int8_codes(part) for part in (row[:30], row[30:])]
        np.testing.assert_array_equal(got, np.concatenate([codes * np.float32(s) for s, codes in twin]))
    again = write(tmp_path / "b.fkdl", stored, **options)[0].values  # what was decoded keeps its codes
    np.testing.assert_array_equal(again, stored)


def test_int8_error_and_size(tmp_path: Path, rng) -> None:
    d, m = 768, 200
    values = rng.normal(0, 1, (m, d)).astype(np.float32)
    sizes = {}
    for encoding in ("plain", "compact"):
        options = {"encoding": encoding, "value_type": "int8", "embeddings": {"cls": d}}
        with LabelWriter(tmp_path / encoding, "embedding", crops=m, **options) as writer:
            for i in range(100):
                writer.add(f"{i}.jpg", draw_boxes(rng, m), [False] * m, None, values, (375, 500))
        sizes[encoding] = LabelFile(tmp_path / encoding).size / (100 * m)
    assert sizes["plain"] <= d + 12  # of which the moments in the header are 0.7
    assert sizes["compact"] <= d + 8
    plain = LabelFile(tmp_path / "plain")
    cosine = cosines(values, plain[0].values)
    assert cosine.mean() >= 0.9995
    assert cosine.min() >= 0.998
    student = rng.normal(0, 1, (m, d))
    exact, off = (
        reference.loss.cosine_gradient(student, t.astype(np.float64)) for t in (values, plain[0].values)
    )
    assert np.linalg.norm(exact - off) <= 0.01 * np.linalg.norm(exact)


def test_moments_leave_out_zero_vectors(tmp_path: Path, rng) -> None:
    values = rng.normal([[[3]], [[-2]], [[0.5]]], 2, (3, 50, 6)).astype(np.float32)
    values[:, ::7] = 0
    paths = [tmp_path / f"{i:05d}.fkdl" for i in range(3)]
    for i, path in enumerate(paths):
        with LabelWriter(path, "embedding", embeddings={"cls": 6}, value_type="float32") as writer:
            writer.add(f"{i}.jpg", [BOX] * 50, [False] * 50, None, values[i], SIZE)
    write_manifest(tmp_path, paths)
    rows = values.reshape(-1, 6)[values.reshape(-1, 6).any(axis=1)].astype(np.float64)
    moments = LabelFile(tmp_path).moments["cls"]
    assert (moments.crops, moments.zeros) == (len(rows), 150 - len(rows))
    # Six digits of every shard's numbers are kept, and means of different signs cancel.
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=0, atol=2e-5)
    np.testing.assert_allclose(moments.scale, rows.std(axis=0), rtol=1e-5)


def test_a_dimension_that_hardly_varies_is_not_blown_up(rng) -> None:
    values = rng.normal(0, 1, (100, 4)).astype(np.float32)
    values[:, 2] *= 1e-6
    divisor = Moments.of(values).divisor
    assert divisor[2] > 5e-3
    np.testing.assert_allclose(divisor[[0, 1, 3]], values[:, [0, 1, 3]].std(axis=0), rtol=1e-5)
    assert Moments.of(np.ones((3, 2), np.float32)).divisor.tolist() == [1, 1]


@pytest.mark.parametrize("value_type", ["float16", "float32", "int8"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_not_finite_is_refused(tmp_path: Path, value_type: str, wrong: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        write(tmp_path / "a.fkdl", np.array([[1, wrong]], np.float32), value_type=value_type)
    assert not (tmp_path / "a.fkdl").exists()


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16 cannot hold"):
        write(tmp_path / "a.fkdl", np.array([[1, 7e4]], np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "embedding"}, "embeddings, got None, expected one or two names"),
        ({"kind": "embedding", "embeddings": {"cls": 8193}}, "sizes of 1 to 8192"),
        ({"kind": "embedding", "embeddings": {"a": 1, "b": 2, "c": 3}}, "one or two names"),
        ({"kind": "embedding", "embeddings": {"a": 1}, "num_classes": 3}, "which have no classes"),
        ({"kind": "embedding", "embeddings": {"a": 1}, "value_type": "log8"}, "value type log8"),
        ({"kind": "topk", "num_classes": 3, "k": 1, "embeddings": {"a": 1}}, "none for topk labels"),
        ({"kind": "topk", "num_classes": 3, "k": 1, "value_type": "int8"}, "int8, expected only for emb"),
        ({"kind": "topk", "k": 1}, "classes, got 0"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelWriter(tmp_path / "a.fkdl", **options)


def test_the_header_must_name_the_sizes(tmp_path: Path, rng, monkeypatch) -> None:
    path = tmp_path / "a.fkdl"
    write_labels(path, rng, "embedding", num_classes=5, k=3)
    labels = LabelFile(path)
    assert labels.embeddings == {"cls": 5, "patches": 3}
    assert (labels.num_classes, labels.k) == (0, 8)
    assert write(tmp_path / "b.fkdl", np.ones((1, 2)), encoding="compact").value_type == "int8"
    monkeypatch.setattr("fkdx.labels.file.read_header", lambda _: {"embeddings": {"cls": 4, "patches": 4}})
    with pytest.raises(FormatError, match="embeddings in the header"):
        LabelFile(path)
    monkeypatch.setattr("fkdx.labels.file.read_header", lambda _: {"embeddings": {"cls": 5, "patches": 3}})
    with pytest.raises(FormatError, match="moments in the header"):
        _ = LabelFile(path).moments
