"""The fused loss against float64 in every dtype, shape and kind, and the ways it is called."""

import numpy as np
import pytest
import torch
from draw_tensors import CLASSES, random_labels, random_logits

from fkdx import _C, SparseTarget, loss_and_grad, reference, soft_cross_entropy
from fkdx.loss import binary_cross_entropy
from fkdx.loss.target import FLOATS, KINDS

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def assert_gradient(grad: torch.Tensor, expected: np.ndarray, factor: float) -> None:
    """Rounded once: 0.51 ulp for 16 bits, 4 ulp for float32, beside arithmetic's own 2e-7 of the factor."""
    error = np.abs(grad.double().numpy() - expected)
    if grad.dtype == torch.float64:
        assert error.max(initial=0) <= 1e-13 * factor
        return
    digits, ulps, smallest = {
        torch.bfloat16: (8, 0.51, 2.0**-133),
        torch.float16: (11, 0.51, 2.0**-24),
        torch.float32: (24, 4.0, 2.0**-149),
    }[grad.dtype]
    exponent = np.floor(np.log2(np.maximum(np.abs(expected), 1e-300)))
    ulp = np.maximum(2.0 ** (exponent + 1 - digits), smallest)
    assert (error <= ulps * ulp + 2e-7 * factor).all(), f"worst error {(error / ulp).max()} ulp"


def assert_loss(loss: torch.Tensor, expected: np.ndarray) -> None:
    tolerance = 1e-13 if loss.dtype == torch.float64 else 5e-7
    np.testing.assert_allclose(loss.double().numpy(), expected, rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_loss_and_grad_equal_the_reference(rng, cpu, classes, dtype):
    rows = 5
    logits = random_logits(rng, rows, classes, dtype)
    for kind in KINDS:
        ids, values = random_labels(rng, rows, classes, min(5, classes))
        target = SparseTarget.from_topk(ids.astype(np.int32), values, classes, kind)
        dense = reference.loss.dense_target(ids, values, classes, kind)
        expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.double().numpy(), dense, 2.0)
        loss, grad = loss_and_grad(logits, target, temperature=2.0)
        assert_loss(loss, expected_loss)
        assert_gradient(grad, expected_grad / rows, 1 / rows)
        assert grad.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize(("spread", "shift"), [(30.0, 0.0), (3.0, 1e4), (3.0, -1e4), (0.01, 0.0)])
def test_large_shifted_and_flat_logits(rng, cpu, dtype, spread, shift):
    logits = random_logits(rng, 6, 1000, dtype, spread, shift)
    ids, values = random_labels(rng, 6, 1000, 5)
    for kind in KINDS:
        target = SparseTarget.from_topk(ids, values, 1000, kind)
        dense = reference.loss.dense_target(ids, values, 1000, kind)
        expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.double().numpy(), dense)
        loss, grad = loss_and_grad(logits, target, scale=float(len(logits)))
        assert_loss(loss, expected_loss)
        assert_gradient(grad, expected_grad, 1.0)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("classes", [10, 1000, 21841])
def test_never_worse_than_torch(rng, cpu, dtype, classes):
    """Against float64, in the mean over rows and elements; the constant is a rounding of the result."""
    rows = max(16, 40_000 // classes)  # so many that chance decides nothing
    logits = random_logits(rng, rows, classes, dtype, spread=4.0)
    ids, values = random_labels(rng, rows, classes, 5)
    target = SparseTarget.from_topk(ids, values, classes)
    dense = reference.loss.dense_target(ids, values, classes, KINDS[0])
    expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.double().numpy(), dense)

    leaf = logits.clone().requires_grad_()
    theirs = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(dense).to(dtype), reduction="none")
    theirs.sum().backward()
    ours, grad = loss_and_grad(logits, target, scale=float(rows))

    def mean_error(found: torch.Tensor, expected: np.ndarray) -> float:
        return np.abs(found.detach().double().numpy() - expected).mean()

    assert mean_error(ours, expected_loss) <= mean_error(theirs, expected_loss) + 1e-7 * expected_loss.mean()
    rounding = 1e-9 * np.abs(expected_grad).mean()
    assert mean_error(grad, expected_grad) <= mean_error(leaf.grad, expected_grad) + rounding


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_a_saturated_row_keeps_its_digits(rng, cpu, temperature):
    logits = rng.uniform(-80, -20, (1, 50)).astype(np.float32) * np.float32(temperature)
    logits[0, 7] = 0
    loss, grad = loss_and_grad(
        torch.from_numpy(logits), SparseTarget.from_classes(np.array([7]), 50), temperature
    )
    expected = np.exp(np.delete(logits[0].astype(np.float64), 7) / temperature).sum()
    assert 0 < expected < 1e-7
    np.testing.assert_allclose(loss, np.log1p([expected]), rtol=5e-7)
    np.testing.assert_allclose(grad[0, 7], -expected / (1 + expected) / temperature, rtol=1e-6)


