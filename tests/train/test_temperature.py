"""Temperatures that move: where a step finds them, what they do to its loss, and what is no schedule."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from toy import log_of, same_end, steps_of, write_labels

from fkdx import reference
from fkdx.loss.target import SparseTarget
from fkdx.train import loop
from fkdx.train.check_recipe import check_recipe
from fkdx.train.loop import main
from fkdx.train.objective import fit, losses
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass, Settings, passes, settings_at
from fkdx.train.temperature import read_temperature


def test_curves_are_their_formulas(rng):
    first, last = rng.uniform(0.5, 20, 2)
    epochs = int(rng.integers(2, 300))
    for epoch in rng.uniform(0, epochs, 50):
        ways = {
            "linear": first + (last - first) * epoch / epochs,
            "cosine": last + (first - last) / 2 * (1 + math.cos(math.pi * epoch / epochs)),
        }
        for schedule, expected in ways.items():
            found = read_temperature("t", {"schedule": schedule, "first": first, "last": last})
            assert found.at(epoch, epochs) == pytest.approx(expected, rel=1e-12)
    assert read_temperature("t", {"schedule": "constant", "first": 3}).at(epochs / 2, epochs) == 3
    assert read_temperature("t", 3.0).at(epochs / 2, epochs) == 3


def test_steps_fall_by_their_rate_down_to_the_last():
    falls = [29, 59, 89]
    stairs = {"schedule": "step", "first": 20, "last": 9, "decay_rate": 0.7, "decay_epochs": falls}
    found = [read_temperature("t", stairs).at(epoch, 300) for epoch in (0, 28.9, 29, 58, 59, 88, 89, 299)]
    assert found == pytest.approx([20, 20, 14, 14, 9.8, 9.8, 9, 9])


def test_a_temperature_keeps_for_a_pass_unless_it_is_smooth():
    moving = {"schedule": "linear", "first": 4, "last": 2}
    recipe = Recipe(epochs=8, crops_per_image=4, temperature=moving, teacher_temperature=moving, lr=1.0)
    assert settings_at(recipe, Pass(4, 4), 0.5)[1:] == (3, 3)
    smooth = Recipe(epochs=8, crops_per_image=4, temperature=moving, smooth=True)
    found = [settings_at(smooth, at, done).temperature for at in passes(smooth) for done in (0, 0.5)]
    assert found == pytest.approx([4 - at / 4 for at in (0, 2, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5)])
    assert settings_at(smooth, Pass(4, 4), 0.5).teacher_temperature == 1


@pytest.mark.parametrize("key", ["temperature", "teacher_temperature"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"schedule": "cosine", "first": 2, "lst": 3}, "unknown key, got 'lst', did you mean 'last'?"),
        ({"first": 2, "last": 3}, "schedule, got None, expected one of constant, linear, cosine, step, fit"),
        ({"schedule": "sine", "first": 2, "last": 3}, "schedule, got 'sine', expected one of constant"),
        ({"schedule": "cosine", "first": 2}, "got ['first', 'schedule'], expected ['first', 'last'"),
        ({"schedule": "constant", "first": 2, "last": 3}, "expected ['first', 'schedule']"),
        ({"schedule": "linear", "first": 0, "last": 3}, "first, got 0.0, expected more than 0"),
        ({"schedule": "linear", "first": 1, "last": float("inf")}, "last, got inf, expected more than 0"),
        ({"schedule": "linear", "first": "hot", "last": 3}, "first, got 'hot', expected float"),
        (
            {"schedule": "step", "first": 9, "last": 1, "decay_rate": 0, "decay_epochs": [3]},
            "decay_rate, got 0.0, expected more than 0",
        ),
        (
            {"schedule": "step", "first": 9, "last": 1, "decay_rate": 0.5, "decay_epochs": 3},
            "decay_epochs, got 3",
        ),
    ],
)
def test_what_is_no_schedule_is_refused(key, value, words):
    with pytest.raises(ValueError, match="recipe: ") as error:
        check_recipe(Recipe(**{key: value}))
    assert words in str(error.value)
    assert key in str(error.value)


@pytest.mark.parametrize("bare", [True, False])
def test_the_loss_has_the_temperatures_of_its_step(rng, bare):
    """Loss and gradient against torch in float64, for logits of all classes and of the K largest."""
    student, teacher = rng.normal(0, 3, (2, 6, 9))
    now = Settings(0.1, *rng.uniform(0.5, 20, 2))
    logits = torch.from_numpy(student).requires_grad_()
    target = (torch.from_numpy(teacher) / now.teacher_temperature).softmax(1)
    expected = functional.cross_entropy(logits / now.temperature, target, reduction="none")
    [gradient] = torch.autograd.grad(expected.sum(), logits)
    taught = torch.from_numpy(teacher)
    if not bare:  # as the loader makes them of topk_logits with all classes kept
        ids = np.tile(np.arange(9), (6, 1))
        dense = reference.loss.tempered_target(
            ids, teacher, [-np.inf] * 6, 9, "marginal_renorm", now.teacher_temperature
        )
        taught = SparseTarget.from_topk(ids, dense, 9, "marginal_renorm")
    found = losses(Recipe(), now, logits, taught, None, bare)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), logits)[0], gradient, rtol=1e-6, atol=1e-8)


MOVING = ["--temperature", "{schedule: linear, first: 8, last: 2}", "--smooth"]
MOVING += ["--teacher-temperature", "{schedule: cosine, first: 20, last: 2}"]


@pytest.mark.parametrize("kind", ["dense_logits", "topk_logits"])
def test_temperatures_are_logged_and_resumed_exactly(soft, toy, tmp_path, rng, kind):
    write_labels(tmp_path / "own.fkdl", toy / "data" / "train", rng, kind)
    run = [*soft, "--labels", str(tmp_path / "own.fkdl"), *MOVING]
    assert main([*run, "--output", str(tmp_path / "whole")]) == 0
    for step in ("2", "5"):
        assert main([*run, "--output", str(tmp_path / "cut"), "--max-steps", step]) == 0
    assert main([*run, "--output", str(tmp_path / "cut")]) == 0
    assert same_end(tmp_path / "cut", tmp_path / "whole")
    begin = 0.0  # of every step, in epochs
    for line in steps_of(tmp_path / "whole"):
        assert line["temperature"] == pytest.approx(8 - 6 * begin / 4)
        cosine = 2 + 9 * (1 + math.cos(math.pi * begin / 4))
        assert line["teacher_temperature"] == pytest.approx(cosine)
        begin = line["epoch"]
    assert steps_of(tmp_path / "cut")[-1]["temperature"] == line["temperature"]


def test_a_constant_temperature_is_not_logged(soft, tmp_path):
    assert main([*soft, "--temperature", "2", "--max-steps", "1"]) == 0
    assert not {"temperature", "teacher_temperature"} & log_of(tmp_path / "run")[0].keys()


def test_a_schedule_that_stands_still_is_a_number(soft, toy, tmp_path, rng):
    """And the labels' temperature makes a difference."""
    write_labels(tmp_path / "own.fkdl", toy / "data" / "train", rng, "topk_logits")
    found = {}
    for name, value in (("number", "3"), ("still", "{schedule: linear, first: 3, last: 3}"), ("other", "4")):
        more = ["--labels", str(tmp_path / "own.fkdl"), "--output", str(tmp_path / name), "--max-steps", "2"]
        assert main([*soft, *more, "--teacher-temperature", value]) == 0
        found[name] = [line["loss"] for line in steps_of(tmp_path / name)]
    assert found["number"] == found["still"]
    assert found["number"] != found["other"]


