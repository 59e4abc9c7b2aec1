"""The loss under torch.compile: one graph, the same numbers, well-formed operators."""

import pytest
import torch
from draw_tensors import mixed_target, random_logits

from fkdx import loss_and_grad, soft_cross_entropy
from fkdx.loss.cross_entropy import SOFTMAX, _flat, binary_cross_entropy


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_graph_gives_the_same_numbers(rng, dynamic):
    model = torch.nn.Linear(20, 30)

    def step(x, target):
        logits = model(x)
        return soft_cross_entropy(logits, target, temperature=2.0) + binary_cross_entropy(logits, target)

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (6, 9):
        x, target = random_logits(rng, rows, 20), mixed_target(rng, rows, 30)
        gradients = []
        for function in (step, compiled):
            model.zero_grad()
            loss = function(x, target)
            loss.backward()
            gradients.append((loss.detach(), model.weight.grad.clone()))
        torch.testing.assert_close(*gradients)


def test_loss_and_grad_in_one_graph(rng):
    logits, target = random_logits(rng, 6, 30), mixed_target(rng, 6, 30)
    compiled = torch.compile(loss_and_grad, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(logits, target, 2.0, 8.0), loss_and_grad(logits, target, 2.0, 8.0)):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_apart_and_transposed_in_one_graph(rng, transposed):
    wide, target = random_logits(rng, 6, 45), mixed_target(rng, 6, 30)
    wide = wide.t().contiguous().t() if transposed else wide
    compiled = torch.compile(loss_and_grad, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(wide[:, 5:35], target), loss_and_grad(wide[:, 5:35], target)):
        torch.testing.assert_close(got, want)
        assert got.stride() == want.stride()


def test_dense_targets_in_one_graph(rng):
    logits, teacher = random_logits(rng, 6, 30), random_logits(rng, 6, 30)
    compiled = torch.compile(
        lambda z: soft_cross_entropy(z, teacher, teacher_temperature=0.5), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(logits), soft_cross_entropy(logits, teacher, teacher_temperature=0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(rng, dtype):
    logits = random_logits(rng, 6, 30, dtype).requires_grad_()
    tensors, layouts, constants = _flat(mixed_target(rng, 6, 30).sources, None)
    arguments = (logits, tensors, layouts, constants, SOFTMAX, 1.5)
    torch.library.opcheck(torch.ops.fkdx.loss.default, arguments)
    scales = torch.rand(6)
    torch.library.opcheck(
        torch.ops.fkdx.loss_and_grad.default, (logits.detach(), *arguments[1:], 0.5, scales)
    )
