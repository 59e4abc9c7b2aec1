"""Every kind of labels gives every integration the loss that the trainer itself has for the same batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from generating import make_teacher
from torch import Tensor, nn
from toy import draw_images, steps_of, write_labels

from fkdx import CropLoader, Mixer, soft_cross_entropy
from fkdx.generate import main as generate
from fkdx.integrations.timm import StoredLabelTask, TimmLoader
from fkdx.integrations.torchdistill import SoftCrossEntropy, StoredCrops
from fkdx.loader import Batch
from fkdx.train.loop import main

TEMPERATURE, TEACHER_TEMPERATURE = 2.0, 1.5
MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]
LINEAR = """
import torch

def model(num_classes):
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, num_classes))
"""
# Labels: how they become targets. Mixed ones are stored with Mixup, CutMix and erasing of the crops.
KINDS = {
    "topk": "marginal_smoothing",
    "topk_logits": "marginal_renorm",
    "smoothing": "smoothing",
    "hard": "hard",
    "dense": "marginal_smoothing",
    "dense_logits": "marginal_smoothing",
    "mixed": "marginal_smoothing",
    "several": "marginal_smoothing",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(run_seed)
    draw_images(folder / "train", 4, rng)
    for kind in KINDS.keys() - {"mixed", "several"}:
        write_labels(folder / f"{kind}.fkdl", folder / "train", np.random.default_rng(run_seed), kind)
    write_labels(folder / "other.fkdl", folder / "train", np.random.default_rng(run_seed), teacher="other")
    make_teacher(folder / "teacher.safetensors", classes=4)
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(folder / "teacher.safetensors")]
    changes = ["--mixup", "0.8", "--cutmix", "1", "--augment", "erase=0.5", "--size", "32", "--crops", "4"]
    labels = ["--topk", "2", "-o", str(folder / "mixed.fkdl")]
    assert generate(["--data", str(folder / "train"), *teacher, *changes, *labels]) == 0
    (folder / "linear.py").write_text(LINEAR)
    return folder


def files_of(kind: str, toy: Path) -> list[str]:
    return [str(toy / f"{name}.fkdl") for name in (("topk", "other") if kind == "several" else (kind,))]


def student() -> nn.Module:
    space: dict = {}
    exec(LINEAR, space)
    return space["model"](4)


def crop_loader(kind: str, toy: Path) -> CropLoader:
    divisor = TEACHER_TEMPERATURE if kind == "topk_logits" else 1.0
    more = {"label_kind": KINDS[kind], "teacher_temperature": divisor}
    return CropLoader(toy / "train", files_of(kind, toy), 16, 4, 32, **more)


def teacher_temperature(kind: str) -> float:
    return TEACHER_TEMPERATURE if kind in ("dense_logits", "topk_logits") else 1.0


def of_batches(kind: str) -> float:
    """What divides a batch's logits: those of top-K labels are probabilities by then."""
    return TEACHER_TEMPERATURE if kind == "dense_logits" else 1.0


def in_a_plain_loop(kind: str, toy: Path) -> Tensor:
    batch = next(iter(crop_loader(kind, toy)))
    images, target = batch.prepared(MEAN, STD, teacher_temperature=of_batches(kind))
    return soft_cross_entropy(student()(images), target, TEMPERATURE)


def in_timm(kind: str, toy: Path) -> Tensor:
    loader = TimmLoader(crop_loader(kind, toy), MEAN, STD, teacher_temperature=of_batches(kind))
    return StoredLabelTask(student(), temperature=TEMPERATURE, verbose=False)(*next(iter(loader)))["loss"]


def in_torchdistill(kind: str, toy: Path) -> Tensor:
    more = {"crops_per_image": 4, "size": 32, "label_kind": KINDS[kind], "device": "cpu"}
    temperature = teacher_temperature(kind)
    crops = StoredCrops(
        str(toy / "train"), files_of(kind, toy), 16, MEAN, STD, teacher_temperature=temperature, **more
    )
    images, target = crops[0]
    return SoftCrossEntropy(TEMPERATURE)(student()(images), target)


@pytest.fixture
def trainers_loss(toy, tmp_path, monkeypatch):
    """The loss of the trainer's first step."""
    monkeypatch.syspath_prepend(toy)

    def trainers_loss(kind: str) -> float:
        run, files = tmp_path / kind, files_of(kind, toy)
        data = ["--data", str(toy / "train"), "--labels", files[0], "--ensemble", str(files[1:])]
        inputs = ["--size", "32", "--mean", str(MEAN), "--std", str(STD), "--batch-size", "16"]
        loss = ["--temperature", str(TEMPERATURE), "--teacher-temperature", str(teacher_temperature(kind))]
        more = ["--max-steps", "1", "--log-every", "1", "--device", "cpu", "--output", str(run)]
        recipe = ["--student", "linear:model", "--label-kind", KINDS[kind], "--epochs", "8"]
        assert main([*data, *inputs, *loss, *recipe, *more]) == 0
        return steps_of(run)[0]["loss"]

    return trainers_loss


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_trainers(kind, toy, trainers_loss):
    expected = trainers_loss(kind)
    for integration in (in_a_plain_loop, in_timm, in_torchdistill):
        assert integration(kind, toy).item() == pytest.approx(expected, rel=2e-6), integration.__name__


def test_a_temperature_of_probabilities_is_refused(toy):
    with pytest.raises(ValueError, match="teacher_temperature, got one for labels of kind topk,"):
        StoredCrops(str(toy / "train"), str(toy / "topk.fkdl"), 16, size=32, teacher_temperature=2.0)


def test_mixed_labels_need_their_mix(toy):
    """What the integrations would learn without it is something else: the table above can fail."""
    batch = next(iter(crop_loader("mixed", toy)))
    assert batch.mix is not None
    plain = Batch(batch.images, batch.target, batch.classes, batch.keys, batch.crops)
    assert not torch.equal(plain.prepared()[0], batch.prepared()[0])


def test_what_does_not_go_together_is_refused(toy, rng):
    mixed, logits, topk = (next(iter(crop_loader(kind, toy))) for kind in ("mixed", "dense_logits", "topk"))
    mix = Mixer(mixup=1.0).draw(16, 32, 32, rng)
    for batch, more, words in (
        (mixed, {"mix": mix}, "mix, got one for crops that are mixed already"),
        (logits, {"mix": mix, "teacher_temperature": None}, "mix, got one for bare logits"),
        (
            topk,
            {"teacher_temperature": 2.0},
            "teacher_temperature, got 2.0 for labels that are",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            batch.prepared(**more)