def test_a_temperature_is_fitted_to_the_last_step_of_a_pass(soft, class_logits, tmp_path, monkeypatch):
    """LPQLD's rule, told again with torch; and a run that was cut off goes on exactly."""
    seen, inner = [], loop.train_step

    def watched(run, stage, this_pass, model, batch, now, candidates):
        result = inner(run, stage, this_pass, model, batch, now, candidates)
        seen.append((now.temperature, bool(candidates), run.position.fitted))
        return result

    def kept(stage, now, logits, taught, bare, candidates):
        target = (taught / now.teacher_temperature).softmax(1)
        losses = [
            functional.kl_div((logits / t).log_softmax(1), target, reduction="sum").item() for t in grid
        ]
        expected.append(grid[int(np.argmin(losses))])
        return fit(stage, now, logits, taught, bare, candidates)

    grid, expected = np.linspace(0.01, 2, 100), []
    fitted = "{schedule: fitted, first: 2.0, last: 0.01}"
    run = [*soft, "--labels", str(class_logits["dense_logits"]), "--temperature", fitted, "--accumulate", "1"]
    run += ["--teacher-temperature", "3", "--teacher-loss", "plain_kl", "--lr", "0.05"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", watched)
        patch.setattr(loop, "fit", kept)
        assert main([*run, "--output", str(tmp_path / "whole")]) == 0
    assert len(expected) == 3  # passes
    before = 2.0
    for temperature, last, after in seen:
        assert temperature == pytest.approx(before)
        if last:
            before = after
    assert [after for _, last, after in seen if last] == pytest.approx(expected)
    for step in ("2", "4", "7"):
        assert main([*run, "--output", str(tmp_path / "cut"), "--max-steps", step]) == 0
    assert main([*run, "--output", str(tmp_path / "cut")]) == 0
    assert same_end(tmp_path / "cut", tmp_path / "whole")
    parts = [*run, "--accumulate", "4", "--output", str(tmp_path / "parts")]
    assert main(parts) == 0
    for line, other in zip(steps_of(tmp_path / "whole"), steps_of(tmp_path / "parts"), strict=True):
        assert line["temperature"] == other["temperature"]


def test_the_teachers_temperature_is_not_fitted():
    with pytest.raises(ValueError, match="got fitted, expected it for the student"):
        check_recipe(Recipe(teacher_temperature={"schedule": "fitted", "first": 1, "last": 0.1}))
