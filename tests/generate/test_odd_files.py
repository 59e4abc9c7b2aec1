"""JPEG files with faults: those that change no pixel are labelled and counted, others only if allowed."""

import json
from pathlib import Path

import pytest
from generating import changed, make_data, make_teacher, run_options
from images import cut_short, other_jfif

from fkdx import CropLoader, LabelFile, ValidationLoader, cli
from fkdx.image import decoder


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A run over 9 images, one of which says JFIF 2.01, and one of which ends early."""
    data = make_data(tmp_path / "data", images=3)
    for name, change in (("ant/0.jpg", other_jfif), ("bee/1.jpg", cut_short)):
        (data / name).write_bytes(change((data / name).read_bytes()))
    make_teacher(tmp_path / "weights.safetensors")
    return run_options(data, tmp_path / "weights.safetensors", tmp_path / "labels.fkdl")


def run(options: list[str]) -> tuple[dict, dict]:
    """The report, and what the label file's header says of its making."""
    assert cli.run("generate", options) == 0
    report = json.loads(Path(options[-1] + ".report.json").read_text())
    return report, LabelFile(options[-1]).header["provenance"]


def test_what_is_harmless_is_counted(options: list[str], capsys) -> None:
    report, provenance = run(options)
    assert report["warned"] == 1
    assert [entry["key"] for entry in report["failed"]] == ["bee/1.jpg"]
    assert "1 images have JPEG faults that change no pixel; they were labelled" in capsys.readouterr().err
    assert provenance["allow_warnings"] is False
    assert provenance["decoder"] == decoder() == report["decoder"]
    assert "libjpeg-turbo" in decoder()


def test_what_is_damaged_is_labelled_where_that_is_allowed(options: list[str], tmp_path: Path) -> None:
    report, provenance = run(["--allow-warnings", *options])
    assert report["failed"] == []
    assert provenance["allow_warnings"] is True
    labels = LabelFile(options[-1])
    assert "bee/1.jpg" in labels
    with pytest.raises(ValueError, match=r"bee/1\.jpg"):
        list(CropLoader(tmp_path / "data", labels, 90, 10, 32))
    loader = CropLoader(tmp_path / "data", labels, 90, 10, 32, allow_warnings=True)
    assert len(list(loader)) == 1
    assert loader.warned == {"ant/0.jpg"}


def test_an_unfinished_job_is_not_mixed(options: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr("fkdx.generate.program.conclude", lambda *_: None)
    assert cli.run("generate", options) == 0
    assert cli.run("generate", ["--allow-warnings", *options]) == 1
    assert "allow_warnings was null, is now true" in capsys.readouterr().err


def test_validation_counts_them(options: list[str]) -> None:
    root = options[options.index("--data") + 1]
    loader = ValidationLoader(root, 4, 32, on_error="skip")
    assert sum(len(batch.keys) for batch in loader) == 8
    assert (loader.warned, set(loader.skipped)) == ({"ant/0.jpg"}, {"bee/1.jpg"})
    assert sum(len(batch.keys) for batch in ValidationLoader(root, 4, 32, allow_warnings=True)) == 9


def test_a_store_of_sound_files_says_nothing(options: list[str], tmp_path: Path, capsys) -> None:
    report, _ = run(changed(options, data=make_data(tmp_path / "sound", images=2)))
    assert (report["warned"], report["failed"]) == (0, [])
    assert capsys.readouterr().err == ""
