"""Embeddings that are stored standardised: what int8 does to them, and that every reader takes it back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from label_draws import draw_boxes

from fkdx import FormatError, cli, reference
from fkdx.commands.compare import compare_embeddings
from fkdx.commands.concat import concat
from fkdx.commands.convert import convert
from fkdx.commands.merge import merge
from fkdx.commands.slice import slice_labels
from fkdx.importers.parquet_export import export_parquet
from fkdx.labels import LabelFile, LabelWriter, shard_path, write_manifest
from fkdx.labels.int8 import change
from fkdx.labels.similarity import cosines
from fkdx.train.embedding import NORMS, Embeddings

IMAGES, CROPS = 12, 40


def draw_embeddings(rng: np.random.Generator, d: int, sort: str) -> np.ndarray:
    """(IMAGES, CROPS, D) float32 as of models whose dimensions differ in scale."""
    values = rng.normal(0, 1, (IMAGES, CROPS, d))
    if sort == "massive":  # two dimensions dwarf all others and hardly vary
        chosen = rng.permutation(d)[:2]
        values[..., chosen] = 40 * rng.choice([-1, 1], 2) + 4 * values[..., chosen]
    elif sort == "spread":
        values *= np.exp(rng.uniform(-2, 2, d))  # none below 1 % of the mean, which would stay so
    values[3, ::7] = 0
    return values.astype(np.float32)


def write(path: Path, rng: np.random.Generator, values: np.ndarray, **options) -> LabelFile:
    options = {"value_type": "float32", "embeddings": {"cls": values.shape[2]}, **options}
    boxes = draw_boxes(np.random.default_rng(5), CROPS)
    with LabelWriter(path, "embedding", crops=CROPS, **options) as writer:
        for image, rows in enumerate(values):
            writer.add(f"{image:02d}.jpg", boxes, [False] * CROPS, None, rows, (375, 500))
    return LabelFile(path)


def standardised(labels: LabelFile, path: Path, **options) -> LabelFile:
    convert(labels, path, standardise=True, **options)
    return LabelFile(path)


def rows_of(labels: LabelFile) -> np.ndarray:
    return np.concatenate([image.values for image in labels])


@pytest.mark.parametrize("sort", ["alike", "massive", "spread"])
def test_the_header_takes_it_back(tmp_path: Path, rng, sort: str) -> None:
    values = draw_embeddings(rng, 24, sort)
    labels = write(tmp_path / "a", rng, values, embeddings={"cls": 16, "patches": 8})
    stored = standardised(labels, tmp_path / "b")
    back = stored.standard.teachers(rows_of(stored))
    np.testing.assert_allclose(back, values.reshape(-1, 24), rtol=1e-5, atol=1e-5)
    zero = ~values.reshape(-1, 24)[:, :16].any(axis=1)
    assert zero.sum() == 6
    assert not rows_of(stored)[zero, :16].any()
    for name, moments in stored.moments.items():
        assert moments.zeros == labels.moments[name].zeros
        np.testing.assert_allclose(moments.mean, 0, atol=1e-4)
        np.testing.assert_allclose(moments.scale, 1, rtol=1e-3)
        np.testing.assert_allclose(stored.teachers_moments[name].mean, labels.moments[name].mean, atol=1e-4)
        np.testing.assert_allclose(stored.teachers_moments[name].scale, labels.moments[name].scale, rtol=1e-4)
    again = tmp_path / "c"
    convert(stored, again, encoding="compact", value_type="float32")  # what is not said stays
    np.testing.assert_array_equal(rows_of(LabelFile(again)), rows_of(stored))
    assert LabelFile(again).header["standardised"] == stored.header["standardised"]


@pytest.mark.parametrize("sort", ["massive", "spread"])
def test_int8_keeps_the_gradient_where_dimensions_are_standardised(tmp_path: Path, rng, sort: str) -> None:
    values = draw_embeddings(rng, 768, sort)
    labels = write(tmp_path / "a", rng, values)
    convert(labels, tmp_path / "plain", encoding="compact")
    coarse, fine = LabelFile(tmp_path / "plain"), standardised(labels, tmp_path / "s", encoding="compact")
    exact = values.reshape(-1, 768)
    there = exact.any(axis=1)
    moments = labels.moments["cls"]
    student = rng.normal(0, 1, exact[there].shape)

    def off(stored: np.ndarray) -> float:
        both = [((each[there] - moments.mean) / moments.divisor) for each in (exact, stored)]
        a, b = (reference.loss.cosine_gradient(student, target) for target in both)
        return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).mean())

    kept = fine.standard.teachers(rows_of(fine))
    assert off(kept) <= 0.01 < 0.02 < off(rows_of(coarse))
    alike = cosines(exact[there], kept[there])
    assert alike.mean() >= 0.9995
    assert alike.min() >= 0.998
    for stored, small in ((kept, True), (rows_of(coarse), False)):
        found = change(exact, stored, [768])
        assert found.small == small
        assert found.gradient == pytest.approx(off(stored), rel=0.05)
        assert found.cosine == pytest.approx(cosines(exact[there], stored[there]).min(), abs=1e-9)
    again = tmp_path / "again"
    convert(fine, again)  # codes are found again
    np.testing.assert_array_equal(rows_of(LabelFile(again)), rows_of(fine))


@pytest.mark.parametrize("norm", NORMS)
def test_students_learn_the_same(tmp_path: Path, rng, norm: str) -> None:
    labels = write(tmp_path / "a", rng, draw_embeddings(rng, 10, "spread"))
    stored = standardised(labels, tmp_path / "b")
    targets = [
        Embeddings.of(file, norm).target(torch.from_numpy(rows_of(file).copy())) for file in (labels, stored)
    ]
    assert targets[0].isnan().all(dim=1).sum() == 6
    torch.testing.assert_close(targets[1], targets[0], rtol=1e-4, atol=1e-4, equal_nan=True)


def test_every_verb_keeps_it_or_takes_it_back(tmp_path: Path, rng, capsys: pytest.CaptureFixture) -> None:
    values = draw_embeddings(rng, 6, "massive")
    labels = write(tmp_path / "a", rng, values)
    stored = standardised(labels, tmp_path / "b")
    (likeness,) = compare_embeddings(labels, stored)
    assert likeness.lowest > 1 - 1e-9
    slice_labels(stored, tmp_path / "few", crops=2)
    assert LabelFile(tmp_path / "few").header["standardised"] == stored.header["standardised"]
    concat([LabelFile(tmp_path / "few")], tmp_path / "again")
    assert LabelFile(tmp_path / "again").header["standardised"] == stored.header["standardised"]
    with pytest.raises(ValueError, match="concat: embeddings, got embeddings standardised otherwise"):
        concat([labels, stored], tmp_path / "no")
    merge([labels, stored], tmp_path / "two")
    two = LabelFile(tmp_path / "two")
    assert list(two.header["standardised"]) == ["cls.1"]
    given = two.standard.teachers(rows_of(two))
    np.testing.assert_allclose(given[:, 6:], given[:, :6], rtol=1e-5, atol=1e-5)
    assert cli.run("info", [str(tmp_path / "b")]) == 0
    assert "standardised cls\n" in capsys.readouterr().out


def test_a_table_has_the_teachers_own(tmp_path: Path, rng) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    labels = write(tmp_path / "a", rng, draw_embeddings(rng, 6, "massive"))
    stored = standardised(labels, tmp_path / "b")
    export_parquet(stored, stored, tmp_path / "t")
    table = np.stack(pyarrow.read_table(tmp_path / "t")["values"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(table, rows_of(labels), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_standardised_is_refused(tmp_path: Path, rng, capsys: pytest.CaptureFixture) -> None:
    labels = write(tmp_path / "a", rng, draw_embeddings(rng, 6, "alike"))
    stored = standardised(labels, tmp_path / "b")
    with pytest.raises(ValueError, match="convert: labels, got standardised ones, expected embeddings as a"):
        convert(stored, tmp_path / "c", standardise=True)
    with LabelWriter(tmp_path / "t", num_classes=3, k=1) as writer:
        writer.add("a.jpg", [[0, 0, 9, 9]], [False], [[1]], [[0.5]], (9, 9))
    assert cli.run("convert", [str(tmp_path / "t"), "--standardise", "-o", str(tmp_path / "c")]) == 1
    assert "labels, got those of classes, expected embeddings" in capsys.readouterr().err


WRONG = [
    {"other": {}},
    {"cls": {"mean": [0], "divisor": [1]}},
    {"cls": {"mean": [0] * 6}},
    {"cls": {"mean": [0] * 6, "divisor": [1] * 5 + [0]}},
    {"cls": {"mean": ["x"] * 6, "divisor": 1}},
]


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_header_is_refused(tmp_path: Path, rng, entry) -> None:
    labels = write(tmp_path / "a", rng, draw_embeddings(rng, 6, "alike"), standardised=entry)
    with pytest.raises(FormatError, match=r"LabelFile: standardised in the header, got .*, .*a$"):
        _ = labels.standard


def test_shards_that_were_standardised_otherwise_are_refused(tmp_path: Path, rng, monkeypatch) -> None:
    labels = write(tmp_path / "a", rng, draw_embeddings(rng, 6, "alike"))
    convert(labels, shard_path(tmp_path, 0), standardise=True)
    other = json.loads(json.dumps(LabelFile(shard_path(tmp_path, 0)).header["standardised"]))
    other["cls"]["mean"][0] += 1
    with LabelWriter(shard_path(tmp_path, 1), "embedding", embeddings={"cls": 6}, crops=CROPS,
                     value_type="float32", standardised=other):  # fmt: skip
        pass
    paths = [shard_path(tmp_path, 0), shard_path(tmp_path, 1)]
    with pytest.raises(FormatError, match="standardised in the header, got others than in"):
        write_manifest(tmp_path, paths)
    monkeypatch.setattr("fkdx.labels.shards.check_same_labels", lambda files: None)  # an earlier version
    shards = LabelFile(write_manifest(tmp_path, paths))
    with pytest.raises(FormatError, match="others in other shards"):
        _ = shards.standard


def test_convert_says_what_int8_changes(tmp_path: Path, rng, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "a", rng, draw_embeddings(rng, 300, "spread"))
    for more, warned in ([], True), (["--standardise"], False):
        options = [str(tmp_path / "a"), "--value-type", "int8", *more, "--overwrite"]
        assert cli.run("convert", [*options, "-o", str(tmp_path / "b")]) == 0
        told = capsys.readouterr()
        assert "cosine to the teacher's embeddings at least 0.99" in told.out
        assert ("int8 is coarse for these; try --standardise" in told.err) == warned
