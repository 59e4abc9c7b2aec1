"""The page that says what was reached: docs/trust.md is one that was kept."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from trust.bugs import OF_PART
from trust.part import Part
from trust.state import Done, State, today

HEAD = """\
# What the trust suite has reached

`make trust SECONDS=7200` runs every part of `tests/trust` for its share of the time and goes on where it was
broken off; `FKDX_IMAGES=folder` gives it real photographs. It writes this page to `build/trust/report.md`.
Before a part counts, it is run once on sources with a planted bug, which it has to report.
"""
NOT_RUN = """\
## What was not run

* Anything on a GPU: `tests/gpu` runs there, without faults.
* Loss of power: the order of writing, flushing and renaming is tested, not a file system that forgets.
* Network file systems: locks without flock are tested by a stand-in.
* Other machines than x86-64: `make neon` runs the native tests of aarch64 under emulation.
"""


def write(path: Path, state: State, parts: Sequence[Part]) -> None:
    path.write_text(
        "\n".join([HEAD, *_table(state, parts), *_failures(state), *_unreached(state, parts), NOT_RUN])
    )


def _table(state: State, parts: Sequence[Part]) -> list[str]:
    hours = sum(done.seconds for done in state.parts.values()) / 3600
    when = f"{state.begun} to {today()}, commit {state.commit}, seed {state.seed}, {hours:.1f} hours"
    names = "| part | what | reached | goal | failures | its planted bug, which it found |"
    rows = [f"{when} on a shared machine:", "", names, "|---|---|---|---|---|---|"]
    for part in parts:
        done, (unit, goal) = state.parts.get(part.name, Done()), part.goal
        found = OF_PART[part.name].name if done.planted else "not tried"
        reached = f"{done.count:,} {unit} | {goal:,} | {len(done.failures)}"
        rows.append(f"| {part.name} | {part.what} | {reached} | {found} |")
    return [*rows, ""]


def _failures(state: State) -> list[str]:
    lines = [_item(f"{name}: {text}") for name, done in state.parts.items() for text in done.failures]
    return ["## Failures", "", *lines, ""] if lines else []


def _unreached(state: State, parts: Sequence[Part]) -> list[str]:
    lines = []
    for part in parts:
        count, (unit, goal) = state.parts.get(part.name, Done()).count, part.goal
        if count < goal:
            lines.append(f"* {part.name}: {count:,} of {goal:,} {unit} ({100 * count / goal:.0f} %).")
    return ["## What did not reach its goal", "", *lines, ""] if lines else []


def _item(text: str) -> str:
    """An item of a list, cut short and wrapped."""
    return fill("* " + " ".join(text.split())[:300], 118, subsequent_indent="  ", break_on_hyphens=False)
