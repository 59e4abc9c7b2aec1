"""What a step minimises: ``a * D_cls(student, classes) + (1 - a) * D_kd(student, teacher)`` of every crop.

The formula is VanillaKD's (Hao et al., NeurIPS 2023, equation 1); FKD is its a = 0 with soft cross-entropy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fkdx.labels import LabelFile
from fkdx.loader.sampler import CURRICULA
from fkdx.loss import binary_cross_entropy, soft_cross_entropy
from fkdx.loss.distill import LOSSES
from fkdx.loss.embed import embedding_losses
from fkdx.loss.target import SparseTarget
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Settings

Target = SparseTarget | Tensor
WEIGHTS = {"dkd": {"alpha", "beta"}, "dist": {"beta", "gamma"}, "mse_gt": {"gamma"}}  # teacher_loss_args
STORED = ("ce", "plain_kl")  # losses against labels of every kind, with a temperature of their own
CLASSED = ("dkd", "mse_gt")  # losses against a teacher that ask for the images' classes too

# Targets that can be made of labels of a kind; kinds that are not listed allow all of them.
RECOVERED = {
    "hard": ("hard",),
    "smoothing": ("smoothing", "marginal_smoothing", "hard"),
    "dense": ("marginal_smoothing",),  # as they are: nothing is missing that a rule would fill in
    "dense_logits": ("marginal_smoothing",),
    "embedding": ("marginal_smoothing",),
}


def class_share(stage: Recipe) -> float:
    """a, the share of the images' own classes in the loss."""
    return 1.0 if stage.hard and not stage.teacher else stage.class_weight


def needs_classes(stage: Recipe) -> bool:
    """Whether the loss asks for the images' own classes."""
    return class_share(stage) > 0 or stage.teacher_loss in CLASSED


def check_objective(stage: Recipe, labels: LabelFile | None) -> None:
    """ValueError if the losses of a recipe do not fit its labels or teachers."""
    kind = labels.kind if labels else "none"
    if stage.teacher_loss not in STORED and not stage.teacher and kind != "dense_logits":
        raise ValueError(
            f"train: teacher_loss, got {stage.teacher_loss} with labels of kind {kind}, expected ce or"
            f" plain_kl; the others need a teacher, or dense_logits, {stage.labels}"
        )
    if stage.teacher_loss not in STORED and stage.teacher_temperature != 1:
        raise ValueError(
            f"train: teacher_temperature, got {stage.teacher_temperature} with {stage.teacher_loss},"
            " expected 1: temperature divides both sides' logits there"
        )
    fitted = isinstance(stage.temperature, dict) and stage.temperature["schedule"] == "fitted"
    if fitted and stage.teacher_loss not in STORED:
        raise ValueError(
            f"train: temperature, got a fitted one with {stage.teacher_loss}, expected ce or plain_kl with it"
        )
    known = WEIGHTS.get(stage.teacher_loss, set())
    if stage.teacher_loss_args.keys() - known:
        raise ValueError(
            f"train: teacher_loss_args, got {stage.teacher_loss_args} with {stage.teacher_loss},"
            f" expected {sorted(known) or 'none'}"
        )
    if labels is not None and labels.embeddings:
        check_embeddings(stage, fitted)
    bare = labels is not None and labels.kind in ("dense_logits", "embedding")
    if bare and class_share(stage) and not stage.teacher:
        raise ValueError(
            f"train: class_loss, got {stage.class_loss} with {labels.kind.replace('_', ' ')}, whose outputs"
            f" are no classes, expected class_weight 0, {stage.labels}"
        )


