"""The CUDA kernels without a GPU: their source, run on the CPU, equals its twins."""

import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent / "native"


@pytest.mark.slow
def test_kernels_on_the_cpu_equal_their_twins(run_seed):
    done = subprocess.run(
        ["sh", NATIVE / "run.sh", "plain", str(run_seed % 100000)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "parallel: 0 failures" in done.stdout
    assert "loss_kernels" in done.stdout
    assert "batch_kernels" in done.stdout
