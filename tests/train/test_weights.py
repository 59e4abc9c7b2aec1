"""What a run leaves is used elsewhere: in timm, as a backbone, and in torchvision's detectors."""

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from toy import COMMON, make_toy

from fkdx.models.build import load_teacher
from fkdx.train.loop import main

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "detector.py")


@pytest.fixture(scope="module")
def weights(tmp_path_factory, run_seed) -> Path:
    """Of a ResNet-50 after one step."""
    folder = tmp_path_factory.mktemp("toy")
    data = make_toy(folder, run_seed)
    few = ["--max-steps", "1", "--student", "resnet50", "--val", "", "--data", str(folder / "data" / "train")]
    assert main([*COMMON, *data, *few, "--output", str(folder / "run")]) == 0
    return folder / "run" / "last.safetensors"


def test_weights_load_into_timm(weights):
    model = timm.create_model("resnet50", num_classes=4, checkpoint_path=str(weights))
    learned = load_file(weights)
    assert model.state_dict().keys() == learned.keys()
    assert all(tensor.equal(learned[name]) for name, tensor in model.state_dict().items())


def test_first_weights_of_a_file_take_the_place_of_pretrained_ones(tmp_path, soft):
    """Which are not downloaded, as there may be no way to."""
    torch.save(timm.create_model("test_convnext", num_classes=4).state_dict(), tmp_path / "a.pt")
    with patch("timm.create_model", wraps=timm.create_model) as made:
        assert main([*soft, "--pretrained", "--init", str(tmp_path / "a.pt"), "--max-steps", "1"]) == 0
    assert [call.kwargs["pretrained"] for call in made.call_args_list] == [False]


def test_weights_tell_a_teachers_inputs(weights):
    recipe = yaml.safe_load((weights.parent / "args.yaml").read_text())
    teacher = load_teacher("resnet50", str(weights)).preprocess
    told = [teacher.size, list(teacher.mean), list(teacher.std)]
    assert told == [recipe["size"], recipe["mean"], recipe["std"]]
    assert recipe["size"] != timm.get_pretrained_cfg("resnet50").input_size[-1]


def test_weights_load_as_a_backbone(weights):
    overlay = {"file": str(weights), "num_classes": 4}
    backbone = timm.create_model(
        "resnet50", pretrained=True, features_only=True, pretrained_cfg_overlay=overlay
    )
    learned = load_file(weights)
    assert all(tensor.equal(learned[name]) for name, tensor in backbone.state_dict().items())
    assert len(backbone(torch.zeros(1, 3, 64, 64))) == 5


def test_weights_load_into_torchvisions_detectors(weights, run_seed):
    """The example's Faster R-CNN sees the features that timm's own backbone sees."""
    detector = runpy.run_path(EXAMPLE)["detector"]
    body = detector(str(weights), classes=7).eval().backbone.body
    model = timm.create_model("resnet50", num_classes=4, checkpoint_path=str(weights)).eval()
    torch.manual_seed(run_seed)
    images = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        features = list(body(images).values())
        expected = model.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
    assert [tuple(f.shape[1:]) for f in features] == [(256, 24, 16), (512, 12, 8), (1024, 6, 4), (2048, 3, 2)]
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_detector_runs(weights, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["detector.py", str(weights)])
    runpy.run_path(EXAMPLE, run_name="__main__")
    assert {"boxes", "labels", "scores"} <= set(capsys.readouterr().out.split())
