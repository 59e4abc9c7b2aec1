"""Targets: every kind, mixture and blend equals the slow dense one."""

import numpy as np
import pytest
import torch
from draw_tensors import random_labels

from fkdx import SparseTarget, reference, soft_cross_entropy
from fkdx.loss.target import KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "k"), [(1, 1), (2, 1), (7, 7), (7, 3), (1000, 5), (1000, 64)])
def test_kinds_equal_the_reference(rng, kind, classes, k):
    ids, values = random_labels(rng, 9, classes, k)
    shuffled = rng.permuted(np.arange(k))  # the order of the K classes does not matter
    ids, values = ids[:, shuffled], values[:, shuffled]  # both take the first of two equal ones
    target = SparseTarget.from_topk(ids, values, classes, kind)
    expected = reference.loss.dense_target(ids, values, classes, kind)
    np.testing.assert_allclose(target.to_dense(torch.float64), expected, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_numpy_and_torch_ids_of_any_integer_type(rng, dtype):
    ids, values = random_labels(rng, 4, 100, 5)
    target = SparseTarget.from_topk(ids.astype(dtype), torch.from_numpy(values).half(), 100)
    expected = reference.loss.dense_target(ids, values.astype(np.float16), 100, KINDS[0])
    np.testing.assert_allclose(target.to_dense(torch.float64), expected, atol=1e-12)


def test_ids_and_partners_of_more_than_32_bits_are_no_others():
    target = SparseTarget.from_topk(np.array([[2**32 + 1]], np.uint64), np.ones((1, 1)), 3)
    with pytest.raises(IndexError, match="class id in row 0, got 4294967297"):
        soft_cross_entropy(torch.zeros(1, 3), target)
    target = SparseTarget.from_classes(torch.tensor([1]), 3).mix(np.array([2**32], np.uint64), 0.5)
    with pytest.raises(IndexError, match="partner of row 0, got 4294967296"):
        soft_cross_entropy(torch.zeros(1, 3), target)


def test_no_stored_class_is_a_uniform_target():
    target = SparseTarget.from_topk(np.zeros((2, 0), int), np.zeros((2, 0)), 5)
    np.testing.assert_allclose(target.to_dense(), np.full((2, 5), 0.2))


def test_classes_named_twice_add_up():
    target = SparseTarget.from_topk(np.array([[3, 3]]), np.array([[0.5, 0.25]]), 5)
    base = 0.25 / 3
    np.testing.assert_allclose(target.to_dense()[0], [base, base, base, 0.75 - base, base], rtol=1e-6)


def test_renormalising_nothing_gives_nothing():
    target = SparseTarget.from_topk(np.array([[0, 1]]), np.zeros((1, 2)), 3, "marginal_renorm")
    assert target.to_dense().abs().sum() == 0


def test_ensemble_mix_and_blend(rng):
    rows, classes = 8, 50
    labels = [random_labels(rng, rows, classes, k) for k in (5, 10)]
    targets = [SparseTarget.from_topk(*label, classes, kind) for label, kind in zip(labels, KINDS)]
    dense = [reference.loss.dense_target(*label, classes, kind) for label, kind in zip(labels, KINDS)]
    permutation, lam = rng.permutation(rows), rng.random(rows)
    second, again = rng.permutation(rows), rng.random(rows)
    truth = rng.integers(0, classes, rows)

    target = SparseTarget.ensemble(targets).mix(permutation, lam).mix(second, again).blend_hard(truth, 0.3)
    expected = (dense[0] + dense[1]) / 2
    expected = lam[:, None] * expected + (1 - lam)[:, None] * expected[permutation]
    expected = again[:, None] * expected + (1 - again)[:, None] * expected[second]
    expected = 0.3 * np.eye(classes)[truth] + 0.7 * expected
    np.testing.assert_allclose(target.to_dense(torch.float64), expected, atol=2e-7)


def test_from_classes(rng):
    truth = rng.integers(0, 10, 6)
    np.testing.assert_array_equal(SparseTarget.from_classes(truth, 10).to_dense(), np.eye(10)[truth])
    smoothed = SparseTarget.from_classes(truth, 10, smoothing=0.1).to_dense()
    np.testing.assert_allclose(smoothed, np.where(np.eye(10)[truth] == 1, 0.9, 0.1 / 9), rtol=1e-6)


def test_to_moves_shared_tables_once(rng):
    target = SparseTarget.from_topk(*random_labels(rng, 4, 9, 3), 9).mix(np.arange(4), 0.5).to("meta")
    assert target.device.type == "meta"
    assert target.sources[0].ids is target.sources[1].ids


def test_ids_and_values_of_a_plain_target(rng):
    ids, values = random_labels(rng, 4, 9, 3)
    target = SparseTarget.from_topk(ids, values, 9)
    np.testing.assert_array_equal(target.ids, ids)
    np.testing.assert_array_equal(target.values, values)
    with pytest.raises(ValueError, match="composed"):
        _ = target.mix(np.arange(4), 0.5).ids


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((2, 3)), np.zeros((2, 3)), 5), "integers"),
        ((np.zeros((2, 3), int), np.zeros((2, 3), int), 5), "floating"),
        ((np.zeros((2, 3), int), torch.zeros(2, 3, dtype=torch.float8_e5m2), 5), "values, got .*float8"),
        ((np.zeros((2, 3), int), np.zeros((2, 4)), 5), "shapes"),
        ((np.zeros(3, int), np.zeros(3), 5), "shapes"),
        ((np.zeros((2, 3), int), np.zeros((2, 3)), 0), "num_classes"),
        ((np.zeros((2, 3), int), np.zeros((2, 3)), 5, "soft"), "marginal_smoothing"),
        ((np.zeros((2, 0), int), np.zeros((2, 0)), 5, "hard"), "at least 1"),
    ],
)
def test_from_topk_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        SparseTarget.from_topk(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((2, 3), int), 5), "classes"),
        ((np.zeros(2), 5), "integers"),
        ((np.zeros(2, int), 0), "num_classes, got 0"),
        ((np.zeros(2, int), 5, 1.5), "smoothing, got 1.5, expected 0 to 1"),
        ((np.zeros(2, int), 5, float("nan")), "smoothing"),
    ],
)
def test_from_classes_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        SparseTarget.from_classes(*arguments)


