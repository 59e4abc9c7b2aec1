"""What a run refuses, in one line, and what it says of it."""

import re
import shutil
import sys
import zipfile
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from generating import make_teacher
from toy import CLASSES, draw_images, write_embeddings, write_labels

from fkdx.generate import main as generate
from fkdx.labels import LabelFile, fingerprint, size_marks
from fkdx.labels.rewrite import writer_like
from fkdx.train.checks import check_loader
from fkdx.train.loop import main
from fkdx.train.recipe import Recipe

TIMM = ["--labels", "", "--hard", "--loader", "timm", "--crops-per-image", "1", "--interpolation", "random"]


def refused(arguments: list[str], capsys) -> str:
    """The one line with which a run is refused."""
    capsys.readouterr()
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "train: train:" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--batch-size", "15"], "batch_size, got 15, expected a multiple of crops_per_image x processes"),
        (["--crops-per-image", "8"], "crops_per_image, got 8, expected at most the 6 in"),
        (["--batch-size", "512"], "a batch needs 512 images, but there are only 48"),
        (
            ["--batch-size", "96"],
            "a batch needs 96 images, but there are only 48",
        ),  # of the last epochs, of single crops
        (["--stages", "[{}, {batch_size: 64}]"], "a batch needs 64 images, but there are only 48"),
        ([*TIMM, "--stages", "[{}, {batch_size: 64}]"], "a batch needs 64 images, but there are only 48"),
        (["--data", "/nowhere"], "no such folder"),
        (["--labels", "/nowhere.fkdl"], "/nowhere.fkdl"),
        (["--val", "/nowhere"], "/nowhere"),
        (["--student", "resnet_1"], "Unknown model (resnet_1)"),
        (["--student", "nobody:model"], "cannot call nobody:model"),
        (["--label-kind", "soft"], "soft"),
        (["--student-args", "{num_classes: 7}"], "student"),
        (["--crop-per-image", "2"], "did you mean 'crops_per_image'"),
        (["--lr", "fast"], "lr, got 'fast', expected float"),
        (["--epochs", "0"], "epochs, got 0, expected at least 1"),
        (["--scale", "[]"], "scale, got [], expected 2 numbers"),
        (["--config", "fkd_resnet_50"], "fkd_resnet50"),
        (["--freeze", "[nothing.*]"], "no parameter matches"),
        (["--init", "/nowhere.pt"], "/nowhere.pt"),
        (["--output", "/proc/run"], "/proc/run"),
        (["--output", ""], "expected --output DIR"),
        (["--optimizer", "adamx"], "optimizer: cannot build adamx"),
        (["--optimizer", "adahessian"], "adahessian needs second-order gradients"),
        (["--optimizer-args", "{speed: 1}"], "cannot build momentum with {'speed': 1}"),
        (["--stages", "[{}, {freeze: [nothing.*]}]"], "no parameter matches, got 'nothing.*'"),
        (["--stages", "[{}, {optimizer: adamx}]"], "optimizer: cannot build adamx"),
        (["--sync-bn"], "sync_bn, got a CPU, expected CUDA; leave it out"),
        (["--device", "tpu"], "device: got tpu, expected cpu, cuda, cuda:N or auto"),
        (["--amp", "fp8"], "amp, got 'fp8', expected one of none, bf16, fp16"),
        (
            ["--student", "deit_tiny_patch16_224"],
            "choose another --size, or a model of that size: --student-args '{img_size: 32}'",
        ),
        (["--teacher-temperature", "2"], "teacher_temperature, got 2.0 with labels of kind topk, expected 1"),
        (
            ["--accumulate", "3"],
            "expected a multiple of crops_per_image x processes (2 x 1) and of",
        ),
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
    moved = shutil.copytree(toy / "data", tmp_path / "moved")
    with next((moved / "train").rglob("*.jpg")).open("ab") as image:
        image.write(b"more")
    more = ["--labels", str(tmp_path / "right.fkdl"), "--data", str(moved)]
    assert "not those that were labelled" in refused([*soft, *more], capsys)
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    assert "not those that were labelled" in refused([*soft, *more, "--resume", "never"], capsys)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log  # nothing was begun
    later = f"[{{}}, {{labels: {tmp_path / 'wrong.fkdl'}}}]"
    line = refused([*soft, "--stages", later, "--output", str(tmp_path / "later")], capsys)
    assert "not those that were labelled" in line
    assert not (tmp_path / "later").exists()


