"""What a step minimises: ``a * D_cls(student, classes) + (1 - a) * D_kd(student, teacher)`` of every crop.

The formula is VanillaKD's (Hao et al., NeurIPS 2023, equation 1); FKD is its a = 0 with soft cross-entropy.
"""

from torch import Tensor

from fkdx.labels import LabelFile
from fkdx.loss import binary_cross_entropy, soft_cross_entropy
from fkdx.loss.distill import LOSSES
from fkdx.loss.target import SparseTarget
from fkdx.train.recipe import Recipe

Target = SparseTarget | Tensor
WEIGHTS = {"dkd": {"alpha", "beta"}, "dist": {"beta", "gamma"}}  # teacher_loss_args

# Targets that can be made of labels of a kind; kinds that are not listed allow all of them.
RECOVERED = {
    "hard": ("hard",),
    "smoothing": ("smoothing", "marginal_smoothing", "hard"),
    "dense": ("marginal_smoothing",),  # as they are: nothing is missing that a rule would fill in
    "dense_logits": ("marginal_smoothing",),
}


def class_share(stage: Recipe) -> float:
    """a, the share of the images' own classes in the loss."""
    return 1.0 if stage.hard and not stage.teacher else stage.class_weight


def needs_classes(stage: Recipe) -> bool:
    """Whether the loss asks for the images' own classes."""
    return class_share(stage) > 0 or stage.teacher_loss == "dkd"


def check_objective(stage: Recipe, labels: LabelFile | None) -> None:
    """ValueError if the losses of a recipe do not fit its labels or teachers."""
    if stage.teacher_loss != "ce" and not stage.teacher:
        raise ValueError(
            f"train: teacher_loss, got {stage.teacher_loss} without a teacher, expected ce for stored labels"
        )
    if stage.teacher_loss != "ce" and stage.teacher_temperature != 1:
        raise ValueError(
            f"train: teacher_temperature, got {stage.teacher_temperature} with {stage.teacher_loss},"
            " expected 1: temperature divides both sides' logits there"
        )
    known = WEIGHTS.get(stage.teacher_loss, set())
    if stage.teacher_loss_args.keys() - known:
        raise ValueError(
            f"train: teacher_loss_args, got {stage.teacher_loss_args} with {stage.teacher_loss},"
            f" expected {sorted(known) or 'none'}"
        )
    if labels is not None and labels.kind == "dense_logits" and class_share(stage) and not stage.teacher:
        raise ValueError(
            f"train: class_loss, got {stage.class_loss} with dense logits, whose outputs are no classes,"
            f" expected class_weight 0, {stage.labels}"
        )
    if labels is not None and not stage.teacher:
        check_recovery(stage, labels)


def check_recovery(stage: Recipe, labels: LabelFile) -> None:
    """ValueError if the labels do not hold enough for the targets that a recipe asks for."""
    if stage.teacher_temperature != 1 and labels.kind != "dense_logits":
        raise ValueError(
            f"train: teacher_temperature, got {stage.teacher_temperature} with labels of kind {labels.kind},"
            f" expected 1: only dense_logits can be divided by another one, {stage.labels}"
        )
    expected = RECOVERED.get(labels.kind, (stage.label_kind,))
    if stage.label_kind not in expected:
        raise ValueError(
            f"train: label_kind, got {stage.label_kind} with labels of kind {labels.kind},"
            f" expected {' or '.join(expected)}, {stage.labels}"
        )


def losses(
    stage: Recipe, logits: Tensor, taught: Target, classes: Target | None, bare: bool = False
) -> Tensor:
    """The loss of every row, (B,).

    taught: the teacher's targets, or its logits if `bare`; classes: the targets of the images' own classes,
    None if the loss does not use them.
    """
    share = class_share(stage)
    total = 0.0
    if share > 0:
        loss = {"ce": soft_cross_entropy, "bce": binary_cross_entropy}[stage.class_loss]
        total = share * loss(logits, classes, reduction="none")
    if share < 1:
        total = total + (1 - share) * _teacher_losses(stage, logits, taught, classes, bare)
    return total


def _teacher_losses(
    stage: Recipe, logits: Tensor, taught: Target, classes: Target | None, bare: bool
) -> Tensor:
    if stage.teacher_loss == "ce":
        divisor = stage.teacher_temperature if bare else None
        return soft_cross_entropy(logits, taught, stage.temperature, "none", teacher_temperature=divisor)
    more = dict(stage.teacher_loss_args)
    if stage.teacher_loss == "dkd":  # of a mixed image the larger part is the true class, as in VanillaKD
        dense = classes.to_dense() if isinstance(classes, SparseTarget) else classes
        more["classes"] = dense.argmax(1)
    return LOSSES[stage.teacher_loss](logits, taught, temperature=stage.temperature, **more)