@pytest.mark.parametrize("k", [0, 1, 64, 65, 200])
def test_any_number_of_stored_classes(rng, k):
    logits = random_logits(rng, 4, 200)
    ids, values = random_labels(rng, 4, 200, k)
    target = SparseTarget.from_topk(ids, values, 200)
    dense = reference.loss.dense_target(ids, values, 200, KINDS[0])
    loss, grad = loss_and_grad(logits, target)
    expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.numpy(), dense)
    assert_loss(loss, expected_loss)
    assert_gradient(grad, expected_grad / 4, 0.25)


def test_composed_targets(rng, cpu):
    rows, classes = 7, 300
    labels = [random_labels(rng, rows, classes, k) for k in (5, 10)]
    targets = [SparseTarget.from_topk(*label, classes, kind) for label, kind in zip(labels, KINDS)]
    target = SparseTarget.ensemble(targets).mix(rng.permutation(rows), rng.random(rows))
    target = target.blend_hard(rng.integers(0, classes, rows), 0.25)
    logits = random_logits(rng, rows, classes)
    expected_loss, expected_grad = reference.loss.soft_cross_entropy(
        logits.numpy(), target.to_dense(torch.float64).numpy()
    )
    loss, grad = loss_and_grad(logits, target)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)  # weights are float32
    assert_gradient(grad, expected_grad / rows, 2 / rows)


def test_permutations_and_weights_that_lie_apart(rng):
    logits = random_logits(rng, 8, 30)
    columns = torch.stack([torch.from_numpy(rng.permutation(8)) for _ in range(3)], 1)
    target = SparseTarget.from_topk(*random_labels(rng, 8, 30, 5), 30).mix(columns[:, 1], rng.random(8))
    for rows in (slice(None), slice(None, None, 2), slice(3, 7)):
        dense = target.to_dense(torch.float64)[rows].numpy()
        expected, _ = reference.loss.soft_cross_entropy(logits[rows].double().numpy(), dense)
        np.testing.assert_allclose(loss_and_grad(logits[rows], target[rows])[0], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dense_targets_of_any_dtype(rng, cpu, dtype):
    logits = random_logits(rng, 6, 131, torch.float32)
    dense = torch.softmax(random_logits(rng, 6, 131), 1).to(dtype)
    loss, grad = loss_and_grad(logits, dense)
    expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.numpy(), dense.double().numpy())
    assert_loss(loss, expected_loss)
    assert_gradient(grad, expected_grad / 6, 1 / 6)


def test_teacher_logits_with_a_temperature(rng, cpu):
    logits, teacher = random_logits(rng, 6, 128), random_logits(rng, 6, 128, torch.float16)
    dense = torch.softmax(teacher.double() / 0.3, 1)
    loss, grad = loss_and_grad(logits, teacher, temperature=0.1, teacher_temperature=0.3)
    expected_loss, expected_grad = reference.loss.soft_cross_entropy(logits.numpy(), dense.numpy(), 0.1)
    assert_loss(loss, expected_loss)
    assert_gradient(grad, expected_grad / 6, 10 / 6)


