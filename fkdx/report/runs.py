"""What runs of the trainer left: their logs, their recipes, and where these differ."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fkdx.errors import refuse

Line = dict[str, Any]
# Panels of a report: kind of line, its number, title of the axis, whether it is a share.
PANELS = (
    ("step", "loss", "loss", False),
    ("evaluation", "top1", "top-1 accuracy in percent", False),
    ("step", "lr", "learning rate", False),
    ("step", "crops_per_second", "crops a second", False),
    ("step", "data_wait", "share of the time spent waiting for data", True),
    ("step", "memory", "GPU memory in GB", False),
)
ORDINARY = ("output", "resume", "threads", "tensorboard", "wandb")  # keys that say nothing about a result


@dataclass
class Run:
    """A folder of the trainer.

    Attributes:
        name: of the folder. `lines`: the log, without a last line that was torn off. `recipe`: its keys.
    """

    name: str
    folder: Path
    lines: list[Line]
    recipe: dict[str, Any]

    def points(self, kind: str, number: str) -> list[tuple[int, float]]:
        """(step, value) of every line that has the number, a finite one."""
        return [
            (line["step"], float(line[number]))
            for line in self.lines
            if line["kind"] == kind
            and isinstance(line.get(number), int | float)
            and math.isfinite(line[number])
        ]

    @property
    def events(self) -> list[Line]:
        return [line for line in self.lines if line["kind"] == "event"]

    @property
    def state(self) -> str:
        """ "finished", "stopped" or "under way", as far as the log tells."""
        if any(line["kind"] == "event" and line.get("text") == "finished" for line in self.lines[-3:]):
            return "finished"
        if self.lines and self.lines[-1]["kind"] == "event":
            return "stopped"
        return "finished" if (self.folder / "curves.png").is_file() else "under way"

    def classes(self) -> dict[str, tuple[int, float]]:
        """Images and top-1 in percent of every class, from classes.csv; empty where the run has none."""
        path = self.folder / "classes.csv"
        if not path.is_file():
            return {}
        with path.open(newline="") as file:
            try:
                return {
                    row["class"]: (int(row["images"]), float(row["top1"])) for row in csv.DictReader(file)
                }
            except (ValueError, KeyError, TypeError) as error:
                refuse("report", "table", f"{error!r}", "columns class, images, top1", path)

    @property
    def seed(self) -> Any:
        return self.recipe.get("seed")

    @property
    def last_top1(self) -> float | None:
        return points[-1][1] if (points := self.points("evaluation", "top1")) else None

    @property
    def best_top1(self) -> float | None:
        return max((top1 for _, top1 in self.points("evaluation", "top1")), default=None)


def read_run(folder: str | Path) -> Run:
    """A run under way or at its end.

    Raises FileNotFoundError where the folder holds no log, ValueError for a recipe that is no YAML.
    """
    folder = Path(folder)
    log = folder / "log.jsonl"
    if not log.is_file():
        raise FileNotFoundError(f"report: no log.jsonl, expected the --output folder of a run, {folder}")
    lines = [line for text in log.read_text(errors="replace").split("\n") if (line := _line(text))]
    args = folder / "args.yaml"
    try:
        recipe = yaml.safe_load(args.read_text()) if args.is_file() else {}
    except yaml.YAMLError as error:
        refuse("report", "recipe", " ".join(str(error).split()), "YAML", args)
    return Run(folder.resolve().name, folder, lines, recipe if isinstance(recipe, dict) else {})


def _line(text: str) -> Line | None:
    """A line of the log; None for one that was torn by a full disk or is being written."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(line, dict) and isinstance(line.get("step"), int) and "kind" in line
    return line if whole else None


def named_apart(runs: list[Run]) -> list[Run]:
    """Runs whose folders have the same name get their paths as names."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = str(run.folder)
    return runs


def panels(runs: list[Run], most: int = 2000) -> dict[str, list[Line]]:
    """Rows {run, step, number} of each number that some run has, at most `most` of each run."""
    found: dict[str, list[Line]] = {}
    for kind, number, _, _ in PANELS:
        rows = []
        for run in runs:
            points = run.points(kind, number)
            step = max(1, -(-len(points) // most))
            kept = points[::step] + ([points[-1]] if points and (len(points) - 1) % step else [])
            rows += [{"run": run.name, "step": s, number: value} for s, value in kept]
        if rows:
            found[number] = rows
    return found


def differences(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    """Keys whose values differ between recipes, with the value of every run."""
    keys = sorted({key for run in runs for key in run.recipe} - set(ORDINARY))
    rows = [(key, [run.recipe.get(key) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def seeds(runs: list[Run]) -> list[tuple[str, int, float, float]]:
    """Groups of runs that differ in their seeds alone: (names, runs, mean and deviation of top-1)."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        rest = {key: value for key, value in run.recipe.items() if key not in (*ORDINARY, "seed")}
        groups.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(run)
    rows = []
    for group in groups.values():
        scores = [run.last_top1 for run in group if run.last_top1 is not None]
        if len(scores) > 1:
            names = ", ".join(run.name for run in group)
            rows.append((names, len(scores), float(np.mean(scores)), float(np.std(scores, ddof=1))))
    return rows
