"""When the student sees how many crops at which learning rate: pure functions of the recipe.

The *serrated* schedule is FKD's (Shen and Xing, ECCV 2022, and its released programs): one pass over the data
with m crops an image counts as m epochs, the learning rate is read off the epoch curve once a pass, warm-up
epochs and the last m epochs are single-crop passes of one epoch each.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from fkdx.train.recipe import Recipe


class Pass(NamedTuple):
    """One pass over the images: the epoch it starts at, and how many crops (= epochs) it takes of each."""

    epoch: int
    crops: int

    @property
    def end(self) -> int:
        """The epoch at which it ends."""
        return self.epoch + self.crops


def passes(recipe: Recipe) -> Iterator[Pass]:
    """Every pass of a stage in order."""
    m = recipe.crops_per_image
    for epoch in range(min(recipe.warmup_epochs, recipe.epochs)):
        yield Pass(epoch, 1)
    for epoch in range(recipe.warmup_epochs, recipe.epochs, m):
        if epoch >= recipe.epochs - m:
            for single in range(epoch, recipe.epochs):
                yield Pass(single, 1)
            return
        yield Pass(epoch, m)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at `epoch` in [0, epochs]; whole for serrated schedules, a fraction for smooth ones.

    Warm-up is linear from `warmup_lr` and replaces the head of the curve: the curve itself is not moved.
    """
    peak = recipe.peak_lr
    if epoch < recipe.warmup_epochs:
        return recipe.warmup_lr + (peak - recipe.warmup_lr) * epoch / recipe.warmup_epochs
    done = epoch / recipe.epochs
    if recipe.schedule == "cosine":
        return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2
    if recipe.schedule == "linear":
        return recipe.min_lr + (peak - recipe.min_lr) * (1 - done)
    if recipe.schedule == "step":
        return peak * recipe.decay_rate ** sum(epoch >= fall for fall in recipe.decay_epochs)
    return peak


def step_learning_rate(recipe: Recipe, this_pass: Pass, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps` in a pass: the pass's own, or if `smooth` the curve's."""
    return learning_rate(recipe, this_pass.epoch + (this_pass.crops * step / steps if recipe.smooth else 0))
