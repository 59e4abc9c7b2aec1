"""`--evaluate`: exact totals on a validation folder, on numbered folders and with ImageNet-ReaL's labels."""

import json
import os
import shutil
import signal
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from images import cut_short, other_jfif
from PIL import Image
from toy import CLASSES, COMMON, log_of, make_toy, torchrun

from fkdx.loader import ValidationLoader
from fkdx.models.weights import trained_facts
from fkdx.train.checkpoint import save_weights
from fkdx.train.data import told_classes
from fkdx.train.distributed import Stop, World
from fkdx.train.evaluate import evaluate
from fkdx.train.loop import main
from fkdx.train.recipe import Recipe

IMAGES = 5  # of each class
TRUTH = [[place // IMAGES] for place in range(IMAGES * len(CLASSES))]


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Path:
    """A run of a few steps, and v2: the validation images as ImageNetV2 and ILSVRC2012 name them."""
    folder = tmp_path_factory.mktemp("toy")
    data = make_toy(folder, run_seed)
    assert main([*COMMON, *data, "--max-steps", "3", "--output", str(folder / "run")]) == 0
    for number, name in enumerate(CLASSES):
        (folder / "v2" / str(number)).mkdir(parents=True)
        for file in (folder / "data" / "val" / name).iterdir():
            place = IMAGES * number + int(file.stem) + 1
            (folder / "v2" / str(number) / f"ILSVRC2012_val_{place:08}.jpg").symlink_to(file)
    return folder


def arguments(toy: Path, *more: str) -> list[str]:
    weights = ["--init", str(toy / "run" / "last.safetensors"), "--evaluate"]
    return [*COMMON, *weights, "--data", str(toy / "data"), "--output", str(toy / "none"), *more]


@pytest.fixture
def score(toy, capsys):
    """What `--evaluate` with more arguments prints."""

    def score(*more: str) -> dict:
        capsys.readouterr()
        assert main(arguments(toy, *more)) == 0
        assert not (toy / "none").exists()
        return json.loads(capsys.readouterr().out)

    return score


def real_labels(folder: Path, classes: object) -> list[str]:
    (folder / "real.json").write_text(json.dumps(classes))
    return ["--real-labels", str(folder / "real.json")]


def test_the_score_is_that_of_the_last_evaluation(toy, score):
    last = [json.loads(line) for line in (toy / "run" / "log.jsonl").read_text().splitlines()][-1]
    assert score() == {name: last[name] for name in ("top1", "top5", "images")}


def v2(toy: Path) -> list[str]:
    """The same images in folders named 0 to 3, with a word about whose numbers these are."""
    return ["--val", str(toy / "v2"), "--classes", "labels"]


def test_folders_may_be_numbers_of_classes(toy, score, tmp_path, capsys):
    assert score(*v2(toy)) == score()
    assert score(*v2(toy), "--data", "") == score()
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    assert score("--val", str(toy / "v2"), "--classes", str(tmp_path / "names.txt")) == score()
    capsys.readouterr()
    assert main(arguments(toy, "--val", str(toy / "v2"))) == 1
    assert "numbers need --classes FILE, or --classes labels" in capsys.readouterr().err


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Path:
    """Eleven classes named 0 to 10, each of a shade of its own."""
    folder = tmp_path_factory.mktemp("numbered")
    for split in ("train", "val"):
        for number in range(11):
            (folder / split / str(number)).mkdir(parents=True)
            for image in range(2):
                shade = Image.new("L", (40, 40), 20 * number + 10)
                shade.save(folder / split / str(number) / f"{image}.jpg", quality=95)
    return folder


@pytest.mark.parametrize("named", [True, False])
def test_numbers_that_are_names_of_classes_are_in_their_own_order(
    numbered, tmp_path, capsys, monkeypatch, named
):
    """0, 1, 2, ..., 10, with the training's folders and without them."""
    (tmp_path / "by_shade.py").write_text(
        "import torch\n\nclass Shades(torch.nn.Module):\n"
        "    def __init__(self, shades):\n        super().__init__()\n"
        "        self.shades = torch.nn.Parameter(torch.tensor(shades))\n\n"
        "    def forward(self, images):\n"
        "        return -(images.mean((1, 2, 3))[:, None] - self.shades).abs()\n\n"
        "def model(num_classes, shades):\n    return Shades(shades)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shades = [(20 * number + 10) / 255 for number in range(11)]
    recipe = ["--student", "by_shade:model", "--student-args", f"{{shades: {shades}}}", "--size", "32"]
    recipe += ["--mean", "[0, 0, 0]", "--std", "[1, 1, 1]", "--batch-size", "4", "--device", "cpu"]
    save_weights(tmp_path / "weights.safetensors", import_module("by_shade").model(11, shades))
    data = ["--data", str(numbered)] if named else ["--val", str(numbered / "val")]
    capsys.readouterr()
    assert (
        main([*recipe, *data, "--evaluate", "--hard", "--init", str(tmp_path / "weights.safetensors")]) == 0
    )
    assert json.loads(capsys.readouterr().out)["top1"] == 100


def test_validation_images_are_resized_as_asked(score):
    with patch("fkdx.train.data.ValidationLoader", wraps=ValidationLoader) as made:
        score("--eval-interpolation", "bicubic")
        score()
    assert [call.kwargs["interpolation"] for call in made.call_args_list] == ["bicubic", "bilinear"]


def test_real_labels_count_a_guess_among_them(toy, score, tmp_path):
    numbers = v2(toy)
    assert score(*numbers, *real_labels(tmp_path, TRUTH)) == score()
    nothing = [[] for _ in TRUTH]
    everything = list(range(len(CLASSES)))
    found = score(*numbers, *real_labels(tmp_path, [everything, *nothing[1:]]))
    assert found == {"top1": 100.0, "top5": 100.0, "images": 1}
    wrong = [[(classes[0] + 1) % 4] for classes in TRUTH]
    assert score(*numbers, *real_labels(tmp_path, wrong))["top1"] <= 100 - score()["top1"]


class Keeping(torch.nn.Module):
    """As LeViT and TinyViT of timm 1.0.20 keep their attention's biases."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.kept = torch.nn.Parameter(torch.zeros(4)), None

    def train(self, mode: bool = True) -> "Keeping":
        if mode:
            self.kept = None
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kept is None or self.training:
            self.kept = self.bias.detach() * 2
        return self.kept.expand(len(images), 4)


def test_weights_that_changed_meanwhile_are_those_that_are_evaluated(toy):
    """Those of an average, which never trains."""
    loader = ValidationLoader(toy / "data" / "val", 8, 32, threads=1)
    recipe, world, model = Recipe(mean=[0.5] * 3, std=[0.5] * 3), World(), Keeping()
    for guess in (1, 3):
        with torch.no_grad():
            model.bias.copy_(torch.eye(4)[guess])
        counts = evaluate(model, loader, recipe, world, Stop(world)).classes
        assert [int(right) for _, right in counts] == [IMAGES * (number == guess) for number in range(4)]


def test_a_signal_ends_an_evaluation_in_one_line(toy, capsys, monkeypatch):
    evaluate = import_module("fkdx.train.evaluate")
    guesses = evaluate.guesses

    def interrupted(logits):
        os.kill(os.getpid(), signal.SIGTERM)
        return guesses(logits)

    monkeypatch.setattr(evaluate, "guesses", interrupted)
    capsys.readouterr()
    assert main(arguments(toy)) == 128 + signal.SIGTERM
    assert capsys.readouterr() == ("", "fkdx train: stopped by SIGTERM\n")


@pytest.mark.slow
def test_two_processes_count_every_image_once(toy, score, tmp_path):
    """20 images in batches of 8 over two processes, with 19 that count."""
    more = [*v2(toy), *real_labels(tmp_path, [[], *TRUTH[1:]])]
    done = torchrun(2, arguments(toy, *more))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == score(*more)
    assert json.loads(done.stdout)["images"] == 19


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"a": 1}, "expected a list of lists of classes"),
        ([1, 2], "expected a list of lists of classes"),
        (TRUTH[:7], "expected ILSVRC2012_val_ and 1 to 7"),
        ([[] for _ in TRUTH], "no image to count"),
    ],
)
def test_real_labels_of_something_else_are_refused(toy, tmp_path, capsys, classes, words):
    capsys.readouterr()
    assert main(arguments(toy, *v2(toy), *real_labels(tmp_path, classes))) == 1
    assert words in capsys.readouterr().err


def test_what_cannot_be_evaluated_is_refused(toy, tmp_path, capsys):
    (tmp_path / "bad.json").write_text("[[1")
    os.mkfifo(tmp_path / "pipe.json")
    for more, words in (
        (["--real-labels", str(tmp_path / "bad.json")], "not JSON"),
        (["--real-labels", str(tmp_path / "no.json")], "no.json"),
        (["--real-labels", str(tmp_path / "pipe.json")], "no such file"),
        (["--real-labels", *real_labels(tmp_path, TRUTH)[1:]], "the image's name, got blue/0.jpg"),
        (["--init", ""], "nothing to evaluate"),
        (["--init", str(tmp_path / "bad.json")], "cannot read weights"),
    ):
        capsys.readouterr()
        assert main(arguments(toy, *more)) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert words in lines[0]


def test_weights_bring_their_class_names(toy, score, tmp_path, capsys):
    """--evaluate alone: the names of classes come with the weights, in the order of the training."""
    val = tmp_path / "val"
    shutil.copytree(toy / "data" / "val", val)
    (val / "blue").rename(tmp_path / "blue")  # a folder fewer than classes
    capsys.readouterr()
    found = score("--val", str(val), "--data", "")
    assert found["images"] == IMAGES * (len(CLASSES) - 1)
    shutil.move(tmp_path / "blue", val / "blue")
    assert score("--val", str(val), "--data", "") == score()
    assert main(arguments(toy, "--val", str(val), "--data", "")) == 0
    assert "classes as the weights name them: blue, gray, green, red" in capsys.readouterr().err
    assert trained_facts(toy / "run" / "last.safetensors")["classes"] == tuple(CLASSES)
    assert trained_facts(toy / "run" / "last.pt")["classes"] == tuple(CLASSES)


def test_weights_bring_the_images_of_their_stage(toy, tmp_path, capsys):
    """Size, mean and std, unless others are given; the same in every file of weights."""
    stages = "[{epochs: 1, size: 48}, {epochs: 1, size: 40, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}]"
    data = ["--data", str(toy / "data"), "--labels", str(toy / "labels.fkdl"), "--stages", stages]
    assert main([*COMMON, *data, "--output", str(tmp_path)]) == 0
    last = log_of(tmp_path)[-1]
    short = [*COMMON, *data, "--output", str(tmp_path / "short"), "--max-steps", "1"]
    assert main(short) == 0  # in the first stage
    for name in ("last.safetensors", "last.pt", "best.safetensors"):
        assert trained_facts(tmp_path / "short" / name)["size"] == 48
    alone = ["--evaluate", "--student", "test_convnext", "--val", str(toy / "data" / "val")]
    alone += ["--device", "cpu"]
    for name in ("last.safetensors", "last.pt"):
        assert trained_facts(tmp_path / name)["size"] == 40
        assert trained_facts(tmp_path / name)["std"] == (0.2, 0.3, 0.4)
        capsys.readouterr()
        assert main([*alone, "--init", str(tmp_path / name)]) == 0
        assert json.loads(capsys.readouterr().out) == {key: last[key] for key in ("top1", "top5", "images")}
    with patch("fkdx.train.data.ValidationLoader", wraps=ValidationLoader) as made:
        assert main([*alone, "--init", str(tmp_path / name), "--size", "32"]) == 0
    assert made.call_args.args[2] == 32


@pytest.fixture
def spoilt(toy, tmp_path) -> Path:
    """The validation images with one that cannot be read and one outside of the class folders."""
    val = tmp_path / "val"
    shutil.copytree(toy / "data" / "val", val)
    (val / "red" / "3.jpg").write_bytes(b"no image")
    shutil.copy(val / "red" / "0.jpg", val / "stray.jpg")
    return val


def test_images_that_cannot_be_used_are_errors_or_counted(toy, spoilt, score, capsys):
    capsys.readouterr()
    assert main(arguments(toy, "--val", str(spoilt))) == 1
    assert "1 images are in no class folder (stray.jpg)" in capsys.readouterr().err
    found = score("--val", str(spoilt), "--on-error", "skip")
    assert (found["images"], found["skipped"]) == (IMAGES * len(CLASSES) - 1, 2)
    (spoilt / "stray.jpg").unlink()
    assert main(arguments(toy, "--val", str(spoilt))) == 1
    assert "red/3.jpg" in capsys.readouterr().err


def test_validation_images_are_read_before_the_first_step(toy, spoilt, capsys):
    (spoilt / "stray.jpg").unlink()
    run = spoilt.parent / "run"
    data = ["--data", str(toy / "data" / "train"), "--val", str(spoilt), "--labels", str(toy / "labels.fkdl")]
    train = [*COMMON, *data, "--max-steps", "1", "--output", str(run), "--check-images"]
    capsys.readouterr()
    assert main(train) == 1
    line = capsys.readouterr().err.strip()
    assert "1 validation images cannot be used, the first is red/3.jpg" in line
    assert not run.exists()
    assert main([*train, "--on-error", "skip"]) == 0
    assert log_of(run)[-1]["skipped"] == 1


@pytest.mark.slow
def test_two_processes_agree_on_what_is_skipped(toy, spoilt):
    more = ["--val", str(spoilt), "--on-error", "skip"]
    done = torchrun(2, arguments(toy, *more))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == 2


def test_harmless_faults_are_counted_and_others_allowed(toy, tmp_path, score, capsys):
    val, train = tmp_path / "val", tmp_path / "train"
    shutil.copytree(toy / "data" / "val", val)
    shutil.copytree(toy / "data" / "train", train)
    for folder in (val, train):
        path = folder / "red" / "1.jpg"
        path.write_bytes(other_jfif(path.read_bytes()))
    found = score("--val", str(val))
    assert (found["images"], found["warned"]) == (IMAGES * len(CLASSES), 1)
    (val / "red" / "2.jpg").write_bytes(cut_short((val / "red" / "2.jpg").read_bytes()))
    assert main(arguments(toy, "--val", str(val))) == 1
    assert "red/2.jpg" in capsys.readouterr().err
    assert score("--val", str(val), "--allow-warnings")["images"] == IMAGES * len(CLASSES)
    run = tmp_path / "run"
    data = ["--data", str(train), "--labels", str(toy / "labels.fkdl"), "--on-missing", "ignore"]
    assert main([*COMMON, *data, "--epochs", "2", "--output", str(run)]) == 0
    events = [line["text"] for line in log_of(run) if line["kind"] == "event"]
    assert "1 images have JPEG faults that change no pixel, such as red/1.jpg" in events


def test_numbers_of_labels_that_name_no_classes():
    """`--classes labels` says that the images' numbers are theirs."""
    recipe = Recipe(data="x", student="y", labels="z.fkdl", classes="labels")
    assert told_classes(recipe, None, SimpleNamespace(num_classes=3)) == ("0", "1", "2")
    assert told_classes(recipe, ["a", "b"], SimpleNamespace(num_classes=2)) == ("a", "b")
    for labels in (None, SimpleNamespace(num_classes=0)):  # none, or embeddings
        with pytest.raises(
            ValueError, match=r"classes, got labels, expected labels .* with class names, z.fkdl"
        ):
            told_classes(recipe, None, labels)
