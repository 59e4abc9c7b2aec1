"""Random JPEG streams, legal and half legal: any region is judged and decoded as a plain full decode does."""

import re
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "fuzz/jpeg/run.sh"


@pytest.mark.slow
def test_random_streams(run_seed: int) -> None:
    done = subprocess.run(
        ["sh", RUN, "plain", str(run_seed % 100000), "5000"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(.+): (\d+)$", done.stdout, re.MULTILINE))
    assert int(counts["sound"]) > 2000
    for kind in ("sound with harmless warnings", "damaged", "given up", "header refused"):
        assert int(counts[kind]) > 100
