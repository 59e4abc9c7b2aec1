"""Teachers of embeddings: backbones without a classifier, whose features are what is stored."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkdx.labels.layout import MAX_EMBEDDING
from fkdx.models.teacher import Preprocess, Teacher

# What of a backbone: what it gives without its classifier, its class token, the mean of its patches, or both
# of these.
FEATURES = ("pooled", "cls", "patches", "both")


class Embedder(nn.Module):
    """A backbone's features, one row for each image: (n, the sum of `sizes`).

    `sizes` {name: D} says what a row consists of, once the model has run. A backbone may also give a dict of
    one or two tensors (n, D) by name. ValueError if it has no tokens and `features` asks for them.
    """

    def __init__(self, name: str, backbone: nn.Module, features: str = "pooled") -> None:
        super().__init__()
        self.backbone, self.features = backbone, features
        self.sizes: dict[str, int] = {}
        if features == "pooled":
            return
        if not hasattr(backbone, "forward_features") or not hasattr(backbone, "num_prefix_tokens"):
            raise ValueError(f"teacher: {name} has no tokens, got --features {features}, expected pooled")
        if features != "patches" and getattr(backbone, "cls_token", None) is None:
            raise ValueError(
                f"teacher: {name} has no class token, got --features {features}, expected pooled"
            )

    def forward(self, images: Tensor) -> Tensor:
        parts = self._pooled(images) if self.features == "pooled" else self._tokens(images)
        self.sizes = {name: part.shape[-1] for name, part in parts.items()}
        return torch.cat([part.float() for part in parts.values()], dim=-1)

    def _pooled(self, images: Tensor) -> dict[str, Tensor]:
        given = self.backbone(images)
        return given if isinstance(given, dict) else {"pooled": given}

    def _tokens(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.backbone.forward_features(images)
        parts = {"cls": tokens[:, 0], "patches": tokens[:, self.backbone.num_prefix_tokens :].mean(dim=1)}
        return parts if self.features == "both" else {self.features: parts[self.features]}


class EmbeddingTeacher(Teacher):
    """A teacher whose answers for n crops are their embeddings, (n, the sum of `sizes`) float32.

    Attributes:
        sizes: {name: D} of the one or two embeddings of a crop.

    ValueError if the model gives anything else, or D above 8192.
    """

    answers = "(crops, values)"

    def __init__(
        self,
        name: str,
        model: nn.Module,
        preprocess: Preprocess,
        origin: dict,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        features: str = "pooled",
    ) -> None:
        embedder = Embedder(name, model, features)
        origin = {**origin, "features": features}
        super().__init__(name, embedder, preprocess, origin, device, precision, compiled)
        self.sizes = dict(embedder.sizes)
        if not 1 <= len(self.sizes) <= 2 or max(self.sizes.values()) > MAX_EMBEDDING:
            expected = f"one or two embeddings of at most {MAX_EMBEDDING} values"
            raise ValueError(f"teacher: {name} gives {self.sizes}, expected {expected}")

    def _halves(self, model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return model, nn.Identity()


def without_classifier(model: nn.Module) -> nn.Module:
    """The model with its last linear layer replaced by nothing: a torchvision model's features."""
    name, _ = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, nn.Identity())
    return model
