"""What a key of a recipe is: its default, its help text, and every rule for its values, in one place."""

import difflib
import math
import types
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Owner = Literal["stage", "run", "teacher"]
R = TypeVar("R")  # a dataclass of keys


@dataclass(frozen=True)
class Key:
    """The facts of one key.

    Attributes:
        text: a phrase for `--help`.
        heading: begins a group of keys in `--help`.
        choices: the words it may be; none: any.
        at_least, at_most: the range of a number, ends included; above: a lower end that is excluded.
        length: how many numbers a list has that is not the default.
        of: who may set it: each "stage", only the whole "run", or each online "teacher" of a run.
        movable: it may change when a run is resumed, as it does not change what is learned.
        needs: "KEY" or "KEY VALUE ...": other keys, one of which must be set (to one of the values) for this
            one to have an effect.
    """

    text: str
    heading: str = ""
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    length: int | None = None
    of: Owner = "stage"
    movable: bool = False
    needs: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """ValueError unless the value is one of the choices, in the range and of the length."""
        if self.choices and value not in self.choices:
            raise ValueError(f"recipe: {name}, got {value!r}, expected one of {', '.join(self.choices)}")
        if self.length and len(value) != self.length:
            raise ValueError(f"recipe: {name}, got {value}, expected {self.length} numbers")
        low = self.above if self.at_least is None else self.at_least
        if low is None or value is None or isinstance(value, dict):  # a dict is a schedule of numbers
            return
        high = math.inf if self.at_most is None else self.at_most
        inside = (value >= low if self.above is None else value > low) and value <= high
        if not (inside and math.isfinite(value)):
            ends = f"more than {low}" if self.above is not None else f"at least {low}"
            ends = f"{low} to {high}" if high < math.inf and self.above is None else ends
            raise ValueError(f"recipe: {name}, got {value}, expected {ends}")

    def has_effect(self, recipe: Any) -> bool:
        """Whether one of the keys that this one needs is set in a recipe."""
        return not self.needs or any(_is_set(recipe, *need.split()) for need in self.needs)

    def says_needs(self) -> str:
        """What this key needs, in words."""
        needs = [need.split() for need in self.needs]
        return " or ".join(f"{name} {' or '.join(values)}".strip() for name, *values in needs)


def _is_set(recipe: Any, name: str, *values: str) -> bool:
    value = getattr(recipe, name)
    return value in values if values else bool(value)


def key(default: Any, text: str, **facts: Any) -> Any:
    """A field of a recipe with the facts of `Key`; `needs` may be one string."""
    needs = facts.pop("needs", ())
    about = Key(text, needs=(needs,) if isinstance(needs, str) else tuple(needs), **facts)
    make = {"default_factory": default.copy} if isinstance(default, (list, dict)) else {"default": default}
    return field(metadata={"key": about}, **make)


def override(recipe: R, keys: dict[str, Any], where: str, allowed: Collection[str] | None = None) -> R:
    """`recipe` with `keys` put in their place; `where` names their origin in errors. `allowed`: not all."""
    kinds = get_type_hints(type(recipe))
    for name in keys:
        if name not in kinds:
            raise unknown(str(name), kinds, where)
        if allowed is not None and name not in allowed:
            raise ValueError(f"recipe: {name} belongs to the whole run and cannot be set in {where}")
    return replace(recipe, **{name: cast(name, value, kinds[name], where) for name, value in keys.items()})


def unknown(name: str, known: Collection[str], where: str) -> ValueError:
    """What to raise for a key that does not exist: with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ValueError(f"recipe: unknown key, got '{name}', did you mean '{near[0]}'?, {where}")


def cast(name: str, value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind`. YAML reads 1e-4 as a string, so numbers may come as text."""
    if get_origin(kind) is types.UnionType:
        kept = isinstance(value, get_args(kind)[1])  # None, or a dict in place of a number
        return value if kept else cast(name, value, get_args(kind)[0], where)
    if get_origin(kind) is list and isinstance(value, list):
        return [cast(name, item, get_args(kind)[0], where) for item in value]
    try:
        if kind is float and isinstance(value, (str, int)) and not isinstance(value, bool):
            return float(value)
        if kind is str and value is None:
            return ""
        if isinstance(value, get_origin(kind) or kind) and isinstance(value, bool) == (kind is bool):
            return value
    except ValueError:
        pass
    expected = str(getattr(kind, "__name__", kind))
    raise ValueError(f"recipe: {name}, got {value!r}, expected {expected}, {where}")


def find_folders(recipe: R, before: R, keys: Collection[str]) -> R:
    """A data folder that holds train/ and val/ stands for both, unless other validation images are named.

    Those of `before`, which `keys` have changed, belong to its own data, and go with it.
    """
    data = Path(recipe.data)
    if not recipe.data or not (data / "train").is_dir():
        return recipe
    found = str(data / "val") if (data / "val").is_dir() else ""
    moved = before.data and "data" in keys and "val" not in keys
    val = (found or recipe.val) if moved else (recipe.val or found)
    return replace(recipe, data=str(data / "train"), val=val)
