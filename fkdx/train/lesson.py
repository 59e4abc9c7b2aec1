"""What a step learns: images as the student sees them, mixed, the teacher's answers, the images' classes."""

from dataclasses import dataclass, replace
from typing import get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from fkdx.batch.mix import Mix, Mixer
from fkdx.loader import Batch
from fkdx.loader.slots import send
from fkdx.loss.target import SparseTarget
from fkdx.models.build import load_teacher
from fkdx.models.machine import AMP
from fkdx.models.online import OnlineTeachers
from fkdx.models.teacher import Preprocess
from fkdx.train.embedding import Embeddings
from fkdx.train.evaluate import laid_out
from fkdx.train.keys import cast
from fkdx.train.objective import STORED, Target, needs_classes
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass, Settings


@dataclass(frozen=True)
class Lesson:
    """Some rows of a batch.

    Attributes:
        images: (B, 3, size, size) normalised and mixed.
        taught: the teacher's answers: targets as stored, or (B, C) logits of online teachers.
        classes: the images' own classes as targets; None if the loss does not use them.
    """

    images: Tensor
    taught: Target
    classes: Target | None

    def __getitem__(self, rows: slice) -> "Lesson":
        classes = None if self.classes is None else self.classes[rows]
        return Lesson(self.images[rows], self.taught[rows], classes)


def mixer_of(recipe: Recipe, this_pass: Pass) -> Mixer:
    """The mixing of a pass: no SelfMix in single-crop passes, and none at all from `mixup_off_epoch` on."""
    if 0 < recipe.mixup_off_epoch <= this_pass.epoch:
        return Mixer()
    return Mixer(
        recipe.mixup,
        recipe.cutmix,
        recipe.selfmix if this_pass.crops > 1 else 0.0,
        recipe.mixup_prob,
        recipe.mixup_switch_prob,
    )


def draw_mix(recipe: Recipe, this_pass: Pass, images: Tensor, step: int, rank: int) -> Mix | None:
    """How a process mixes its rows (B, H, W, 3) of step `step` of the run; None if it does not, or timm does.

    A pure function of recipe, pass, step and rank.
    """
    if recipe.loader == "timm":
        return None
    rng = np.random.default_rng([recipe.seed % 2**64, step, rank])
    mix = mixer_of(recipe, this_pass).draw(*images.shape[:3], rng, this_pass.crops)
    return send((mix,), images.device)[0]


def make_lesson(
    stage: Recipe,
    batch: Batch,
    mix: Mix | None,
    teachers: OnlineTeachers | None,
    now: Settings,
    embeddings: Embeddings | None = None,
) -> Lesson:
    """A batch of either loader, with `mix` drawn for it. Online teachers see the student's own images.

    embeddings: how those of the batch become targets, if it has any.
    """
    if embeddings:
        batch = replace(batch, target=embeddings.target(batch.target))
    images, taught = batch.prepared(stage.mean, stage.std, stage.dtype, mix, teacher_temperature=None)
    images = laid_out(images, stage)
    said = taught
    if teachers:
        temperature = now.teacher_temperature if stage.teacher_loss in STORED else now.temperature
        taught = teachers(images, stage.mean, stage.std, temperature)
    if not needs_classes(stage):
        return Lesson(images, taught, None)
    if stage.loader == "timm":
        return Lesson(images, taught, said)
    num_classes = taught.num_classes if isinstance(taught, SparseTarget) else taught.shape[1]
    others = stage.smoothing * (num_classes - 1) / num_classes  # timm's rule: each class gets smoothing / C
    classes = SparseTarget.from_classes(batch.classes, num_classes, others)
    return Lesson(images, taught, mix.of(classes) if mix else classes)


def open_teachers(recipe: Recipe, outputs: int, device: torch.device) -> OnlineTeachers:
    """The recipe's teachers, at the student's resolution unless the recipe gives them another one.

    ValueError if they cannot be loaded, or have another number of outputs than the student.
    """
    known = get_type_hints(Preprocess)
    for each in recipe.each_teacher():
        if each.teacher_input.keys() - known.keys():
            raise ValueError(f"teacher_input: got {each.teacher_input}, expected keys among {sorted(known)}")
        for name, value in each.teacher_input.items():
            kind = known[name] if get_origin(known[name]) is None else list[float]  # mean and std
            cast(f"teacher_input.{name}", value, kind, each.teacher)
    teachers = OnlineTeachers(
        load_teacher(
            each.teacher,
            checkpoint=each.teacher_checkpoint or None,
            pretrained=not each.teacher_checkpoint,
            overrides={"size": recipe.size, **each.teacher_input},
            device=device,
            precision=AMP[recipe.amp],
            compiled=recipe.teacher_compile,
        )
        for each in recipe.each_teacher()
    )
    if teachers.num_outputs != outputs:
        raise ValueError(f"teacher: outputs, got {teachers.num_outputs}, expected the student's {outputs}")
    return teachers