def test_some_of_the_images_are_checked_one_by_one(soft, toy, tmp_path, capsys, rng):
    """What is here must be what was labelled, also where an image is missing."""
    moved = shutil.copytree(toy / "data", tmp_path / "moved")
    paths = sorted((moved / "train").rglob("*.jpg"))
    files = [(path.relative_to(moved / "train").as_posix(), path.stat().st_size) for path in paths]
    dataset = fingerprint(files) | {"sizes": size_marks(np.array([size for _, size in files]))}
    write_labels(tmp_path / "l.fkdl", moved / "train", rng, dataset=dataset)
    paths[3].unlink()
    more = ["--labels", str(tmp_path / "l.fkdl"), "--data", str(moved), "--on-missing", "ignore"]
    with pytest.warns(UserWarning, match=rf"{len(paths) - 1} of the {len(paths)} images .* are here, "):
        assert main([*soft, *more, "--max-steps", "1"]) == 0
    dataset = fingerprint([*files, ("ant/unreadable.jpg", 7)])
    write_labels(tmp_path / "most.fkdl", moved / "train", rng, dataset=dataset)
    most = ["--labels", str(tmp_path / "most.fkdl"), "--output", str(tmp_path / "most")]
    some = rf"{len(paths) - 1} of the data set's {len(paths) + 1} images have labels, so their fingerprint"
    with pytest.warns(UserWarning, match=some):
        assert main([*soft, *more, *most, "--max-steps", "1"]) == 0
    for path in paths[5:]:
        with path.open("ab") as image:
            image.write(b"more")
    with pytest.warns(UserWarning, match="are here, "):
        line = refused([*soft, *more, "--output", str(tmp_path / "other")], capsys)
    assert f"other bytes in {len(paths) - 5} of {len(paths) - 1} images, such as " in line


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


def test_images_without_labels_are_refused(soft, toy, tmp_path, capsys):
    draw_images(tmp_path / "more", 13, np.random.default_rng(0))
    more = ["--data", str(tmp_path / "more"), "--check-images"]  # otherwise nobody lists the folder
    assert "red/12.jpg" in refused([*soft, *more], capsys).replace("blue", "red")


def test_folders_of_other_classes_are_refused(soft, tmp_path, capsys):
    draw_images(tmp_path / "other", 12, np.random.default_rng(0))
    (tmp_path / "other" / "red").rename(tmp_path / "other" / "rose")
    assert "of 48 labels that were looked at, 12 have no image (such as red/0.jpg)" in refused(
        [*soft, "--data", str(tmp_path / "other")], capsys
    )
    assert "rose" in refused([*soft, "--val", str(tmp_path / "other")], capsys)
    later = f"[{{}}, {{val: {tmp_path / 'other'}}}]"
    assert "such as 'blue'" in refused([*soft, "--stages", later], capsys)
    assert not (tmp_path / "run").exists()


