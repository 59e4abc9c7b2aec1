"""One process, whole runs on toy images: what comes out."""

import csv
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from generating import make_teacher
from PIL import Image
from toy import CLASSES, log_of, steps_of, write_labels

from fkdx.generate import main as generate
from fkdx.models import heads
from fkdx.train import data
from fkdx.train.loop import main


def test_a_student_learns_from_labels_and_leaves_everything_behind(soft, tmp_path, curves_drawn):
    run = tmp_path / "run"
    assert main([*soft, "--ema", "0.5"]) == 0
    lines = steps_of(run)
    assert [line["step"] for line in lines] == list(range(1, 13))  # 6 for the first two epochs, then 3 and 3
    assert lines[-1]["loss"] < lines[0]["loss"]
    scores = [line for line in log_of(run) if line["kind"] == "evaluation"]
    assert [line["epoch"] for line in scores] == [2, 3, 4]
    assert scores[-1]["images"] == 20
    assert scores[-1]["top1"] > 50
    assert scores[-1]["top5"] == 100
    names = {"args.yaml", "log.jsonl", "summary.csv", "classes.csv", "curves.png", "last.pt", "best.pt"}
    assert {path.name for path in run.iterdir()} == names | {"best.safetensors", "last.safetensors"}
    assert yaml.safe_load((run / "args.yaml").read_text())["epochs"] == 4
    assert Image.open(run / "curves.png").size[0] > 500
    with (run / "summary.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["eval_top1"]) for row in rows] == [line["top1"] for line in scores]
    assert [(row["epoch"], float(row["lr"])) for row in rows] == [
        (epoch, lines[last]["lr"]) for epoch, last in (("2", 5), ("3", 8), ("4", 11))
    ]
    mean = sum(line["loss"] for line in lines[:6]) / 6
    assert float(rows[0]["train_loss"]) == pytest.approx(mean)
    with (run / "classes.csv").open() as table:
        classes = list(csv.DictReader(table))
    assert [(row["class"], row["images"]) for row in classes] == [(name, "5") for name in CLASSES]
    assert sum(float(row["top1"]) for row in classes) / 4 == pytest.approx(scores[-1]["top1"])


def test_the_baseline_learns_from_classes(soft, tmp_path):
    run = tmp_path / "run"
    assert main([*soft, "--labels", "", "--hard"]) == 0
    assert steps_of(run)[0]["loss"] == pytest.approx(np.log(4), abs=0.5)
    assert steps_of(run)[-1]["loss"] < steps_of(run)[0]["loss"]


@pytest.mark.parametrize(("kind", "apart"), [("dense", 5e-4), ("topk", 1e-3)])
def test_an_online_teacher_gives_the_loss_of_its_stored_labels(soft, toy, tmp_path, kind, apart):
    """The same teacher, crops and steps: labels stored in fp16 teach what the teacher itself would."""
    weights, labels = str(tmp_path / "run" / "last.safetensors"), str(tmp_path / "own.fkdl")
    assert main(soft) == 0
    pixels = ["--size", "32", "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25"]
    store = [
        "--data",
        str(toy / "data" / "train"),
        "--teacher",
        "test_convnext",
        "--checkpoint",
        weights,
        *pixels,
    ]
    most = ["--topk", "3"] if kind == "topk" else []
    keep = ["--kind", kind, *most, "--crops", "6", "--interpolation", "bilinear", "-o", labels]
    assert generate([*store, *keep]) == 0
    teacher_input = "{mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}"
    teacher = [
        "--teacher",
        "test_convnext",
        "--teacher-checkpoint",
        weights,
        "--teacher-input",
        teacher_input,
    ]
    for name, more in (("stored", []), ("online", teacher)):
        arguments = [*soft, "--labels", labels, *more, "--output", str(tmp_path / name)]
        assert main([*arguments, "--max-steps", "3"]) == 0
    for one, other in zip(steps_of(tmp_path / "stored"), steps_of(tmp_path / "online"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=apart)


@pytest.mark.parametrize(
    "more",
    [
        ["--optimizer", "adamw", "--clip-grad", "1.0", "--decay-all", "false"],
        ["--amp", "bf16", "--smooth"],
        ["--schedule", "step", "--decay-epochs", "[1, 2]", "--warmup-epochs", "1"],
        ["--amp", "fp16", "--clip-grad", "1.0"],
        ["--temperature", "2", "--label-kind", "marginal_renorm", "--choice", "cycle"],
    ],
    ids=["adamw", "bf16", "step", "fp16", "temperature"],
)
def test_other_recipes_run(soft, tmp_path, more):
    assert main([*soft, *more, "--max-steps", "4"]) == 0
    assert all(np.isfinite(line["loss"]) for line in steps_of(tmp_path / "run"))


def test_logits_of_the_best_classes_teach_as_their_probabilities(soft, toy, tmp_path, run_seed):
    """Labels of kind topk_logits, whose tails hold what the classes left out add up to."""
    for kind in ("topk", "topk_logits"):
        images, labels = toy / "data" / "train", tmp_path / f"{kind}.fkdl"
        write_labels(labels, images, np.random.default_rng(run_seed), kind, value_type="float32")
        run = ["--labels", str(labels), "--output", str(tmp_path / kind), "--max-steps", "3"]
        assert main([*soft, *run]) == 0
    for one, other in zip(steps_of(tmp_path / "topk"), steps_of(tmp_path / "topk_logits"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


@pytest.mark.parametrize("head", ["with_moco_v2", "with_swav"])
def test_a_student_with_a_head_learns_bare_outputs(soft, toy, tmp_path, rng, head):
    write_labels(tmp_path / "bare.fkdl", toy / "data" / "train", rng, "dense_logits", outputs=12)
    recipe = ["--config", "ssl_resnet50", *soft, "--labels", str(tmp_path / "bare.fkdl"), "--val", ""]
    student = ["--student", f"fkdx.train.student:{head}", "--data", str(toy / "data" / "train")]
    more = ["--student-args", "{backbone: test_resnet, hidden: 24}", "--max-steps", "12", "--lr", "0.001"]
    assert main([*recipe, *student, *more]) == 0
    losses = [line["loss"] for line in steps_of(tmp_path / "run")]
    assert sum(losses[-3:]) < sum(losses[:3])
    lengths = getattr(heads, head)(12, backbone="test_resnet")(torch.rand(4, 3, 32, 32)).norm(dim=1)
    assert (head == "with_moco_v2") == torch.allclose(lengths, torch.ones(4), atol=1e-5)


def test_the_scale_of_the_loss_in_fp16_is_resumed(soft, tmp_path):
    """With its count of good steps, after which it grows."""
    half = [*soft, "--amp", "fp16", "--lr", "1e-3"]
    for name, cuts in (("whole", ["4"]), ("cut", ["2", "4"])):
        for cut in cuts:
            assert main([*half, "--output", str(tmp_path / name), "--max-steps", cut]) == 0
    whole, cut = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["scaler"] == cut["scaler"]
    assert whole["scaler"]["_growth_tracker"] == 4
    assert all(cut["state_dict"][name].equal(weight) for name, weight in whole["state_dict"].items())


@pytest.mark.slow
def test_a_compiled_student_learns_like_a_plain_one_and_resumes(soft, tmp_path):
    runs = {"plain": [["4"], []], "whole": [["4"], ["--compile"]], "cut": [["2", "4"], ["--compile"]]}
    for name, (cuts, more) in runs.items():
        for cut in cuts:
            assert main([*soft, *more, "--output", str(tmp_path / name), "--max-steps", cut]) == 0
    plain, whole, cut = ([line["loss"] for line in steps_of(tmp_path / name)] for name in runs)
    assert whole == pytest.approx(plain, abs=1e-4)
    assert cut == whole
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True)["state_dict"] for name in runs]
    assert states[0].keys() == states[1].keys() == timm.create_model("test_convnext").state_dict().keys()
    assert all(states[2][name].equal(weight) for name, weight in states[1].items())


def test_accumulated_parts_give_the_gradient_of_the_whole(soft, tmp_path):
    whole = [*soft, "--max-steps", "4"]
    assert main(whole) == 0
    assert main([*whole, "--accumulate", "4", "--output", str(tmp_path / "parts")]) == 0
    for one, other in zip(steps_of(tmp_path / "run"), steps_of(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_stages_run_in_sequence(soft, tmp_path):
    recipe = tmp_path / "stages.yaml"
    stages = [
        {"epochs": 2},
        {"epochs": 1, "size": 40, "crops_per_image": 1, "lr": "1e-3", "freeze": ["stem.*"]},
    ]
    recipe.write_text(yaml.safe_dump({"stages": stages}))
    assert main(["--config", str(recipe), *soft[:-2]]) == 0
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["position"]["stage"] == 1
    assert steps_of(tmp_path / "run")[-1]["lr"] == 1e-3
    cut = ["--output", str(tmp_path / "cut")]
    for more in (["--max-steps", "4"], ["--max-steps", "5"], []):
        assert main(["--config", str(recipe), *soft[:-2], *cut, *more]) == 0
    again = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)
    assert all(again["state_dict"][name].equal(weight) for name, weight in state["state_dict"].items())


def test_a_frozen_norm_keeps_its_statistics(soft, tmp_path):
    """In every pass, also after an evaluation; the norms beside it learn theirs."""
    arguments = [*soft, "--student", "test_resnet", "--freeze", "[conv1*, bn1*]"]
    assert main(arguments) == 0
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["state_dict"]
    assert state["bn1.running_mean"].count_nonzero() == state["bn1.num_batches_tracked"] == 0
    assert state["layer1.0.bn1.num_batches_tracked"] == 12


def test_a_student_may_ask_for_planes_one_behind_the_other(soft, tmp_path, monkeypatch):
    """In training and evaluation: `view` works in no other memory."""
    (tmp_path / "viewing.py").write_text(
        "from torch import nn\n\nclass Viewing(nn.Module):\n    def __init__(self, classes):\n"
        "        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 8, 8)\n"
        "        self.fc = nn.Linear(64, classes)\n\n    def forward(self, images):\n"
        "        return self.fc(self.conv(images).view(len(images), -1))\n\n"
        "def model(num_classes):\n    return Viewing(num_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = [*soft, "--student", "viewing:model", "--channels-last", "false", "--max-steps", "1"]
    assert main(own) == 0
    more = ["--labels", "", "--hard", "--loader", "timm", "--crops-per-image", "1", "--threads", "0"]
    assert main([*own, *more, "--output", str(tmp_path / "timm")]) == 0


def test_a_student_may_keep_what_its_first_crop_made(soft, tmp_path, monkeypatch):
    """The crop that is shown to it before the run begins."""
    (tmp_path / "keeping.py").write_text(
        "import timm, torch\n\nclass Keeping(torch.nn.Module):\n    def __init__(self, classes):\n"
        "        super().__init__()\n        self.net, self.grid = timm.create_model('test_resnet'), None\n"
        "        self.net.reset_classifier(classes)\n"
        "        self.scale = torch.nn.Parameter(torch.ones(()))\n\n"
        "    def forward(self, images):\n        if self.grid is None:\n"
        "            self.grid = torch.linspace(0.5, 1, images.shape[-1])\n"
        "        return self.net(images * (self.scale * self.grid))\n\n"
        "def model(num_classes):\n    return Keeping(num_classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*soft, "--student", "keeping:model", "--max-steps", "1"]) == 0


def test_boards_get_the_numbers_of_the_log(soft, tmp_path, monkeypatch):
    seen = {"wandb": [], "tensorboard": []}
    run = SimpleNamespace(log=lambda numbers, step: seen["wandb"].extend((step, *n) for n in numbers.items()))
    writer = SimpleNamespace(
        add_scalar=lambda name, value, step: seen["tensorboard"].append((step, name, value)),
        flush=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run))
    board = SimpleNamespace(SummaryWriter=lambda folder, purge_step: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    assert main([*soft, "--wandb", "toy", "--tensorboard", "--max-steps", "2"]) == 0
    assert seen["wandb"] == seen["tensorboard"]
    losses = [(step, value) for step, name, value in seen["wandb"] if name == "step/loss"]
    assert losses == [(line["step"], line["loss"]) for line in steps_of(tmp_path / "run")]
    assert any(name == "evaluation/top1" for _, name, _ in seen["wandb"])


def test_labels_of_mixed_crops_are_learned(soft, toy, tmp_path):
    make_teacher(tmp_path / "weights.safetensors", classes=4)
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(tmp_path / "weights.safetensors")]
    mixing = ["--mixup", "0.8", "--cutmix", "1", "--size", "32", "--crops", "4", "--topk", "2"]
    images, labels = str(toy / "data" / "train"), str(tmp_path / "mixed.fkdl")
    assert generate(["--data", images, *teacher, *mixing, "-o", labels]) == 0
    assert main([*soft, "--labels", labels, "--max-steps", "3"]) == 0
    assert steps_of(tmp_path / "run")[-1]["loss"] > 0


def test_labels_and_images_are_opened_once(soft, toy, monkeypatch):
    """For all checks, stages and passes together, though the crops of an image change from pass to pass."""
    opened = []
    for name in ("LabelFile", "open_store"):
        real = getattr(data, name)
        monkeypatch.setattr(
            data, name, lambda path, *more, real=real: (opened.append(str(path)), real(path, *more))[1]
        )
    stages = "[{warmup_epochs: 1}, {epochs: 2}, {epochs: 2, crops_per_image: 1}]"
    assert main([*soft, "--stages", stages]) == 0
    images = [str(toy / "data" / split) for split in ("train", "val")]
    assert sorted(opened) == sorted([*images, str(toy / "labels.fkdl")])
