"""What a verb has found: said in words at once, or, with `--json`, at the end as one JSON object."""

import argparse
import json
import math
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON object")


class Facts:
    """The facts that one run of a verb prints.

    As a context: the object is printed where it ends, unless an error ends it.

    as_json: what `--json` says; quiet: print nothing at all, as all processes of a job do but one.
    """

    def __init__(self, as_json: bool, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.found: dict[str, Any] = {}

    def say(self, text: str, /, **facts: Any) -> None:
        """The words are printed, or the facts kept for the object; later ones replace those of their name."""
        if self.as_json:
            self.found |= facts
        elif not self.quiet:
            print(text)

    def __enter__(self) -> "Facts":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.as_json and not self.quiet and error is None:
            print(json.dumps(_finite(self.found), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
