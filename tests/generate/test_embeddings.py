"""Embeddings from teachers: what is stored is what the backbone gives, and `verify` knows it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from generating import SIZE, TEACHER, changed, make_data, of_kind, run_options
from safetensors.torch import load_file, save_file
from torch import nn

from fkdx import cli
from fkdx.commands.verify import verify_teacher
from fkdx.image import decode_crops
from fkdx.labels import LabelFile
from fkdx.models.build import load_teacher
from fkdx.models.embed import EmbeddingTeacher

VIT = "test_vit"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that are in no class folders."""
    data, folder = (tmp_path_factory.mktemp(name) for name in ("data", "flat"))
    for number, path in enumerate(sorted(make_data(data, images=2).glob("*/*.jpg"))):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of teachers with classifiers, by name."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("weights")
    for name in (TEACHER, VIT):
        save_file(timm.create_model(name, num_classes=7).state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in (TEACHER, VIT)}


def options_of(data: Path, output: Path, checkpoint: Path, teacher: str, size: int = SIZE) -> list[str]:
    own = changed(run_options(data, checkpoint, output), teacher=teacher, size=size)
    return ["--value-type", "float32", *of_kind("embedding", own)]


def backbone(name: str, checkpoint: Path) -> nn.Module:
    model = timm.create_model(name, num_classes=7)
    model.load_state_dict(load_file(checkpoint))
    model.reset_classifier(0)
    return model.eval()


def seen(data: Path, image, size: int, interpolation: str) -> torch.Tensor:
    pixels = decode_crops((data / image.key).read_bytes(), image.boxes, image.flips, size, interpolation)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1


