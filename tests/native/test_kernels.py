"""Kernels that this machine cannot run as they are: CUDA's on the CPU, NEON's under emulation."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent


def run_native(*arguments: str) -> str:
    done = subprocess.run(["sh", NATIVE / "run.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(shown: str) -> set[str]:
    return set(re.findall(r"digest (\w+)", shown))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cuda_kernels_on_the_cpu_equal_their_twins(run_seed: int) -> None:
    shown = run_native("plain", str(run_seed % 100000))
    assert re.search(r"parallel: 0 failures, [1-9]\d+ teams", shown)
    for program in ("loss_kernels", "batch_kernels", "image_kernels"):
        assert program in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_aarch64_under_emulation(run_seed: int) -> None:
    """NEON equals scalar; crops and boxes are those of this machine. FKDX_REQUIRE_NEON=1 forbids the skip."""
    here = shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")
    if not here and os.environ.get("FKDX_REQUIRE_NEON") != "1":
        pytest.skip("no g++-aarch64-linux-gnu and qemu-user")
    seed = str(run_seed % 100000)
    emulated = run_native("aarch64", seed)
    assert "scalar neon, 0 failures" in emulated
    assert "scalar, 0 failures" in emulated  # a CPU without dot products
    assert digests(emulated) == digests(run_native("plain", seed, "quick", "image"))
