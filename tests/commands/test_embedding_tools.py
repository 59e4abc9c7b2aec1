"""The verbs on files of embeddings: what they do, and what they refuse in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from label_draws import draw_boxes, write_labels

from fkdx import CropLoader, cli
from fkdx.commands.compare import compare_embeddings
from fkdx.commands.concat import concat
from fkdx.commands.convert import convert
from fkdx.commands.merge import merge
from fkdx.commands.slice import slice_labels
from fkdx.labels import LabelFile, LabelWriter
from fkdx.labels.similarity import LinearCKA, cosines


def write_teachers(folder: Path, rng, sizes: list[dict[str, int]], **options) -> list[LabelFile]:
    """A file for each of the teachers, over the same crops."""
    views = [(f"n{i % 2}/{i}.jpg", draw_boxes(rng, 5), rng.random(5) < 0.5) for i in range(6)]
    for number, embeddings in enumerate(sizes):
        options = {"value_type": "float32", **options}
        path = folder / f"{number}.fkdl"
        with LabelWriter(path, "embedding", embeddings=embeddings, crops=5, **options) as writer:
            for key, boxes, flips in views:
                values = rng.normal(0, 1, (5, sum(embeddings.values()))).astype(np.float32)
                writer.add(key, boxes, flips, None, values, (375, 500))
    return [LabelFile(folder / f"{number}.fkdl") for number in range(len(sizes))]


@pytest.fixture
def two(tmp_path: Path, rng) -> list[LabelFile]:
    return write_teachers(tmp_path, rng, [{"cls": 6}, {"cls": 4}])


def test_info(two: list[LabelFile], capsys: pytest.CaptureFixture) -> None:
    assert cli.run("info", [two[0].path]) == 0
    told = capsys.readouterr().out
    assert "embedding, cls of 6 values" in told
    assert "0 zero vectors" in told
    assert "maximum probability" not in told
    assert cli.run("info", [two[0].path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["header"]["moments"]["cls"]["crops"] == 30


def test_slice_and_concat(tmp_path: Path, two: list[LabelFile]) -> None:
    whole = two[0]
    for folder in ("n0", "n1"):
        slice_labels(whole, tmp_path / folder, folders=[folder])
    slice_labels(whole, tmp_path / "few", crops=2)
    concat([LabelFile(tmp_path / folder) for folder in ("n0", "n1")], tmp_path / "again")
    again, few = LabelFile(tmp_path / "again"), LabelFile(tmp_path / "few")
    assert again.embeddings == few.embeddings == whole.embeddings
    for image in whole:
        np.testing.assert_array_equal(again[image.key].values, image.values)
        np.testing.assert_array_equal(few[image.key].values, image.values[:2])
    np.testing.assert_allclose(again.moments["cls"].scale, whole.moments["cls"].scale, rtol=1e-5)
    with pytest.raises(ValueError, match="slice: k, got 2"):
        slice_labels(whole, tmp_path / "x", k=2)
    with pytest.raises(ValueError, match="concat: kind, got embedding with K = 4"):
        concat(two, tmp_path / "x")


def test_concat_wants_the_same_names(tmp_path: Path, rng) -> None:
    files = write_teachers(tmp_path, rng, [{"cls": 6}, {"pooled": 6}])
    with pytest.raises(ValueError, match=r"concat: embeddings, got \{'pooled': 6\}"):
        concat(files, tmp_path / "x")


def test_convert_to_int8_and_back(tmp_path: Path, rng) -> None:
    (labels,) = write_teachers(tmp_path, rng, [{"cls": 300, "patches": 200}])
    convert(labels, tmp_path / "int8", value_type="int8")
    convert(LabelFile(tmp_path / "int8"), tmp_path / "float16", value_type="float32")
    convert(LabelFile(tmp_path / "float16"), tmp_path / "again", value_type="int8")
    small, again = LabelFile(tmp_path / "int8"), LabelFile(tmp_path / "again")
    assert small.size < 0.4 * labels.size
    for image in labels:
        assert cosines(small[image.key].values, image.values).min() > 0.9995
        np.testing.assert_array_equal(small[image.key].values, again[image.key].values)


def test_merge_puts_two_side_by_side(tmp_path: Path, rng, two: list[LabelFile]) -> None:
    merge(two, tmp_path / "both")
    both = LabelFile(tmp_path / "both")
    assert both.embeddings == {"cls.0": 6, "cls.1": 4}
    for image in both:
        own = [file[image.key].values for file in two]
        np.testing.assert_array_equal(image.values, np.concatenate(own, axis=1))
    with pytest.raises(ValueError, match="one or two names"):
        merge([both, two[0]], tmp_path / "x")
    with pytest.raises(ValueError, match="merge: k, got 2, expected none for embeddings"):
        merge(two, tmp_path / "x", k=2)


def test_mixed_crops_stay_mixed(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng, "embedding", num_classes=4, k=3, mix_size=32, value_type="float32")
    whole = LabelFile(tmp_path / "a")
    for name, folder in (("b", "n0"), ("c", "n1"), ("d", "n2")):
        slice_labels(whole, tmp_path / name, folders=[folder])
    parts = [LabelFile(tmp_path / name) for name in ("b", "c", "d")]
    concat(parts, tmp_path / "again")
    again = LabelFile(tmp_path / "again")
    assert again.keys[:] == whole.keys[:]
    for image in whole:
        other = again[image.key]
        np.testing.assert_array_equal(other.values, image.values)
        np.testing.assert_array_equal(other.mixes.mix_boxes, image.mixes.mix_boxes)
        assert list(other.mixes.partners) == list(image.mixes.partners)
    write_labels(tmp_path / "e", rng, "embedding", num_classes=4, k=3)
    with pytest.raises(ValueError, match=r"concat: crops, got (plain crops|mixed at)"):
        concat([whole, LabelFile(tmp_path / "e")], tmp_path / "y")


def test_merge_keeps_mixes(tmp_path: Path) -> None:
    """Two teachers of the same mixed crops, side by side."""
    options = {"num_classes": 4, "k": 0, "mix_size": 32, "value_type": "float32"}
    for name in ("a", "b"):
        write_labels(tmp_path / name, np.random.default_rng(4), "embedding", **options)
    one, two = LabelFile(tmp_path / "a"), LabelFile(tmp_path / "b")
    merge([one, two], tmp_path / "both")
    both = LabelFile(tmp_path / "both")
    assert (both.mix_size, both.keys[:]) == (32, one.keys[:])
    for image in one:
        np.testing.assert_array_equal(both[image.key].values, np.tile(image.values, 2))
        assert list(both[image.key].mixes.partners) == list(image.mixes.partners)


def test_merge_wants_one_sort_of_labels(tmp_path: Path, rng, two: list[LabelFile]) -> None:
    with LabelWriter(tmp_path / "t", num_classes=9, k=2, crops=5) as writer:
        for image in two[0]:
            writer.add(image.key, image.boxes, image.flips, [[3, 1]] * 5, [[0.5, 0.2]] * 5, image.image_size)
    with pytest.raises(ValueError, match="merge: labels, got topk, expected embeddings"):
        merge([two[0], LabelFile(tmp_path / "t")], tmp_path / "x")


def test_compare(tmp_path: Path, rng, two: list[LabelFile], capsys: pytest.CaptureFixture) -> None:
    (same,) = compare_embeddings(two[0], two[0])
    assert (round(same.cosine, 6), round(same.lowest, 6), round(same.cka, 6)) == (1, 1, 1)
    (other,) = compare_embeddings(*two)
    assert other.cosine is None
    values = [np.concatenate([image.values for image in file]).astype(np.float64) for file in two]
    assert other.cka == pytest.approx(cka_of_kernels(*values))
    assert cli.run("compare", [two[0].path, two[1].path]) == 0
    assert "linear CKA" in capsys.readouterr().out


def cka_of_kernels(a: np.ndarray, b: np.ndarray) -> float:
    """HSIC of the two linear kernels over the root of those of each with itself."""
    n = len(a)
    centre = np.eye(n) - 1 / n
    k, l = (centre @ (x @ x.T) @ centre for x in (a, b))  # noqa: E741
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def test_cka_sees_through_rotations(rng) -> None:
    rows = rng.normal(0, 1, (50, 8))
    rotation, _ = np.linalg.qr(rng.normal(0, 1, (8, 8)))
    likeness = LinearCKA()
    for part in range(0, 50, 20):
        likeness.add(rows[part : part + 20], 3 * rows[part : part + 20] @ rotation + 1)
    assert likeness.value() == pytest.approx(1)
    flat = LinearCKA()
    flat.add(rows, np.ones((50, 2)))
    assert np.isnan(flat.value())


REFUSED = {
    "calibrate": ["-o", "x"],
    "export": ["-o", "x"],
    "export --to pred-probs": ["-o", "x"],
    "export --to fiftyone": ["-o", "x"],
}


@pytest.mark.parametrize("verb", REFUSED)
def test_verbs_of_class_labels_refuse(
    two: list[LabelFile], verb: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = verb.split()
    assert cli.run(name, [two[0].path, *options, *REFUSED[verb]]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "labels, got embeddings, expected labels of classes" in line
    assert not (tmp_path / "x").exists()


def test_compare_and_the_loader_refuse_what_does_not_go_together(tmp_path: Path, rng) -> None:
    for name, kind in {"e": "embedding", "t": "topk"}.items():
        write_labels(tmp_path / name, np.random.default_rng(1), kind, num_classes=4, k=2)
    labels = LabelFile(tmp_path / "e")
    with pytest.raises(ValueError, match="labels, got topk, expected embeddings in both"):
        compare_embeddings(labels, LabelFile(tmp_path / "t"))
    with pytest.raises(ValueError, match="labels of several teachers, got embeddings"):
        CropLoader(tmp_path, [labels, LabelFile(tmp_path / "e")], 2, 1)
    with pytest.raises(ValueError, match="CropLoader: labels, got embeddings"):
        CropLoader(tmp_path, labels, 2, 1, choice="easy_to_hard", epochs=2)
