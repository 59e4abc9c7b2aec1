"""A recipe as the user gives it: defaults, then one YAML file, then the command line, then checked."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from fkdx.train.check_recipe import check_recipe
from fkdx.train.keys import find_folders, override, unknown
from fkdx.train.recipe import DEFAULTS, KEYS, TYPES, Recipe

SHIPPED = Path(__file__).parents[1] / "recipes"

METAVARS = {int: "N", float: "X", str: "TEXT", int | None: "N"}


def read_recipe(argv: list[str] | None = None) -> Recipe:
    """The recipe that a command line asks for: defaults, then `--config`, then flags.

    Raises ValueError for an unknown key (naming the nearest one), a value of the wrong type or out of range,
    and OSError for a recipe that cannot be read.
    """
    args, rest = parser().parse_known_args(argv)
    if rest and not rest[0].startswith("--"):
        raise ValueError(f"recipe: got '{rest[0]}' alone, expected --KEY VALUE; write lists as '[1, 2]'")
    if rest:
        raise unknown(rest[0].lstrip("-").split("=")[0].replace("-", "_"), TYPES, "command line")
    given = vars(args)
    config = given.pop("config", None)
    recipe = override(Recipe(), load_yaml(config), config) if config else Recipe()
    flags = {k: parse(k, v) for k, v in given.items()}
    recipe = find_folders(override(recipe, flags, "command line"), recipe, flags)
    check_recipe(recipe)
    return recipe


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
    for name, key in KEYS.items():
        if key.heading:
            group = described.add_argument_group(key.heading)
        default = DEFAULTS[name]
        shown = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        text = key.text + (f" (default: {shown})" if default not in (None, "", [], {}) else "")
        flag = {"nargs": "?", "const": "true", "metavar": "true|false"} if TYPES[name] is bool else {}
        flag = flag or {"metavar": METAVARS.get(TYPES[name], "YAML")}
        group.add_argument("--" + name.replace("_", "-"), help=text.replace("%", "%%"), **flag)
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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # the last: brackets without end
        raise ValueError(f"recipe: not YAML, {' '.join(str(error).split())}, {path}") from None
    if not isinstance(keys, dict):
        raise ValueError(f"recipe: got {type(keys).__name__}, expected keys and values, {path}")
    return keys


def parse(name: str, text: str) -> Any:
    """A flag's text as YAML, unless the key is a string."""
    try:
        return text if TYPES[name] is str else yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"recipe: {name}, got {text!r}, expected YAML, command line") from None
