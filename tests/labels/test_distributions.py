"""Stored values as probabilities, their rounding without a file, and which files may be used together."""

from pathlib import Path

import numpy as np
import pytest
from label_draws import draw_labels, write_labels

from fkdx import reference
from fkdx.errors import expect, refuse
from fkdx.labels import LabelFile, LabelWriter
from fkdx.labels.comparable import check_plain_crops, check_same_classes, check_same_crops, check_same_images
from fkdx.labels.distributions import gather_with_tails, probabilities, recover, scores, tempered
from fkdx.labels.rounding import record_bytes, stored_values

C, K, CROPS = 12, 4, 30
SOFT = ["topk", "smoothing", "dense", "topk_logits", "dense_logits"]
LAYOUTS = [(kind, "plain", value_type) for kind in SOFT for value_type in ("float16", "float32")]
LAYOUTS += [(kind, "compact", "log8") for kind in ("topk", "smoothing")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_and_their_tail_give_the_softmax_of_all_logits(rng, dtype) -> None:
    logits = rng.normal(0, 6, (50, 3, C)) + rng.choice([-800.0, 0, 800], (50, 1, 1))
    every = np.exp(logits - logits.max(axis=2, keepdims=True))
    every /= every.sum(axis=2, keepdims=True)
    tails = np.logaddexp.reduce(logits[..., K:], axis=2)
    kept = probabilities("topk_logits", logits[..., :K].astype(dtype), tails.astype(dtype))
    assert kept.dtype == dtype
    rounding = np.spacing(np.abs(logits).max(axis=2, keepdims=True).astype(dtype))  # of the logits themselves
    assert (np.abs(kept - every[..., :K]) <= 2 * rounding).all()
    np.testing.assert_allclose(probabilities("dense_logits", logits), every, rtol=1e-12)
    values = rng.random((5, K))
    assert probabilities("topk", values) is values


@pytest.mark.parametrize("rest", ["tail", "no tail", "no others"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_top_k_logits_at_a_temperature(rng, dtype, rest) -> None:
    rows, k = 40, C if rest == "no others" else K
    logits = -np.sort(-rng.normal(0, 5, (rows, C)), axis=1)
    ids = np.array([rng.permutation(C)[:k] for _ in range(rows)])
    tails = np.full(rows, np.finfo(np.float32).min if rest == "no tail" else -np.inf)
    if rest == "tail":
        tails = np.logaddexp.reduce(logits[:, k:], axis=1)
    for temperature in (0.3, 1, 1.7, 20):
        given = logits[:, :k].astype(dtype), tails.astype(dtype), C - k, temperature
        kept = probabilities("topk_logits", *tempered(*given))
        assert kept.dtype == dtype
        for kind in ("marginal_smoothing", "marginal_renorm"):
            expected = reference.loss.tempered_target(ids, logits[:, :k], tails, C, kind, temperature)
            found = reference.loss.dense_target(ids, kept, C, kind)
            np.testing.assert_allclose(found, expected, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("score", ["max", "truth"])
@pytest.mark.parametrize("kind", SOFT)
def test_scores_are_entries_of_the_recovered_distributions(tmp_path: Path, rng, kind, score) -> None:
    write_labels(tmp_path / "a", rng, kind, num_classes=C, k=K, crops=CROPS, value_type="float32")
    labels = LabelFile(tmp_path / "a")
    truth = rng.integers(0, C, len(labels))
    every = np.tile(np.arange(CROPS), (len(labels), 1))
    _, _, ids, values, tails = gather_with_tails(labels, np.arange(len(labels)), every)
    sure = scores(labels, score, ids, values, tails, truth)
    for image, row in zip(labels, sure):
        dense = recover(labels, image).at(np.tile(np.arange(C), (CROPS, 1)))
        expected = dense.max(axis=1) if score == "max" else dense[:, truth[labels.find(image.key)]]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "encoding", "value_type"), LAYOUTS)
def test_values_are_rounded_as_a_file_rounds_them(tmp_path: Path, rng, kind, encoding, value_type) -> None:
    k = {"smoothing": 1}.get(kind, C if kind.startswith("dense") else K)
    drawn = draw_labels(rng, CROPS, kind, C, k)
    options = {"num_classes": C, "k": k, "encoding": encoding, "value_type": value_type}
    with LabelWriter(tmp_path / "a", kind, **options) as writer:
        boxes, flips = np.tile([0, 0, 1, 1], (CROPS, 1)), np.zeros(CROPS, bool)
        writer.add("a", boxes, flips, **drawn, image_size=(1, 1))
    labels = LabelFile(tmp_path / "a")
    values, tails = stored_values(labels, drawn["values"], drawn.get("tails"))
    image = labels["a"]
    np.testing.assert_array_equal(values, image.values.astype(np.float32))
    assert (tails is None) == (image.tails is None)
    if tails is not None:
        np.testing.assert_array_equal(tails, image.tails)


@pytest.mark.parametrize("encoding", ["plain", "compact"])
@pytest.mark.parametrize("kind", ["hard", *SOFT])
def test_bytes_of_a_crop_in_another_encoding(tmp_path: Path, rng, kind, encoding) -> None:
    def written(crops: int, encoding: str) -> Path:
        path = tmp_path / f"{encoding} {crops}"
        sizes = {"a/1.jpg": (375, 500)}
        write_labels(path, rng, kind, num_classes=C, k=K, crops=crops, encoding=encoding, sizes=sizes)
        return path

    found = record_bytes(LabelFile(written(5, "plain" if encoding == "compact" else "compact")), encoding)
    # The difference of two files is without headers and, but for 64 bytes, without padding.
    more = written(612, encoding).stat().st_size - written(100, encoding).stat().st_size
    assert abs(found - more / 512) <= 64 / 512


def test_values_that_no_file_can_hold_are_refused(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng, num_classes=C, k=2)
    with pytest.raises(ValueError, match=r"value, got 1\.5, expected a probability"):
        stored_values(LabelFile(tmp_path / "a"), np.array([[1.5, 0.1]]))


def test_files_that_cannot_be_used_together_are_refused(tmp_path: Path, rng) -> None:
    names = [f"n{i}" for i in range(C)]
    write_labels(tmp_path / "a", rng, num_classes=C, classes=names)
    write_labels(tmp_path / "renamed", rng, num_classes=C, classes=names[::-1])
    write_labels(tmp_path / "unnamed", rng, num_classes=C)
    write_labels(tmp_path / "fewer", rng, num_classes=C, images=4)
    write_labels(tmp_path / "mixed", rng, num_classes=C, mix_size=32)
    first, *others = (LabelFile(tmp_path / n) for n in ("a", "renamed", "unnamed", "fewer", "mixed"))
    renamed, unnamed, fewer, mixed = others
    check_same_images("x", renamed, first)
    check_same_classes("x", unnamed, first)
    for check, words in (
        (lambda: check_same_classes("x", renamed, first), "x: class names, got others than in .*a, expected"),
        (lambda: check_same_classes("x", unnamed, first, unnamed=False), "x: class names, got .*unnamed$"),
        (
            lambda: check_same_images("x", fewer, first),
            "x: images, got others than in .*a, .*fewer$",
        ),
        (lambda: check_plain_crops("x", mixed), "x: labels, got mixed .*, expected plain crops, .*mixed$"),
    ):
        with pytest.raises(ValueError, match=words):
            check()
    box, flip = np.zeros((2, 4)), np.zeros(2)
    check_same_crops("x", [first, renamed], [box, box], [flip, flip])
    with pytest.raises(ValueError, match=r"x: crops of 'k', got others than in .*a, expected .*renamed$"):
        check_same_crops("x", [first, renamed], [box, box], [flip, 1 - flip], "k")


def test_a_wrong_value_is_worded_in_one_way() -> None:
    with pytest.raises(ValueError, match=r"^f: size, got 0, expected 1 \.\.\. 9$"):
        refuse("f", "size", 0, "1 ... 9")
    with pytest.raises(OSError, match=r"^f: size, got 0, expected 1, /a/b$"):
        refuse("f", "size", 0, 1, Path("/a/b"), error=OSError)
    expect("f", True, "size", 0, 1)
    with pytest.raises(ValueError, match=r"^f: size, got 0, expected 1$"):
        expect("f", False, "size", 0, 1)
