"""k-NN and linear probe: the twin's answers, whatever the number of processes, and what is refused."""

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy import torchrun

from fkdx import cli, reference
from fkdx.loader import ValidationLoader
from fkdx.train import frozen
from fkdx.train.distributed import World
from fkdx.train.frozen import Features, counted, extract, fit, knn, probe

MODEL = "test_resnet"


def draw(rng, images: int, classes: int = 3, d: int = 6, noise: float = 1.0) -> Features:
    labels = np.arange(images) % classes
    centres = np.random.default_rng(0).normal(0, 1, (classes, d))
    rows = centres[labels] + rng.normal(0, noise, (images, d))
    return Features(torch.from_numpy(rows).float(), torch.from_numpy(labels))


def test_knn_is_the_twins(rng) -> None:
    known, asked = draw(rng, 50), draw(rng, 20)
    found = knn(known, asked, 7, 3)
    rows, classes = known.rows.double().numpy(), known.classes.tolist()
    assert found.shape == (20, 3)
    # Rounding decides between neighbours that are equally near, and between classes with equal votes.
    nearest = (normalize(asked.rows.double()) @ normalize(known.rows.double()).T).topk(8).values
    clear = nearest[:, 6] - nearest[:, 7] > 1e-5
    assert clear.sum() > 10
    for likeliest, row in zip(found[clear, 0].tolist(), asked.rows[clear].double().numpy()):
        votes = reference.train.knn_votes(rows, classes, row, 7)
        assert votes[likeliest] > 0.999 * max(votes.values())


def test_probe_is_a_logistic_regression(rng) -> None:
    known, asked = draw(rng, 300, noise=1.5), draw(rng, 6000, noise=1.5)
    weights = fit(known, 3, 1e-2).double()
    rows = torch.cat([known.rows.double(), torch.ones(300, 1)], dim=1)
    shares = torch.softmax(rows @ weights, dim=1) - torch.eye(3)[known.classes]
    gradient = rows.T @ shares / 300 + 1e-2 * torch.cat([weights[:-1], torch.zeros(1, 3)])
    assert gradient.abs().max() < 1e-3  # at the minimum
    top1 = counted(probe(known, asked, 3), asked, World())["top1"]
    centres = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (3, 6))).float()
    best = (torch.cdist(asked.rows, centres).argmin(1) == asked.classes).float().mean() * 100
    assert top1 > best - 12


def test_votes_do_not_underflow(rng) -> None:
    """Even of neighbours that are all far away, the nearest decides where the temperature is low."""
    known, asked = draw(rng, 50), draw(rng, 20)
    far = Features(-asked.rows, asked.classes)
    cosines = normalize(far.rows) @ normalize(known.rows).T
    found = knn(known, far, 5, 3, 1e-8)[:, :1]
    nearest = torch.where(known.classes == found, cosines, -1).amax(dim=1)
    assert torch.equal(nearest, cosines.amax(dim=1))  # of two that are equally near, either class


class Largest(TorchDispatchMode):
    """The most values that an operation gave."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(part.numel() for part in tree_leaves(out) if isinstance(part, Tensor))])
        return out


def test_memory_does_not_grow_with_the_images_that_are_asked(rng, monkeypatch) -> None:
    """Neither by all known images, of which there may be millions, nor by all classes."""
    known, asked = draw(rng, 300), draw(rng, 200)
    knn_found, probe_found = knn(known, asked, 7, 3), probe(known, asked, 3)
    monkeypatch.setattr(frozen, "COSINES", 300 * 20)
    with Largest() as largest:
        again = knn(known, asked, 7, 3)
    assert largest.most <= 300 * 20
    assert (again[:, 0] == knn_found[:, 0]).float().mean() > 0.98  # rounding depends on the part's size
    monkeypatch.setattr(frozen, "CHUNK", 32)
    with Largest() as largest:
        again = frozen._guessed(torch.ones(7, 1000), asked)
    assert largest.most <= 32 * 1000
    assert again.shape == (200, 5)
    assert (probe(known, asked, 3)[:, 0] == probe_found[:, 0]).float().mean() > 0.98


def test_knn_and_probe_refuse(rng) -> None:
    known = draw(rng, 10)
    with pytest.raises(ValueError, match="k-NN: k, got 11, expected 1 to the 10 training images"):
        knn(known, known, 11, 3)
    with pytest.raises(ValueError, match="k-NN: temperature, got 0, expected a positive number"):
        knn(known, known, 3, 3, 0)
    one = Features(known.rows, torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ValueError, match="probe: classes of the training images, got 1, expected at least 2"):
        probe(one, one, 3)


def test_features_that_are_not_finite(toy: Path) -> None:
    loader = ValidationLoader(toy / "data/val", 4, 32, threads=1)
    with pytest.raises(ValueError, match=r"features: values, got NaN or infinity .*, expected finite ones, "):
        extract(lambda crops: torch.full((len(crops), 3), torch.nan), loader, World())
    loader.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save_file(timm.create_model(MODEL, num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def options(toy: Path, checkpoint: Path) -> list[str]:
    data = str(toy / "data")
    own = ["--model", MODEL, "--checkpoint", str(checkpoint), "--size", "32", "--device", "cpu"]
    return [*own, "--threads", "1", "--knn", data, "--probe", data, "-k", "5"]


def test_colours_are_told_apart(options: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.run("evaluate", [*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["knn"]["images"] == found["probe"]["images"] == 20
    assert found["knn"]["top1"] > 60  # even random weights see colours
    assert found["probe"]["top1"] > 60
    assert cli.run("evaluate", options) == 0
    told = capsys.readouterr().out
    assert f"k-NN: top-1 {found['knn']['top1']:.2f}%" in told
    assert f"linear probe: top-1 {found['probe']['top1']:.2f}%" in told


@pytest.mark.slow
def test_processes_do_not_matter(options: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.run("evaluate", [*options, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    found = torchrun(3, ["evaluate", *options, "--json"], program=("-m", "fkdx"))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == alone


def test_refused(options: list[str], toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refusal(given: list[str]) -> str:
        assert cli.run("evaluate", given) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    model = options[: options.index("--knn")]
    assert "nothing to measure" in refusal(model)
    with patch("fkdx.commands.evaluate.extract") as extracted:  # before the features of all images are made
        assert "k, got 100, expected 1 to the 48" in refusal([*options, "-k", "100"])
        assert "--temperature, got 0.0, expected a pos" in refusal([*options, "--temperature", "0"])
    assert not extracted.called
    assert "--model-args, got 7, expected YAML such as" in refusal([*options, "--model-args", "7"])
    assert "with {'depth': 2}" in refusal([*options, "--model-args", "{depth: 2}"])
    assert "expected train/ and val/ in it" in refusal([*model, "--probe", str(tmp_path)])
    one = tmp_path / "one"
    for part in ("train", "val"):
        (one / part).mkdir(parents=True)
        (one / part / "red").symlink_to(toy / "data" / part / "red")
    assert "classes of the training images, got 1" in refusal([*model, "--probe", str(one)])
