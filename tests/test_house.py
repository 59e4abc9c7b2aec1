"""The house keeps its shape: arrows between rooms run one way, files stay small, doors stay few."""

import re
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
# Modules of fkdx by floor; a module may import lower floors only. Programs are the top floor.
FLOORS = [
    {"_version", "_C"},
    {"reference", "doctor", "target", "mix", "image", "labels", "progress"},
    {"loss", "batch", "teacher_topk", "crops", "importers"},
    {"sampler", "sources", "calibrate"},
    {"loader", "model"},
    {"generate", "pack", "train", "report", "demo"},
    {"cli"},
    {"__init__", "__main__"},
]
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


def floor_of(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if module in names:
            return number
    raise AssertionError(f"fkdx.{module} stands on no floor: add it to FLOORS in {__file__}")


@pytest.mark.parametrize("path", PACKAGE, ids=ids(PACKAGE))
def test_package_arrows(path: Path) -> None:
    own = path.relative_to(ROOT / "fkdx").parts[0].removesuffix(".py")
    if own == "recipes":
        return
    for line in path.read_text().splitlines():
        found = re.match(r"\s*(?:from fkdx(?:\.(\w+))?[\w.]* import (.*)|import fkdx\.(\w+))", line)
        if not found:
            continue
        targets = [found[1] or found[3]] if found[1] or found[3] else re.findall(r"\w+", found[2])
        for target in targets:
            if target in ("__version__", own):
                continue
            assert own != "reference", "reference.py imports nothing of fkdx: it judges everything"
            assert floor_of(target) < floor_of(own), f"fkdx.{own} must not import fkdx.{target}"


@pytest.mark.parametrize("path", [*CSRC, *PACKAGE], ids=ids([*CSRC, *PACKAGE]))
def test_files_stay_small(path: Path) -> None:
    limit = 700 if path.name == "reference.py" else 450
    assert len(path.read_text().splitlines()) <= limit, "split the room, or find the simpler form"
