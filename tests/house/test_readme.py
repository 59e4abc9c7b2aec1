"""What the README shows runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fkdx
from fkdx.image import scenes
from fkdx.labels import LabelWriter

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def run(block: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block]
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_training_loop(tmp_path: Path, rng: np.random.Generator) -> None:
    """On a small stand-in for what `make demo` leaves behind."""
    images = tmp_path / "runs/demo/data/train"
    scenes.draw_folder(images, images=40, seed=0)
    size = (scenes.HEIGHT, scenes.WIDTH)
    with LabelWriter(
        tmp_path / "runs/demo/labels.fkdl", num_classes=8, k=2, crops=4, classes=list(scenes.CLASSES)
    ) as writer:
        for path in sorted(images.rglob("*.jpg")):
            boxes = np.array([[0, 0, *size], [8, 8, 64, 64], [0, 40, 90, 70], [20, 0, 50, 60]], np.int32)
            ids = np.argsort(rng.random((4, 8)))[:, :2]
            values = np.array([[0.7, 0.2]] * 4, np.float32)
            writer.add(path.relative_to(images).as_posix(), boxes, rng.random(4) < 0.5, ids, values, size)
    shown = run(BLOCKS[0], tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", shown)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_the_loop_needs_only_the_public_names() -> None:
    assert "from fkdx" not in BLOCKS[0]
    assert set(re.findall(r"fkdx\.(\w+)", BLOCKS[0])) <= set(fkdx.__all__)


def test_paths_in_the_table_of_questions_exist() -> None:
    table = re.search(r"\| question .*?\n\n", README, re.S)[0]
    paths = re.findall(r"`([\w/.]+)`", table)
    assert len(paths) >= 8
    assert all((ROOT / path).is_file() for path in paths)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_words_of_design_md_stay_there(name: str) -> None:
    words = re.findall(
        r"(?<![\w/])(?:houses?|rooms?|doors?|twins?|roads?)(?![\w/])", (ROOT / name).read_text(), re.I
    )
    assert words == []


TREE = [line.split(None, 1) for line in re.search(r"```tree\n(.*?)```", README, re.S)[1].splitlines()]


def tracked() -> set[str]:
    """Every entry of the top level, of `fkdx/` and of `csrc/`; hidden ones do not count."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    entries = set()
    for path in filter(None, files.splitlines()):
        parts = path.split("/")
        entries.add("/".join(parts[:2] if parts[0] in ("fkdx", "csrc") else parts[:1]))
    return {entry for entry in entries if not entry.startswith(".")}


def test_tree_names_every_entry() -> None:
    assert sorted(path for path, _ in TREE) == sorted(tracked())
    assert all(comment.strip() for _, comment in TREE)
