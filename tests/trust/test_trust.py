"""The trust suite itself: it goes on where it was broken off, and a part that finds nothing wrong can."""

import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from trust import __main__ as program
from trust import page, parts, trees
from trust.bugs import BUGS, OF_PART
from trust.part import Bug, CannotRunError, Part, Turn
from trust.programs import HOUR, program_turn, run, run_pytest

HARMLESS = Bug("a comment", "fkdx/errors.py", "old", "new")


def make_part(name: str, run, goal: int = 10, share: float = 1) -> Part:
    OF_PART[name] = HARMLESS
    return Part(name, "counts", ("numbers", goal), share, run)


def suite(monkeypatch, folder: Path, parts: list[Part], *more: str) -> int:
    """In an hour, which none of the parts needs: they reach their goal or their most failures at once."""
    monkeypatch.setattr(program, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["trust", "3600", "--folder", str(folder), "--no-plant", *more])
    return program.main()


def test_it_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch) -> None:
    begun: list[tuple[int, int]] = []

    def run(tree: Path, seed: int, first: int, seconds: float) -> Turn:
        begun.append((seed, first))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return Turn(4)

    with pytest.raises(KeyboardInterrupt):
        suite(monkeypatch, tmp_path, [make_part("one", run)], "--seed", "7")
    assert suite(monkeypatch, tmp_path, [make_part("one", run)], "--seed", "8") == 0
    assert begun == [(7, 0), (7, 4), (7, 8), (7, 8)]
    assert "| 12 numbers | 10 | 0 |" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr("trust.state.code_of_tree", lambda: "other sources")
    suite(monkeypatch, tmp_path, [make_part("one", run)])
    assert begun[-1][1] == 8
    assert [first for _, first in begun[4:]] == [0, 4, 8]


@pytest.mark.parametrize("turn", [Turn(1, ["seed 3 is bad"]), Turn(0), OSError("gone")], ids=repr)
def test_what_goes_wrong_is_told(turn: Turn | Exception, tmp_path: Path, monkeypatch, capsys) -> None:
    """A failure, a turn that did nothing, a part that broke."""

    def run(*_) -> Turn:
        if isinstance(turn, Exception):
            raise turn
        return turn

    assert (
        suite(monkeypatch, tmp_path, [make_part("bad", run, 1), make_part("good", lambda *_: Turn(1), 1)])
        == 1
    )
    report = (tmp_path / "report.md").read_text()
    said = {"Turn": "seed 3 is bad" if isinstance(turn, Turn) and turn.count else "did nothing"}
    assert said.get(type(turn).__name__, "gone") in report
    assert "| 1 numbers | 1 | 0 |" in report


def test_a_part_that_cannot_fail_is_a_failure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(program, "PARTS", [make_part("blind", lambda *_: Turn(10))])
    monkeypatch.setattr(program, "planted", lambda *_: nullcontext(tmp_path))
    monkeypatch.setattr(program, "check_that_it_can_fail", impatient(program.check_that_it_can_fail))
    monkeypatch.setattr(sys, "argv", ["trust", "1", "--folder", str(tmp_path)])
    assert program.main() == 1
    assert "blind: did not find its planted bug, a comment" in (tmp_path / "report.md").read_text()


def test_a_part_that_cannot_run_has_found_nothing(tmp_path: Path, monkeypatch) -> None:
    def run(*_) -> Turn:
        raise CannotRunError("it does not build")

    monkeypatch.setattr(program, "PARTS", [make_part("broken", run)])
    monkeypatch.setattr(program, "planted", lambda *_: nullcontext(tmp_path))
    monkeypatch.setattr(sys, "argv", ["trust", "0", "--folder", str(tmp_path)])
    assert program.main() == 1
    assert "broken: its planted bug: it does not build" in (tmp_path / "report.md").read_text()


def impatient(check):
    def quick(part: Part, state) -> None:
        check(Part(**vars(part) | {"patience": 0.01}), state)

    return quick


def test_bugs_are_planted_anew_after_the_last_one(tmp_path: Path, monkeypatch) -> None:
    """Where all are done, the part has yet to find the bug that is planted in the suite itself."""
    tried: list[str] = []

    def refuse_to_plant(bug: Bug, *_, **__):
        tried.append(bug.name)
        raise trees.PlantingError("it does not fit")

    monkeypatch.setattr(parts, "planted", refuse_to_plant)
    turns = [parts.plant_bugs(tmp_path, 1, first, 1) for first in range(len(BUGS) + 1)]
    assert all("it does not fit" in turn.failures[0] for turn in turns)
    assert set(tried) == {bug.name for bug in BUGS}
    assert tried[-1] == tried[0]


def test_bugs_still_fit_the_sources() -> None:
    for bug in [*BUGS, *(OF_PART[part.name] for part in parts.PARTS)]:
        assert (trees.ROOT / bug.file).read_text().count(bug.old) == 1, bug.name
        assert all((trees.ROOT / test).exists() for test in bug.tests.split()), bug.name
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 40


def test_failures_of_tests_are_told(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import os\ndef test_good(record_property): record_property('count', 7)\n"
        "def test_plain(): pass\ndef test_bad(): assert os.environ['FKDX_TEST_SEED'] == '4'\n"
    )
    turn = run_pytest("test_x.py", tmp_path, HOUR, FKDX_TEST_SEED="3")
    assert turn.count == 8
    assert len(turn.failures) == 1
    assert "test_bad (FKDX_TEST_SEED=3)" in turn.failures[0]
    with pytest.raises(CannotRunError, match="ended with"):
        run_pytest("test_none.py", tmp_path, HOUR)


def test_a_program_that_dies_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/dies.py").write_text("import os; os.abort()")
    assert "dies.py 1 2: ended with -6" in program_turn("dies.py")(tmp_path, 1, 2, 3).failures[0]
    with pytest.raises(CannotRunError, match="ended with 2"):
        program_turn("absent.py")(tmp_path, 1, 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickles", "containers", "images"])
def test_parts_find_their_planted_bug(name: str, tmp_path: Path) -> None:
    (part,) = [part for part in parts.PARTS if part.name == name]
    sound = part.run(trees.ROOT, 1, 0, 3)
    assert sound.count > 0
    assert sound.failures == []
    with trees.planted(OF_PART[name], tmp_path / "tree") as tree:
        assert part.run(tree, 1, 0, 60).failures


def test_the_kept_page_names_every_part() -> None:
    kept = (trees.ROOT / "docs/trust.md").read_text()
    assert page.HEAD in kept
    for part in parts.PARTS:
        assert f"| {part.name} | {part.what} |" in kept


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [0, 600], ids=["ends", "runs out of time"])
def test_nothing_that_a_program_started_outlives_it(tmp_path: Path, lasts: int, monkeypatch) -> None:
    starts = "import subprocess, time; p = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    program = starts + f"print(p.pid, file=open('started', 'w'), flush=True); time.sleep({lasts})"
    wait = subprocess.Popen.communicate

    def wait_from_then_on(process: subprocess.Popen, timeout: float | None = None) -> tuple[str, str]:
        while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
            time.sleep(0.05)
        return wait(process, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", wait_from_then_on)
    done = run([sys.executable, "-c", program], tmp_path, 1)
    assert "still running after 1 s" in done.stderr  # what was started holds the output open
    started = Path("/proc") / (tmp_path / "started").read_text().strip()
    while is_alive(started):  # a signal takes its time on a busy machine
        time.sleep(0.05)


def is_alive(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
