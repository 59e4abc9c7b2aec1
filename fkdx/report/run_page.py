"""The page of one run, or of several side by side."""

from typing import Any

import numpy as np

from fkdx.report import charts
from fkdx.report.page import as_text, render
from fkdx.report.runs import PANELS, Run, differences, named_apart, panels, seeds


def run_page(runs: list[Run], title: str, teacher: dict[str, float] | None = None) -> str:
    """The HTML page of runs under way or at their end.

    Args:
        teacher: by class name, the percentage of stored crops on which the teacher is right; see `agreement`.
    """
    runs = named_apart(runs)
    rows = panels(runs)
    titles = {number: (text, percent) for _, number, text, percent in PANELS}
    specs = {
        number: charts.lines(points, number, *_titles(titles[number])) for number, points in rows.items()
    }
    return render(
        "runs.html",
        specs,
        {},
        title=title,
        subtitle=f"{len(runs)} run{'s' * (len(runs) > 1)}; a run under way shows what it has logged so far",
        runs=[_summary(run) for run in runs],
        seeds=seeds(runs),
        panels=[(number, titles[number][0]) for number in rows],
        differences=[(key, [as_text(value) for value in values]) for key, values in differences(runs)],
        classes=_classes(runs, teacher),
        teacher=teacher is not None,
        events=[(run.name, line["step"], _event(line)) for run in runs for line in run.events],
    )


def _titles(panel: tuple[str, bool]) -> tuple[str, str, bool]:
    text, percent = panel
    return text, f"{text} over steps", percent


def _summary(run: Run) -> dict[str, Any]:
    steps = max((line["step"] for line in run.lines), default=0)
    return {
        "name": run.name,
        "state": run.state,
        "steps": steps,
        "last": run.last_top1,
        "best": run.best_top1,
        "seed": as_text(run.seed),
        "recipe": {key: as_text(value) for key, value in run.recipe.items()},
    }


def _classes(runs: list[Run], teacher: dict[str, float] | None) -> list[dict[str, Any]]:
    """Per-class top-1 of the last evaluation of every run that has it, the worst classes first."""
    tables = [run.classes() for run in runs]
    names = next((table for table in tables if table), {})
    rows = [
        {
            "name": name,
            "images": images,
            "top1": [table[name][1] if name in table else None for table in tables],
            "teacher": None if teacher is None else teacher.get(name),
        }
        for name, (images, _) in names.items()
    ]
    return sorted(rows, key=lambda row: np.nan_to_num(row["top1"][0] or 0.0))


def _event(line: dict[str, Any]) -> str:
    rest = {key: value for key, value in line.items() if key not in ("kind", "step", "time", "text")}
    return " ".join(
        [str(line.get("text", "")), *(f"{key} {as_text(value)}" for key, value in rest.items())]
    ).strip()
