"""The student: timm's or a function of the user's, its input, its weights, what of it learns and how."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module

import timm
import torch
from timm.data import resolve_model_data_config
from timm.optim import create_optimizer_v2
from torch import nn

from fkdx.models import heads
from fkdx.train.checkpoint import differing, load_weights
from fkdx.train.recipe import Recipe


def create_student(recipe: Recipe, num_classes: int, fresh: bool = True) -> tuple[nn.Module, Recipe]:
    """The student, with its first weights if `fresh`, and the recipe with its size, mean and std filled in.

    Raises ValueError where it cannot be built, cannot take such crops, or gives another number of classes.
    """
    model = build(recipe.student, num_classes, recipe.pretrained and fresh, recipe.student_args)
    expects = resolve_model_data_config(model)
    size = recipe.size or expects["input_size"][-1]
    recipe = replace(
        recipe,
        size=size,
        mean=recipe.mean or list(expects["mean"]),
        std=recipe.std or list(expects["std"]),
    )
    for stage in recipe.in_stages():  # what is wrong with a later one shall not wait until its turn
        probe(stage, model, num_classes)
        freeze(model, stage.freeze)
        create_optimizer(stage, model)
    if recipe.init and fresh:
        load_initial(model, recipe.init, strict=recipe.evaluate)
    return model, recipe


def build(name: str, num_classes: int, pretrained: bool, more: dict) -> nn.Module:
    """`name` is timm's, or `module:function` (looked up in the current folder too)."""
    if ":" in name:
        module, function = name.split(":", 1)
        sys.path.insert(0, "")
        try:
            return getattr(import_module(module), function)(num_classes=num_classes, **more)
        except (ImportError, AttributeError, TypeError) as error:
            raise ValueError(f"student: cannot call {name} ({error}), expected module:function") from error
        finally:
            sys.path.remove("")
    with built_by_timm("student", name, more):
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **more)


@contextmanager
def built_by_timm(what: str, name: str, more: dict) -> Iterator[None]:
    """Around a call of timm's: what it refuses is a ValueError of one line."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{what}: timm cannot build it ({reason}), got {name} with {more or 'no more arguments'}"
        ) from error


def probe(recipe: Recipe, model: nn.Module, num_classes: int) -> None:
    """Show the student one gray crop: it must take the size and answer for every class."""
    side = recipe.size
    try:
        with torch.inference_mode():
            shape = tuple(model.eval()(torch.zeros(1, 3, side, side)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"student: {recipe.student} fails on a crop of {side} pixels ({reason});"
            f" choose another --size, or tell it: --student-args '{{img_size: {side}}}'"
        ) from error
    if shape != (1, num_classes):
        raise ValueError(
            f"student: {recipe.student} gives {shape}, expected (1, {num_classes}): one value a class"
        )


def load_initial(model: nn.Module, path: str, strict: bool) -> None:
    """Start from the weights in `path`; unless strict, a head of another size keeps its own first weights."""
    weights = load_weights(path)
    differ = differing(weights, model)
    resized = {
        name
        for name, tensor in model.state_dict().items()
        if name in weights and tensor.shape != weights[name].shape
    }
    strange = [name for name in differ if name not in resized]
    if strange or len(resized) > (0 if strict else 2):
        names = ", ".join((strange or sorted(resized))[:4])
        raise ValueError(
            f"student: weights of another model, {len(differ)} names or shapes differ ({names}, ...), {path}"
        )
    model.load_state_dict(
        {name: tensor for name, tensor in weights.items() if name not in resized}, strict=False
    )


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
    """timm's optimiser of that name for what is not frozen. ValueError where timm cannot build it."""
    with built_by_timm("optimizer", recipe.optimizer, recipe.optimizer_args):
        return create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            filter_bias_and_bn=not recipe.decay_all,
            **recipe.optimizer_args,
        )


def with_moco_v2(num_classes: int, backbone: str = "resnet50", hidden: int = 2048) -> nn.Module:
    """A timm backbone with MoCo-V2's head, to learn a MoCo-V2 teacher's `num_classes` outputs."""
    model = timm.create_model(backbone, num_classes=0)
    return heads.Projected(model, heads.moco_v2(model.num_features, hidden, num_classes))


def with_swav(
    num_classes: int, backbone: str = "resnet50", hidden: int = 2048, features: int = 128
) -> nn.Module:
    """A timm backbone with SwAV's head, to learn a SwAV teacher's `num_classes` prototypes."""
    model = timm.create_model(backbone, num_classes=0)
    return heads.Projected(model, heads.swav(model.num_features, hidden, features, num_classes))
