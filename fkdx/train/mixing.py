"""Which rows of a step's batch are mixed with which: a pure function of recipe, pass, step and process."""

import numpy as np
import torch

from fkdx.batch.mix import Mix, Mixer
from fkdx.loader.slots import send
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass


def mixer_of(recipe: Recipe, at: Pass) -> Mixer:
    """The mixing of a pass. SelfMix rests in single-crop passes, all mixing from `mixup_off_epoch` on."""
    if 0 < recipe.mixup_off_epoch <= at.epoch:
        return Mixer()
    return Mixer(
        recipe.mixup,
        recipe.cutmix,
        recipe.selfmix if at.crops > 1 else 0.0,
        recipe.mixup_prob,
        recipe.mixup_switch_prob,
    )


def draw_mix(recipe: Recipe, at: Pass, images: torch.Tensor, step: int, rank: int) -> Mix | None:
    """How a process mixes its rows (B, H, W, 3) of step `step` of the run; None: not at all, or timm does."""
    if recipe.loader == "timm":
        return None
    rng = np.random.default_rng([recipe.seed % 2**64, step, rank])
    mix = mixer_of(recipe, at).draw(*images.shape[:3], rng, at.crops)
    return mix and send(mix, images.device)
