"""Losses against embeddings: the twin's values, no gradient from absent embeddings, and what is refused."""

import numpy as np
import pytest
import torch

from fkdx import reference
from fkdx.loss.embed import EMBEDDING_LOSSES, embedding_losses

PARTS = slice(0, 5), slice(5, 8)


@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_the_twins(rng, loss: str, dtype: torch.dtype) -> None:
    sizes = [5, 3]
    student = torch.from_numpy(rng.normal(0, 2, (7, 8))).to(dtype)
    teacher = torch.from_numpy(rng.normal(0, 2, (7, 8))).float()
    found = embedding_losses(student, teacher, sizes, loss, 0.7, 0.3)
    expected = [
        np.mean([reference.loss.embedding_loss(s[part], t[part], loss, 0.7, 0.3) for part in PARTS])
        for s, t in zip(student.double().numpy(), teacher.numpy())
    ]
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
def test_absent_embeddings_teach_nothing(rng, loss: str) -> None:
    student = torch.from_numpy(rng.normal(0, 1, (3, 8))).requires_grad_()
    teacher = torch.from_numpy(rng.normal(0, 1, (3, 8)))
    teacher[0] = teacher[1, 5:] = torch.nan
    found = embedding_losses(student, teacher, [5, 3], loss)
    found.sum().backward()
    assert found[0] == 0
    assert student.grad.isfinite().all()
    assert not student.grad[0].any()
    assert not student.grad[1, 5:].any()
    assert student.grad[1, :5].any()
    assert student.grad[2].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4)), "shapes of projections and embeddings"),
        ((torch.ones(2), torch.ones(2)), "shapes of projections and embeddings"),
        ((torch.ones(2, 3), torch.ones(2, 3), [2, 2]), "sizes, got"),
        ((torch.ones(2, 3), torch.ones(2, 3), [3], "l1"), "loss, got 'l1'"),
        ((torch.ones(2, 3), torch.ones(2, 3), [3], "ce", 0), "temperatures, got"),
    ],
)
def test_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding_losses(*arguments)
