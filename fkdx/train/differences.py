"""In what a recipe differs from that of a checkpoint, and which of its keys change nothing."""

from dataclasses import asdict, replace
from typing import Any

from fkdx.train.recipe import DEFAULTS, KEYS, MOVED, Recipe


def differences(old: dict[str, Any], new: Recipe) -> list[str]:
    """Where a checkpoint's recipe and this one disagree, as 'key: old -> new'; movable keys are left out.

    A key that did not exist when the checkpoint was written had today's default.
    """
    old = {**DEFAULTS, **old, "student": MOVED.get(old["student"], old["student"])}
    old, now = _unmovable(old), _unmovable(asdict(new))
    names = [name for name in {**old, **now} if old.get(name) != now.get(name)]
    return [f"{name}: {old.get(name)!r} -> {now.get(name)!r}" for name in names]


def _unmovable(keys: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in keys.items() if name not in KEYS or not KEYS[name].movable}
    inner = {name: list(map(_unmovable, kept[name])) for name in ("stages", "more_teachers") if name in kept}
    return kept | inner


def without_effect(recipe: Recipe) -> dict[str, str]:
    """Keys that are set but change nothing in any stage; what each of them would need."""
    idle = {}
    stages = [replace(stage, labels="") if stage.hard else stage for stage in recipe.in_stages()]
    for name, about in KEYS.items():
        using = [stage for stage in stages if getattr(stage, name) != DEFAULTS[name]]
        if using and not any(about.has_effect(stage) for stage in using):
            idle[name] = about.says_needs()
    divided = [stage for stage in stages if stage.temperature != 1]
    if divided and all(stage.teacher_loss == "mse_gt" for stage in divided):
        idle["temperature"] = "another teacher_loss than mse_gt"
    return idle
