"""`fkdx pack`: the same bytes however it is run, and nothing under the final name when something is wrong."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkdx import cli
from fkdx.importers import Settings, open_foreign
from fkdx.importers.fkd_export import fkd_bytes
from fkdx.importers.job import Job, TooManyUnreadable, pack
from fkdx.labels import LabelFile, fingerprint
from fkdx.labels.dataset import same_fingerprint
from fkdx.stores import ImageFolder

CLASSES, CROPS, IMAGES = 20, 9, 60


@pytest.fixture
def folder(rng: np.random.Generator, tmp_path: Path) -> Path:
    for number in range(IMAGES):
        ids = np.argsort(rng.random((CROPS, CLASSES)), axis=1)[:, :5]
        values = -np.sort(-rng.dirichlet(np.ones(CLASSES), CROPS), axis=1)[:, :5].astype(np.float32)
        boxes = rng.random((CROPS, 4)).astype(np.float32) * 0.48 + 0.01
        path = tmp_path / "labels" / f"n{number % 4}" / f"{number}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fkd_bytes("topk", boxes, rng.random(CROPS) < 0.5, ids, values, None))
    return tmp_path / "labels"


def opened(folder: Path):
    return open_foreign(folder, Settings(num_classes=CLASSES))


def test_the_same_bytes_however_it_is_run(folder: Path, tmp_path: Path) -> None:
    files = {
        "one part": {},
        "parts": {"images_a_part": 7},
        "two workers": {"images_a_part": 7, "workers": 2},
        "many workers": {"images_a_part": 1, "workers": 5},
    }
    for name, how in files.items():
        report = pack(opened(folder), tmp_path / name, **how)
        assert (report.images, report.unreadable) == (IMAGES, [])
        assert report.bytes == (tmp_path / name).stat().st_size
        assert not Path(f"{tmp_path / name}.parts").exists()
    assert len({(tmp_path / name).read_bytes() for name in files}) == 1


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(opened(folder), tmp_path / "whole")
    source, read = opened(folder), type(opened(folder)).read_image
    reads: list[int] = []

    def stopping(self, number: int):
        reads.append(number)
        if number == 33:
            raise KeyboardInterrupt
        return read(self, number)

    monkeypatch.setattr(type(source), "read_image", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "stopped", images_a_part=10)
    assert not (tmp_path / "stopped").exists()
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"stopped\.parts holds unfinished work .*value_type was .*remove it"
    ):
        pack(source, tmp_path / "stopped", images_a_part=10, value_type="float32")
    old = tmp_path / "old.parts"
    old.mkdir()
    (old / "job.json").write_text(
        '{"kind": "topk", "images_a_part": 10}'
    )  # as versions before 0.1.0 wrote it
    with pytest.raises(ValueError, match="holds unfinished work of an earlier version of fkdx; remove it"):
        pack(source, tmp_path / "old", images_a_part=10)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "stopped.parts/0").glob("*.fkdl")}
    assert sorted(before) == ["00000.fkdl", "00001.fkdl", "00002.fkdl"]
    pack(source, tmp_path / "stopped", images_a_part=10)
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()


def test_hard_labels_have_no_value_type(folder: Path, tmp_path: Path, capsys) -> None:
    boxes = np.full((2, 4), 0.5, np.float32)
    for path in folder.rglob("*.tar"):
        path.write_bytes(fkd_bytes("hard", boxes, np.zeros(2, bool), np.ones((2, 1), int), None, None))
    target = tmp_path / "out.fkdl"
    command = [str(folder), "-o", str(target), "--num-classes", str(CLASSES), "--workers", "1"]
    assert cli.run("pack", [*command, "--value-type", "float16"]) == 1
    assert "--value-type" in capsys.readouterr().err
    assert not Path(f"{target}.parts").exists()
    assert cli.run("pack", command) == 0


@pytest.mark.slow
def test_killed_again_and_again(
    folder: Path, tmp_path: Path, rng: np.random.Generator, record_property
) -> None:
    """FKDX_KILLS times, or until the file is there; each file is the one of a run that nobody kills."""
    pack(opened(folder), tmp_path / "whole")
    code = (
        "import sys; from fkdx.importers import *; from fkdx.importers.job import pack\n"
        f"source = open_foreign(sys.argv[1], Settings(num_classes={CLASSES}))\n"
        "pack(source, sys.argv[2], images_a_part=1, workers=2)"
    )
    target, least = tmp_path / "killed", int(os.environ.get("FKDX_KILLS", "1"))
    kills = since = 0
    while kills < least or not target.exists():
        child = subprocess.Popen([sys.executable, "-c", code, folder, target], start_new_session=True)
        time.sleep((0.25 + 0.3 * float(rng.random())) * 1.1**since)  # enough on a busy machine, too
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        kills, since = kills + 1, since + 1
        assert since < 100
        if target.exists():
            assert target.read_bytes() == (tmp_path / "whole").read_bytes()
            if kills < least:
                pack(opened(folder), target, overwrite=True)  # what is left of its parts, too
                target.unlink()
                since = 0
    record_property("count", kills)
    assert target.read_bytes() == (tmp_path / "whole").read_bytes()


def test_unreadable_labels_are_listed_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    spoilt = sorted(folder.rglob("*.tar"))[::20]
    originals = [path.read_bytes() for path in spoilt]
    for path in spoilt:
        path.write_bytes(path.read_bytes()[:-9])
    target = tmp_path / "out.fkdl"
    with pytest.raises(TooManyUnreadable, match="got 3 images"):
        pack(opened(folder), target, images_a_part=8, workers=2)
    listed = Path(f"{target}.unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [
        str(path.relative_to(folder).with_suffix(".JPEG")) for path in spoilt
    ]
    assert not target.exists()

    report = pack(opened(folder), target, images_a_part=8, allow_missing=3)
    assert (report.images, len(report.unreadable)) == (IMAGES - 3, 3)
    assert len(LabelFile(target)) == IMAGES - 3

    for path, original in zip(spoilt, originals):
        path.write_bytes(original)
    pack(opened(folder), target, images_a_part=8, overwrite=True)
    assert len(LabelFile(target)) == IMAGES
    assert not Path(f"{target}.unreadable.txt").exists()


def test_a_mark_of_somebody_else_stays(folder: Path, tmp_path: Path) -> None:
    """Workflows leave files such as X.done beside their outputs."""
    (tmp_path / "out.fkdl.done").write_text("mine")
    pack(opened(folder), tmp_path / "out.fkdl")
    assert (tmp_path / "out.fkdl.done").read_text() == "mine"
    assert not (tmp_path / "out.fkdl.parts").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [({}, "source's folder was .*, is now "), ({"seed": 7}, "source's seed was 42, is now 7")],
)
def test_parts_of_other_labels_are_not_taken(folder: Path, tmp_path: Path, settings: dict, text: str) -> None:
    """Files of another teacher have the same names and sizes."""
    if not settings:
        shutil.copytree(folder, tmp_path / "other")
    spoilt = min(folder.rglob("*.tar"))
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    with pytest.raises(TooManyUnreadable):
        pack(opened(folder), tmp_path / "out.fkdl", images_a_part=8)
    source = open_foreign(folder if settings else tmp_path / "other", Settings(CLASSES, **settings))
    with pytest.raises(ValueError, match=rf"unfinished work for other settings \({text}"):
        pack(source, tmp_path / "out.fkdl", images_a_part=8)


def test_a_worker_that_dies_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    read = type(opened(folder)).read_image

    def dying(self, number: int):
        if number == 33:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, number)

    source = opened(folder)
    monkeypatch.setattr(type(source), "read_image", dying)
    monkeypatch.setattr("fkdx.importers.job.IMAGES_A_PART", 10)
    target = tmp_path / "out.fkdl"
    command = [str(folder), "-o", str(target), "--num-classes", str(CLASSES), "--workers", "2"]
    assert cli.run("pack", command) == 1
    assert "a worker process died" in capsys.readouterr().err
    assert not target.exists()
    monkeypatch.setattr(type(source), "read_image", read)
    assert cli.run("pack", command) == 0


def test_the_size_is_told_before(folder: Path, tmp_path: Path) -> None:
    options = {"kind": "topk", "num_classes": CLASSES, "k": 5, "crops": CROPS, "ratios": True}
    expected = Job(opened(folder), tmp_path / "out.fkdl", options, 10).expected_bytes()
    report = pack(opened(folder), tmp_path / "out.fkdl")
    assert report.bytes == pytest.approx(expected, rel=0.1)


def test_faulty_probabilities_are_refused_or_repaired(folder: Path, tmp_path: Path) -> None:
    ids = np.tile(np.arange(5), (CROPS, 1))
    values = np.full((CROPS, 5), 0.5, np.float32)
    boxes = np.full((CROPS, 4), 0.25, np.float32)
    (folder / "n0" / "0.tar").write_bytes(fkd_bytes("topk", boxes, np.zeros(CROPS, bool), ids, values, None))
    with pytest.raises(TooManyUnreadable, match=r"n0/0\.JPEG"):
        pack(opened(folder), tmp_path / "out.fkdl")
    pack(opened(folder), tmp_path / "mended.fkdl", repair=True)
    assert LabelFile(tmp_path / "mended.fkdl").header["repairs"]["sums"] == CROPS
    pack(opened(folder), tmp_path / "parts.fkdl", repair=True, images_a_part=7)
    assert (tmp_path / "parts.fkdl").read_bytes() == (tmp_path / "mended.fkdl").read_bytes()


def test_compact_parts_join_without_another_rounding(folder: Path, tmp_path: Path) -> None:
    for name, images in (("whole", 1000), ("parts", 7)):
        pack(opened(folder), tmp_path / name, images_a_part=images, encoding="compact")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_header_tells_the_data_set(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.tar"):
        image = tmp_path / "images" / path.relative_to(folder).with_suffix(".jpg")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 300)).save(image)
    command = [str(folder), "-o", str(tmp_path / "out.fkdl"), "--num-classes", str(CLASSES)]
    assert cli.run("pack", [*command, "--images", str(tmp_path / "images")]) == 0
    files = ImageFolder(tmp_path / "images").files()
    assert same_fingerprint(LabelFile(tmp_path / "out.fkdl").header["dataset"], fingerprint(files))


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "out.fkdl"
    names = tmp_path / "classes.txt"
    names.write_text("".join(f"class {number}\n" for number in range(CLASSES)))
    command = [str(folder), "-o", str(target), "--classes", str(names), "--workers", "1"]
    command += ["--teacher", "effnet", "--temperature", "1.0", "--label-type", "marginal_smoothing_k5"]
    assert cli.run("pack", command) == 0
    labels = LabelFile(target)
    assert labels.classes[3] == "class 3"
    provenance = labels.header["provenance"]
    assert provenance["teacher"] == {"name": "effnet"}
    assert (provenance["temperature"], provenance["tail"]) == (1.0, "uniform")
    assert (provenance["source"]["format"], provenance["source"]["images"]) == ("fkd", IMAGES)

    assert cli.run("pack", command) == 1
    assert "exists" in capsys.readouterr().err
    assert cli.run("pack", ["absent", "-o", str(tmp_path / "x")]) == 1
    assert "absent" in capsys.readouterr().err
    assert cli.run("pack", ["/dev/null", "-o", str(tmp_path / "x")]) == 1
    assert "format, got a device or a pipe, expected a folder" in capsys.readouterr().err
    assert cli.run("pack", [str(target), "-o", str(tmp_path / "x")]) == 1
    assert (
        "got a label file, which is packed already, expected a folder of one of fkd, sre2l, "
        in capsys.readouterr().err
    )
