"""The student of a recipe: its input, its first weights, what of it learns and how."""

from dataclasses import replace
from fnmatch import fnmatch

import torch
from timm.data import resolve_model_data_config
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from fkdx.models.build import build_student, building, check_student
from fkdx.models.embed import EmbeddingStudent, classifier_prefixes, features_of
from fkdx.models.weights import load_weights, read_weights, trained_facts
from fkdx.train.checks import Outputs
from fkdx.train.recipe import Recipe


def create_student(recipe: Recipe, outputs: Outputs, fresh: bool = True) -> tuple[nn.Module, Recipe]:
    """The student, with its first weights if `fresh`, and the recipe with its size, mean and std filled in.

    Raises ValueError if it cannot be built, cannot take such crops, or gives another number of classes.
    """
    arguments = (recipe.pretrained and fresh and not recipe.init, recipe.student_args)
    model = backbone = build_student(recipe.student, outputs.classes, *arguments)
    expects = resolve_model_data_config(model)
    expects["size"] = expects["input_size"][-1]
    if recipe.evaluate and recipe.init:
        expects |= trained_facts(recipe.init)
    recipe = replace(
        recipe,
        size=recipe.size or expects["size"],
        mean=recipe.mean or list(expects["mean"]),
        std=recipe.std or list(expects["std"]),
    )
    if outputs.embeddings:
        model = project(backbone, recipe, outputs)
    for stage in recipe.in_stages():  # what is wrong with a later one shall not wait until its turn
        check_student(model, recipe.student, stage.size, sum(outputs.embeddings.values()) or outputs.classes)
        freeze(model, stage.freeze)
        create_optimizer(stage, model)
    if recipe.init and fresh:
        weights = read_weights(recipe.init)
        load_weights(backbone, weights, recipe.student, recipe.init, new_head=not recipe.evaluate)
    return model, recipe


def project(backbone: nn.Module, recipe: Recipe, outputs: Outputs) -> EmbeddingStudent:
    """The student with a projection of its features. ValueError if it has none, or if it is to learn classes
    too and its classifier cannot be told apart."""
    if outputs.classes and not classifier_prefixes(backbone):
        got = f"got {recipe.student} for stages of embeddings and of classes"
        raise ValueError(f"student: {got}, expected a timm model, whose classifier has a name")
    with torch.no_grad():
        shape = tuple(features_of(backbone.eval(), torch.zeros(1, 3, recipe.size, recipe.size)).shape)
    if len(shape) != 2:
        raise ValueError(f"student: {recipe.student} has features of shape {shape}, expected (1, D)")
    return EmbeddingStudent(backbone, shape[1], sum(outputs.embeddings.values()), recipe.projection)


def freeze(model: nn.Module, patterns: list[str]) -> None:
    """Only parameters whose names match none of `patterns`, and that are of use, will learn."""
    projected = isinstance(model, EmbeddingStudent)
    idle = model.idle() if projected else set()
    own = {
        name: name.removeprefix("backbone.") if projected else name for name, _ in model.named_parameters()
    }
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in own.values()):
            first = next(iter(own.values()))
            raise ValueError(f"freeze: no parameter matches, got '{pattern}', expected one like '{first}'")
    for name, parameter in model.named_parameters():
        frozen = name in idle or any(fnmatch(own[name], pattern) for pattern in patterns)
        parameter.requires_grad_(not frozen)
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
