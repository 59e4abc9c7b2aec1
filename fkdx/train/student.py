"""The student of a recipe: its input, its first weights, what of it learns and how."""

from dataclasses import replace
from fnmatch import fnmatch

import torch
from timm.data import resolve_model_data_config
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from fkdx.models.build import build_student, building, check_student
from fkdx.models.weights import load_weights, read_weights
from fkdx.train.recipe import Recipe


def create_student(recipe: Recipe, num_classes: int, fresh: bool = True) -> tuple[nn.Module, Recipe]:
    """The student, with its first weights if `fresh`, and the recipe with its size, mean and std filled in.

    Raises ValueError if it cannot be built, cannot take such crops, or gives another number of classes.
    """
    model = build_student(recipe.student, num_classes, recipe.pretrained and fresh, recipe.student_args)
    expects = resolve_model_data_config(model)
    size = recipe.size or expects["input_size"][-1]
    recipe = replace(
        recipe,
        size=size,
        mean=recipe.mean or list(expects["mean"]),
        std=recipe.std or list(expects["std"]),
    )
    for stage in recipe.in_stages():  # what is wrong with a later one shall not wait until its turn
        check_student(model, recipe.student, stage.size, num_classes)
        freeze(model, stage.freeze)
        create_optimizer(stage, model)
    if recipe.init and fresh:
        weights = read_weights(recipe.init)
        load_weights(model, weights, recipe.student, recipe.init, new_head=not recipe.evaluate)
    return model, recipe


def freeze(model: nn.Module, patterns: list[str]) -> None:
    """Only parameters whose names match none of `patterns` will learn."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise ValueError(f"freeze: no parameter matches, got '{pattern}', expected one like '{names[0]}'")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatch(name, pattern) for pattern in patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze: every parameter matches, got {patterns}, expected something left to learn")


def set_training(model: nn.Module) -> None:
    """Training mode, but for norms that are frozen: their statistics stay as they are too."""
    model.train()
    for module in model.modules():
        own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(own):
            module.eval()


def create_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """timm's optimiser of that name for what is not frozen. ValueError if timm cannot build it."""
    with building("optimizer", recipe.optimizer, recipe.optimizer_args, list_optimizers):
        optimizer = create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            filter_bias_and_bn=not recipe.decay_all,
            **recipe.optimizer_args,
        )
    if getattr(optimizer, "is_second_order", False):
        raise ValueError(f"optimizer: {recipe.optimizer} needs second-order gradients; choose another one")
    return optimizer


def check_gradients(model: nn.Module) -> None:
    """ValueError if a parameter got no gradient in a step: several processes would wait for it."""
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        named = ", ".join(idle[:4]) + (", ..." if len(idle) > 4 else "")
        raise ValueError(
            f"student: {len(idle)} parameters get no gradient ({named}), which does not work with several "
            "processes; leave them out with --freeze"
        )
