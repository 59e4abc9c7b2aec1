"""Projection heads of self-supervised models: their D outputs before the softmax are the labels.

Students wear them too. Checkpoints are those of the methods' own repositories; what only training needs
(momentum encoder, queue) is dropped.
"""

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = ("moco-v2", "swav")


def add_head(
    model: nn.Module, head: str, weights: dict[str, Tensor] | None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A backbone without classifier (timm, num_classes=0) and the head that a checkpoint has for it.

    Returns the model and the checkpoint's weights under the model's names.
    """
    if weights is None:
        raise ValueError(
            f"teacher: --head {head} needs the checkpoint in which the head is (--checkpoint FILE)"
        )
    projection, weights = {"moco-v2": _moco_v2, "swav": _swav}[head](weights)
    return Projected(model, projection), weights


def never_decayed(backbone: nn.Module) -> set[str]:
    """What timm's optimisers leave out of weight decay, as they ask a model that wears a `backbone`."""
    own = getattr(backbone, "no_weight_decay", set)()
    return {f"backbone.{name}" for name in own}


class Projected(nn.Module):
    """features = backbone(images); outputs = head(features)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def no_weight_decay(self) -> set[str]:
        return never_decayed(self.backbone)

    def features(self, images: Tensor) -> Tensor:
        return self.backbone(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Normalise(nn.Module):
    """Rows to length 1."""

    def forward(self, rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=1)


def moco_v2(inside: int, hidden: int, outputs: int) -> nn.Sequential:
    """MoCo V2 (Chen et al. 2020): two layers to unit length; D = outputs = 128."""
    return nn.Sequential(nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, outputs), Normalise())


def swav(inside: int, hidden: int, outputs: int, prototypes: int) -> nn.Sequential:
    """SwAV (Caron et al. 2020): a projection of two layers to unit length, then D = prototypes = 3000."""
    layers = [nn.Linear(inside, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers, Normalise(), nn.Linear(outputs, prototypes, bias=False))


def with_moco_v2(num_classes: int, backbone: str = "resnet50", hidden: int = 2048) -> nn.Module:
    """A timm backbone with MoCo-V2's head, to learn a MoCo-V2 teacher's `num_classes` outputs."""
    model = timm.create_model(backbone, num_classes=0)
    return Projected(model, moco_v2(model.num_features, hidden, num_classes))


def with_swav(
    num_classes: int, backbone: str = "resnet50", hidden: int = 2048, features: int = 128
) -> nn.Module:
    """A timm backbone with SwAV's head, to learn a SwAV teacher's `num_classes` prototypes."""
    model = timm.create_model(backbone, num_classes=0)
    return Projected(model, swav(model.num_features, hidden, features, num_classes))


def _moco_v2(weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The head is on the query encoder."""
    own = {k.removeprefix("encoder_q."): v for k, v in weights.items() if k.startswith("encoder_q.")}
    named = _named(own, {"fc.": "head."})
    hidden, inside = _shape(named, "head.0.weight", "moco-v2")
    outputs, _ = _shape(named, "head.2.weight", "moco-v2")
    return moco_v2(inside, hidden, outputs), named


def _swav(weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    named = _named(weights, {"projection_head.": "head.", "prototypes.": "head.5."})
    hidden, inside = _shape(named, "head.0.weight", "swav")
    outputs, _ = _shape(named, "head.3.weight", "swav")
    prototypes, _ = _shape(named, "head.5.weight", "swav")
    return swav(inside, hidden, outputs, prototypes), named


def _named(weights: dict[str, Tensor], heads: dict[str, str]) -> dict[str, Tensor]:
    """Weights under the names of `Projected`: `heads` says which prefixes are the head's."""
    named = {}
    for name, value in weights.items():
        prefix = next((prefix for prefix in heads if name.startswith(prefix)), None)
        named[heads[prefix] + name.removeprefix(prefix) if prefix else f"backbone.{name}"] = value
    return named


def _shape(weights: dict[str, Tensor], name: str, head: str) -> torch.Size:
    if name not in weights:
        raise ValueError(
            f"teacher: the checkpoint has no {head} head, expected its layer {name.split('.', 1)[1]}"
        )
    return weights[name].shape
