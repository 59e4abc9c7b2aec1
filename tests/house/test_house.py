"""The house keeps its shape: its rooms and arrows are those of docs/design.md, and files stay small."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})
PACKAGE = sorted((ROOT / "fkdx").rglob("*.py"))
FREE = {"_C", "_version", "__init__"}  # every Python room may use them; the last has the public names alone


def ids(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


def documented(floor: str) -> dict[str, set[str]]:
    """Room -> rooms that it uses, from the tables of docs/design.md."""
    page = (ROOT / "docs/design.md").read_text()
    rows = re.findall(rf"^\| `{floor}/([\w.]+)` \|[^|]*\|([^|]*)\|$", page, re.M)
    return {room.removesuffix(".py"): set(re.findall(r"\w+", uses)) for room, uses in rows}


def csrc_arrows() -> dict[str, set[str]]:
    arrows: dict[str, set[str]] = {}
    for path in CSRC:
        room = path.relative_to(ROOT / "csrc").parts[0]
        included = re.findall(r'#include "(\w+)/', path.read_text())
        arrows.setdefault(room, set()).update(set(included) - {room})
    return arrows


def room_of(path: Path) -> str:
    """`__main__.py` of any room belongs to the command line."""
    if path.name == "__main__.py":
        return "cli"
    return path.relative_to(ROOT / "fkdx").parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Modules of fkdx that a file imports, by statement or as a string such as "fkdx.train"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "fkdx":
            yield from (f"fkdx.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"fkdx(\.\w+)+", str(node.value)):
            yield str(node.value)


def package_arrows() -> dict[str, set[str]]:
    """Room -> rooms of fkdx that its files import, at whatever place."""
    arrows: dict[str, set[str]] = {room_of(path): set() for path in PACKAGE}
    for path in PACKAGE:
        for module in imported(path):
            if module.startswith("fkdx."):
                room = module.split(".")[1]
                arrows[room_of(path)].add("cli" if room == "__main__" else room)
    return {room: uses - {room} - FREE for room, uses in arrows.items() if room not in FREE}


@pytest.mark.parametrize(("floor", "arrows"), [("csrc", csrc_arrows), ("fkdx", package_arrows)])
def test_rooms_and_arrows_are_those_of_the_page(floor: str, arrows) -> None:
    page, code = documented(floor), arrows()
    assert sorted(page) == sorted(code)
    for room, uses in code.items():
        assert sorted(page[room]) == sorted(uses), f"{floor}/{room}: docs/design.md names other rooms"
    TopologicalSorter(code).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize("path", CSRC, ids=ids(CSRC))
def test_csrc_keeps_its_doors(path: Path) -> None:
    text = path.read_text()
    if path.parent.name != "bindings":
        assert "pybind11" not in text, "only csrc/bindings knows pybind11"
    assert "torch/" not in text, "no file in csrc knows torch"
    assert not re.search(r"\b(printf|fprintf|exit|abort)\s*\(", text), "C++ never prints and never exits"


@pytest.mark.parametrize("path", [*CSRC, *PACKAGE], ids=ids([*CSRC, *PACKAGE]))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450, "split the room, or find the simpler form"
