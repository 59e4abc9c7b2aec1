"""bench/gpu.sh without a GPU: programs in its PATH stand in for the compiler and the benchmarks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST = ["build", "check", "loss", "batch", "generate", "train"]
SECOND = ["build", "tests", "memcheck", "racecheck", "initcheck", "synccheck", "compile"]
STEPS = list(dict.fromkeys(FIRST + SECOND))

PYTHON = """
for last; do :; done
case "$2" in *find_spec*"${{LACKING:-nothing}}"*) exit 1 ;; esac
case "$1" in
    setup.py) {build} ;;
    -m) echo fine ;;
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
        "us": {
            **{"fkdx": 3.25, "copy of the same bytes": 2.5},
            **{"torch dense": 65, "torch.compile dense": 8, "triton": 3.5},
        },
    },
    {"what": "GPU time", "rows": 4096, "classes": 1000, "dtype": "torch.float32", "us": {"torch dense": 65}},
    {"what": "host time of a call", "us": {"loss_and_grad": 9.0}},
]
TRAIN = {
    name: {"crops_per_second": rate, "of_resident": rate / 3000, "waits": 0.01}
    for name, rate in {"resident": 3000, "fkdx": 2950, "fkd": 500}.items()
}


def prepared(folder: Path, loss: str, *steps: str, build: str = "echo fine", **environment: str) -> dict:
    """The script's command and environment, with everything it starts replaced."""
    (folder / "train.json").write_text(json.dumps(TRAIN))
    (folder / "given.json").write_text(json.dumps(LOSS))
    stubs = {
        "python3": PYTHON.format(python=sys.executable, folder=folder, loss=loss, build=build),
        "nvcc": COMPILER,
        "nvidia-smi": "echo NVIDIA H200, 1.0",
        "compute-sanitizer": 'shift 4; exec "$@"',
    }
    for name, script in stubs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    variables = {"PYTHON": "python3", "FKDX_BUILD_DIR": str(folder / "built"), **environment}
    variables["PATH"] = f"{folder}:{os.environ['PATH']}"
    command = ["sh", str(ROOT / "bench/gpu.sh"), str(folder / "out"), *steps]
    return {"args": command, "env": {**os.environ, **variables}, "text": True}


def run(folder: Path, loss: str, *steps: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(**prepared(folder, loss, *steps, **environment), capture_output=True)


def states(done: subprocess.CompletedProcess) -> dict[str, str]:
    """How the steps ended, as the table at the end says; the lines before it say the same."""
    before, _, table = done.stdout.partition("\nsteps\n")
    words = [line.split() for line in table.splitlines()]
    assert [line for line in table.splitlines() if line in before.splitlines()]
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
    assert len(missed) == 3  # 8 / 3.25 is less than 3 times torch.compile, 3.25 / 2.5 more than 1.15
    assert "NVIDIA H200, 1.0, copies 1638 GB/s" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("card.txt", "generate.json", "gpu.json", "log.txt", "loss.json", "train.json")
    ]


def test_a_step_that_hangs_ends_and_later_ones_say_so(tmp_path: Path) -> None:
    """By a clock of its own, which goes on where the script looks: at first, then as steps begin and end."""
    (tmp_path / "times").write_text("\n".join(map(str, [0, 0, 1, 98, 100, 100, 100])) + "\n")
    (tmp_path / "date").write_text(f"#!/bin/sh\nhead -n 1 {tmp_path}/times\nsed -i 1d {tmp_path}/times\n")
    (tmp_path / "date").chmod(0o755)
    done = run(tmp_path, "sleep 300", "check", "loss", "generate", SECONDS_IN_ALL="100")
    assert states(done) == {"check": "ok", "loss": "SLOW", "generate": "LATE"}, done.stdout + done.stderr
    assert "FAILED: loss generate" in done.stdout
    assert "loss       SLOW      2 s" in done.stdout


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "echo", "generate", LACKING="timm")
    assert states(done) == {"generate": "ABSENT"}, done.stdout + done.stderr
    assert "not here: timm" in done.stdout


@pytest.mark.parametrize(("half", "steps"), [("first", FIRST), ("second", SECOND)])
def test_two_calls_do_everything(tmp_path: Path, half: str, steps: list[str]) -> None:
    done = run(tmp_path, f'cp {tmp_path}/given.json "$last"', half)
    assert list(states(done)) == steps, done.stdout + done.stderr


def test_without_headers_the_build_fails_and_all_else_says_so(tmp_path: Path) -> None:
    reason = "fkdx needs the libjpeg-turbo headers"
    done = run(tmp_path, "exit 1", "build", "check", "loss", build=f"echo {reason}; exit 1")
    assert states(done) == {"build": "FAILED", "check": "ok", "loss": "FAILED"}, done.stdout + done.stderr
    assert reason in done.stdout
    assert "FAILED: build loss" in done.stdout


def test_a_run_that_is_cut_off_ends_with_its_table(tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = subprocess.Popen(
        **prepared(tmp_path, f"touch {started}; sleep 60", "check", "loss", "generate"),
        stdout=subprocess.PIPE,
    )
    while not started.exists():
        time.sleep(0.1)
        assert script.poll() is None
    script.terminate()
    shown, _ = script.communicate()
    done = subprocess.CompletedProcess([], script.returncode, shown)
    assert states(done) == {"check": "ok", "loss": "CUT"}, shown
    assert "loss: not measured" in shown
    assert script.returncode == 143


def test_microseconds_are_demanded_of_an_h200_only(tmp_path: Path) -> None:
    us = {"fkdx": 12.5, "copy of the same bytes": 11.0}
    row = {
        "what": "GPU time",
        "rows": 4096,
        "classes": 1000,
        "dtype": "torch.float32",
        "bytes": 4.0,
        "us": us,
    }
    (tmp_path / "loss.json").write_text(json.dumps([row]))
    verdicts = {}
    for card in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        (tmp_path / "card.txt").write_text(f"card   {card}, 580.1\n")
        command = [sys.executable, str(ROOT / "bench/gpu_table.py"), str(tmp_path)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        verdicts[card] = [line.split()[-1] for line in shown.splitlines() if line.startswith("loss 4096")]
    assert verdicts["NVIDIA H100 80GB HBM3"] == ["12.5", "met", "met"]
    assert verdicts["NVIDIA H200"] == ["MISSED", "met", "met"]
