"""Models by their name. Students are the first or the last of these, teachers may be any:

resnet50                    timm, with pretrained weights or a checkpoint
torchvision:resnet50        torchvision, the same
path/teacher.pt2            a file of torch.export.save, or of torch.jit.save (.pt, .ts)
module:function             your own function, called with num_classes
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from fkdx.models.embed import Embedder, EmbeddingTeacher, without_classifier
from fkdx.models.heads import add_head
from fkdx.models.maps import MapTeacher
from fkdx.models.teacher import Preprocess, Teacher
from fkdx.models.weights import (
    backbone_weights,
    hash_weights,
    load_weights,
    read_weights,
    trained_facts,
    without_projection,
)

EXPORTED = {".pt2", ".pt", ".ts"}


@dataclass(frozen=True)
class Wanted:
    """The arguments of `load_teacher` that say which model it is and where its weights are."""

    name: str
    checkpoint: str | None
    pretrained: bool
    num_classes: int | None
    overrides: dict
    head: str | None
    embeds: bool = False
    arguments: dict = field(default_factory=dict)


def load_teacher(
    name: str,
    checkpoint: str | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    overrides: dict | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    compiled: bool = False,
    *,
    head: str | None = None,
    maps: bool = False,
    features: str | None = None,
    arguments: dict | None = None,
) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        name: see the module.
        checkpoint, pretrained: a file of weights, or else the pretrained ones.
        num_classes: if neither the checkpoint nor the pretrained weights have a classifier.
        overrides: fields of `Preprocess` that differ from the checkpoint's, or else the model's own.
        head: a projection head to keep, one of `fkdx.models.heads.HEADS`.
        maps: a `MapTeacher`, which sees whole images.
        features: an `EmbeddingTeacher`, a model without its classifier; which of its features, one of
            `fkdx.models.embed.FEATURES`.
        arguments: further ones of a timm model or of the user's function.

    ValueError if the name is unknown or the weights do not fit, OSError if they cannot be read.
    """
    trained = trained_facts(checkpoint) if checkpoint else {}
    trained.pop("classes", None)
    overrides = {**trained, **(overrides or {})}
    embeds = features is not None
    wanted = Wanted(name, checkpoint, pretrained, num_classes, overrides, head, embeds, arguments or {})
    if Path(name).suffix in EXPORTED:
        model, preprocess = _exported(Path(name)), Preprocess()
    elif name.startswith("torchvision:"):
        model, preprocess = _torchvision(wanted)
    elif ":" in name:
        model, preprocess = _own(wanted)
    else:
        model, preprocess = _timm(wanted)
    origin = {"checkpoint": checkpoint and Path(checkpoint).name, "weights_sha256": hash_weights(model)}
    preprocess = replace(preprocess, **wanted.overrides)
    sort = MapTeacher if maps else Teacher
    if features is not None:
        sort, model, origin = (
            EmbeddingTeacher,
            Embedder(name, model, features),
            origin | {"features": features},
        )
    return sort(name, model, preprocess, origin, device, precision, compiled)


def build_student(name: str, num_classes: int, pretrained: bool, arguments: dict) -> nn.Module:
    """timm's model or the user's function by that name, with `num_classes` outputs and more arguments.

    ValueError if it cannot be built.
    """
    if ":" not in name:
        with building("student", name, arguments, timm.list_models):
            return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
    function = find_function("student", name)
    try:
        return function(num_classes=num_classes, **arguments)
    except TypeError as error:
        raise ValueError(f"student: cannot call {name} ({error}), expected module:function") from error


def find_function(role: str, name: str) -> Callable[..., nn.Module]:
    """The function `module:function`, looked up in the current folder too. ValueError if there is none."""
    module, function = name.split(":", 1)
    sys.path.insert(0, "")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{role}: cannot call {name} ({error}), expected module:function") from error
    finally:
        sys.path.remove("")


def near(name: str, known: Iterable[str]) -> str:
    """A hint at the end of a message: which known names are like this one."""
    like = difflib.get_close_matches(name, list(known), n=3)
    return f"; near it: {', '.join(like)}" if like else ""


