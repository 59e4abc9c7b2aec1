"""fkdx inside torchdistill, the released package: both example configurations at toy size."""

import importlib
import logging
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch
import torchvision
from toy import draw_images, environment, write_labels

from fkdx import CropLoader, prepare, soft_cross_entropy
from fkdx.integrations import torchdistill as integration

EXAMPLES = Path(__file__).parents[2] / "examples" / "torchdistill"
TOY = {
    r"num_classes: \d+": "num_classes: 4",
    r"size: \d{3}": "size: 32",
    r"batch_size: \d{2,}": "batch_size: 16",
    r"num_workers: \d+": "num_workers: 0",
    r"num_epochs: \d+": "num_epochs: 4",
    r"T_max: \d+": "T_max: 4",
    r"lr: [\d.]+": "lr: 0.01",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(run_seed)
    draw_images(folder / "imagenet" / "train", 12, rng)
    draw_images(folder / "imagenet" / "val", 4, rng)
    write_labels(folder / "labels.fkdl", folder / "imagenet" / "train", rng)
    torch.save(torchvision.models.resnet34(num_classes=4).state_dict(), folder / "teacher.pt")
    return folder


def run(name: str, toy: Path) -> subprocess.CompletedProcess:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for pattern, toy_text in TOY.items():
        text, count = re.subn(pattern, toy_text, text)
        assert count, pattern
    (toy / f"{name}.yaml").write_text(text)
    return forked.run([str(EXAMPLES / "train.py"), f"{name}.yaml", "cpu"], toy, environment())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stored_labels", "online_teacher"])
def test_an_example_runs(toy, name):
    done = run(name, toy)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"epoch {number}" for number in (1, 2, 3, 4)]
    student = torchvision.models.resnet18(num_classes=4)
    student.load_state_dict(torch.load(toy / "runs" / f"{name}.pt"))
    if name == "stored_labels":
        losses = [float(re.search(r"loss ([\d.]+)", line).group(1)) for line in lines]
        assert losses[-1] < losses[0]


def crops(toy: Path, **more: object) -> integration.StoredCrops:
    images, labels = str(toy / "imagenet" / "train"), str(toy / "labels.fkdl")
    return integration.StoredCrops(images, labels, 16, crops_per_image=4, size=32, device="cpu", **more)


def test_items_are_the_batches_of_the_crop_loader(toy):
    dataset = crops(toy)
    loader = CropLoader(toy / "imagenet" / "train", toy / "labels.fkdl", 16, 4, 32)
    for _ in range(2):  # the second pass shows other crops
        for i, batch in zip(range(len(dataset)), loader, strict=True):
            images, target = dataset[i]
            assert torch.equal(images, prepare(batch.images))
            assert torch.equal(target.to_dense(), batch.target.to_dense())


def test_the_loss_is_that_of_fkdx(toy, rng):
    _, target = crops(toy)[0]
    logits = torch.from_numpy(rng.normal(0, 2, (16, 4)).astype(np.float32))
    loss = integration.SoftCrossEntropy(temperature=2.0)(logits, target)
    assert torch.equal(loss, soft_cross_entropy(logits, target, 2.0))


def test_processes_share_every_batch(toy):
    parts = [crops(toy, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(part) for part in parts] == [2 * len(crops(toy))] * 2
    whole = crops(toy)[0][0]
    assert torch.equal(torch.cat([part[0][0] for part in parts]), whole)


def test_a_resumed_run_goes_on_at_its_epoch(toy):
    whole, resumed = crops(toy), crops(toy)
    passes = [[whole[i][0] for i in range(len(whole))] for _ in range(3)]
    loader = torch.utils.data.DataLoader(resumed, 1, collate_fn=integration.only_batch)
    box = SimpleNamespace(
        model=torch.nn.Identity(), model_io_dict={}, train_data_loader=loader, distributed=False
    )
    resumed[0]  # begun, and cut off
    integration.set_epoch(box, epoch=2)
    for (images, _), expected in zip(loader, passes[2], strict=True):
        assert torch.equal(images, expected)


def test_wrong_loaders_are_refused(toy):
    dataset = crops(toy)
    with pytest.raises(ValueError, match="fkdx_batch: batches, got 2, expected one"):
        next(iter(torch.utils.data.DataLoader(dataset, 2, collate_fn=integration.only_batch)))
    loader = torch.utils.data.DataLoader(dataset, 1, collate_fn=integration.only_batch, num_workers=1)
    with pytest.raises(RuntimeError, match="expected num_workers: 0"):
        next(iter(loader))


@pytest.mark.parametrize(("found", "words"), [("0.3.3", "got 0.3.3, expected 1.1.x"), ("2.0.0", "got 2.0.0")])
def test_an_unknown_version_is_refused(monkeypatch, found, words):
    monkeypatch.setattr(metadata, "version", lambda name: found)
    with pytest.raises(RuntimeError, match="torchdistill: version, ") as error:
        importlib.reload(integration)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(RuntimeError, match="torchdistill: not installed; run: pip install"):
        importlib.reload(integration)


@pytest.mark.slow
def test_an_import_says_nothing_and_changes_no_logging():
    code = "import logging, fkdx.integrations.torchdistill; print(len(logging.getLogger().handlers))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == "0\n"
    assert logging.getLogger().handlers is not None
