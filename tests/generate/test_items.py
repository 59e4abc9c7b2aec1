"""`--shards I/N`: work items that run anywhere, in any order and more than once, make the same file."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fkdx import cli
from fkdx.labels.parts import Parts

ITEMS = 3


@pytest.fixture
def relative(job_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The job with an output of the current folder, so that its command is the same in every folder."""
    for name in ("whole", "a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    return [*job_options[:-1], "labels.fkdl"]


def whole(options: list[str]) -> bytes:
    assert cli.run("generate", options) == 0
    return Path("labels.fkdl").read_bytes()


def test_items_in_any_order_make_the_same_file(
    relative: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    expected = whole(relative)
    monkeypatch.chdir("../a")
    order = rng.permutation(ITEMS).tolist()
    for item in [*order, order[0]]:
        assert cli.run("generate", [*relative, "--shards", f"{item}/{ITEMS}"]) == 0
        assert not Path("labels.fkdl").exists()
        assert f"shards {item}/{ITEMS} are done: 4 of 12" in capsys.readouterr().out
    assert whole(relative) == expected
    assert not Path("labels.fkdl.parts").exists()
    assert cli.run("generate", [*relative, "--shards", f"0/{ITEMS}"]) == 0
    assert "finished already" in capsys.readouterr().out


def test_items_of_separate_disks_are_copied_together(relative: list[str], monkeypatch) -> None:
    expected = whole(relative)
    for folder, items in (("a", [0, 2]), ("b", [1])):
        monkeypatch.chdir(f"../{folder}")
        for item in items:
            assert cli.run("generate", [f"--shards={item}/{ITEMS}", *relative]) == 0
    shutil.copytree("../a/labels.fkdl.parts", "labels.fkdl.parts", dirs_exist_ok=True)
    assert len(list(Path("labels.fkdl.parts/0").iterdir())) == 12
    assert whole(relative) == expected


def test_a_lost_item_is_done_by_the_last_command(relative: list[str], monkeypatch) -> None:
    expected = whole(relative)
    monkeypatch.chdir("../a")
    assert cli.run("generate", [*relative, "--sh", f"1/{ITEMS}"]) == 0
    assert whole(relative) == expected


def test_an_item_of_another_job_is_refused(relative: list[str], capsys) -> None:
    assert cli.run("generate", [*relative, "--shards", f"0/{ITEMS}"]) == 0
    assert cli.run("generate", [*relative, "--seed", "1", "--shards", f"1/{ITEMS}"]) == 1
    assert "unfinished work for other settings (seed was 0, is now 1)" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["3/3", "1", "-1/2", "a/b", "1/0"])
def test_items_that_do_not_exist(relative: list[str], wrong: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run("generate", [*relative, f"--shards={wrong}"])
    assert f"argument --shards: got {wrong}, expected I/N with 0 <= I < N" in capsys.readouterr().err


def test_items_need_an_output(relative: list[str], capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run("generate", [*relative[:-2], "--evaluate", "x", "--shards", "0/2"])
    assert "--shards needs --output" in capsys.readouterr().err


def test_many_may_begin_a_job_at_once(tmp_path: Path) -> None:
    """One of them writes job.json; the others go on with it."""
    folder = tmp_path / "x.parts"

    def begin(number: int) -> Parts:
        return Parts.begin(folder, {"seed": 1}, "generate", {"by": number}, outputs=2)

    with ThreadPoolExecutor(16) as pool:
        jobs = list(pool.map(begin, range(64)))
    (notes,) = {json.dumps(job.notes) for job in jobs}
    assert json.loads((folder / "job.json").read_text())["notes"] == json.loads(notes)
    assert (folder / "1").is_dir()
