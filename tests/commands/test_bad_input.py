"""Every verb with bad input: an exit status of the table, one line that says why, nothing written."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import label_draws
import numpy as np
import pytest
from images import draw_images

from fkdx import cli
from fkdx.cli.completion import all_verbs
from fkdx.cli.verbs import EXIT_STATUS, GROUPS, VERBS

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["ant/0.jpg", "bee/1.jpg"]
NOBODY = 65534

# What is wrong with the input of a verb: its path, made in an empty folder. None is a label file, an image
# store or a recipe.
ODD_NAME = "a 'b' \"c\" $d\nnew line"
INPUTS: dict[str, Callable[[Path], Path]] = {
    "absent": lambda at: at / "absent",
    "absent, odd name": lambda at: at / ODD_NAME,
    "empty folder": lambda at: made(at / "empty", folder=True),
    "empty file": lambda at: made(at / "empty.fkdl", b""),
    "text": lambda at: made(at / "text.txt", b"not what you expect\n"),
    "text, odd name": lambda at: made(at / ODD_NAME, b"not what you expect\n"),
    "zip without a member": lambda at: made(at / "a.zip", b"PK\5\6" + bytes(18)),
    "cut label file": lambda at: made(at / "cut.fkdl", b"FKDL" + bytes(200)),
    "name that is not UTF-8": lambda at: Path(os.fsdecode(os.fsencode(at) + b"/caf\xe9")),
    "device": lambda at: Path("/dev/null"),
}

# verb: its command line, for the bad input x and an output o; `labels` and `images` are good.
LINES = {
    "generate": [
        "--data {x} --teacher resnet18 -o {o}",
        "--data {images} --teacher resnet18 --crops-from {x} -o {o}",
    ],
    "pack": ["{x} -o {o}"],
    "info": ["{x}"],
    "verify": ["{x}", "--images {x}", "{labels} --images {x}"],
    "compare": ["{x} {labels}", "{labels} {x}"],
    "report": ["{x} -o {o}"],
    "serve": ["{x}"],
    "slice": ["{x} -o {o}"],
    "concat": ["{x} {labels} -o {o}"],
    "merge": ["{labels} {x} -o {o}"],
    "calibrate": ["{x} -o {o}"],
    "convert": ["{x} -o {o}"],
    "export": ["{x} -o {o}"],
    "index": ["{x} -o {o}"],
    "repack": ["{x} -o {o}"],
    "train": ["--data {x} --labels {labels} --output {o}", "--config {x} --data {images} --output {o}"],
    "bench": ["loader --data {x}", "loader --data {images} --labels {x}"],
    "evaluate": ["--model test_resnet --checkpoint {x} --probe {images}"],
    "demo": ["--output {o} {x}"],
    "doctor": ["{x}"],
    "completion": ["{x}"],
}
CASES = [(verb, line, kind) for verb, lines in LINES.items() for line in lines for kind in INPUTS]


def made(path: Path, content: bytes = b"", folder: bool = False) -> Path:
    path.mkdir() if folder else path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A label file and its images."""
    folder, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(4)
    draw_images(folder / "images", KEYS, lambda _: rng.integers(0, 256, (40, 50, 3), np.uint8))
    sizes = dict.fromkeys(KEYS, (40, 50))
    label_draws.write_labels(folder / "labels.fkdl", rng, num_classes=2, k=2, crops=2, sizes=sizes)
    return {"labels": folder / "labels.fkdl", "images": folder / "images"}


def run(verb: str, line: str, **paths: Path) -> int:
    words = [word.format(**{name: os.fspath(path) for name, path in paths.items()}) for word in line.split()]
    try:
        return cli.main([verb, *words])
    except SystemExit as stop:
        return stop.code


def test_every_verb_is_in_the_table() -> None:
    assert set(LINES) == set(VERBS)