def test_numbers_of_classes_that_differ_are_refused(soft, toy, tmp_path, capsys, rng, monkeypatch):
    """Between labels and folder, and between labels and student."""
    write_labels(tmp_path / "five.fkdl", toy / "data" / "train", rng, "topk", 5)
    line = refused([*soft, "--labels", str(tmp_path / "five.fkdl")], capsys)
    assert "classes, got 4 in" in line
    assert "expected the 5 of" in line
    (tmp_path / "models.py").write_text(
        "import timm\n\ndef three(num_classes):\n    return timm.create_model('test_resnet', num_classes=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = refused([*soft, "--student", "models:three"], capsys)
    assert "models:three gives (1, 3), expected (1, 4): one value a class" in line


def test_what_only_a_later_pass_or_stage_would_meet_is_refused_at_once(soft, toy, tmp_path, capsys, rng):
    """An image with a single crop, labels that cannot be calibrated, more neighbours than images."""
    labels = LabelFile(toy / "labels.fkdl")
    with writer_like(labels, tmp_path / "few.fkdl", crops=None) as writer:
        for place, own in enumerate(labels):
            some = slice(6 if place else 1)
            boxes, flips, ids, values = own.boxes[some], own.flips[some], own.ids[some], own.values[some]
            writer.add(own.key, boxes, flips, ids, values, own.image_size)
    write_labels(tmp_path / "hard.fkdl", toy / "data" / "train", rng, "hard")
    write_embeddings(tmp_path / "embeddings.fkdl", toy / "data" / "train")
    hard = f"{{labels: {tmp_path / 'hard.fkdl'}, label_kind: hard, calibrate: [0.1, 0.2, 0.9]}}"
    for more, words in (
        (["--labels", str(tmp_path / "few.fkdl"), "--warmup-epochs", "1"], "1 of 48 images have fewer"),
        (["--stages", f"[{{}}, {hard}]"], "labels, got hard ones, expected probabilities"),
        (["--labels", str(tmp_path / "embeddings.fkdl"), "--knn", "49"], "k, got 49, expected 1 to the 48"),
    ):
        assert words in refused([*soft, *more], capsys)
        assert not (tmp_path / "run").exists()


def test_labels_of_every_teacher_must_give_the_targets(soft, toy, tmp_path, capsys):
    """Where only the largest probability is kept, renormalising it would make a hard label of it."""
    labels = LabelFile(toy / "labels.fkdl")
    with writer_like(labels, tmp_path / "one.fkdl", kind="smoothing", k=1) as writer:
        for own in labels:
            writer.add(own.key, own.boxes, own.flips, own.ids[:, :1], own.values[:, :1], own.image_size)
    more = ["--ensemble", f"[{tmp_path / 'one.fkdl'}]", "--label-kind", "marginal_renorm"]
    line = refused([*soft, *more], capsys)
    assert "label_kind, got marginal_renorm with labels of kind smoothing" in line
    assert line.endswith("one.fkdl")


def test_every_process_needs_an_even_number_of_crops_for_timm():
    stage = Recipe(loader="timm", hard=True, crops_per_image=1, batch_size=6)
    check_loader(stage, None, SimpleNamespace(size=1))
    with pytest.raises(ValueError, match="got 6, expected an even number for loader timm for each of 2 proc"):
        check_loader(stage, None, SimpleNamespace(size=2))


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("hard", [], "label_kind, got marginal_smoothing with labels of kind hard, expected hard"),
        ("dense_logits", ["--label-kind", "hard"], "of kind dense_logits, expected marginal_smoothing"),
        ("dense_logits", ["--class-weight", "0.5"], "dense logits, whose outputs are no classes"),
        ("dense_logits", ["--mixup", "1"], "mixing, got labels that are bare logits"),
        ("dense", ["--teacher-temperature", "2"], "of kind dense, expected 1: only logits can be divided"),
        (
            "topk",
            ["--teacher-temperature", "{schedule: cosine, first: 20, last: 2}"],
            "with labels of kind topk, expected 1: only logits can be divided by another one, not probabi",
        ),
        ("topk_logits", ["--teacher-loss", "kl"], "got kl with labels of kind topk_logits, expected ce or"),
        (
            "dense_logits",
            ["--teacher-loss", "kl", "--teacher-temperature", "2"],
            "got 2.0 with kl, expected 1",
        ),
        (
            "dense_logits",
            ["--teacher-loss", "kl", "--temperature", "{schedule: fitted, first: 1, last: 0.1}"],
            "temperature, got a fitted one with kl, expected ce or plain_kl with it",
        ),
        (
            "dense_logits",
            ["--teacher-loss", "mse_gt", "--teacher-loss-args", "{beta: 1}"],
            "expected ['gamma']",
        ),
    ],
)
def test_targets_that_labels_cannot_give_are_refused(soft, toy, tmp_path, capsys, rng, kind, more, words):
    write_labels(tmp_path / "own.fkdl", toy / "data" / "train", rng, kind)
    assert words in refused([*soft, "--labels", str(tmp_path / "own.fkdl"), *more], capsys)


