"""curves.png of any log: whole runs, runs of several stages, a single evaluation."""

import pytest
from PIL import Image

from fkdx.train.curves import draw_curves, points_of, stage_starts
from fkdx.train.recipe import Recipe


def evaluation(step: int, stage: int = 0) -> dict:
    return {"kind": "evaluation", "step": step, "stage": stage, "top1": 10.0 * step, "top5": 50.0}


STEPS = [
    {"kind": "step", "step": s, "loss": 2 / s if s != 3 else None, "lr": 0.1, "data_wait": 0.02}
    for s in (1, 2, 3)
]


@pytest.mark.parametrize(
    "evaluations", [[], [evaluation(3)], [evaluation(1), evaluation(2, 1), evaluation(3, 1)]]
)
def test_any_run_is_drawn(tmp_path, evaluations):
    path = tmp_path / "curves.png"
    draw_curves(path, STEPS + evaluations, Recipe(student="resnet18", seed=7))
    panels = 3 + bool(evaluations)
    assert Image.open(path).size == (990, round(110 * (1 + 2.2 * panels)))


def test_points_without_a_value_are_left_out_and_stages_found():
    assert points_of(STEPS, "step", "loss") == [(1, 2.0), (2, 1.0)]
    assert stage_starts([evaluation(1), evaluation(2), evaluation(3, 1), evaluation(4, 1)]) == [2]