def test_composing_refuses_what_does_not_fit(rng):
    target = SparseTarget.from_topk(*random_labels(rng, 4, 9, 3), 9)
    with pytest.raises(ValueError, match="partners"):
        target.mix(np.arange(3), 0.5)
    with pytest.raises(ValueError, match="weight"):
        target.mix(np.arange(4), np.ones(3))
    with pytest.raises(ValueError, match="num_classes"):
        SparseTarget.ensemble([target, SparseTarget.from_classes(np.arange(4), 10)])
    with pytest.raises(ValueError, match="rows"):
        target.blend_hard(np.arange(3), 0.5)
    with pytest.raises(ValueError, match="at least 1"):
        SparseTarget.weighted_sum([], [])
    with pytest.raises(ValueError, match="at least 1"):
        SparseTarget.ensemble([])


def test_rows_are_taken_by_slices_and_numbers_but_not_one_by_one(rng):
    """A loop over rows would otherwise be one over none, without a word."""
    target = SparseTarget.from_topk(*random_labels(rng, 4, 9, 3), 9)
    dense = target.to_dense()
    for rows in (slice(1, 3), [2, 0], np.array([3]), torch.tensor([True, False, False, True])):
        assert torch.equal(target[rows].to_dense(), dense[rows])
    for row in (0, np.int64(1), torch.tensor(1), None, (slice(None), slice(2))):
        with pytest.raises(TypeError, match=r"SparseTarget: rows, got .*, expected a slice, or numbers"):
            target[row]
    with pytest.raises(TypeError, match="rows, got 0, expected a slice"):
        list(zip(dense, target, strict=True))
