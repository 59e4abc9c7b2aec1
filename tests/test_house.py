"""The house keeps its shape: arrows between rooms run one way, files stay small, doors stay few."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Which rooms of csrc a room may include (itself always).
CSRC_ARROWS = {
    "base": set(),
    "image": {"base"},
    "labels": {"base"},
    "loss": {"base"},
    "batch": {"base"},
    "loader": {"base", "image", "labels"},
    "bindings": {"base", "image", "labels", "loss", "batch", "loader"},
}
# Rooms of fkdx that know nothing of what stands right of them; besides, no circle may run through any room.
LOADING = {"loader", "sources", "pool"}
PROGRAMS = {"generate", "pack", "train", "bench", "report", "demo", "cli"}
NEVER = {
    "target": {"labels", "image", "loss", *LOADING},
    "image": {"labels", "target", "loss", *LOADING},
    "labels": {"target", "loss", "train", *LOADING},
    "loss": {"labels", "image", *LOADING},
    "batch": {"labels", "loss", *LOADING},
    "importers": {"target", "loss", "loader"},
    "loader": {"loss", "batch"},
}
CSRC = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})
PACKAGE = sorted((ROOT / "fkdx").rglob("*.py"))


def ids(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


@pytest.mark.parametrize("path", CSRC, ids=ids(CSRC))
def test_csrc_arrows(path: Path) -> None:
    room = path.relative_to(ROOT / "csrc").parts[0]
    text = path.read_text()
    for included in re.findall(r'#include "([^"]+)"', text):
        target = included.split("/")[0]
        assert target == room or target in CSRC_ARROWS[room], f"{room} must not include {included}"
    if room != "bindings":
        assert "pybind11" not in text, "only csrc/bindings knows pybind11"
    assert "torch/" not in text, "no file in csrc knows torch"
    assert not re.search(r"\b(printf|fprintf|exit|abort)\s*\(", text), "C++ never prints and never exits"


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "fkdx").parts[0].removesuffix(".py")


def package_arrows() -> dict[str, set[str]]:
    """Room -> rooms of fkdx that it imports, anywhere in its files."""
    arrows: dict[str, set[str]] = {room_of(path): set() for path in PACKAGE}
    for path in PACKAGE:
        text = re.sub(r"\(\n\s+", " ", path.read_text())
        for module, names, plain in re.findall(
            r"^\s*(?:from fkdx(?:\.(\w+))?[\w.]* import (.*)|import fkdx\.(\w+))", text, re.M
        ):
            arrows[room_of(path)] |= {module or plain} if module or plain else set(re.findall(r"\w+", names))
    rooms = set(arrows)
    return {room: (targets & rooms) - {room} for room, targets in arrows.items()}


def test_package_has_no_circle() -> None:
    TopologicalSorter(package_arrows()).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize("room", NEVER)
def test_package_arrows_run_one_way(room: str) -> None:
    wrong = package_arrows().get(room, set()) & (NEVER[room] | PROGRAMS)
    assert not wrong, f"fkdx.{room} must not import {wrong}"


def test_reference_knows_nobody() -> None:
    assert package_arrows()["reference"] == set()


@pytest.mark.parametrize("path", [*CSRC, *PACKAGE], ids=ids([*CSRC, *PACKAGE]))
def test_files_stay_small(path: Path) -> None:
    limit = 700 if path.name == "reference.py" else 450
    assert len(path.read_text().splitlines()) <= limit, "split the room, or find the simpler form"