@pytest.mark.parametrize(("verb", "line", "kind"), CASES)
def test_bad_input(
    verb: str, line: str, kind: str, tmp_path: Path, good: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    output = tmp_path / "out"
    status = run(verb, line, x=INPUTS[kind](tmp_path / "in"), o=output, **good)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert status in (1, 2), shown
    assert not output.exists()
    assert len(list((tmp_path / "in").iterdir())) <= 1
    if status == 1:
        if verb == "verify" and not shown.err:  # what it finds wrong is what it was asked for
            assert re.search("unreadable|missing", shown.out)
            return
        said = [text for text in shown.err.splitlines() if text.startswith(f"fkdx {verb}: ")]
        assert len(said) == 1, shown.err
        assert len(said[0]) > len(f"fkdx {verb}: ") + 10
        assert "Errno" not in said[0]


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Root may read everything, so the test becomes a user who may not."""
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield
    if root:
        os.seteuid(0)
    (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize("verb", [verb for verb, lines in LINES.items() if "{x}" in lines[0]])
@pytest.mark.usefixtures("as_nobody")
def test_no_permission(
    verb: str, tmp_path: Path, good: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    status = run(verb, LINES[verb][0], x=tmp_path / "locked/x", o=tmp_path / "locked/out", **good)
    shown = capsys.readouterr().err
    assert status in (1, 2), shown
    assert "Traceback" not in shown


WRITERS = ["slice", "convert", "concat", "merge", "calibrate", "export", "index", "repack", "report"]


@pytest.mark.parametrize("place", ["absent/out", "file/out", "a folder"])
@pytest.mark.parametrize("verb", WRITERS)
def test_output_that_cannot_be_written(
    verb: str, place: str, tmp_path: Path, good: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    made(made(tmp_path / "a folder", folder=True) / "file", b"kept")
    source = good["images"] if verb in ("index", "repack") else good["labels"]
    status = run(verb, "{x} -o {o}", x=source, o=tmp_path / place)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert (tmp_path / "file").read_text() == "in the way"
    assert (tmp_path / "a folder/file").read_bytes() == b"kept"
    if place == "file/out":
        assert status == 1
        assert shown.startswith(f"fkdx {verb}: ")


@pytest.mark.parametrize("verb", ["slice", "convert", "calibrate", "index", "report"])
def test_a_folder_that_is_not_there_is_named(verb: str, tmp_path: Path, good: dict, capsys) -> None:
    if verb == "report":
        pytest.importorskip("altair")
    source = good["images"] if verb == "index" else good["labels"]
    assert run(verb, "{x} -o {o}", x=source, o=tmp_path / "absent/out") == 1
    assert capsys.readouterr().err.endswith(f"no such folder, {tmp_path / 'absent'}\n")


@pytest.mark.parametrize("name", ["", "."])
@pytest.mark.parametrize("verb", ["slice", "convert", "concat", "merge", "calibrate"])
def test_an_output_without_a_name_is_refused(verb: str, name: str, good: dict[str, Path], capsys) -> None:
    """As from `-o "$OUT"` where the variable is not set."""
    assert cli.main([verb, str(good["labels"]), "-o", name]) == 1
    assert capsys.readouterr().err == f"fkdx {verb}: write: got a folder, expected the name of a file, .\n"


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("report", "{labels} -o {o}"),
        ("index", "{images} -o {o}"),
        ("calibrate", "{labels} -o {x} --table {o} --least 1"),
    ],
)
def test_only_a_file_of_its_own_kind_is_replaced(
    verb: str, line: str, tmp_path: Path, good: dict[str, Path], capsys
) -> None:
    """`fkdx report labels.fkdl -o labels.fkdl` would be the end of the labels."""
    labels, out = good["labels"].read_bytes(), tmp_path / "out"
    if verb == "report":
        pytest.importorskip("altair")
    for kind, status in ((b"", 0), (None, 0), (labels, 1)):  # an empty file, what was written last, labels
        if kind is not None:
            out.write_bytes(kind)
        (tmp_path / "x").unlink(missing_ok=True)
        assert run(verb, line, o=out, x=tmp_path / "x", **good) == status
    assert out.read_bytes() == labels
    assert "got a file that is no" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, good: dict, capsys) -> None:
    line = "{labels} -o {o} --table {x}"
    assert run("calibrate", line, o=tmp_path / "out", x=tmp_path / "absent/a.csv", **good) == 1
    assert "--table, no such folder, " in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_repack_wants_a_folder_of_its_own(tmp_path: Path, good: dict, capsys) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"kept")
    assert run("repack", "{images} -o {o}", o=tmp_path, **good) == 1
    assert "the folder holds something else; choose a new folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_evaluate_wants_two_folders_before_a_model(good: dict, capsys) -> None:
    assert run("evaluate", "--model nothing --knn {images}", **good) == 1
    assert "expected train/ and val/ in it" in capsys.readouterr().err


NUMBERS = [
    ("bench", "loader --data {images} --batches 0"),
    ("bench", "loader --data {images} --threads -1"),
    ("compare", "{labels} {labels} --worst -1"),
    ("info", "{labels} --sample -1"),
    ("info", "{labels} --sample many"),
    ("merge", "{labels} -o {o} -k 0"),
    ("report", "{labels} -o {o} --most-crops 0"),
    ("serve", "{labels} --port 65536"),
    ("slice", "{labels} -o {o} --crops 0"),
    ("verify", "--images {images} --threads 0"),
    ("evaluate", "--model resnet18 --knn {images} -k 0"),
    ("repack", "{images} -o {o} --shard-size 0"),
    ("demo", "--output {o} --processes 0"),
]


@pytest.mark.parametrize(("verb", "line"), NUMBERS)
def test_numbers_out_of_range(verb: str, line: str, tmp_path: Path, good: dict, capsys) -> None:
    assert run(verb, line, o=tmp_path / "out", **good) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"got \S+, expected |invalid whole number value: '{line.split()[-1]}'", last)
    assert os.listdir(tmp_path) == []


ODD_NAMES = ["a b", "it's", 'say "x"', "two\nlines", "-dash", "ü 猫", "$HOME;ls", "%s{}"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(
    name: str, tmp_path: Path, good: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / name
    path.write_bytes(good["labels"].read_bytes())
    assert cli.main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(path)
    assert cli.main(["convert", str(path), "-o", str(path) + ".new"]) == 0
    assert cli.main(["compare", str(path), str(path) + ".new", "--json"]) == 0
    path.write_bytes(b"broken")
    capsys.readouterr()
    assert cli.main(["info", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# ---- one screen, one table of exit statuses, one name for a flag -------------------------------------------


def test_all_verbs_fit_on_one_screen(capsys: pytest.CaptureFixture) -> None:
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert not any("\033" in line for line in lines)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    cli.main([])
    assert ("\033[1m" in capsys.readouterr().out) == coloured


def test_the_page_has_the_table_of_exit_statuses_and_the_verbs() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.M)
    assert {int(status): meaning for status, meaning in rows} == EXIT_STATUS
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(VERBS)


def test_ctrl_c_leaves_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fkdx.commands.info.LabelFile", stop)
    assert cli.main(["info", "x"]) == 130
    assert capsys.readouterr().err == "fkdx info: stopped\n"


# A flag -> the only name that verbs use for what it says.
SYNONYMS = {"--m": "--crops-per-image", "--batch": "--batch-size", "--k": "--topk", "--out": "--output"}


def flags() -> dict[str, list[str]]:
    """Verb -> its flags, of its own verbs too."""
    found: dict[str, list[str]] = {}
    for verb, parser in all_verbs()._subparsers._group_actions[0].choices.items():
        parsers = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        found[verb] = [flag for one in parsers for action in one._actions for flag in action.option_strings]
    return found


def test_flags_have_one_name_in_all_verbs() -> None:
    for verb, names in flags().items():
        assert not set(names) & set(SYNONYMS), verb
        assert "-k" not in names or {"--topk", "--neighbours"} & set(names), verb
        assert "-o" not in names or "--output" in names, verb


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_and_flags(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("calibrate", "--crops-per-image", "--allow-missing", "--batches"):
        assert word in script, word


def test_completion_does_without_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(VERBS, "bench", ("fkdx_needs_this", ""))
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--crops-per-image" in script  # of train
    assert "--batches" not in script
    assert "bench" in script


def test_groups_name_every_verb_once() -> None:
    names = [verb for verbs in GROUPS.values() for verb in verbs]
    assert len(names) == len(set(names)) == len(VERBS)
