"""Ways to run a turn: a program that tries inputs, pytest, a fuzzer."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from trust.part import CannotRunError, Turn

HOUR = 3600.0


def run(words: list[str], tree: Path, seconds: float, **more: str) -> subprocess.CompletedProcess:
    """A command with the tree's sources first, and everything that it started ended with it."""
    mark = f"FKDX_TRUST_RUN={os.getpid()}.{time.monotonic_ns()}"
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'tests'}", "OMP_NUM_THREADS": "1", **more}
    environment.update([mark.split("=")])
    with subprocess.Popen(
        words,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_marked(mark)
            out, errors = process.communicate()
            errors += f"\nstill running after {seconds:.0f} s"
        finally:
            kill_marked(mark)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)


def kill_marked(mark: str) -> None:
    """Ends all processes with this in their environment, also those of sessions of their own."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def tail(done: subprocess.CompletedProcess, lines: int = 12) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-lines:])


def program_turn(program: str, *options: str):
    """A turn of a program of tests/ that is called with SEED FIRST SECONDS and ends with a line of JSON."""

    def turn(tree: Path, seed: int, first: int, seconds: float) -> Turn:
        words = [sys.executable, "-X", "faulthandler", str(tree / "tests" / program)]
        words += [str(seed), str(first), str(seconds), *options]
        done = run(words, tree, 3 * seconds + 300)
        try:
            said = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            said = {"count": 0, "failures": []}
        failures = list(said["failures"])
        if done.returncode > 0 and not failures:
            raise CannotRunError(f"{program}: ended with {done.returncode}: {tail(done)}")
        if done.returncode and not failures:  # by a signal
            failures = [f"{program} {seed} {first}: ended with {done.returncode}: {tail(done)}"]
        return Turn(said["count"], failures)

    return turn


def pytest_turn(tests: str, limit: float = HOUR, **environment: str):
    """A turn of tests; each counts once, or what it recorded as its `count`."""

    def turn(tree: Path, seed: int, first: int, seconds: float) -> Turn:
        return run_pytest(tests, tree, limit, FKDX_TEST_SEED=str((seed + first) % 2**31), **environment)

    return turn


def run_pytest(tests: str, tree: Path, limit: float, **environment: str) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "tests.xml"
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}"]
        paths, _, choice = tests.partition(" -k ")
        words += ["--basetemp", f"{folder}/tmp", *paths.split(), *(["-k", choice] if choice else [])]
        done = run(words, tree, limit, **environment)
        if done.returncode not in (0, 1) or not xml.exists():
            raise CannotRunError(f"pytest {tests}: ended with {done.returncode}: {tail(done)}")
        return _told(ElementTree.parse(xml).getroot(), environment)


def _told(root: ElementTree.Element, environment: dict[str, str]) -> Turn:
    turn = Turn()
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [*case.iter("failure"), *case.iter("error")]
        counts = [int(p.get("value")) for p in case.iter("property") if p.get("name") == "count"]
        if bad:
            said = (bad[0].get("message") or "").strip()[:500]
            turn.failures.append(f"{name} (FKDX_TEST_SEED={environment.get('FKDX_TEST_SEED')}): {said}")
        elif case.find("skipped") is None:
            turn.count += sum(counts) if counts else 1
    return turn