def check_recovery(stage: Recipe, labels: LabelFile) -> None:
    """ValueError if a teacher's labels do not hold enough for the targets that a recipe asks for."""
    tempered = labels.kind.endswith("logits") or (labels.embeddings and stage.embedding_loss == "ce")
    if stage.teacher_temperature != 1 and not tempered:
        raise ValueError(
            f"train: teacher_temperature, got {stage.teacher_temperature} with labels of kind {labels.kind},"
            f" expected 1: only logits can be divided by another one, not probabilities, {labels.path}"
        )
    expected = RECOVERED.get(labels.kind, (stage.label_kind,))
    if stage.label_kind not in expected:
        raise ValueError(
            f"train: label_kind, got {stage.label_kind} with labels of kind {labels.kind},"
            f" expected {' or '.join(expected)}, {labels.path}"
        )


def check_embeddings(stage: Recipe, fitted: bool) -> None:
    """ValueError if a recipe asks of embeddings what only labels of classes have."""
    asked = {
        "temperature": (fitted and stage.temperature, "a number, or a schedule that is not fitted"),
        "mixup": (stage.mixup, "0: only CutMix and SelfMix, by their areas, mix embeddings"),
        "calibrate": (stage.calibrate, "none for embeddings"),
        "ensemble": (stage.ensemble, "none: `fkdx merge` puts two embeddings into one file"),
        "choice": (stage.choice in CURRICULA and stage.choice, "independent or cycle for embeddings"),
        "teacher": (stage.teacher, "none beside stored embeddings"),
    }
    for name, (value, expected) in asked.items():
        if value:
            raise ValueError(f"train: {name}, got {value}, expected {expected}, {stage.labels}")


def losses(
    stage: Recipe,
    now: Settings,
    logits: Tensor,
    taught: Target,
    classes: Target | None,
    bare: bool = False,
    sizes: Sequence[int] = (),
) -> Tensor:
    """The loss of every row, (B,).

    now: the temperatures of the step; taught: the teacher's targets, or its logits if `bare`, or embeddings
    of these `sizes`; classes: the targets of the images' own classes, None if the loss does not use them.
    """
    if sizes:
        return embedding_losses(
            logits, taught, sizes, stage.embedding_loss, now.temperature, now.teacher_temperature
        )
    share = class_share(stage)
    total = 0.0
    if share > 0:
        loss = {"ce": soft_cross_entropy, "bce": binary_cross_entropy}[stage.class_loss]
        total = share * loss(logits, classes, reduction="none")
    if share < 1:
        total = total + (1 - share) * _teacher_losses(stage, now, logits, taught, classes, bare)
    return total


def _teacher_losses(
    stage: Recipe, now: Settings, logits: Tensor, taught: Target, classes: Target | None, bare: bool
) -> Tensor:
    if stage.teacher_loss in STORED:
        divisor = now.teacher_temperature if bare else None
        rows = soft_cross_entropy(logits, taught, now.temperature, "none", teacher_temperature=divisor)
        return rows - entropy(taught, divisor) if stage.teacher_loss == "plain_kl" else rows
    more = dict(stage.teacher_loss_args)
    if stage.teacher_loss in CLASSED:  # of images mixed here, the class of the larger part, as in VanillaKD
        dense = classes.to_dense() if isinstance(classes, SparseTarget) else classes
        more["classes"] = dense.argmax(1)
    return LOSSES[stage.teacher_loss](logits, taught, temperature=now.temperature, **more)


@torch.no_grad()
def entropy(taught: Target, teacher_temperature: float | None) -> Tensor:
    """``-sum_c y_c log y_c`` of every row, (B,); of logits, with a temperature, that of their softmax."""
    dense = taught.to_dense() if isinstance(taught, SparseTarget) else taught
    if teacher_temperature is not None:
        dense = (dense / teacher_temperature).softmax(1)
    return -torch.special.xlogy(dense, dense).sum(1)


@torch.no_grad()
def fit(
    stage: Recipe, now: Settings, logits: Tensor, taught: Target, bare: bool, candidates: Sequence[float]
) -> Tensor:
    """The loss against the teacher, summed over rows, at each of `candidates` for the temperature."""
    settings = [now._replace(temperature=candidate) for candidate in candidates]
    sums = [_teacher_losses(stage, each, logits, taught, None, bare).double().sum() for each in settings]
    return torch.stack(sums)
