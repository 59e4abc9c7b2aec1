"""Files that the first complete version wrote (made by make.py at commit 59709d8) still work.

What a label file holds is in the JSON file beside it, written by that version too.
"""

import json
import runpy
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fkdx import CropLoader, LabelFile, cli

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"
MAKE = runpy.run_path(str(HERE / "make.py"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files in the current folder, beside the network that made them."""
    shutil.copytree(FILES, tmp_path / "files")
    shutil.copy(HERE / "tiny.py", tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


@pytest.mark.parametrize("name", ["labels", "mixed"])
def test_a_label_file_reads_the_same(name: str) -> None:
    expected = json.loads((FILES / f"{name}.json").read_text())
    labels = LabelFile(FILES / f"{name}.fkdl")
    assert list(labels.keys) == [row["key"] for row in expected]
    for image, row in zip(labels, expected):
        for field in ("boxes", "flips", "ids"):
            assert getattr(image, field).tolist() == row[field]
        np.testing.assert_allclose(image.values.astype(float), row["values"], atol=1e-7)
        assert (list(image.image_size), image.extra.decode()) == (row["image_size"], row["extra"])
        for field, value in row.get("mixes", {}).items():
            got = getattr(image.mixes, field)
            assert np.allclose(got, value, atol=1e-6) if field == "lambdas" else np.array_equal(got, value)


@pytest.mark.parametrize("name", ["labels", "mixed"])
def test_a_label_file_gives_batches(name: str) -> None:
    loader = CropLoader(
        FILES / "data/train", FILES / f"{name}.fkdl", batch_size=24, crops_per_image=2, size=16
    )
    (batch,) = loader
    assert batch.images.shape == (24, 16, 16, 3)
    assert (batch.mix is not None) == (name == "mixed")
    torch.testing.assert_close(batch.target.to_dense().sum(1), torch.ones(24), atol=0.03, rtol=0)


def test_a_label_job_goes_on(files: Path) -> None:
    job = files / "job.fkdl.parts/job.json"
    state = json.loads(job.read_text())
    for library in state["settings"]["versions"]:  # a job goes on only with the versions it was begun with
        state["settings"]["versions"][library] = metadata.version(library)
    job.write_text(json.dumps(state))
    done = {path.name: path.read_bytes() for path in files.glob("job.fkdl.parts/0000?.json")}
    assert len(done) == 3
    assert cli.main(["generate", *MAKE["JOB"], "-o", "job.fkdl"]) == 0
    reports = json.loads((files / "job.fkdl.report.json").read_text())["shards"]
    assert reports[:3] == [json.loads(text) for _, text in sorted(done.items())]
    made, whole = LabelFile("job.fkdl"), LabelFile("labels.fkdl")
    assert list(made.keys) == list(whole.keys)
    for mine, theirs in zip(made, whole):
        assert np.array_equal(mine.boxes, theirs.boxes)
        assert np.array_equal(mine.flips, theirs.flips)
        np.testing.assert_allclose(mine.values, theirs.values, atol=2e-3)  # another CPU may round otherwise


def test_a_run_goes_on_from_its_checkpoint(files: Path) -> None:
    before = (files / "run/log.jsonl").read_text()
    assert cli.main(["train", *MAKE["RUN"], "--output", "run"]) == 0
    first_step = before.splitlines()[0]
    assert first_step in (files / "run/log.jsonl").read_text(), "it started over"
    whole, ended = load_file("run/whole.safetensors"), load_file("run/last.safetensors")
    assert whole.keys() == ended.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(ended[name], weights, atol=2e-3, rtol=0)


def test_a_recipe_trains(files: Path) -> None:
    """args.yaml is a recipe with all keys of that version and two stages."""
    old = yaml.safe_load((files / "run/args.yaml").read_text())
    assert cli.main(["train", "--config", "run/args.yaml", "--max-steps", "1", "--output", "again"]) == 0
    new = yaml.safe_load((files / "again/args.yaml").read_text())
    assert {key: new[key] for key in old if key not in ("output", "max_steps")} == {
        key: value for key, value in old.items() if key not in ("output", "max_steps")
    }
