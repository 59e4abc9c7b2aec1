"""A recipe as the user gives it: defaults, then one YAML file, then the command line, then checked."""

import argparse
import math
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from fkdx.calibration.rule import SCORES
from fkdx.loader.sampler import CHOICES as CHOICES_OF_CROPS
from fkdx.loss.distill import LOSSES
from fkdx.models.machine import AMP
from fkdx.train.recipe import TYPES, Recipe, find_folders, override, unknown

SHIPPED = Path(__file__).parents[1] / "recipes"

METAVARS = {int: "N", float: "X", str: "TEXT", int | None: "N"}
CHOICES = {
    "schedule": ("cosine", "linear", "step", "constant"),
    "amp": tuple(AMP),
    "on_error": ("raise", "skip"),
    "interpolation": ("bilinear", "bicubic", "random"),
    "eval_interpolation": ("bilinear", "bicubic"),
    "loader": ("crops", "timm"),
    "teacher_loss": ("ce", *LOSSES),
    "class_loss": ("ce", "bce"),
    "choice": CHOICES_OF_CROPS,
    "score": SCORES,
    "on_missing": ("raise", "ignore"),
}
POSITIVE = (
    *("batch_size", "crops_per_image", "accumulate", "epochs", "temperature", "teacher_temperature"),
    *("eval_every", "log_every", "nonfinite_limit", "aug_repeats"),
)
NOT_NEGATIVE = (
    *("lr", "lr_batch", "min_lr", "warmup_lr", "warmup_epochs", "decay_rate", "weight_decay", "momentum"),
    *("clip_grad", "mixup", "cutmix", "selfmix", "mixup_off_epoch", "color_jitter", "size", "eval_size"),
    *("max_steps", "save_every", "save_minutes", "cache_bytes"),
)
SHARES = (
    *("class_weight", "smoothing", "epsilon", "random_erasing", "mixup_prob", "mixup_switch_prob"),
    *("ema", "crop_ratio"),
)
LENGTHS = {"scale": 2, "ratio": 2, "window": 2, "mean": 3, "std": 3}


def read_recipe(argv: list[str] | None = None) -> Recipe:
    """The recipe that a command line asks for: defaults, then `--config`, then flags.

    Raises ValueError for an unknown key (naming the nearest one), a value of the wrong type or out of range,
    and OSError for a recipe that cannot be read.
    """
    args, rest = parser().parse_known_args(argv)
    if rest and not rest[0].startswith("--"):
        raise ValueError(f"recipe: got '{rest[0]}' by itself, expected --KEY VALUE; lists as '[1, 2]'")
    if rest:
        raise unknown("command line", rest[0].lstrip("-").split("=")[0].replace("-", "_"))
    given = vars(args)
    config = given.pop("config", None)
    recipe = override(Recipe(), load_yaml(config), config) if config else Recipe()
    recipe = override(recipe, {k: parse(k, v) for k, v in given.items()}, "command line")
    return check(find_folders(recipe))


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(
        prog="fkdx train",
        usage="fkdx train --config NAME --data DIR --labels FILE --output DIR [--KEY VALUE ...]",
        description="Train a student from stored crops and soft labels (or, with --hard, from classes).",
        epilog="Shipped recipes: " + ", ".join(shipped()),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    described.add_argument(
        "--config",
        metavar="NAME",
        help="a shipped recipe, or a YAML file of the keys below; flags override it",
    )
    for f in fields(Recipe):
        if f.metadata["heading"]:
            group = described.add_argument_group(f.metadata["heading"])
        default = f.default if f.default is not MISSING else f.default_factory()
        shown = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        text = f.metadata["help"] + (f" (default: {shown})" if default not in (None, "", [], {}) else "")
        flag = {"nargs": "?", "const": "true", "metavar": "true|false"} if TYPES[f.name] is bool else {}
        flag = flag or {"metavar": METAVARS.get(TYPES[f.name], "YAML")}
        group.add_argument("--" + f.name.replace("_", "-"), help=text.replace("%", "%%"), **flag)
    return described


def shipped() -> list[str]:
    """The names of the recipes that come with fkdx."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_yaml(config: str) -> dict[str, Any]:
    """The keys of a recipe: `config` is a file, or the name of one in fkdx/recipes."""
    path = Path(config)
    if not path.exists() and (SHIPPED / f"{config}.yaml").exists():
        path = SHIPPED / f"{config}.yaml"
    if not path.is_file():
        names = ", ".join(shipped())
        raise FileNotFoundError(
            f"recipe: no such file or recipe, got {config}, expected a YAML file or one of {names}"
        )
    try:
        keys = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe: not YAML, {' '.join(str(error).split())}, {path}") from None
    if not isinstance(keys, dict):
        raise ValueError(f"recipe: got {type(keys).__name__}, expected keys and values, {path}")
    return keys


def parse(name: str, text: str) -> Any:
    """A flag's text as YAML, except where the key is a string anyway."""
    try:
        return text if TYPES[name] is str else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"recipe: {name}, got {text!r}, expected YAML, command line") from None


def check(recipe: Recipe) -> Recipe:
    """Raise ValueError where a value makes no sense by itself."""
    recipe.each_teacher()
    for stage in recipe.in_stages():
        for name, allowed in CHOICES.items():
            if getattr(stage, name) not in allowed:
                raise ValueError(
                    f"recipe: {name}, got {getattr(stage, name)!r}, expected one of {', '.join(allowed)}"
                )
        for name in POSITIVE:
            if getattr(stage, name) <= 0:
                raise ValueError(f"recipe: {name}, got {getattr(stage, name)}, expected more than 0")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(stage, name) < math.inf:
                raise ValueError(f"recipe: {name}, got {getattr(stage, name)}, expected 0 or more")
        for name in SHARES:
            if not 0 <= getattr(stage, name) <= 1:
                raise ValueError(f"recipe: {name}, got {getattr(stage, name)}, expected 0 to 1")
        for name, length in LENGTHS.items():
            if (numbers := getattr(stage, name)) and len(numbers) != length:
                raise ValueError(f"recipe: {name}, got {numbers}, expected {length} numbers")
        if stage.warmup_epochs > stage.epochs:
            raise ValueError(
                f"recipe: warmup_epochs, got {stage.warmup_epochs}, expected at most {stage.epochs} (epochs)"
            )
        if stage.more_teachers and not stage.teacher:
            raise ValueError("recipe: more_teachers, got some, expected a teacher before them")
        if stage.selfmix and stage.crops_per_image < 2:
            raise ValueError(
                "recipe: selfmix, got crops_per_image 1, expected 2 or more: SelfMix mixes crops of one image"
            )
    return recipe
