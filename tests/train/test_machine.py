"""What a run sets in torch for its whole process."""

import torch
from draw_tensors import random_images, random_labels, random_logits

from fkdx import SparseTarget, loss_and_grad
from fkdx.batch import prepare
from fkdx.train.distributed import World
from fkdx.train.loop import set_machine
from fkdx.train.recipe import Recipe


def test_deterministic_runs_fill_no_memory_that_is_written_whole(rng):
    set_machine(Recipe(device="cpu", deterministic=True), World())
    assert torch.are_deterministic_algorithms_enabled()
    target = SparseTarget.from_topk(*random_labels(rng, 8, 40, 5), 40)
    logits, images = random_logits(rng, 8, 40), random_images(rng)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss_and_grad(logits, target)
        prepare(images)
    names = {event.name for event in profile.events()}
    assert "aten::empty" in names or "aten::empty_like" in names
    assert "aten::fill_" not in names


def test_the_next_test_sees_torch_as_it_was():
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