@pytest.mark.parametrize("temperature", [1e46, float("inf")])
def test_an_endless_temperature_of_the_teacher_makes_its_classes_equal(rng, cpu, temperature):
    logits, teacher = random_logits(rng, 6, 128), random_logits(rng, 6, 128)
    loss, grad = loss_and_grad(logits, teacher, teacher_temperature=temperature)
    even_loss, even_grad = loss_and_grad(logits, torch.full((6, 128), 1 / 128))
    torch.testing.assert_close(loss, even_loss)
    torch.testing.assert_close(grad, even_grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 7, 1000])
def test_binary_cross_entropy(rng, cpu, classes, dtype):
    logits = random_logits(rng, 5, classes, dtype).requires_grad_()
    ids, values = random_labels(rng, 5, classes, min(5, classes))
    target = SparseTarget.from_topk(ids, values, classes)
    dense = reference.loss.dense_target(ids, values, classes, KINDS[0])
    for given in (target, torch.from_numpy(dense)):
        logits.grad = None
        loss = binary_cross_entropy(logits, given, reduction="none")
        loss.sum().backward()
        expected_loss, expected_grad = reference.loss.binary_cross_entropy(
            logits.detach().double().numpy(), dense
        )
        size = np.abs(logits.detach().double().numpy()).mean(1)  # y = 1 cancels a term of this size
        tolerance = 1e-14 if dtype == torch.float64 else 2e-7
        np.testing.assert_allclose(loss.detach(), expected_loss, rtol=tolerance, atol=tolerance * size.max())
        assert_gradient(logits.grad, expected_grad, 1 / classes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autograd_equals_loss_and_grad(rng, dtype):
    logits = random_logits(rng, 8, 100, dtype).requires_grad_()
    target = SparseTarget.from_topk(*random_labels(rng, 8, 100, 5), 100)
    loss = soft_cross_entropy(logits, target)
    expected_rows, expected = loss_and_grad(logits, target)
    assert loss == expected_rows.mean()
    for _ in range(3):  # the kept gradient is given away once
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.equal(grad, expected)
        grad.zero_()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_factors_from_above_cost_no_second_rounding(rng, dtype, reduction):
    rows = 12
    logits = random_logits(rng, rows, 100, dtype).requires_grad_()
    ids, values = random_labels(rng, rows, 100, 5)
    dense = reference.loss.dense_target(ids, values, 100, KINDS[0])
    _, exact = reference.loss.soft_cross_entropy(logits.detach().double().numpy(), dense)
    share = 1 / rows if reduction == "mean" else 1.0
    for factor in (1.0, 1 / 3, 0.0, float(np.float32(rng.uniform(0, 100)))):
        loss = soft_cross_entropy(logits, SparseTarget.from_topk(ids, values, 100), reduction=reduction)
        above = torch.full_like(loss, factor)
        (grad,) = torch.autograd.grad(loss, logits, above)
        scale = share * above.view(-1)[0].item()
        assert grad.dtype == dtype
        assert_gradient(grad, exact * scale, scale)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(rng, reduction):
    logits = random_logits(rng, 3, 9, torch.float64).requires_grad_()
    target = SparseTarget.from_topk(*random_labels(rng, 3, 9, 4), 9).mix(np.array([2, 0, 1]), rng.random(3))
    assert torch.autograd.gradcheck(
        lambda z: soft_cross_entropy(z, target, temperature=1.7, reduction=reduction), logits
    )
    assert torch.autograd.gradcheck(lambda z: binary_cross_entropy(z, target, reduction=reduction), logits)


def test_double_backward_is_refused(rng):
    logits = random_logits(rng, 2, 5).requires_grad_()
    loss = soft_cross_entropy(logits, SparseTarget.from_classes(np.array([0, 1]), 5))
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad.sum().backward()


def test_the_scale_is_multiplied_in_before_rounding(rng):
    logits = random_logits(rng, 4096, 50, torch.float16)
    target = SparseTarget.from_topk(*random_labels(rng, 4096, 50, 5), 50)
    _, plain = loss_and_grad(logits, target)
    _, scaled = loss_and_grad(logits, target, scale=torch.tensor(65536.0))
    assert (plain == 0).float().mean() > 0.01
    assert (scaled == 0).float().mean() < 0.001
    assert torch.equal(scaled, loss_and_grad(logits, target, scale=65536.0)[1])
    logits.requires_grad_()
    (65536 * soft_cross_entropy(logits, target)).backward()
    assert (logits.grad == 0).float().mean() < 0.001


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_few_rows(rng, rows):
    logits = random_logits(rng, rows, 11).requires_grad_()
    target = SparseTarget.from_topk(*random_labels(rng, rows, 11, 5), 11)
    soft_cross_entropy(logits, target, reduction="sum").backward()
    assert logits.grad.shape == (rows, 11)
    assert torch.isnan(soft_cross_entropy(logits, target)) == (rows == 0)


def test_rows_apart_and_transposed(rng):
    wide = random_logits(rng, 6, 40)
    target = SparseTarget.from_topk(*random_labels(rng, 6, 33, 5), 33)
    expected = loss_and_grad(wide[:, 3:36].contiguous(), target)
    for logits in (wide[:, 3:36], wide.t().contiguous().t()[:, 3:36]):
        loss, grad = loss_and_grad(logits, target)
        assert torch.equal(loss, expected[0])
        assert torch.equal(grad, expected[1])


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_logits_that_start_at_any_byte(rng, dtype):
    logits = random_logits(rng, 3, 37, dtype)
    target = SparseTarget.from_topk(*random_labels(rng, 3, 37, 5), 37)
    expected = loss_and_grad(logits, target)
    size = logits.element_size()
    for offset in range(0, 64 // size):
        moved = torch.empty(offset + logits.numel(), dtype=dtype)[offset:].view(3, 37).copy_(logits)
        loss, grad = loss_and_grad(moved, target)
        assert torch.equal(loss, expected[0])
        assert torch.equal(grad, expected[1])


def test_any_number_of_threads_gives_the_same_bits(rng):
    logits = random_logits(rng, 301, 1000)
    target = SparseTarget.from_topk(*random_labels(rng, 301, 1000, 5), 1000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(loss_and_grad(logits, target))
    torch.set_num_threads(before)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinite_logits_spoil_their_row_as_in_torch(rng, cpu, bad):
    logits = random_logits(rng, 3, 20)
    logits[1, 7] = bad
    target = SparseTarget.from_topk(*random_labels(rng, 3, 20, 5), 20)
    loss, grad = loss_and_grad(logits, target)
    wide = logits.double().requires_grad_()
    torch.nn.functional.cross_entropy(wide, target.to_dense(torch.float64)).backward()
    np.testing.assert_array_equal(torch.isnan(loss), [False, True, False])
    np.testing.assert_array_equal(torch.isnan(grad), torch.isnan(wide.grad))


def test_minus_infinity_is_a_class_that_cannot_be(cpu):
    logits = torch.tensor([[1.0, -torch.inf, 2.0]])
    hard = SparseTarget.from_classes(np.array([2]), 3)
    loss, grad = loss_and_grad(logits, hard)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1.0)), rtol=1e-6)
    assert torch.isfinite(grad).all()
    assert loss_and_grad(logits, SparseTarget.from_classes(np.array([1]), 3))[0] == torch.inf
    soft = SparseTarget.from_topk(np.array([[2]]), np.array([[0.5]]), 3)
    assert loss_and_grad(logits, soft)[0] == torch.inf
    assert torch.isnan(loss_and_grad(torch.full((1, 3), -torch.inf), soft)[0])


