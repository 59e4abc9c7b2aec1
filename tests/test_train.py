"""One process, whole runs on toy images: what comes out, what is refused."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from generating import make_teacher
from PIL import Image
from safetensors.torch import load_file
from toy import CLASSES, COMMON, draw_images, log_of, steps_of, write_labels

from fkdx.generate import main as generate
from fkdx.labels import fingerprint
from fkdx.train.loop import main


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Path:
    """data/train, data/val and labels.fkdl in a folder."""
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(run_seed)
    draw_images(folder / "data" / "train", 12, rng)
    draw_images(folder / "data" / "val", 5, rng)
    write_labels(folder / "labels.fkdl", folder / "data" / "train", rng)
    return folder


@pytest.fixture
def soft(toy, tmp_path) -> list[str]:
    """Arguments of a run from labels into an empty folder, tmp_path/run."""
    data = ["--data", str(toy / "data"), "--labels", str(toy / "labels.fkdl")]
    return [*COMMON, *data, "--output", str(tmp_path / "run"), "--epochs", "4"]


def refused(arguments: list[str], capsys) -> str:
    """The one line with which a run is refused."""
    capsys.readouterr()
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- what comes out -------------------------------------------------------------------------------------


def test_a_student_learns_from_labels_and_leaves_everything_behind(soft, tmp_path):
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
    names = {"args.yaml", "log.jsonl", "summary.csv", "curves.png", "last.pt", "best.pt"}
    assert {path.name for path in run.iterdir()} == names | {"best.safetensors", "last.safetensors"}
    assert yaml.safe_load((run / "args.yaml").read_text())["epochs"] == 4
    assert Image.open(run / "curves.png").size[0] > 500
    model = timm.create_model("test_convnext", num_classes=4, checkpoint_path=str(run / "best.safetensors"))
    assert len(model.state_dict()) > 10


def test_weights_load_as_a_backbone(soft, tmp_path):
    assert main([*soft, "--max-steps", "1"]) == 0
    weights = str(tmp_path / "run" / "last.safetensors")
    overlay = {"file": weights, "num_classes": 4}
    backbone = timm.create_model(
        "test_convnext", pretrained=True, features_only=True, pretrained_cfg_overlay=overlay
    )
    assert len(backbone(torch.zeros(1, 3, 64, 64))) == 4
    learned = load_file(weights)["stages.2.blocks.1.norm.weight"]
    assert backbone.state_dict()["stages_2.blocks.1.norm.weight"].equal(learned)


def test_the_baseline_learns_from_classes(toy, tmp_path):
    run = tmp_path / "run"
    arguments = ["--data", str(toy / "data"), "--output", str(run), "--hard", "--epochs", "4"]
    assert main([*COMMON, *arguments]) == 0
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
    keep = ["--kind", kind, "--topk", "3", "--crops", "6", "--interpolation", "bilinear", "-o", labels]
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
        ["--temperature", "2", "--label-kind", "marginal_renorm", "--choice", "cycle"],
    ],
    ids=["adamw", "bf16", "step", "temperature"],
)
def test_other_recipes_run(soft, tmp_path, more):
    assert main([*soft, *more, "--max-steps", "4"]) == 0
    assert all(np.isfinite(line["loss"]) for line in steps_of(tmp_path / "run"))


def test_accumulated_parts_give_the_gradient_of_the_whole(soft, tmp_path):
    whole = [*soft, "--max-steps", "4"]
    assert main(whole) == 0
    assert main([*whole, "--accumulate", "4", "--output", str(tmp_path / "parts")]) == 0
    for one, other in zip(steps_of(tmp_path / "run"), steps_of(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_evaluate_counts_real_labels_and_numbered_folders(soft, toy, tmp_path, capsys):
    assert main([*soft, "--max-steps", "6"]) == 0
    weights = ["--init", str(tmp_path / "run" / "last.safetensors"), "--evaluate", "--hard"]
    numbered = tmp_path / "v2"
    for number, name in enumerate(CLASSES):
        (numbered / str(number)).mkdir(parents=True)
        for file in (toy / "data" / "val" / name).iterdir():
            (numbered / str(number) / f"ILSVRC2012_val_{5 * number + int(file.stem) + 1:08}.jpg").symlink_to(
                file
            )
    capsys.readouterr()

    def score(*more: str) -> dict:
        arguments = [
            *COMMON,
            *weights,
            "--data",
            str(toy / "data"),
            "--output",
            str(tmp_path / "none"),
            *more,
        ]
        assert main(arguments) == 0
        return json.loads(capsys.readouterr().out)

    plain = score()
    assert plain["images"] == 20
    assert score("--val", str(numbered)) == plain
    truth = [[number // 5] for number in range(20)]
    (tmp_path / "real.json").write_text(json.dumps(truth))
    real = ["--val", str(numbered), "--real-labels", str(tmp_path / "real.json")]
    assert score(*real) == plain
    (tmp_path / "real.json").write_text(json.dumps([[0, 1, 2, 3], *[[]] * 19]))
    assert score(*real) == {"top1": 100.0, "top5": 100.0, "images": 1}
    assert not (tmp_path / "none").exists()


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


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--batch-size", "15"], "batch_size, got 15, expected a multiple of crops_per_image x processes"),
        (["--crops-per-image", "8"], "crops_per_image, got 8, expected at most the 6 in"),
        (["--batch-size", "512"], "one batch needs 256 images, got 48"),
        (["--data", "/nowhere"], "no such folder"),
        (["--labels", "/nowhere.fkdl"], "/nowhere.fkdl"),
        (["--val", "/nowhere"], "/nowhere"),
        (["--student", "resnet_1"], "Unknown model (resnet_1)"),
        (["--student", "nobody:model"], "cannot call nobody:model"),
        (["--label-kind", "soft"], "soft"),
        (["--student-args", "{num_classes: 7}"], "student"),
        (["--crop-per-image", "2"], "did you mean 'crops_per_image'"),
        (["--lr", "fast"], "lr, got 'fast', expected float"),
        (["--epochs", "0"], "epochs, got 0, expected more than 0"),
        (["--config", "fkd_resnet_50"], "fkd_resnet50"),
        (["--freeze", "[nothing.*]"], "no parameter matches"),
        (["--init", "/nowhere.pt"], "/nowhere.pt"),
        (["--output", "/proc/run"], "/proc/run"),
        (["--output", ""], "expected --output DIR"),
    ],
)
def test_bad_input_is_one_line(soft, tmp_path, capsys, change, words):
    line = refused([*soft, *change], capsys)
    assert words in line
    assert not list((tmp_path / "run").glob("*.pt")) if (tmp_path / "run").exists() else True


def test_other_images_under_the_same_names_are_refused(soft, toy, tmp_path, capsys, rng):
    images = toy / "data" / "train"
    files = [(path.relative_to(images).as_posix(), path.stat().st_size) for path in images.rglob("*.jpg")]
    write_labels(tmp_path / "right.fkdl", images, rng, dataset=fingerprint(files))
    assert main([*soft, "--labels", str(tmp_path / "right.fkdl"), "--max-steps", "1"]) == 0
    files[0] = (files[0][0], files[0][1] + 1)
    write_labels(tmp_path / "wrong.fkdl", images, rng, dataset=fingerprint(files))
    other = ["--labels", str(tmp_path / "wrong.fkdl"), "--output", str(tmp_path / "other")]
    assert "not those that were labelled" in refused([*soft, *other], capsys)


def test_other_images_than_the_teacher_saw_are_refused(soft, toy, tmp_path, capsys):
    images = shutil.copytree(toy / "data" / "train", tmp_path / "images")
    teacher = ["--teacher", "test_resnet", "--size", "32", "--crops", "2", "--topk", "2"]
    make_teacher(tmp_path / "weights.safetensors", classes=4)
    teacher += ["--checkpoint", str(tmp_path / "weights.safetensors")]
    assert generate(["--data", str(images), *teacher, "-o", str(tmp_path / "own.fkdl")]) == 0
    own = [*soft, "--labels", str(tmp_path / "own.fkdl"), "--data", str(images), "--max-steps", "1"]
    assert main([*own, "--output", str(tmp_path / "same")]) == 0
    (images / "red" / "0.jpg").write_bytes((images / "red" / "0.jpg").read_bytes() + b"\0")
    assert "not those that were labelled" in refused([*own, "--output", str(tmp_path / "other")], capsys)


def test_labels_of_mixed_crops_are_learned(soft, toy, tmp_path, capsys):
    make_teacher(tmp_path / "weights.safetensors", classes=4)
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(tmp_path / "weights.safetensors")]
    mixing = ["--mixup", "0.8", "--cutmix", "1", "--size", "32", "--crops", "4", "--topk", "2"]
    images, labels = str(toy / "data" / "train"), str(tmp_path / "mixed.fkdl")
    assert generate(["--data", images, *teacher, *mixing, "-o", labels]) == 0
    run = [*soft, "--labels", labels, "--max-steps", "3"]
    assert main(run) == 0
    assert steps_of(tmp_path / "run")[-1]["loss"] > 0
    other = [*run, "--output", str(tmp_path / "other")]
    assert "got crops of two images" in refused([*other, "--cutmix", "1"], capsys)
    assert "got crops of two images" in refused([*other, "--class-weight", "0.5"], capsys)


@pytest.mark.parametrize(
    ("flag", "module", "words"),
    [
        (["--tensorboard"], "torch.utils.tensorboard", "pip install tensorboard"),
        (["--wandb", "toy"], "wandb", "pip install wandb"),
    ],
)
def test_a_board_that_is_not_installed_is_named(soft, capsys, monkeypatch, flag, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    assert words in refused([*soft, *flag], capsys)


def test_boards_get_the_numbers_of_the_log(soft, tmp_path, monkeypatch):
    seen = []
    board = SimpleNamespace(
        init=lambda **_: SimpleNamespace(log=lambda numbers, step: seen.append((step, numbers)))
    )
    monkeypatch.setitem(sys.modules, "wandb", board)
    assert main([*soft, "--wandb", "toy", "--max-steps", "2"]) == 0
    losses = [(step, numbers["step/loss"]) for step, numbers in seen if "step/loss" in numbers]
    assert losses == [(line["step"], line["loss"]) for line in steps_of(tmp_path / "run")]
    assert any("evaluation/top1" in numbers for _, numbers in seen)


def test_images_without_labels_are_refused(soft, toy, tmp_path, capsys):
    draw_images(tmp_path / "more", 13, np.random.default_rng(0))
    assert "red/12.jpg" in refused([*soft, "--data", str(tmp_path / "more")], capsys).replace("blue", "red")


def test_folders_of_other_classes_are_refused(soft, tmp_path, capsys):
    draw_images(tmp_path / "other", 12, np.random.default_rng(0))
    (tmp_path / "other" / "red").rename(tmp_path / "other" / "rose")
    assert "r" in refused([*soft, "--data", str(tmp_path / "other")], capsys)
    assert "rose" in refused([*soft, "--val", str(tmp_path / "other")], capsys)


def test_resuming_another_recipe_or_model_names_what_differs(soft, tmp_path, capsys):
    assert main([*soft, "--max-steps", "1"]) == 0
    line = refused([*soft, "--lr", "0.5", "--epochs", "5"], capsys)
    assert "lr: 0.01 -> 0.5" in line
    assert "epochs: 4 -> 5" in line
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    state["state_dict"].pop("head.fc.weight")
    torch.save(state, tmp_path / "run" / "last.pt")
    assert "another model, 1 weights differ, first head.fc.weight" in refused(soft, capsys)


def test_a_damaged_checkpoint_is_refused(soft, tmp_path, capsys):
    assert main([*soft, "--max-steps", "1"]) == 0
    path = tmp_path / "run" / "last.pt"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)
    assert "damaged" in refused(soft, capsys)
    path.write_bytes(whole[:1000])
    assert "damaged" in refused(soft, capsys)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_images(soft, tmp_path, capsys):
    capsys.readouterr()
    assert main([*soft, "--lr", "1e30", "--nonfinite-limit", "3"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not finite 3 steps in a row" in line
    assert any(name in line for name in CLASSES)
    for path in (tmp_path / "run").glob("*.pt"):
        weights = torch.load(path, weights_only=True)["state_dict"].values()
        assert all(tensor.isfinite().all() for tensor in weights)
