"""One pass over a label file counts what the slow twin counts, and problems are found where they are."""

import numpy as np
import pytest
from label_draws import write_labels

from fkdx import LabelFile, LabelWriter, reference
from fkdx.report.crops import read_crops
from fkdx.report.problems import find_problems
from fkdx.report.survey import survey

KINDS = ["topk", "hard", "smoothing", "dense", "dense_logits", "topk_logits"]


def probabilities(labels: LabelFile, number: int) -> tuple[np.ndarray, np.ndarray]:
    """ids and float64 probabilities of an image, from its stored values."""
    image = labels[number]
    values = image.values.astype(np.float64)
    ids = image.ids if image.ids.shape[1] else np.broadcast_to(np.arange(values.shape[1]), values.shape)
    if labels.kind.endswith("logits"):
        tails = np.full(len(values), -np.inf) if image.tails is None else image.tails.astype(np.float64)
        values = np.exp(values - np.logaddexp(np.logaddexp.reduce(values, axis=1), tails)[:, None])
    return ids, values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crops", [7, None])
def test_numbers_of_every_image_equal_the_slow_twin(rng, tmp_path, kind, crops):
    write_labels(tmp_path / "a.fkdl", rng, kind, images=9, crops=crops)
    labels = LabelFile(tmp_path / "a.fkdl")
    truth = rng.integers(-1, labels.num_classes, len(labels))
    found = survey(labels, truth)
    for number in range(len(labels)):
        if not labels.crop_counts[number]:
            assert found.per_image.majority[number] == -1
            continue
        ids, values = probabilities(labels, number)
        true = int(truth[number]) if truth[number] >= 0 else None
        expected = reference.report.label_statistics(ids, values, labels.num_classes, true)
        for name, value in expected.items():
            got = getattr(found.per_image, name)[number]
            np.testing.assert_allclose(got, value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_counts_add_up(rng, tmp_path):
    write_labels(tmp_path / "a.fkdl", rng, "topk", images=30, crops=None)
    labels = LabelFile(tmp_path / "a.fkdl")
    truth = rng.integers(0, labels.num_classes, len(labels))
    tally = survey(labels, truth).tally
    crops = int(labels.crop_counts.sum())
    for name in ("largest", "margin", "entropy", "outside", "area", "likeliest", "centres"):
        assert getattr(tally, name).sum() == crops, name
    assert tally.crops == tally.of_class.sum() == crops
    assert tally.agreed.sum() + sum(tally.confused.values()) == crops
    assert tally.named.sum() == crops * labels.k
    assert (np.diff(tally.coverage) >= 0).all()


def test_a_larger_file_is_sampled_and_says_so(rng, tmp_path):
    write_labels(tmp_path / "a.fkdl", rng, "topk", images=10, crops=20)
    labels = LabelFile(tmp_path / "a.fkdl")
    found = survey(labels, most_crops=50)
    assert found.crops_of == 5
    assert found.tally.crops == 50
    assert read_crops(labels, np.arange(3), 5).crops[0].tolist() == [0, 5, 10, 14, 19]


def test_problems(tmp_path):
    """Flat, repeated and small crops, classes that no label names, and a teacher against its folders."""
    flat, sure = [0.25, 0.25], [0.9, 0.05]
    box = [[0, 0, 50, 50], [0, 0, 50, 50], [5, 5, 60, 60], [9, 9, 8, 80]]
    with LabelWriter(tmp_path / "a.fkdl", num_classes=4, k=2, crops=4, classes=list("abcd")) as writer:
        for key in ("a/1.jpg", "b/2.jpg"):
            writer.add(key, box, [False] * 4, [[2, 0]] * 4, [flat, flat, sure, sure], (100, 100))
    labels = LabelFile(tmp_path / "a.fkdl")
    found = find_problems(survey(labels, np.array([0, 1])), list("abcd"), labels.k)
    counts = {problem.title: (problem.grade, problem.count, problem.of) for problem in found}
    assert counts == {
        "teacher and folder disagree": ("serious", 2, 2),
        "flat labels": ("serious", 4, 8),
        "classes that no label names": ("serious", 2, 4),
        "duplicate crops": ("check", 2, 8),
        "very small crops": ("check", 2, 8),
        "probability outside the top K": ("note", 2, 8),
    }


def test_confusion_both_ways_is_named(tmp_path):
    with LabelWriter(tmp_path / "a.fkdl", num_classes=3, k=1, crops=2) as writer:
        for key, top in (("a/1", 1), ("b/1", 0), ("c/1", 2)):
            writer.add(
                key, [[0, 0, 50, 50], [1, 1, 50, 50]], [False] * 2, [[top]] * 2, [[0.9]] * 2, (100, 100)
            )
    found = find_problems(survey(LabelFile(tmp_path / "a.fkdl"), np.arange(3)), list("abc"), 1)
    both = next(problem for problem in found if problem.title == "classes confused both ways")
    assert "a and b" in both.text
    assert both.count == 2


def test_a_class_in_many_confused_pairs_counts_once(tmp_path):
    with LabelWriter(tmp_path / "a.fkdl", num_classes=3, k=1, crops=2) as writer:
        for key, tops in (("a/1", (1, 2)), ("b/1", (0, 2)), ("c/1", (0, 1))):
            boxes = [[0, 0, 50, 50], [1, 1, 50, 50]]
            writer.add(key, boxes, [False] * 2, [[top] for top in tops], [[0.9]] * 2, (100, 100))
    found = find_problems(survey(LabelFile(tmp_path / "a.fkdl"), np.arange(3)), list("abc"), 1)
    both = next(problem for problem in found if problem.title == "classes confused both ways")
    assert (both.count, both.of) == (3, 3)
    assert both.text.startswith("In 3 pairs ")