def test_the_vector_exponential_is_within_1_5_ulp(rng, cpu):
    x = np.concatenate([-np.exp(rng.uniform(-20, np.log(126), 20000)), np.linspace(-126, 0, 5001)])
    x = x.astype(np.float32)
    y = np.array([_C.vector_exp2(float(v)) for v in x])
    expected = np.exp2(x.astype(np.float64))
    assert (np.abs(y - expected) <= 1.5 * np.spacing(expected.astype(np.float32))).all()
    assert _C.vector_exp2(0.0) == 1
    assert _C.vector_exp2(-151.0) == _C.vector_exp2(-np.inf) == 0
    assert np.isnan(_C.vector_exp2(np.nan))


@pytest.mark.parametrize("wrong", [-1, 10, 2**31])
def test_a_class_that_does_not_exist_is_an_error_with_its_row(rng, wrong):
    ids, values = random_labels(rng, 4, 10, 3)
    ids[2, 1] = wrong
    target = SparseTarget.from_topk(ids, values, 10)
    with pytest.raises(IndexError, match=rf"row 2, got {wrong}, expected 0 <= id < 10"):
        soft_cross_entropy(random_logits(rng, 4, 10), target)


def test_a_permutation_that_leaves_the_batch_is_an_error(rng):
    target = SparseTarget.from_topk(*random_labels(rng, 4, 10, 3), 10).mix(np.array([0, 1, 2, 4]), 0.5)
    with pytest.raises(IndexError, match="partner of row 3, got 4"):
        soft_cross_entropy(random_logits(rng, 4, 10), target)


