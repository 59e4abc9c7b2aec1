"""tools/forked.py: a forked program is what a started one would be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest

PROGRAM = """
import multiprocessing, os, pathlib, signal, subprocess, sys, threading, time
def late():
    time.sleep(0.1)
    print("late")
print(sys.argv[1:], os.environ["WORD"], pathlib.Path.cwd().name, multiprocessing.get_start_method(), __name__)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM))
threading.Thread(target=late).start()
if len(sys.argv) > 1:
    own = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True)
    print(own.returncode, own.stdout, own.stderr, file=sys.stderr)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else "no number")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def test_it_ends_and_prints_as_a_started_one(program: Path) -> None:
    """And so does the program that it starts itself."""
    env = {**os.environ, "WORD": "hello"}
    given = ["program.py", "7", "a b"]
    own = forked.run(given, program, env)
    other = subprocess.run([sys.executable, *given], cwd=program, env=env, capture_output=True, text=True)
    assert own.returncode == 7
    assert (own.returncode, own.stdout, own.stderr) == (other.returncode, other.stdout, other.stderr)


def test_modules_and_errors(tmp_path: Path) -> None:
    assert forked.run(["-m", "fkdx", "--version"]).stdout[0].isdigit()
    (tmp_path / "wrong.py").write_text("1 / 0")
    wrong = forked.run([str(tmp_path / "wrong.py")])
    assert wrong.returncode == 1
    assert wrong.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_it_can_be_waited_for_and_killed(tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)")
    program = forked.Program([str(tmp_path / "sleep.py")])
    while not program.output("out"):
        assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.01)
    program.kill()
    assert program.wait(60) == -signal.SIGKILL
    assert program.communicate() == ("here\n", "")