@contextmanager
def building(
    what: str, name: str, arguments: dict | None = None, known: Callable[[], Iterable[str]] = tuple
) -> Iterator[None]:
    """Around a library's builder: what it raises, for a failed download too, is a ValueError of one line.

    `known` gives the names that the library knows, for a hint where this one is misspelt.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        given = f" with {arguments}" if arguments else ""
        names = known()
        hint = near(name, names) if name not in names else ""
        raise ValueError(f"{what}: cannot build {name}{given} ({reason}){hint}") from error


def check_student(model: nn.Module, name: str, size: int, num_classes: int) -> None:
    """Show a student one black crop: ValueError unless it takes the size and answers for every class."""
    try:
        with torch.no_grad():  # tensors of inference mode that a model keeps could not be trained with
            shape = tuple(model.eval()(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"student: {name} fails on a crop of {size} pixels ({reason}); choose another --size, "
            f"or a model of that size: --student-args '{{img_size: {size}}}'"
        ) from error
    if shape != (1, num_classes):
        raise ValueError(f"student: {name} gives {shape}, expected (1, {num_classes}): one value a class")


# ---- teachers by origin -----------------------------------------------------------------------------------


def _need_weights(wanted: Wanted) -> None:
    if not wanted.checkpoint and not wanted.pretrained:
        raise ValueError(f"teacher: {wanted.name} has no weights; give --checkpoint FILE, or --pretrained")


def _timm(wanted: Wanted) -> tuple[nn.Module, Preprocess]:
    name = wanted.name
    if not timm.is_model(name):
        raise ValueError(
            f"teacher: timm knows no model '{name}'{near(name.split('.')[0], timm.list_models())}"
        )
    _need_weights(wanted)
    config = timm.get_pretrained_cfg(name)
    weights = without_projection(read_weights(wanted.checkpoint)) if wanted.checkpoint else None
    options = dict(wanted.arguments)
    if wanted.embeds:
        options["num_classes"] = 0
        weights = weights and _without_classifier(backbone_weights(weights), config)
    elif weights:
        options["num_classes"] = 0 if wanted.head else _count_classes(weights, config) or wanted.num_classes
    if wanted.overrides.get("size") and config.fixed_input_size:
        options["img_size"] = wanted.overrides["size"]
    pretrained = wanted.pretrained and not weights
    with building("teacher", name, wanted.arguments):
        model = timm.create_model(name, pretrained=pretrained, **options)
    inputs = resolve_model_data_config(model)
    if wanted.head:
        model, weights = add_head(model, wanted.head, weights)
    if weights:
        load_weights(model, weights, wanted.name, wanted.checkpoint)
    return model.eval(), Preprocess(
        size=inputs["input_size"][-1],
        interpolation=inputs["interpolation"],
        mean=tuple(inputs["mean"]),
        std=tuple(inputs["std"]),
        crop_ratio=inputs["crop_pct"],
    )


def _classifiers(config: timm.models.PretrainedCfg) -> list[str]:
    return [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or ())


def _count_classes(weights: dict[str, Tensor], config: timm.models.PretrainedCfg) -> int | None:
    names = [f"{name}.weight" for name in _classifiers(config)]
    found = [weights[name].shape[0] for name in names if name in weights]
    return found[0] if found else None


def _without_classifier(weights: dict[str, Tensor], config: timm.models.PretrainedCfg) -> dict[str, Tensor]:
    prefixes = tuple(f"{name}." for name in _classifiers(config))
    return {name: value for name, value in weights.items() if not name.startswith(prefixes)}


def _torchvision(wanted: Wanted) -> tuple[nn.Module, Preprocess]:
    from torchvision import models

    name = wanted.name.removeprefix("torchvision:")
    if name not in models.list_models(module=models):
        raise ValueError(f"teacher: torchvision knows no classifier '{name}'")
    _need_weights(wanted)
    recommended = models.get_model_weights(name).DEFAULT
    inputs = recommended.transforms()
    preprocess = Preprocess(
        size=inputs.crop_size[0],
        interpolation=inputs.interpolation.value,
        mean=tuple(inputs.mean),
        std=tuple(inputs.std),
        crop_ratio=inputs.crop_size[0] / inputs.resize_size[0],
    )
    if not wanted.checkpoint:
        with building("teacher", wanted.name):
            model = models.get_model(name, weights=recommended).eval()
        return without_classifier(model) if wanted.embeds else model, preprocess
    weights = without_projection(read_weights(wanted.checkpoint))
    with torch.device("meta"):
        last = [key for key in models.get_model(name).state_dict() if key.endswith(".weight")][-1]
    num_classes = len(weights[last]) if last in weights else wanted.num_classes
    with building("teacher", wanted.name):
        model = models.get_model(name, num_classes=num_classes)
    load_weights(model, weights, wanted.name, wanted.checkpoint)
    return without_classifier(model.eval()) if wanted.embeds else model.eval(), preprocess


def _exported(path: Path) -> nn.Module:
    if not path.is_file():
        raise FileNotFoundError(f"teacher: no file at {path}")
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        return torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"teacher: expected a file of torch.export.save (.pt2) or torch.jit.save ({reason}), {path}"
        ) from error


def _own(wanted: Wanted) -> tuple[nn.Module, Preprocess]:
    """The user's function. Its model's `preprocess`, a dict of fields of Preprocess, says what it wants."""
    build = find_function("teacher", wanted.name)
    takes_classes = "num_classes" in inspect.signature(build).parameters
    with building("teacher", wanted.name, wanted.arguments):
        num_classes = 0 if wanted.embeds else wanted.num_classes
        model = build(**({"num_classes": num_classes} if takes_classes else {}), **wanted.arguments)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"teacher: {wanted.name} returned {type(model).__name__}, expected a torch.nn.Module"
        )
    if wanted.checkpoint:
        load_weights(model, read_weights(wanted.checkpoint), wanted.name, wanted.checkpoint)
    return model.eval(), Preprocess(**getattr(model, "preprocess", {}))