@torch.no_grad()
def test_stored_is_what_the_backbone_gives(flat: Path, checkpoints: dict, tmp_path: Path) -> None:
    options = options_of(flat, tmp_path / "a.fkdl", checkpoints[TEACHER], TEACHER)
    assert cli.run("generate", options) == 0
    labels, model = LabelFile(tmp_path / "a.fkdl"), backbone(TEACHER, checkpoints[TEACHER])
    assert list(labels.keys) == sorted(path.name for path in flat.iterdir())
    assert labels.embeddings == {"pooled": model.num_features}
    for image in labels:
        expected = model(seen(flat, image, SIZE, "bilinear"))
        np.testing.assert_allclose(image.values, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("features", ["cls", "patches", "both"])
def test_tokens_of_a_vit(flat: Path, checkpoints: dict, tmp_path: Path, features: str) -> None:
    output = tmp_path / "a.fkdl"
    options = options_of(flat, output, checkpoints[VIT], VIT, size=160)
    options = changed(options, crops=2)
    assert cli.run("generate", ["--features", features, *options]) == 0
    labels, model = LabelFile(output), backbone(VIT, checkpoints[VIT])
    image = labels[0]
    tokens = model.forward_features(seen(flat, image, 160, "bicubic"))
    parts = {"cls": tokens[:, 0], "patches": tokens[:, model.num_prefix_tokens :].mean(dim=1)}
    wanted = parts if features == "both" else {features: parts[features]}
    assert labels.embeddings == dict.fromkeys(wanted, model.num_features)
    np.testing.assert_allclose(image.values, torch.cat(list(wanted.values()), dim=1), rtol=1e-3, atol=1e-4)


def test_verify_finds_another_teacher(
    flat: Path, checkpoints: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "a.fkdl"
    options = changed(options_of(flat, output, checkpoints[VIT], VIT, size=160), crops=3)
    assert cli.run("generate", ["--features", "cls", *options, "--encoding", "compact"]) == 0
    check = [str(output), "--images", str(flat), "--teacher", VIT, "--crops", "2", "--checkpoint"]
    assert cli.run("verify", [*check, str(checkpoints[VIT])]) == 0
    assert "cosine >= 0.99" in capsys.readouterr().out
    small = tmp_path / "small.fkdl"
    assert cli.run("convert", [str(output), "--standardise", "-o", str(small)]) == 0
    assert cli.run("verify", [str(small), *check[1:], str(checkpoints[VIT])]) == 0
    other = tmp_path / "other.safetensors"
    torch.manual_seed(9)
    save_file(timm.create_model(VIT, num_classes=7).state_dict(), other)
    assert cli.run("verify", [*check, str(other)]) == 1
    assert "disagrees" in capsys.readouterr().out
    with pytest.raises(ValueError, match="size of the teacher's embeddings, got 3, expected 64"):
        verify_teacher(LabelFile(output), flat, lambda crops: np.zeros((len(crops), 3)), 160)


def test_bytes_do_not_depend_on_interruptions(flat: Path, checkpoints: dict, tmp_path: Path) -> None:
    one, sharded = tmp_path / "a.fkdl", tmp_path / "shards"
    for output in (one, sharded):
        options = options_of(flat, output, checkpoints[TEACHER], TEACHER)
        options[options.index("float32")] = "int8"
        assert cli.run("generate", options) == 0
    whole, parts = LabelFile(one), LabelFile(sharded)
    assert len(parts._native.files()) > 1
    for a, b in zip(whole, parts):
        np.testing.assert_array_equal(a.values, b.values)
    for name, moments in whole.moments.items():
        assert moments.crops == sum(len(image.flips) for image in whole)
        np.testing.assert_allclose(moments.mean, parts.moments[name].mean, atol=1e-5)
        np.testing.assert_allclose(moments.scale, parts.moments[name].scale, rtol=1e-4, atol=1e-6)


class Pair(nn.Module):
    """Two embeddings by name."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = {"size": SIZE, "mean": (0.5,) * 3, "std": (0.5,) * 3}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": images.mean((2, 3)), "first": images[:, :, 0, 0]}


def pair() -> nn.Module:
    return Pair()


class Numbers(Pair):
    def __init__(self, value: float, size: int) -> None:
        super().__init__()
        self.value, self.size = value, size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wrong = torch.full((len(images), self.size), self.value)
        return wrong * (1 if images.std() < 1e-3 else float("nan")) if self.value else wrong


def zeros() -> nn.Module:
    return Numbers(0.0, 4)


def nans() -> nn.Module:
    return Numbers(1.0, 4)


def huge() -> nn.Module:
    return Numbers(0.0, 8193)


class Tokens(Pair):
    """Names its outputs as a vision transformer's are called, and has no tokens."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(("cls", "patches"), super().forward(images).values()))


def tokens() -> nn.Module:
    return Tokens()


class Odd(Pair):
    def __init__(self, given: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.given = given

    def forward(self, images: torch.Tensor) -> object:
        return self.given(images.mean(dim=(2, 3)))


def pairs() -> nn.Module:
    return Odd(lambda rows: (rows, rows))


def nothing() -> nn.Module:
    return Odd(lambda rows: None)


def fewer() -> nn.Module:
    return Odd(lambda rows: rows if len(rows) == 1 else rows[1:])


def test_own_functions(flat: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def run(function: str) -> int:
        options = changed(
            options_of(flat, tmp_path / function, Path(), "x"), teacher=f"{__name__}:{function}"
        )
        place = options.index("--checkpoint")
        return cli.run("generate", options[:place] + options[place + 2 :])

    assert run("pair") == 0
    assert LabelFile(tmp_path / "pair").embeddings == {"mean": 3, "first": 3}
    assert run("zeros") == 0
    moments = LabelFile(tmp_path / "zeros").moments["pooled"]
    assert (moments.crops, moments.zeros) == (0, 60)
    assert run("nans") == 1
    assert "are not finite, 0.jpg" in capsys.readouterr().err
    assert run("tokens") == 0
    labels = ["verify", str(tmp_path / "tokens"), "--images", str(flat), "--teacher", f"{__name__}:tokens"]
    assert cli.run(*labels[:1], labels[1:]) == 0
    for function, said in {
        "huge": "one or two embeddings of at most 8192 values",
        "pairs": "pairs gave a tuple, expected (crops, values), or a dict of them",
        "nothing": "nothing gave a NoneType, expected (crops, values), or a dict of them",
        "fewer": "rows for",
    }.items():
        assert run(function) == 1
        assert said in capsys.readouterr().err


def test_torchvision_without_its_classifier(tmp_path: Path) -> None:
    from torchvision import models

    model = models.resnet18(num_classes=3)
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    checkpoint = str(tmp_path / "a.safetensors")
    teacher = load_teacher("torchvision:resnet18", checkpoint, overrides={"size": 32}, features="pooled")
    assert isinstance(teacher, EmbeddingTeacher)
    assert teacher.sizes == {"pooled": 512}


def test_two_teachers_and_a_dry_run(
    flat: Path, checkpoints: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.safetensors"
    save_file(timm.create_model(TEACHER, num_classes=7).state_dict(), other)
    options = options_of(flat, tmp_path / "a.fkdl", checkpoints[TEACHER], TEACHER)
    two = ["--teacher", TEACHER, "--checkpoint", str(other), "--store", "separate", *options]
    assert cli.run("generate", [*two, "--dry-run"]) == 0
    assert "a.0.fkdl: about" in capsys.readouterr().out
    assert cli.run("generate", two) == 0
    parts = [str(tmp_path / f"a.{number}.fkdl") for number in (0, 1)]
    assert cli.run("merge", [*parts, "-o", str(tmp_path / "both.fkdl")]) == 0
    assert list(LabelFile(tmp_path / "both.fkdl").embeddings) == ["pooled.0", "pooled.1"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--temperature", "2"], "--temperature: embeddings have none, got 2.0"),
        (["--maps"], "--kind embedding: a teacher without classes"),
        (["--topk", "5"], "--topk: of kinds topk and topk_logits only, got 5 and --kind embedding"),
        (
            ["--kind", "hard", "--topk", "5"],
            "--topk: of kinds topk and topk_logits only, got 5 and --kind hard",
        ),
        (["--kind", "topk", "--features", "cls"], "--features, --value-type int8: of embeddings only"),
        (["--kind", "topk", "--value-type", "int8"], "--features, --value-type int8: of embeddings only"),
        (["--value-type", "log8"], "--value-type log8: for compact topk and smoothing labels only"),
    ],
)
def test_options_that_do_not_fit(more: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    options = ["--kind", "embedding", "--data", "x", "--teacher", TEACHER, "-o", "y", *more]
    with pytest.raises(SystemExit):
        cli.run("generate", options)
    assert message in capsys.readouterr().err


def test_features_that_a_teacher_has_not(
    flat: Path, checkpoints: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = options_of(flat, tmp_path / "a.fkdl", checkpoints[TEACHER], TEACHER)
    assert cli.run("generate", ["--features", "cls", *options]) == 1
    assert "has no tokens, got --features cls, expected pooled" in capsys.readouterr().err
    twice = ["--teacher", TEACHER, "--checkpoint", str(checkpoints[TEACHER]), *options]
    assert cli.run("generate", twice) == 1
    assert "got --kind embedding; use --store separate, then `fkdx merge`" in capsys.readouterr().err


SPREAD = """
import torch

class Spread(torch.nn.Module):
    preprocess = {"size": 32}

    def forward(self, images):
        values = torch.nn.functional.adaptive_avg_pool2d(images, 10).flatten(1)
        return values * torch.logspace(-2, 2, values.shape[1])

def model():
    return Spread()
"""


@pytest.mark.parametrize("value_type", ["int8", "float16"])
def test_int8_that_is_too_coarse_is_said(flat, tmp_path, monkeypatch, capsys, value_type: str) -> None:
    (tmp_path / "spread.py").write_text(SPREAD)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--kind", "embedding", "--value-type", value_type, "--teacher", "spread:model"]
    options += ["--data", str(flat), "--crops", "40", "--device", "cpu", "-o", str(tmp_path / "a.fkdl")]
    assert cli.run("generate", options) == 0
    told = capsys.readouterr().err
    assert bool(re.search(r"int8: cosine .* is \d+\.\d% off; for embeddings like", told)) == (
        value_type == "int8"
    )
    check = [str(tmp_path / "a.fkdl"), "--images", str(flat), "--teacher", "spread:model"]
    assert cli.run("verify", check) == 0
    assert ("int8 is coarse for these embeddings" in capsys.readouterr().out) == (value_type == "int8")
    report = json.loads((tmp_path / "a.fkdl.report.json").read_text())
    assert all(("int8" in shard) == (value_type == "int8") for shard in report["shards"])


@pytest.mark.parametrize("value_type", ["int8", "float32"])
def test_generating_standardised_is_converting_what_was_generated(
    flat, tmp_path, monkeypatch, capsys, value_type: str
) -> None:
    (tmp_path / "spread.py").write_text(SPREAD)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--kind", "embedding", "--teacher", "spread:model", "--data", str(flat), "--crops", "40"]
    options += ["--device", "cpu", "--batch-size", "40"]
    exact = "float16" if value_type == "int8" else "float32"
    assert cli.run("generate", [*options, "--value-type", exact, "-o", str(tmp_path / "a.fkdl")]) == 0
    again = [*options, "--standardise", "--value-type", value_type, "-o", str(tmp_path / "b.fkdl")]
    assert cli.run("generate", again) == 0
    told = capsys.readouterr().err
    assert "int8" not in told
    small = [str(tmp_path / "a.fkdl"), "--standardise", "--value-type", value_type]
    assert cli.run("convert", [*small, "-o", str(tmp_path / "c.fkdl")]) == 0
    generated, converted = LabelFile(tmp_path / "b.fkdl"), LabelFile(tmp_path / "c.fkdl")
    assert generated.value_type == converted.value_type == value_type
    assert generated.header["provenance"]["standardise"]
    done, wanted = generated.standard, converted.standard
    np.testing.assert_allclose(done.mean, wanted.mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(done.divisor, wanted.divisor, rtol=1e-4)
    for one, other in zip(generated, converted, strict=True):
        np.testing.assert_allclose(
            done.teachers(one.values), wanted.teachers(other.values), rtol=0.05, atol=0.05
        )
    check = [str(tmp_path / "b.fkdl"), "--images", str(flat), "--teacher", "spread:model"]
    assert cli.run("verify", check) == 0
    assert "int8 is coarse" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "more", [["--kind", "topk", "-o", "a.fkdl"], ["--kind", "embedding", "-o", "shards"]]
)
def test_only_embeddings_in_one_file_are_standardised(more: list[str], capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run("generate", ["--data", "x", "--teacher", TEACHER, "--standardise", *more])
    assert "--standardise: of embeddings in one file" in capsys.readouterr().err
