"""Teachers of embeddings: backbones without a classifier, whose features are what is stored."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fkdx.labels.layout import MAX_EMBEDDING
from fkdx.models.heads import Projected, never_decayed
from fkdx.models.teacher import Teacher

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
        self.name, self.backbone, self.features = name, backbone, features
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
        strange = [type(part).__name__ for part in parts.values() if not isinstance(part, Tensor)]
        if strange or not parts:
            got = f"a {strange[0]}" if strange else "an empty dict"
            raise ValueError(f"teacher: {self.name} gave {got}, expected (crops, values), or a dict of them")
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
    """A teacher whose answers for n crops are their embeddings, (n, the sum of `sizes`) float32; its model is
    an `Embedder`.

    Attributes:
        sizes: {name: D} of the one or two embeddings of a crop.

    ValueError if the model gives anything else, or D above 8192.
    """

    answers = "(crops, values)"

    def _halves(self, model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        assert isinstance(model, Embedder)
        self._embedder = model
        return model, nn.Identity()

    def _probe(self) -> int:
        outputs = super()._probe()
        self.sizes = dict(self._embedder.sizes)  # known once the model has run
        if not 1 <= len(self.sizes) <= 2 or max(self.sizes.values()) > MAX_EMBEDDING:
            expected = f"one or two embeddings of at most {MAX_EMBEDDING} values"
            raise ValueError(f"teacher: {self.name} gives {self.sizes}, expected {expected}")
        return outputs


def without_classifier(model: nn.Module) -> nn.Module:
    """The model with its last linear layer replaced by nothing: a torchvision model's features."""
    name, _ = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, nn.Identity())
    return model


class EmbeddingStudent(nn.Module):
    """A student that learns embeddings: a backbone, with its own classifier or none, and a projection of its
    features onto the teacher's. The projection is left behind when the training is over.

    Attributes:
        embeds: whether `forward` gives projections (B, K); else the backbone's own outputs.
    """

    def __init__(self, backbone: nn.Module, inside: int, outputs: int, projection: str = "linear") -> None:
        super().__init__()
        self.backbone, self.embeds = backbone, True
        self.projection: nn.Module = nn.Linear(inside, outputs)
        if projection == "mlp":
            hidden = max(inside, outputs)
            self.projection = nn.Sequential(nn.Linear(inside, hidden), nn.GELU(), nn.Linear(hidden, outputs))

    def no_weight_decay(self) -> set[str]:
        return never_decayed(self.backbone)

    def features(self, images: Tensor) -> Tensor:
        """(B, D_student): what the backbone's classifier would see."""
        return features_of(self.backbone, images)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.features(images)) if self.embeds else self.backbone(images)

    def idle(self) -> set[str]:
        """Names of the parameters that the current outputs do not use."""
        if not self.embeds:
            return {f"projection.{name}" for name, _ in self.projection.named_parameters()}
        own = classifier_prefixes(self.backbone)
        return {f"backbone.{name}" for name, _ in self.backbone.named_parameters() if name.startswith(own)}


def features_of(backbone: nn.Module, images: Tensor) -> Tensor:
    """(B, D): what a timm model's classifier, or a projection, sees; or what a model without either gives."""
    if isinstance(backbone, Projected | EmbeddingStudent):
        return backbone.features(images)
    if hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head"):
        return backbone.forward_head(backbone.forward_features(images), pre_logits=True)
    return backbone(images)


def classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """What the names of a timm model's classifier begin with; nothing begins so in other models."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
