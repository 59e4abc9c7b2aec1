"""When the student sees how many crops at which learning rate: pure functions of the recipe.

The *serrated* schedule is FKD's (Shen and Xing, ECCV 2022, and its released programs): one pass over the data
with m crops an image counts as m epochs, the learning rate is read off the epoch curve once a pass, warm-up
epochs and the last m epochs are single-crop passes of one epoch each.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fkdx.train.recipe import Recipe
from fkdx.train.temperature import TEMPERATURES, curve, read_temperature


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
    done = epoch / (recipe.curve_epochs or recipe.epochs)
    if recipe.schedule in ("cosine", "linear"):
        return curve(recipe.schedule, peak, recipe.min_lr, done)
    if recipe.schedule == "step":
        return peak * recipe.decay_rate ** sum(epoch >= fall for fall in recipe.decay_epochs)
    return peak


class Settings(NamedTuple):
    """What the schedules of a recipe say at one step."""

    lr: float
    temperature: float
    teacher_temperature: float

    def moving(self, recipe: Recipe) -> dict[str, float]:
        """The temperatures that the recipe lets move, by name."""
        return {name: getattr(self, name) for name in TEMPERATURES if isinstance(getattr(recipe, name), dict)}


def settings_at(recipe: Recipe, this_pass: Pass, done: float, fitted: float | None = None) -> Settings:
    """The settings of a step with `done` (0 to 1) of its pass behind it: the pass's, unless `smooth`.

    fitted: the student's temperature, if it was fitted after an earlier pass.
    """
    epoch = this_pass.epoch + (this_pass.crops * done if recipe.smooth else 0)
    temperatures = [
        read_temperature(name, getattr(recipe, name)).at(epoch, recipe.epochs) for name in TEMPERATURES
    ]
    return Settings(learning_rate(recipe, epoch), fitted or temperatures[0], temperatures[1])
