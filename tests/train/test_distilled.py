"""Distilled sets: a student learns from packed labels what it would learn by the authors' own programs."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional
from toy import CLASSES, steps_of

from fkdx import CropLoader, LabelFile
from fkdx.commands.pack import main as pack
from fkdx.models.weights import trained_facts
from fkdx.stores import open_store
from fkdx.train.data import named_by_validation
from fkdx.train.loop import main
from fkdx.train.objective import losses
from fkdx.train.read_recipe import read_recipe
from fkdx.train.schedule import Settings

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import sre2l
from dataset_distillation import loss_gaps

SIZE, BATCH, EPOCHS, MEAN, STD = 32, 20, 3, [0.3, 0.4, 0.5], [0.2, 0.3, 0.4]


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=len(CLASSES)).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    return model


@pytest.fixture(scope="module")
def packed(toy, tmp_path_factory, run_seed) -> tuple[sre2l.Replayed, Path]:
    """Labels of the toy images as SRe2L makes them, to be replayed; and the same, packed."""
    folder, images = tmp_path_factory.mktemp("sre2l"), toy / "data" / "train"
    sre2l.relabel(images, network(run_seed), folder / "labels", EPOCHS, BATCH, SIZE, MEAN, STD)
    labels = folder / "labels.fkdl"
    given = [str(folder / "labels"), "-o", str(labels), "--images", str(images), "--mix-size", str(SIZE)]
    assert pack([*given, "--workers", "1"]) == 0
    return sre2l.Replayed(images, folder / "labels", SIZE, MEAN, STD), labels


def test_losses_are_those_of_sre2ls_own_procedure(packed, run_seed):
    """The crops, their mixing, the teacher's logits and the divergence, each made twice."""
    replayed, labels = packed
    gaps = loss_gaps(replayed, LabelFile(labels), network(run_seed + 1), BATCH)
    assert len(gaps) == 2
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("name", ["g_vbsm_resnet18", "edc_resnet18"])
def test_mse_gt_takes_the_class_of_the_crops_own_image(packed, run_seed, name):
    replayed, labels = packed
    stage = read_recipe(["--config", name])
    batch = next(iter(CropLoader(replayed.images.root, labels, BATCH, 1, SIZE)))
    pixels, logits = batch.prepared(MEAN, STD, teacher_temperature=None)
    output = network(run_seed + 1)(pixels)
    own = torch.tensor([CLASSES.index(key.split("/")[0]) for key in batch.keys])
    gamma = stage.teacher_loss_args["gamma"]
    expected = functional.mse_loss(output, logits) + gamma * functional.cross_entropy(output, own)
    classes = functional.one_hot(batch.classes, len(CLASSES)).float()
    found = losses(stage, Settings(0.0, 1.0, 1.0), output, logits, classes, bare=True).mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("recipe", "prefix"), [("sre2l_resnet18", "new0"), ("g_vbsm_resnet18", "0000")])
def test_folders_that_only_count_classes_are_named_by_validation(
    packed, toy, tmp_path, run_seed, capsys, recipe, prefix
):
    """Published sets lie in new000, new001, ... or in 00000, 00001, ...; validation images do not."""
    images, labels = tmp_path / "syn", tmp_path / "labels.fkdl"
    for number, name in enumerate(CLASSES):
        shutil.copytree(toy / "data" / "train" / name, images / f"{prefix}{number}")
    sre2l.relabel(images, network(run_seed), tmp_path / "fkd", EPOCHS, BATCH, SIZE, MEAN, STD)
    assert pack([str(tmp_path / "fkd"), "-o", str(labels), "--images", str(images), "--workers", "1"]) == 0
    scores = []
    for run, data, files in (("a", toy / "data" / "train", packed[1]), ("b", images, labels)):
        own = ["--data", str(data), "--labels", str(files), "--output", str(tmp_path / run)]
        small = ["--student", "test_resnet", "--student-args", "{}", "--size", str(SIZE), "--epochs", "2"]
        more = ["--batch-size", str(BATCH), "--log-every", "1", "--device", "cpu", "--deterministic"]
        val = ["--val", str(toy / "data" / "val"), "--eval-every", "2"]
        assert main(["--config", recipe, *own, *small, *more, *val]) == 0
        lines = (tmp_path / run / "log.jsonl").read_text().splitlines()
        scores.append((json.loads(lines[-1])["top1"], [line["loss"] for line in steps_of(tmp_path / run)]))
    assert scores[0] == scores[1]
    named = f"classes have the names of validation folders, in order: {prefix}0 is {CLASSES[0]}, ..., "
    assert named in "".join(capsys.readouterr())
    assert list(trained_facts(str(tmp_path / "b" / "last.safetensors"))["classes"]) == CLASSES


def test_other_names_are_no_counters(toy):
    """What is not sure to count the classes of the validation images keeps its names."""
    names = [f"new{number:03d}" for number in range(len(CLASSES))]
    stage = read_recipe(["--hard", "--data", str(toy / "data"), "--val", str(toy / "data" / "val")])
    assert named_by_validation(stage, names, None, open_store) == CLASSES
    for other in (
        names[:-1],
        names[::-1],
        [*names[:-1], CLASSES[0]],
        ["n3", *names[1:]],
        ["0", "1", "2", "3"],
    ):
        assert named_by_validation(stage, other, None, open_store) == other


@pytest.mark.parametrize("name", ["sre2l_resnet18", "g_vbsm_resnet18"])
def test_an_evaluation_is_one_command(packed, toy, tmp_path, name):
    """Mixed crops of all images: with drop_last false, a pass has a batch for the last ones too."""
    replayed, labels = packed
    data = ["--data", str(toy / "data"), "--labels", str(labels), "--output", str(tmp_path / "run")]
    small = [
        "--student",
        "test_resnet",
        "--student-args",
        "{}",
        "--size",
        str(SIZE),
        "--batch-size",
        str(BATCH),
    ]
    assert (
        main(["--config", name, *data, *small, "--epochs", "4", "--log-every", "1", "--device", "cpu"]) == 0
    )
    curve = [line["loss"] for line in steps_of(tmp_path / "run")]
    assert len(curve) == 4 * -(-len(replayed.images) // BATCH)
    assert 0 < curve[-1] < curve[0]
