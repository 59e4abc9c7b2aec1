"""Teachers of every origin say the same as the models that they are."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from generating import make_teacher
from safetensors.torch import save_file
from torch import nn

from fkdx.models.build import load_teacher
from fkdx.models.embed import EmbeddingStudent
from fkdx.models.heads import Projected
from fkdx.models.teacher import combined
from fkdx.train.checkpoint import save_weights
from fkdx.train.recipe import Recipe
from fkdx.train.student import create_optimizer

CROPS = torch.arange(4 * 32 * 32 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).view(4, 32, 32, 3)
SMALL = {"size": 32}


def expected(model: nn.Module, mean: tuple, std: tuple) -> torch.Tensor:
    pixels = (CROPS.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    with torch.no_grad():
        return model.eval()(pixels)


@pytest.fixture(scope="module")
def vision() -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    return models.get_model("squeezenet1_1", num_classes=7).eval()


def test_timm_with_its_own_inputs(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=6, img_size=32)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    teacher = load_teacher("test_vit", str(tmp_path / "w.pth"), overrides=SMALL)
    assert (teacher.num_outputs, teacher.preprocess.mean) == (6, (0.5, 0.5, 0.5))
    assert torch.allclose(teacher(CROPS), expected(model, (0.5,) * 3, (0.5,) * 3), atol=1e-4)


def test_inputs_that_fkdx_trained_with(tmp_path: Path) -> None:
    """They come with the weights; what is given beside them wins."""
    model = timm.create_model("test_resnet", num_classes=6)
    inputs = {"size": 32, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    save_weights(tmp_path / "w.safetensors", model, inputs)
    torch.save({"state_dict": model.state_dict(), "recipe": inputs}, tmp_path / "last.pt")
    for name in ("w.safetensors", "last.pt"):
        teacher = load_teacher("test_resnet", str(tmp_path / name))
        assert teacher.preprocess.size == 32
        assert torch.allclose(teacher(CROPS), expected(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), atol=1e-4)
        teacher = load_teacher("test_resnet", str(tmp_path / name), overrides={"mean": (0.1, 0.1, 0.1)})
        assert torch.allclose(teacher(CROPS), expected(model, (0.1,) * 3, (0.2, 0.3, 0.4)), atol=1e-4)


def test_torchvision(vision: nn.Module, tmp_path: Path) -> None:
    save_file(vision.state_dict(), tmp_path / "w.safetensors")
    teacher = load_teacher("torchvision:squeezenet1_1", str(tmp_path / "w.safetensors"), overrides=SMALL)
    assert teacher.preprocess.crop_ratio == 224 / 256
    wanted = expected(vision, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.allclose(teacher(CROPS), wanted, atol=1e-4)
    with pytest.raises(ValueError, match="torchvision knows no classifier 'resnet_18'"):
        load_teacher("torchvision:resnet_18", pretrained=True)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_exported(vision: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"teacher{suffix}"
    sample = torch.zeros(2, 3, 32, 32)
    if suffix == ".pt2":
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(vision, (sample,), dynamic_shapes=(batch,)), path)
    else:
        torch.jit.trace(vision, sample).save(path)
    teacher = load_teacher(str(path), overrides=SMALL)
    wanted = expected(vision, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.allclose(teacher(CROPS), wanted, atol=1e-4)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"expected a file of torch.export.save .*{path}"):
        load_teacher(str(path), overrides=SMALL)


def test_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_here.py").write_text(
        "from torch import nn\n"
        "def teacher(num_classes):\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))\n"
        "    model.preprocess = {'size': 32, 'mean': (0, 0, 0), 'std': (1, 1, 1)}\n"
        "    return model\n"
        "def nothing():\n"
        "    return None\n"
    )
    monkeypatch.chdir(tmp_path)
    teacher = load_teacher("mine_here:teacher", num_classes=5)
    model = sys.modules["mine_here"].teacher(5)
    torch.save(model.state_dict(), "w.pth")
    teacher = load_teacher("mine_here:teacher", "w.pth", num_classes=5)
    assert torch.allclose(teacher(CROPS), expected(model, (0, 0, 0), (1, 1, 1)), atol=1e-4)
    for name, said in [("nothing", "returned NoneType"), ("other", "has no attribute 'other'")]:
        with pytest.raises(ValueError, match=said):
            load_teacher(f"mine_here:{name}")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_teacher_of_other_channels(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    torch.jit.trace(model.eval(), torch.zeros(1, 1, 32, 32)).save(tmp_path / "gray.pt")
    with pytest.raises(ValueError, match="failed on one RGB crop of 32 x 32 pixels"):
        load_teacher(str(tmp_path / "gray.pt"), overrides=SMALL)


def test_weights_are_needed() -> None:
    with pytest.raises(ValueError, match="test_resnet has no weights; give --checkpoint FILE"):
        load_teacher("test_resnet")


@pytest.mark.parametrize("head", ["moco-v2", "swav"])
def test_heads_of_self_supervised_teachers(tmp_path: Path, head: str) -> None:
    torch.manual_seed(1)
    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    inside = backbone.num_features
    body = dict(backbone.state_dict())
    if head == "moco-v2":
        last = nn.Sequential(nn.Linear(inside, 24), nn.ReLU(), nn.Linear(24, 16))
        own = {**body, **{f"fc.{name}": value for name, value in last.state_dict().items()}}
        state = {"state_dict": {f"module.encoder_q.{name}": value for name, value in own.items()}}
        state["state_dict"] |= {f"module.encoder_k.{name}": value for name, value in own.items()}
        state["state_dict"]["module.queue"] = torch.zeros(16, 8)
    else:
        last = nn.Sequential(nn.Linear(inside, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16)).eval()
        prototypes = nn.Linear(16, 30, bias=False)
        state = {f"module.{name}": value for name, value in body.items()}
        state |= {f"module.projection_head.{name}": value for name, value in last.state_dict().items()}
        state["module.prototypes.weight"] = prototypes.weight.detach()
    torch.save(state, tmp_path / "w.pth")
    teacher = load_teacher("test_resnet", str(tmp_path / "w.pth"), head=head, overrides=SMALL)
    features = last(expected(backbone, (0.5,) * 3, (0.5,) * 3))
    features = nn.functional.normalize(features, dim=1)
    if head == "swav":
        features = prototypes(features)
    assert torch.allclose(teacher(CROPS), features, atol=1e-4)
    torch.save(body, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"the checkpoint has no {head} head"):
        load_teacher("test_resnet", str(tmp_path / "w.pth"), head=head, overrides=SMALL)


def test_combined_logits_have_the_mean_probabilities(run_seed: int) -> None:
    torch.manual_seed(run_seed)
    logits = [torch.randn(5, 9) * 4 for _ in range(3)]
    mean = sum(torch.softmax(each / 2, dim=1) for each in logits) / 3
    assert torch.allclose(torch.softmax(combined(logits, 2.0), dim=1), mean, atol=1e-6)


def test_maps_are_pooled_inside_the_boxes(tmp_path: Path) -> None:
    """A teacher that tells the brightness of a cell: pooled over a box it is the mean brightness there."""
    torch.save({"model": timm.create_model("test_resnet", num_classes=4).state_dict()}, tmp_path / "w.pth")
    teacher = load_teacher("test_resnet", str(tmp_path / "w.pth"), maps=True, overrides={"size": 96})
    assert teacher.num_outputs == 4
    teacher._features = lambda pixels: nn.functional.avg_pool2d(pixels, 16)
    teacher._classify = lambda cells: cells.flatten(1)[:, :2]
    images = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
    images[0, :48, :, 0] = 255  # the upper half is red
    images[1, :, 48:, 1] = 255  # the right half is green
    places = torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 0.5], [0, 0.5, 1, 0.5]]).expand(
        2, 4, 4
    )
    told = teacher(images, places).view(2, 4, 2) * torch.tensor([0.5, 0.5]) + 0.5  # mean and std are 0.5
    upper, lower, left, right = told[0, :, 0]
    assert upper > 0.9 > 0.6 > left == right > 0.4 > 0.1 > lower
    upper, lower, left, right = told[1, :, 1]
    assert right > 0.9 > 0.6 > upper == lower > 0.4 > 0.1 > left


@pytest.mark.parametrize("images", [torch.bfloat16, torch.float16])
def test_a_teacher_in_float32_takes_images_of_16_bits(tmp_path: Path, images: torch.dtype) -> None:
    """A student's, in a stage with another precision."""
    make_teacher(tmp_path / "a.safetensors", classes=4)
    teacher = load_teacher("test_resnet", str(tmp_path / "a.safetensors"), overrides={"size": 32})
    seen = torch.rand(2, 3, 32, 32).to(images)
    assert torch.equal(teacher(seen), teacher(seen.float()))


@pytest.mark.parametrize(
    "wrap", [lambda vit: EmbeddingStudent(vit, 64, 8), lambda vit: Projected(vit, nn.ReLU())]
)
def test_tokens_and_positions_of_a_wrapped_backbone_do_not_decay(wrap: Callable) -> None:
    model = wrap(timm.create_model("test_vit", img_size=32, num_classes=4))
    optimizer = create_optimizer(Recipe(decay_all=False, optimizer="adamw"), model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain = [group["params"] for group in optimizer.param_groups if group["weight_decay"] == 0]
    kept = {names[id(parameter)] for group in plain for parameter in group}
    assert {"backbone.cls_token", "backbone.pos_embed"} <= kept


def test_maps_need_a_convolutional_teacher(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", num_classes=4, img_size=32).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="it is not fully convolutional"):
        load_teacher("test_vit", str(tmp_path / "w.pth"), maps=True, overrides=SMALL)
