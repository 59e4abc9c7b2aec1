"""A part of the suite: it is run in turns, each of which says how much it tried and what went wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class CannotRunError(RuntimeError):
    """A part does not get to run: it does not build, or its tests are not found."""


@dataclass
class Turn:
    """What one turn of a part did. One that tried nothing counts as a failure."""

    count: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bug:
    """A change of one place in the sources, which some tests must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str = ""  # for pytest, separated by blanks

    @property
    def native(self) -> bool:
        """Whether the extension has to be built again."""
        return self.file.startswith(("csrc/", "CMakeLists"))


@dataclass(frozen=True)
class Part:
    """One line of the page. Its planted bug is that of bugs.yaml.

    Attributes:
        what: it does, for the page.
        goal: of what it counts how many.
        share: of the time, relative to those of the other parts.
        run: (tree, seed, number of the first input, seconds) -> Turn. `tree` is the folder with fkdx, csrc
            and tests that is to be tried; the same seed and number repeat an input.
        builds: whether it needs an extension of the tree, not only its sources.
        patience: seconds of a turn that looks for the planted bug.
    """

    name: str
    what: str
    goal: tuple[str, int]
    share: float
    run: Callable[[Path, int, int, float], Turn]
    builds: bool = True
    patience: float = 30
