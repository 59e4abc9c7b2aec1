"""Temperatures of the loss: numbers, or schedules over a stage."""

import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from fkdx.train.keys import cast, unknown

TEMPERATURES = ("temperature", "teacher_temperature")  # the keys of a recipe


def curve(schedule: str, first: float, last: float, done: float) -> float:
    """A value between `first` and `last`, `done` (0 to 1) of the way along a line or half a cosine."""
    if schedule == "cosine":
        return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
    return last + (first - last) * (1 - done)


@dataclass(frozen=True)
class Temperature:
    """How a temperature moves over a stage.

    Attributes:
        schedule: constant; linear or cosine, from `first` to `last`; step, where `first` is multiplied by
            `decay_rate` at each of `decay_epochs`, down to `last` (LPQLD: Xiao and He, TPAMI 2026, section
            III-D); or fitted, for the student alone: `first` in the first pass, then the one of 100 values
            from `first` to `last` with the least loss in the last step of the pass before (section III-E).
        first, last: at the beginning and at the end of the stage, both positive.
    """

    schedule: str = "constant"
    first: float = 1.0
    last: float = 1.0
    decay_rate: float = 0.5
    decay_epochs: list[int] = field(default_factory=list)

    def at(self, epoch: float, epochs: int) -> float:
        """The temperature at `epoch` in [0, epochs]."""
        if self.schedule in ("constant", "fitted"):
            return self.first
        if self.schedule == "step":
            falls = sum(epoch >= fall for fall in self.decay_epochs)
            return max(self.last, self.first * self.decay_rate**falls)
        return curve(self.schedule, self.first, self.last, epoch / epochs)

    def candidates(self) -> list[float]:
        """What a fitted temperature may be; none of other schedules."""
        if self.schedule != "fitted":
            return []
        return [self.first + (self.last - self.first) * place / 99 for place in range(100)]


KEYS = get_type_hints(Temperature)
NEEDED = {  # what a schedule is made of, besides its name
    "constant": {"first"},
    "linear": {"first", "last"},
    "cosine": {"first", "last"},
    "step": {"first", "last", "decay_rate", "decay_epochs"},
    "fitted": {"first", "last"},
}


def read_temperature(name: str, value: float | dict[str, Any]) -> Temperature:
    """The temperature that a recipe's key `name` describes: a number, or the attributes of `Temperature`.

    ValueError if they are unknown, missing, not positive or too many.
    """
    if not isinstance(value, dict):
        return Temperature(first=value)
    for each in value:
        if each not in KEYS:
            raise unknown(str(each), KEYS, name)
    given = {each: cast(f"{name}.{each}", value[each], KEYS[each], "a schedule") for each in value}
    schedule = given.get("schedule")
    if schedule not in NEEDED:
        raise ValueError(f"recipe: {name}.schedule, got {schedule!r}, expected one of {', '.join(NEEDED)}")
    expected = NEEDED[schedule] | {"schedule"}
    if given.keys() != expected:
        raise ValueError(f"recipe: {name}, got {sorted(given)}, expected {sorted(expected)}")
    for each in ("first", "last", "decay_rate"):
        if each in given and not 0 < given[each] < math.inf:
            raise ValueError(f"recipe: {name}.{each}, got {given[each]}, expected more than 0")
    if schedule == "fitted" and name != "temperature":
        raise ValueError(f"recipe: {name}.schedule, got fitted, expected it for the student's temperature")
    return Temperature(**given)
