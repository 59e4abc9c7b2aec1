"""Students of embeddings: what they learn and export, stages, k-NN, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from label_draws import write_labels
from safetensors.torch import load_file, save_file
from toy import CROPS, EMBEDDINGS, HEIGHT, WIDTH, log_of, same_end, steps_of, torchrun

from fkdx import CropLoader, cli
from fkdx.batch import Mixer
from fkdx.labels import LabelFile
from fkdx.labels.rewrite import writer_like
from fkdx.train.embedding import Embeddings
from fkdx.train.lesson import make_lesson
from fkdx.train.loop import main
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass, settings_at

D, E = EMBEDDINGS
STUDENT = ["--student", "test_resnet", "--size", "32", "--batch-size", "16", "--crops-per-image", "2"]
COMMON = [*STUDENT, "--lr", "0.05", "--log-every", "1", "--device", "cpu", "--deterministic"]
MOCO = "fkdx.models.heads:with_moco_v2"


@pytest.fixture
def options(toy: Path, embeddings: Path) -> list[str]:
    return ["--data", str(toy / "data"), "--labels", str(embeddings), "--epochs", "4", *COMMON]


@pytest.mark.parametrize("loss", ["cosine", "mse", "smooth_l1", "ce"])
def test_every_loss_is_learned(options: list[str], tmp_path: Path, loss: str) -> None:
    more = ["--embedding-loss", loss, "--projection", "mlp" if loss == "mse" else "linear", "--epochs", "12"]
    assert main([*options, *more, "--output", str(tmp_path)]) == 0
    steps = [line["loss"] for line in steps_of(tmp_path)]
    assert np.mean(steps[-4:]) < 0.95 * np.mean(steps[:4])  # cross-entropy does not end at 0
    exported = load_file(tmp_path / "last.safetensors")
    assert exported.keys() == timm.create_model("test_resnet", num_classes=0).state_dict().keys()
    assert not [line for line in log_of(tmp_path) if line["kind"] == "evaluation"]


def test_knn_then_classes(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stages = "[{knn: 5, epochs: 8}, {hard: true, epochs: 4, lr: 0.05}]"
    assert main([*options, "--stages", stages, "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "cls: 24 of 288 embeddings are zero vectors, kept out of the loss" in told
    assert "k-NN top-1" in told
    evaluations = [line for line in log_of(tmp_path) if line["kind"] == "evaluation"]
    assert {line["stage"] for line in evaluations} == {0, 1}
    assert all(line["images"] == 20 for line in evaluations)
    assert evaluations[-1]["top1"] > 60
    model = timm.create_model("test_resnet", num_classes=4)
    model.load_state_dict(load_file(tmp_path / "last.safetensors"))  # timm's names, with the classifier


def test_a_run_is_evaluated_by_its_own_recipe(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The classifier of its last stage, at that stage's size, and not the projections of the first."""
    stages = "[{epochs: 2}, {hard: true, epochs: 4, lr: 0.05, size: 48}]"
    assert main([*options, "--stages", stages, "--output", str(tmp_path)]) == 0
    last = [line for line in log_of(tmp_path) if line["kind"] == "evaluation"][-1]
    own = ["--config", str(tmp_path / "args.yaml"), "--init", str(tmp_path / "last.safetensors")]
    capsys.readouterr()
    assert main([*own, "--evaluate"]) == 0
    assert json.loads(capsys.readouterr().out) == {name: last[name] for name in ("top1", "top5", "images")}


def test_only_classes_are_evaluated(
    options: list[str], toy: Path, logits: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Neither embeddings nor a head's bare outputs are guesses of classes."""
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "a.safetensors")
    given = ["--evaluate", "--init", str(tmp_path / "a.safetensors"), "--knn", "5"]
    assert main([*options, *given]) == 1
    assert "evaluate, got embeddings, expected classes; `fkdx evaluate` measures" in capsys.readouterr().err
    assert main([*options, *given, "--labels", str(logits)]) == 1
    assert "classes, got 4 in" in capsys.readouterr().err