def table(k: int = 1) -> _C.LossSource:
    return _C.LossSource(0, 0, k, 0, 0, k, 1, k, 0, 0, 1.0, True)


@pytest.mark.skipif(not hasattr(_C, "loss_cuda"), reason="built without CUDA")
@pytest.mark.parametrize(
    ("dtype", "rows", "classes", "sources", "dense", "words"),
    [
        (torch.float32, 1, 2**31 - 1, [], None, r"shape, .*, expected fewer than 2\^31 rows"),
        (torch.float32, 2**31, 1, [], None, r"shape, .* of at most 2\^30 classes"),
        (torch.float32, 1, 10, [table()] * 9, None, "sources, got 9, expected at most 8"),
        (torch.float32, 1, 100, [table(64), table()], None, "classes a row, got 65, expected at most 64"),
        (torch.float64, 1, 10, [table()], None, "logits, got float64, expected 16 or 32 bits"),
        (torch.float16, 1, 10, [], torch.bfloat16, "dense target, expected float32 or the logits' type"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused_before_a_gpu_is_asked_for(
    dtype, rows, classes, sources, dense, words
):
    dense = dense and _C.LossDense(16, FLOATS[dense], classes, 0.0)
    arguments = (16, FLOATS[dtype], rows, classes, classes, sources, dense)
    with pytest.raises(ValueError, match=f"loss_cuda: {words}"):
        _C.loss_cuda(*arguments, 0, 1.0, 1.0, 0, 0, 0, 0, classes, 0, 0, 0)


def test_refusals(rng):
    logits = random_logits(rng, 4, 10)
    target = SparseTarget.from_topk(*random_labels(rng, 4, 10, 3), 10)
    cases = [
        (lambda: soft_cross_entropy(logits.int(), target), "float32"),
        (lambda: soft_cross_entropy(logits[0], target), "shape"),
        (lambda: soft_cross_entropy(logits[:3], target), "shapes"),
        (lambda: soft_cross_entropy(logits, target, temperature=0.0), "temperature"),
        (lambda: soft_cross_entropy(logits, target, torch.ones((), requires_grad=True)), "divide the logits"),
        (lambda: soft_cross_entropy(logits, target, reduction="median"), "reduction"),
        (lambda: soft_cross_entropy(logits, target, teacher_temperature=1.0), "teacher_temperature"),
        (lambda: soft_cross_entropy(logits, torch.zeros(4, dtype=torch.int64)), "from_classes"),
        (lambda: soft_cross_entropy(logits, logits.clone().requires_grad_()), "detach"),
        (lambda: soft_cross_entropy(logits, target.to("meta")), "device"),
        (lambda: soft_cross_entropy(logits.to("meta"), target.to("meta")), "cpu or cuda"),
        (lambda: loss_and_grad(logits, target, scale=torch.ones(2)), "scale"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