def test_more_than_the_crops_of_mixed_labels_is_refused(soft, toy, tmp_path, capsys):
    make_teacher(tmp_path / "weights.safetensors", classes=4)
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(tmp_path / "weights.safetensors")]
    mixing = ["--mixup", "0.8", "--size", "32", "--crops", "2", "--topk", "2"]
    images, labels = str(toy / "data" / "train"), str(tmp_path / "mixed.fkdl")
    assert generate(["--data", images, *teacher, *mixing, "-o", labels]) == 0
    for more in (
        ["--cutmix", "1"],
        ["--class-weight", "0.5"],
        ["--class-weight", "0.1", "--teacher-loss", "plain_kl"],
    ):
        assert "got crops of two images" in refused([*soft, "--labels", labels, *more], capsys)


def test_resuming_another_recipe_or_model_names_what_differs(soft, tmp_path, capsys):
    assert main([*soft, "--max-steps", "1"]) == 0
    line = refused([*soft, "--lr", "0.5", "--epochs", "5"], capsys)
    assert "lr: 0.01 -> 0.5" in line
    assert "epochs: 4 -> 5" in line
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    state["state_dict"].pop("head.fc.weight")
    torch.save(state, tmp_path / "run" / "last.pt")
    assert "another model, 1 weights differ, first head.fc.weight" in refused(soft, capsys)


def test_resuming_with_other_images_is_refused(soft, toy, tmp_path, capsys):
    """Without labels, which know their images, by the images' names; where they lie does not matter."""
    hard = [*soft, "--labels", "", "--hard"]
    assert main([*hard, "--max-steps", "1"]) == 0
    moved = shutil.copytree(toy / "data", tmp_path / "moved")
    assert main([*hard, "--data", str(moved), "--max-steps", "2"]) == 0
    (moved / "train" / "red" / "3.jpg").unlink()
    line = refused([*hard, "--data", str(moved)], capsys)
    assert "resume: the checkpoint is of other images, expected those it began with" in line
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    state["labels"] = ["classes"]  # as written by older versions
    torch.save(state, tmp_path / "run" / "last.pt")
    assert main([*hard, "--max-steps", "2"]) == 0


def test_a_damaged_checkpoint_is_refused(soft, tmp_path, capsys):
    assert main([*soft, "--max-steps", "1"]) == 0
    path = tmp_path / "run" / "last.pt"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)
    assert "damaged" in refused(soft, capsys)
    path.write_bytes(whole[:1000])
    assert "damaged" in refused(soft, capsys)
    torch.save({"position": {}, "args": Namespace(model="resnet50")}, path)
    assert "expected a checkpoint of fkdx train" in refused(soft, capsys)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"none")
    assert "expected a checkpoint of fkdx train" in refused(soft, capsys)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_images(soft, tmp_path, capsys):
    capsys.readouterr()
    assert main([*soft, "--lr", "1e30", "--nonfinite-limit", "3"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not finite 3 steps in a row" in line
    assert any(name in line for name in CLASSES)
    for path in (tmp_path / "run").glob("*.pt"):
        weights = torch.load(path, weights_only=True)["state_dict"].values()
        assert all(tensor.isfinite().all() for tensor in weights)


def test_a_run_that_ends_on_a_loss_that_is_not_finite_fails(soft, tmp_path, capsys):
    """Before the limit is reached."""
    arguments = [*soft, "--lr", "1e30", "--nonfinite-limit", "99", "--max-steps", "4"]
    assert "the last loss is not finite" in refused(arguments, capsys).splitlines()[-1]
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize("more", [["--hard"], [*TIMM, "--class-weight", "0.5"]])
def test_training_images_without_a_class_are_named(soft, toy, tmp_path, capsys, rng, more):
    images = shutil.copytree(toy / "data" / "train", tmp_path / "train")
    shutil.copy(images / "red" / "0.jpg", images / "stray.jpg")
    line = refused([*soft, *more, "--data", str(images), "--on-missing", "ignore"], capsys)
    assert re.search(r"1 (of 49 )?images (are in no class folder|have no class).*stray.jpg", line)
