"""curves.png: how a run went, one panel a number, over its steps."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from fkdx.train.recipe import Recipe

Line = dict[str, Any]
# Panels: kind of line, its number, title of the axis, what a value is multiplied by.
PANELS = (
    ("step", "loss", "loss", 1),
    ("evaluation", "top1", "accuracy, %", 1),
    ("step", "lr", "learning rate", 1),
    ("step", "temperature", "temperature", 1),
    ("step", "teacher_temperature", "teacher's temperature", 1),
    ("step", "crops_per_second", "crops a second", 1),
    ("step", "data_wait", "waiting for data, %", 100),
)
FEW = 12  # so many points are marked each


def draw_curves(path: Path, lines: list[Line], recipe: Recipe) -> None:
    """Draws the panels that have points, the first steps of later stages as dashed lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if points_of(lines, panel[0], panel[1])]
    figure = Figure(figsize=(9, 1 + 2.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{recipe.student}, seed {recipe.seed}")
    for axes, (kind, name, title, factor) in zip(
        figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels
    ):
        _draw(axes, points_of(lines, kind, name), factor, "top-1" if name == "top1" else None)
        if name == "top1":
            _draw(axes, points_of(lines, kind, "top5"), factor, "top-5")
            axes.legend(loc="lower right")
        for step in stage_starts(lines):
            axes.axvline(step, color="gray", linestyle="--", linewidth=1)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    figure.savefig(path, format="png", dpi=110)


def points_of(lines: list[Line], kind: str, name: str) -> list[tuple[int, float]]:
    return [
        (line["step"], line[name]) for line in lines if line["kind"] == kind and line.get(name) is not None
    ]


def stage_starts(lines: list[Line]) -> list[int]:
    """The steps after which another stage was evaluated."""
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    return [a["step"] for a, b in pairwise(evaluations) if a.get("stage") != b.get("stage")]


def _draw(axes: Any, points: list[tuple[int, float]], factor: float, label: str | None) -> None:
    if not points:
        return
    steps, values = zip(*points)
    axes.plot(
        steps,
        [factor * value for value in values],
        label=label,
        marker="o" if len(points) <= FEW else "",
        markersize=4,
    )
    if len(points) == 1:  # no line to be seen: say what the point is
        text = f"{factor * values[0]:.4g}"
        axes.annotate(text, (steps[0], factor * values[0]), textcoords="offset points", xytext=(6, 4))
