"""bench/gpu.sh without a GPU: programs in its PATH stand in for the compiler and the benchmarks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["build", "check", "loss", "batch", "tests", "generate", "train"]
STEPS += ["memcheck", "racecheck", "initcheck", "synccheck"]

PYTHON = """
for last; do :; done
case "$2" in *find_spec*"${{LACKING:-nothing}}"*) exit 1 ;; esac
case "$1" in
    setup.py | -m) echo fine ;;
    bench/gpu_table.py | -c) exec {python} "$@" ;;
    -) exec {python} -c "" ;;
    bench/loss.py) {loss} ;;
    bench/batch.py) echo broken; exit 3 ;;
    bench/generate.py) echo '{{"alone": 100, "job": 96, "share": 0.96, "told": 1}}' >"$last" ;;
    bench/train.py) cp {folder}/train.json "$last" ;;
esac
"""
COMPILER = """
for last; do :; done
printf '#!/bin/sh\\necho gpu_check: 0 failures\\n' >"$last"
chmod +x "$last"
"""
LOSS = [
    {
        "what": "GPU time",
        "rows": 1024,
        "classes": 1000,
        "dtype": "torch.bfloat16",
        "bytes": 2.004,
        "us": {"fkdx": 3.25, "torch dense": 65, "torch.compile dense": 8, "triton": 3.5},
    },
    {"what": "GPU time", "rows": 4096, "classes": 1000, "dtype": "torch.float32", "us": {"torch dense": 65}},
    {"what": "host time of a call", "us": {"loss_and_grad": 9.0}},
]
TRAIN = {
    name: {"crops_per_second": rate, "of_resident": rate / 3000, "waits": 0.01}
    for name, rate in {"resident": 3000, "fkdx": 2950, "fkd": 500}.items()
}


def run(folder: Path, loss: str, *steps: str, **environment: str) -> subprocess.CompletedProcess:
    (folder / "train.json").write_text(json.dumps(TRAIN))
    (folder / "given.json").write_text(json.dumps(LOSS))
    stubs = {
        "python3": PYTHON.format(python=sys.executable, folder=folder, loss=loss),
        "nvcc": COMPILER,
        "nvidia-smi": "echo a GPU, 1.0",
        "compute-sanitizer": 'shift 4; exec "$@"',
    }
    for name, script in stubs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    variables = {"PYTHON": "python3", "FKDX_BUILD_DIR": str(folder / "built"), **environment}
    variables["PATH"] = f"{folder}:{os.environ['PATH']}"
    command = ["sh", str(ROOT / "bench/gpu.sh"), str(folder / "out"), *steps]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=100
    )


def states(done: subprocess.CompletedProcess) -> dict[str, str]:
    words = [line.split() for line in done.stdout.splitlines()]
    return {line[0]: line[1] for line in words if line and line[0] in STEPS and line[3:4] == ["s"]}


def test_a_step_that_fails_costs_no_other(tmp_path: Path) -> None:
    done = run(tmp_path, f'cp {tmp_path}/given.json "$last"')
    assert done.returncode == 1
    assert states(done) == dict.fromkeys(STEPS, "ok") | {"batch": "FAILED"}, done.stdout + done.stderr
    assert "FAILED: batch (see" in done.stdout
    assert "batch: not measured" in done.stdout
    assert "==== batch\nbroken" in (tmp_path / "out" / "log.txt").read_text()
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    values = {line["what"]: line["value"] for line in written["table"]}
    assert values["loss 1024 x 1000 bfloat16, torch dense / fkdx"] == 20
    assert values["train, fkdx / FKD"] == pytest.approx(5.9)
    verdicts = {line.split(",")[0]: line.split()[-1] for line in done.stdout.splitlines() if "= " in line}
    assert verdicts["host of loss_and_grad"] == "MISSED"
    assert verdicts["generate"] == "met"
    missed = [line for line in done.stdout.splitlines() if line.endswith("MISSED")]
    assert len(missed) == 2  # 8 / 3.25 is less than 3 times torch.compile
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("generate.json", "gpu.json", "log.txt", "loss.json", "train.json")
    ]


def test_a_step_that_hangs_ends_and_later_ones_say_so(tmp_path: Path) -> None:
    done = run(tmp_path, "sleep 60", "check", "loss", "generate", SECONDS_IN_ALL="3")
    assert states(done) == {"check": "ok", "loss": "SLOW", "generate": "LATE"}, done.stdout + done.stderr
    assert "FAILED: loss generate" in done.stdout


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "echo", "generate", LACKING="timm")
    assert states(done) == {"generate": "ABSENT"}, done.stdout + done.stderr
    assert "not here: timm" in done.stdout
