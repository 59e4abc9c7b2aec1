"""Ctrl-C, as often as anyone likes: no traceback, nothing half written, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from generating import make_data, make_teacher, run_options
from toy import COMMON, environment, make_toy

from fkdx.labels import LabelFile
from fkdx.train import checkpoint

STOPPED = (130, -signal.SIGINT)  # the latter at the very end, when Python has no handler any more


def interrupted(words: list[str], begun, times: int, pause: float) -> tuple[int, str]:
    """The status and the errors of a program that gets SIGINT again and again once `begun()` holds."""
    command = [sys.executable, "-m", "fkdx", *words]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not begun() and process.poll() is None:
            time.sleep(0.02)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
            if process.poll() is not None:
                break
        return process.wait(100), process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_generate(pause: float, tmp_path: Path) -> None:
    make_teacher(tmp_path / "weights.safetensors")
    output = tmp_path / "labels.fkdl"
    options = run_options(make_data(tmp_path / "data", 12), tmp_path / "weights.safetensors", output)
    parts = Path(f"{output}.parts")
    status, said = interrupted(["generate", *options], lambda: list(parts.glob("0000*.json")), 8, pause)
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert status in (0, *STOPPED)
    if output.exists():  # also of a job that was stopped as it cleared up
        LabelFile(output).verify()
    assert forked.run(["-m", "fkdx", "generate", *options], env=environment(), timeout=200).returncode == 0
    LabelFile(output).verify()


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_train(pause: float, tmp_path: Path, rng: np.random.Generator) -> None:
    run = tmp_path / "run"
    words = ["train", *COMMON, *make_toy(tmp_path, 0), "--epochs", "400", "--output", str(run)]
    log = run / "log.jsonl"
    status, said = interrupted(words, lambda: log.exists() and log.stat().st_size > 500, 8, pause)
    assert "Traceback" not in said
    assert status in STOPPED
    assert checkpoint.load(run / "last.pt")["position"]["total"] > 0
    assert not [name for name in os.listdir(run) if name.endswith(".tmp")] or pause == 0.0


KILLS_ITSELF = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
PROGRAM = "import sys; from fkdx.__main__ import main; sys.exit(main())"  # what pip makes of `fkdx`
STARTS = [["-m", "fkdx", "info", "x"], ["-m", "fkdx.train"], ["-m", "fkdx.generate"], ["-c", PROGRAM, "info"]]


def run_beside(folder: Path, words: list[str]) -> subprocess.CompletedProcess:
    """A program that finds modules in this folder first."""
    outside = environment()
    outside["PYTHONPATH"] = f"{folder}:{outside['PYTHONPATH']}"
    return subprocess.run([sys.executable, *words], env=outside, capture_output=True, text=True)


@pytest.mark.parametrize("words", STARTS, ids=str)
def test_before_a_verb_begins(words: list[str], tmp_path: Path) -> None:
    """While Python imports the rest of fkdx; here a module that only looks like Python's own."""
    (tmp_path / "select.py").write_text(KILLS_ITSELF)
    done = run_beside(tmp_path, words)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fkdx: stopped\n")


@pytest.mark.parametrize("end", ["return 0", "raise SystemExit(2)"])
def test_after_a_verb_has_ended(end: str, tmp_path: Path) -> None:
    (tmp_path / "last.py").write_text(
        "import atexit, os, signal\n"
        f"def main(argv):\n    atexit.register(os.kill, os.getpid(), signal.SIGINT)\n    {end}\n"
    )
    code = "import fkdx.__main__ as f; f.cli.VERBS['last'] = ('last', ''); raise SystemExit(f.main(['last']))"
    done = run_beside(tmp_path, ["-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fkdx: stopped\n")


def test_an_import_is_not_broken_off(tmp_path: Path) -> None:
    """An exception in the middle of one may abort the program (torch), or become another (numpy)."""
    (tmp_path / "whole.py").write_text("import part\nprint('whole')\n")
    (tmp_path / "part.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\n"
    )
    (tmp_path / "nap.py").write_text(
        "import time\ndef main(argv):\n    import whole\n    time.sleep(30)\n    print('slept')\n"
    )
    (tmp_path / "program.py").write_text(  # itself imported, which does not count
        "import fkdx.cli; fkdx.cli.VERBS['nap'] = ('nap', ''); raise SystemExit(fkdx.cli.main(['nap']))\n"
    )
    done = run_beside(tmp_path, ["-c", "import program"])
    assert (done.returncode, done.stdout, done.stderr) == (130, "whole\n", "fkdx nap: stopped\n")
