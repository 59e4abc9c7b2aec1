"""The losses of an online teacher: against their formulas, one row at a time, and their gradients."""

import numpy as np
import pytest
import torch

from fkdx import reference
from fkdx.loss import distill

WEIGHTS = {"dkd": ("alpha", "beta"), "dist": ("beta", "gamma"), "mse_gt": ("gamma",)}
CLASSED = ("dkd", "mse_gt")  # losses that ask for the true classes


def draw(rng: np.random.Generator, rows: int = 6, classes: int = 5) -> tuple[np.ndarray, ...]:
    """Logits of a student and a teacher, and true classes."""
    spread = rng.uniform(0.1, 8)
    logits = rng.normal(0, spread, (2, rows, classes))
    return *logits, rng.integers(0, classes, rows)


def arguments_of(name: str, rng: np.random.Generator) -> dict[str, float]:
    drawn = {weight: rng.uniform(0, 3) for weight in WEIGHTS.get(name, ())}
    return {"temperature": rng.uniform(0.5, 5), **drawn}


@pytest.mark.parametrize("name", distill.LOSSES)
def test_losses_are_their_formulas(name, rng):
    for _ in range(20):
        student, teacher, classes = draw(rng, int(rng.integers(2, 9)), int(rng.integers(2, 30)))
        more = arguments_of(name, rng)
        truth = {"classes": classes} if name in CLASSED else {}
        expected = getattr(reference.loss, name)(student, teacher, **truth, **more)
        tensors = {key: torch.from_numpy(value) for key, value in truth.items()}
        got = distill.LOSSES[name](torch.from_numpy(student), torch.from_numpy(teacher), **tensors, **more)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_beside_a_sure_class_dkd_compares_the_others_in_full(rng):
    """Their probabilities are so small that 1 - p of the sure class is nothing but rounding."""
    rest, classes = rng.normal(0, 2, (2, 6, 4)), rng.integers(0, 5, 6)
    sure = rng.uniform(40, 600, (2, 6))
    logits = np.empty((2, 6, 5))
    for side, row in np.ndindex(2, 6):
        logits[side, row] = np.insert(rest[side, row], classes[row], sure[side, row])
    expected = 2 * np.array(reference.loss.kl(*rest, 1.0))
    tensors = (torch.from_numpy(array) for array in (*logits, classes))
    np.testing.assert_allclose(reference.loss.dkd(*logits, classes, 1.0, 1.0, 2.0), expected, rtol=1e-9)
    np.testing.assert_allclose(distill.dkd(*tensors), expected, rtol=1e-9)


@pytest.mark.parametrize("name", distill.LOSSES)
def test_gradients_are_those_of_finite_differences(name, rng):
    student, teacher, classes = (torch.from_numpy(array) for array in draw(rng))
    student, teacher = student / 4, teacher / 4  # where the softmaxes are not flat
    more = arguments_of(name, rng) | ({"classes": classes} if name in CLASSED else {})
    loss = lambda logits: distill.LOSSES[name](logits, teacher, **more)  # noqa: E731
    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("name", distill.LOSSES)
def test_nothing_is_to_be_learned_from_oneself(name, rng):
    """Where the student's probabilities are the teacher's, the loss is 0 and so is its gradient."""
    logits, _, classes = (torch.from_numpy(array) for array in draw(rng))
    logits = logits / 2  # no class is certain, and none is always out of the question (see `dist`)
    more = {"classes": classes} if name in CLASSED else {}
    more |= {"gamma": 0.0} if name == "mse_gt" else {}
    student = logits.clone()
    if name == "bkl":
        student = torch.logit(logits.softmax(1))
    student.requires_grad_()
    losses = distill.LOSSES[name](student, logits, **more)
    losses.sum().backward()
    assert losses.abs().max() < 1e-9
    assert student.grad.abs().max() < 1e-9


@pytest.mark.parametrize("name", distill.LOSSES)
def test_half_precision_is_computed_in_float32(name, rng):
    student, teacher, classes = (torch.from_numpy(array) for array in draw(rng))
    student, teacher = student.bfloat16(), teacher.bfloat16().requires_grad_()
    more = {"classes": classes} if name in CLASSED else {}
    low = distill.LOSSES[name](student, teacher, **more)
    high = distill.LOSSES[name](student.double(), teacher.double(), **more)
    assert low.dtype == torch.float32
    assert not low.requires_grad  # the teacher learns nothing
    torch.testing.assert_close(low.double(), high, rtol=1e-4, atol=1e-5)


def test_confident_logits_stay_finite():
    student = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0]], requires_grad=True)
    teacher = student.detach().flip(0)
    for name, loss in distill.LOSSES.items():
        more = {"classes": torch.tensor([0, 1])} if name in CLASSED else {}
        losses = loss(student, teacher, **more)
        student.grad = None
        losses.sum().backward()
        assert losses.isfinite().all(), name
        assert student.grad.isfinite().all(), name


@pytest.mark.parametrize("name", distill.LOSSES)
def test_what_does_not_fit_is_refused(name):
    logits = torch.zeros(4, 3)
    more = {"classes": torch.zeros(4, dtype=torch.int64)} if name in CLASSED else {}
    loss = distill.LOSSES[name]
    with pytest.raises(ValueError, match=f"{name}: temperature, got 0.0, expected a positive number"):
        loss(logits, logits, temperature=0.0, **more)
    with pytest.raises(ValueError, match=f"{name}: shapes of logits, got"):
        loss(logits, logits[:, :2], **more)


def test_dkd_needs_true_classes_and_others():
    with pytest.raises(ValueError, match="dkd: shapes of classes and logits"):
        distill.dkd(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected \\(B,\\) and \\(B, C\\), C >= 2"):
        distill.dkd(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


def test_mse_gt_needs_true_classes():
    with pytest.raises(ValueError, match="mse_gt: shapes of classes and logits"):
        distill.mse_gt(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64))
