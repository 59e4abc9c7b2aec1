"""What verbs print: words, or with --json one object; nothing breaks where nobody reads it."""

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path

import label_draws
import numpy as np
import pytest
from generating import TEACHER, make_teacher
from images import draw_images

from fkdx import cli
from fkdx.cli.completion import parser_of
from fkdx.cli.verbs import VERBS
from fkdx.facts import Facts
from fkdx.labels import LabelWriter

KEYS = ["ant/0.jpg", "ant/1.jpg", "bee/2.jpg", "bee/3.jpg"]
NONE = ("demo", "train", "completion")  # tell how far they are, or print a script

MODEL = f"{TEACHER} --checkpoint {{teacher}} --size 32 --device cpu"
LABEL = f"--data {{images}} --teacher {MODEL} --crops 2 --topk 2"
BENCH = "loader --data {images} --batch-size 2 --crops-per-image 1 --size 16 --batches 2 --profile"
FILE = {"path", "images", "crops", "bytes"}

# verb, its command line (o does not exist), and facts that it names.
LINES = [
    ("generate", f"{LABEL} -o {{o}}.fkdl", {"state", "files", "images", "failed", "warned", "report"}),
    ("generate", f"{LABEL} -o {{o}}.fkdl --shards 0/2", {"state", "shards", "shards_done"}),
    ("generate", f"{LABEL} -o {{o}}.fkdl --dry-run", {"forecast"}),
    ("generate", f"{LABEL} --evaluate {{images}}", {"evaluation"}),
    ("generate", "-o {labels} --status", {"state"}),
    ("pack", "{fkd} -o {o} --num-classes 2 --workers 1", {"path", "images", "bytes", "left_out"}),
    ("info", "{labels}", {"path", "images", "header", "sureness"}),
    ("verify", "{labels} --images {images}", {"labels", "images", "crops", "match", "right"}),
    ("verify", "--images {images}", {"images", "unreadable", "other_pixels", "right"}),
    ("compare", "{labels} {labels}", {"total", "classes", "worst"}),
    ("report", "{labels} -o {o}", {"path", "bytes"}),
    ("serve", "{labels}", {"address"}),
    ("slice", "{labels} -o {o} --crops 1", FILE),
    ("concat", "{labels} -o {o}", FILE),
    ("merge", "{labels} {labels} -o {o}", FILE),
    ("calibrate", "{labels} -o {o} --thresholds 0 0 1", FILE | {"calibration"}),
    ("convert", "{labels} -o {o} --encoding compact", FILE),
    ("export", "{labels} -o {o}", {"path", "form", "files"}),
    ("export", "{labels} -o {o}.npy --to pred-probs", {"path", "form", "images", "classes"}),
    ("index", "{images} -o {o} --entry-points", {"path", "images", "classes", "image_bytes", "entry_points"}),
    ("repack", "{images} -o {o}", {"path", "images", "bytes", "shards", "unpacked"}),
    ("evaluate", f"--model {MODEL} -k 1 --knn {{split}}", {"knn"}),
    ("bench", BENCH, {"crops_per_s", "images_per_s", "threads", "ms_per_image"}),
    ("doctor", "", {"fkdx", "libjpeg-turbo"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images, their labels (FKD's too), a teacher, and a folder with train/ and val/."""
    at, rng = tmp_path_factory.mktemp("facts"), np.random.default_rng(4)
    draw_images(at / "images", KEYS, lambda _: rng.integers(0, 256, (40, 50, 3), np.uint8))
    for part in ("train", "val"):
        shutil.copytree(at / "images", at / "split" / part)
    sizes = dict.fromkeys(KEYS, (40, 50))
    names = {"num_classes": 2, "classes": ["ant", "bee"]}
    label_draws.write_labels(at / "labels.fkdl", rng, k=2, crops=2, sizes=sizes, **names)
    make_teacher(at / "teacher.safetensors", classes=2)
    assert cli.main(["export", str(at / "labels.fkdl"), "-o", str(at / "fkd")]) == 0
    return {name.split(".")[0]: at / name for name in os.listdir(at)}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends at once."""
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)


def run(verb: str, line: str, tmp_path: Path, paths: dict[str, Path]) -> None:
    if verb in ("report", "serve"):
        pytest.importorskip("altair")
    words = [word.format(o=tmp_path / "out", **paths) for word in line.split()]
    assert cli.main([verb, *words]) == 0


def name(value: object) -> str | None:
    return value.replace("/", "_")[-40:] if isinstance(value, str) else ""


def test_every_verb_that_prints_facts_is_in_the_table() -> None:
    assert {verb for verb, *_ in LINES} == set(VERBS) - set(NONE)


@pytest.mark.parametrize("verb", NONE)
def test_the_others_do_not_offer_it(verb: str) -> None:
    assert "--json" not in parser_of(verb)._option_string_actions


@pytest.mark.parametrize(("verb", "line", "facts"), LINES, ids=name)
def test_facts_as_json(
    verb: str, line: str, facts: set[str], tmp_path: Path, paths: dict[str, Path], capsys
) -> None:
    """One object, alone on stdout."""
    run(verb, line + " --json", tmp_path, paths)
    found = json.loads(capsys.readouterr().out)
    assert facts <= set(found)


@pytest.mark.parametrize(("verb", "line", "facts"), LINES, ids=name)
def test_a_closed_stdout_is_no_error(
    verb: str, line: str, facts: set[str], tmp_path: Path, paths: dict[str, Path], monkeypatch, capsys
) -> None:
    """Python makes stdout None where the caller closed it."""
    monkeypatch.setattr(sys, "stdout", None)
    run(verb, line, tmp_path, paths)
    assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "who"), [([], "fkdx"), (["--version"], "fkdx"), (["doctor"], "fkdx doctor")]
)
def test_a_full_disk_is_a_line(argv: list[str], who: str, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(argv) == 1
    assert capsys.readouterr().err == f"{who}: No space left on device\n"


def test_images_that_are_broken_as_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant/0.jpg").write_bytes(b"\xff\xd8 no image")
    assert cli.main(["verify", "--images", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["unreadable"]) == 1
    assert found["right"] is False


def test_headers_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with LabelWriter(tmp_path / "labels.fkdl", "hard", num_classes=2) as writer:
        writer._header |= {"text": "a", "self": "b", "facts": {"c": 1}}
    assert cli.main(["info", str(tmp_path / "labels.fkdl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a"


def test_an_error_prints_no_object(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["info", str(tmp_path / "absent"), "--json"]) == 1
    assert capsys.readouterr().out == ""


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture) -> None:
    with Facts(as_json=True) as facts:
        facts.say("", a=float("nan"), b=[1.5, (float("inf"),)], c={"d": -float("inf")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, [None]], "c": {"d": None}}


def test_other_processes_of_a_job_print_nothing(capsys: pytest.CaptureFixture) -> None:
    for as_json in (False, True):
        with Facts(as_json, quiet=True) as facts:
            facts.say("words", a=1)
    assert capsys.readouterr().out == ""