def test_bare_outputs_are_evaluated_by_knn(
    toy: Path, logits: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As in ssl_resnet50: the student has a projection head, whose outputs are no classes."""
    args = ["--student", MOCO, "--student-args", "{backbone: test_resnet, hidden: 16}", "--size", "32"]
    given = [*args, "--data", str(toy / "data"), "--labels", str(logits), "--batch-size", "16", "--knn", "5"]
    given += ["--crops-per-image", "2", "--epochs", "2", "--device", "cpu", "--output", str(tmp_path)]
    assert main(given) == 0
    assert "k-NN top-1" in capsys.readouterr().out
    (*_, last) = [line for line in log_of(tmp_path) if line["kind"] == "evaluation"]
    model = ["--model", "test_resnet", "--checkpoint", str(tmp_path / "last.safetensors"), "--device", "cpu"]
    mine = ["--size", "32", "--knn", str(toy / "data"), "-k", "5", "--json"]
    assert cli.run("evaluate", [*model, *mine]) == 0
    assert json.loads(capsys.readouterr().out)["knn"]["top1"] == pytest.approx(last["top1"], abs=10)


def test_neighbours_of_images_that_can_be_read(options: list[str], toy: Path, tmp_path: Path) -> None:
    val = shutil.copytree(toy / "data" / "val", tmp_path / "val")
    (val / "red" / "0.jpg").write_bytes(b"no image")
    more = ["--val", str(val), "--on-error", "skip", "--knn", "5", "--max-steps", "1"]
    assert main([*options, *more, "--output", str(tmp_path / "run")]) == 0
    last = log_of(tmp_path / "run")[-1]
    assert (last["images"], last["skipped"]) == (19, 1)


def test_a_second_run_starts_from_the_backbone(options: list[str], tmp_path: Path) -> None:
    assert main([*options, "--output", str(tmp_path / "a")]) == 0
    for weights in ("last.safetensors", "last.pt"):
        more = ["--labels", "", "--hard", "--init", str(tmp_path / "a" / weights), "--max-steps", "1"]
        assert main([*options, *more, "--output", str(tmp_path / weights)]) == 0


def test_resumes_exactly_in_both_stages(options: list[str], tmp_path: Path) -> None:
    stages = "[{epochs: 4}, {hard: true, epochs: 2}]"
    whole = [*options, "--stages", stages, "--ema", "0.9"]
    assert main([*whole, "--output", str(tmp_path / "whole")]) == 0
    total = len(steps_of(tmp_path / "whole"))
    for stop in (3, total - 2):
        assert main([*whole, "--max-steps", str(stop), "--output", str(tmp_path / "cut")]) == 0
    assert main([*whole, "--output", str(tmp_path / "cut")]) == 0
    assert same_end(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_two_processes_learn_the_same(options: list[str], tmp_path: Path) -> None:
    more = ["--knn", "5", "--student", "test_vit", "--student-args", "{img_size: 32}", "--max-steps", "4"]
    assert main([*options, *more, "--output", str(tmp_path / "one")]) == 0
    found = torchrun(2, [*options, *more, "--output", str(tmp_path / "two")])
    assert found.returncode == 0, found.stderr
    one, two = ([line["loss"] for line in steps_of(tmp_path / name)] for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-4)
    assert top1_of(tmp_path / "one") == top1_of(tmp_path / "two")


def top1_of(run: Path) -> list[float]:
    return [line["top1"] for line in log_of(run) if line["kind"] == "evaluation"]


def test_a_flat_folder_is_enough(toy: Path, embeddings: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (toy / "data" / "train").rglob("*.jpg"):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    labels = LabelFile(embeddings)
    sizes = {path.name: (HEIGHT, WIDTH) for path in sorted(flat.iterdir())}
    own = {key.replace("/", "-"): labels[key].values for key in labels.keys}
    rng, answers = np.random.default_rng(1), lambda key, _: {"values": own[key]}
    shape = {"num_classes": D, "k": E, "crops": CROPS, "smallest": 16}
    write_labels(tmp_path / "b.fkdl", rng, "embedding", sizes=sizes, answers=answers, **shape)
    given = ["--data", str(flat), "--labels", str(tmp_path / "b.fkdl"), "--epochs", "2", *COMMON]
    assert main([*given, "--output", str(tmp_path / "run")]) == 0
    assert len(steps_of(tmp_path / "run")) > 0


def test_targets_are_standardised_and_cut_by_area(toy: Path, embeddings: Path) -> None:
    labels = LabelFile(embeddings)
    loader = CropLoader(toy / "data" / "train", labels, 48, 1, 32, threads=1)
    batch = next(iter(loader))
    stage = Recipe(mean=[0.5] * 3, std=[0.5] * 3, labels=str(embeddings))
    mix = Mixer(cutmix=1.0).draw(48, 32, 32, np.random.default_rng(0))
    now = settings_at(stage, Pass(0, 1), 0.0)
    taught = make_lesson(stage, batch, mix, None, now, Embeddings.of(labels, "standardise")).taught
    stored = batch.target.double()
    zero = (stored[:, :D] == 0).all(dim=1)
    assert zero.any()
    lam = mix.lam.double()[:, None]
    for part, moments in zip((slice(0, D), slice(D, D + E)), labels.moments.values()):
        expected = (stored[:, part] - torch.from_numpy(moments.mean)) / torch.from_numpy(moments.divisor)
        if part.start == 0:
            expected[zero] = torch.nan
        expected = lam * expected + (1 - lam) * expected[mix.partners]
        np.testing.assert_allclose(taught[:, part], expected, rtol=1e-4, atol=1e-4)
    centred = Embeddings.of(labels, "centre").target(batch.target)
    bare = Embeddings.of(labels, "none").target(batch.target)
    means = np.concatenate([moments.mean for moments in labels.moments.values()])
    np.testing.assert_allclose(bare[~zero], stored[~zero], rtol=1e-6)
    np.testing.assert_allclose(centred[~zero], stored[~zero].numpy() - means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--temperature", "{schedule: fitted, first: 1, last: 2}"], "temperature, got"),
        (["--mixup", "0.2"], "mixup, got 0.2, expected 0: only CutMix and SelfMix, by their areas"),
        (["--calibrate", "[0.1, 0.2, 0.9]"], "calibrate, got [0.1, 0.2, 0.9], expected none for embeddings"),
        (["--choice", "easy_to_hard"], "choice, got easy_to_hard, expected independent or cycle"),
        (["--class-weight", "0.5"], "class_loss, got ce with embedding, whose outputs are no classes"),
        (["--teacher-temperature", "2"], "teacher_temperature, got 2.0 with labels of kind embedding"),
        (["--label-kind", "hard"], "label_kind, got hard with labels of kind embedding"),
        (["--teacher", "resnet18"], "teacher, got resnet18, expected none beside stored embeddings"),
        (["--embedding-loss", "l1"], "embedding_loss, got 'l1', expected one of cosine, mse"),
        (["--embedding-norm", "l2"], "embedding_norm, got 'l2'"),
        (["--projection", "conv"], "projection, got 'conv'"),
        (["--knn", "-1"], "knn, got -1"),
        (["--knn", "100"], "k-NN: k, got 100, expected 1 to the 48 training images"),
        (
            ["--student", MOCO, "--stages", "[{}, {hard: true}]"],
            "expected a timm model",
        ),
    ],
)
def test_refused(options: list[str], tmp_path: Path, change: list[str], words: str, capsys) -> None:
    assert main([*options, *change, "--output", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_stages_of_different_sizes_are_refused(
    options: list[str], embeddings: Path, tmp_path: Path, capsys
) -> None:
    labels = LabelFile(embeddings)
    other = tmp_path / "b.fkdl"
    with writer_like(labels, other, embeddings={"cls": D}) as writer:
        for image in labels:
            writer.add(image.key, image.boxes, image.flips, None, image.values[:, :D], image.image_size)
    assert (
        main([*options, "--stages", f"[{{}}, {{labels: {other}}}]", "--output", str(tmp_path / "run")]) == 1
    )
    assert "embeddings, got" in capsys.readouterr().err
    assert main([*options, "--ensemble", f"[{other}]", "--output", str(tmp_path / "run")]) == 1
    assert "fkdx merge" in capsys.readouterr().err
