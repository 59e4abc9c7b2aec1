"""The benchmarks run, on a few small images, and print what they promise."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkdx.bench import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    (root / "a").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(root / "a" / f"{i}.jpg")
    return root


def test_profile(images: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--m", "2", "--batch", "8", "--size", "32", "--batches", "5", "--threads", "2", "--profile"]
    assert main(["loader", "--images", str(images), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "crops/s" in printed
    shares = [float(line.split()[-1][:-1]) for line in printed.splitlines() if line.endswith("%")]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.slow
def test_comparison(images: Path) -> None:
    command = [sys.executable, str(ROOT / "bench/loader.py"), "--images", str(images), "--json"]
    options = ["--m", "2", "--batch", "8", "--rounds", "1", "--seconds", "0.05"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=250)
    (table,) = json.loads(done.stdout)
    assert table["pixels"] >= 12
    assert {"fkdx", "fkdx float32", "reference float32", "ceiling"} <= set(table["crops_per_second"]["2"])
