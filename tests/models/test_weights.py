"""Weights are read from whoever wrote them, fit only their own model, and are written with the same bytes."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fkdx.models.weights import encode_weights, load_weights, read_weights, trained_facts


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "student", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_are_found_in_checkpoints(tmp_path, key, prefix):
    path = saved({"epoch": 3, key: {f"{prefix}fc.weight": torch.ones(2, 2)}}, tmp_path / "a.pth.tar")
    assert read_weights(path).keys() == {"fc.weight"}


def test_an_average_of_the_weights_comes_first(tmp_path):
    weights, average = {"fc.weight": torch.ones(2, 2)}, {"fc.weight": torch.zeros(2, 2)}
    path = saved({"state_dict": weights, "state_dict_ema": average}, tmp_path / "timm.pth.tar")
    assert read_weights(path)["fc.weight"].sum() == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3}, "no tensors by name, got epoch"),
        ({}, "no tensors by name, got nothing"),
        ([1, 2], "cannot read weights"),
        (torch.ones(2), "cannot read weights"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, words):
    with pytest.raises(ValueError, match=words) as error:
        read_weights(saved(content, tmp_path / "a.pt"))
    assert str(tmp_path / "a.pt") in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_weights(tmp_path / "b.pt")


def model(classes: int = 4) -> nn.Module:
    return timm.create_model("test_resnet", num_classes=classes)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_norms_of_old_checkpoints_have_no_counters():
    weights, student = model().state_dict(), model()
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    assert old.keys() != weights.keys()
    load_weights(student, old, "test_resnet", "old.pt")
    assert same(student.state_dict(), weights)


class Projecting(nn.Module):
    """A student of one's own whose parts happen to be called as those of a run on embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.projection = model(0), nn.Linear(8, 4)


def test_a_projection_is_left_behind_unless_the_model_has_one(tmp_path):
    weights = read_weights(saved({"state_dict": Projecting().state_dict()}, tmp_path / "a.pt"))
    own, backbone = Projecting(), model(0)
    load_weights(own, weights, "own", "a.pt")
    load_weights(backbone, weights, "test_resnet", "a.pt")
    assert same(own.state_dict(), weights)
    assert same(backbone.state_dict(), own.backbone.state_dict())


def test_a_head_of_another_size_stays_if_asked():
    weights, student = model(7).state_dict(), model()
    head = student.state_dict()["fc.weight"].clone()
    with pytest.raises(ValueError, match=r"2 weights of another shape \(the first is fc.bias\)"):
        load_weights(student, weights, "test_resnet", "seven.pt")
    load_weights(student, weights, "test_resnet", "seven.pt", new_head=True)
    assert torch.equal(student.state_dict()["fc.weight"], head)
    assert torch.equal(student.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])


@pytest.mark.parametrize(("fault", "name"), [("missing", "conv1.0.weight"), ("unknown", "more.weight")])
def test_weights_of_another_model_are_refused(fault, name):
    weights = model().state_dict()
    if fault == "missing":
        weights.pop(name)
    else:
        weights[name] = torch.ones(2)
    match = rf"1 weights {fault} \(the first is {name}\), expected those of test_resnet, other.pt"
    with pytest.raises(ValueError, match=match):
        load_weights(model(), weights, "test_resnet", "other.pt", new_head=True)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """safetensors itself writes metadata in another order each time."""
    layer, path = nn.Linear(3, 2), tmp_path / "w.safetensors"
    facts = {"size": 32, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    about = {"format": "pt", "inputs": "x"}
    assert len({save(layer.state_dict(), about) for _ in range(20)}) == 2
    files = {encode_weights(layer, facts) for _ in range(20)}
    assert len(files) == 1
    path.write_bytes(files.pop())
    assert same(load_file(path), layer.state_dict())
    assert trained_facts(path) == {"size": 32, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}


def test_names_that_are_not_ascii_and_weights_without_facts(tmp_path):
    net = nn.ModuleDict({"größe": nn.Linear(2, 2)})
    (tmp_path / "w.safetensors").write_bytes(encode_weights(net))
    assert same(load_file(tmp_path / "w.safetensors"), net.state_dict())
    assert trained_facts(tmp_path / "w.safetensors") == {}


@pytest.mark.parametrize("name", ["pipe.safetensors", "pipe.pt"])
def test_weights_do_not_come_out_of_pipes(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert trained_facts(tmp_path / name) == {}
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read_weights(tmp_path / name)
