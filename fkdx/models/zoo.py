"""Where teachers come from, by their name:

resnet50                    timm, with pretrained weights or a checkpoint
torchvision:resnet50        torchvision, the same
path/teacher.pt2            a file of torch.export.save, or of torch.jit.save (.pt, .ts)
module:function             a function of one's own, called with num_classes
"""

import difflib
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from timm.data import resolve_model_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from fkdx.models.heads import add_head
from fkdx.models.maps import MapTeacher
from fkdx.models.teacher import Preprocess, Teacher

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


def load_teacher(
    name: str,
    checkpoint: str | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    overrides: dict | None = None,
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
    *,
    head: str | None = None,
    maps: bool = False,
) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        name: see the module.
        checkpoint, pretrained: a file of weights, or else the pretrained ones.
        num_classes: where neither the checkpoint nor the pretrained weights say it.
        overrides: fields of `Preprocess` that differ from the checkpoint's, or else the model's own.
        head: a projection head to keep, one of `fkdx.models.heads.HEADS`.
        maps: a `MapTeacher`, which sees whole images.

    ValueError where the name is unknown or the weights do not fit, OSError where they cannot be read.
    """
    overrides = {**(trained_inputs(checkpoint) if checkpoint else {}), **(overrides or {})}
    wanted = Wanted(name, checkpoint, pretrained, num_classes, overrides, head)
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
    kind = MapTeacher if maps else Teacher
    return kind(name, model, preprocess, origin, device, precision, compiled)


# ---- weights ------------------------------------------------------------------------------------------


def read_weights(path: str) -> dict[str, Tensor]:
    """The state dict of a .safetensors or .pth file (a bare one, or a trainer's checkpoint around it).

    Nothing in the file is executed: it is read weights-only.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"teacher: no checkpoint at {path}")
    try:
        weights = load_state_dict(path)
        weights = weights.get("student", weights)  # a checkpoint of fkdx train
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"teacher: cannot read weights ({reason}), path {path}") from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"teacher: expected a checkpoint that holds tensors by name, path {path}")
    return weights


def trained_inputs(path: str) -> dict:
    """Size, mean and std that `fkdx train` wrote beside its weights; nothing where another program did."""
    try:
        if path.endswith(".safetensors"):
            with safe_open(path, "pt") as file:
                told = json.loads((file.metadata() or {}).get("inputs", "{}"))
        else:
            told = torch.load(path, "cpu", weights_only=True, mmap=True)["recipe"]
    except Exception:  # what is no checkpoint at all `read_weights` says
        return {}
    found = {name: told.get(name) for name in ("size", "mean", "std")}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if v}


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names and bytes of a model's state dict: the same whatever file the weights came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(model: nn.Module, weights: dict[str, Tensor], wanted: Wanted) -> None:
    expected = model.state_dict()
    if weights.keys() != expected.keys():  # another project's names for the same model, perhaps
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        weights = convert(weights, model) if convert else weights
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    common = sorted(expected.keys() & weights.keys())
    unlike = [name for name in common if expected[name].shape != weights[name].shape]
    for fault, names in (("missing", missing), ("unknown", unknown), ("of another shape", unlike)):
        if names:
            raise ValueError(
                f"teacher: the checkpoint is of another model: {len(names)} weights {fault} "
                f"(the first is {names[0]}), expected those of {wanted.name}, path {wanted.checkpoint}"
            )
    model.load_state_dict(weights)


def _need_weights(wanted: Wanted) -> None:
    if not wanted.checkpoint and not wanted.pretrained:
        raise ValueError(f"teacher: {wanted.name} has no weights; give --checkpoint FILE, or --pretrained")


def _built(wanted: Wanted, build: Callable[[], nn.Module]) -> nn.Module:
    """A model with pretrained weights if those are wanted, and what to do where there are none to be had."""
    try:
        return build()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"teacher: cannot build {wanted.name} ({reason})") from error


# ---- origins ------------------------------------------------------------------------------------------


def _timm(wanted: Wanted) -> tuple[nn.Module, Preprocess]:
    name = wanted.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"teacher: timm knows no model '{name}'{hint}")
    _need_weights(wanted)
    config = timm.get_pretrained_cfg(name)
    weights = read_weights(wanted.checkpoint) if wanted.checkpoint else None
    options = {}
    if weights:
        options["num_classes"] = 0 if wanted.head else _count_classes(weights, config) or wanted.num_classes
    if wanted.overrides.get("size") and config.fixed_input_size:
        options["img_size"] = wanted.overrides["size"]
    pretrained = wanted.pretrained and not weights
    model = _built(wanted, lambda: timm.create_model(name, pretrained=pretrained, **options))
    inputs = resolve_model_data_config(model)
    if wanted.head:
        model, weights = add_head(model, wanted.head, weights)
    if weights:
        _load(model, weights, wanted)
    return model.eval(), Preprocess(
        size=inputs["input_size"][-1],
        interpolation=inputs["interpolation"],
        mean=tuple(inputs["mean"]),
        std=tuple(inputs["std"]),
        crop_ratio=inputs["crop_pct"],
    )


def _count_classes(weights: dict[str, Tensor], config: timm.models.PretrainedCfg) -> int | None:
    names = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or ())
    found = [weights[f"{name}.weight"].shape[0] for name in names if f"{name}.weight" in weights]
    return found[0] if found else None


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
        return _built(wanted, lambda: models.get_model(name, weights=recommended)).eval(), preprocess
    weights = read_weights(wanted.checkpoint)
    with torch.device("meta"):
        last = [key for key in models.get_model(name).state_dict() if key.endswith(".weight")][-1]
    num_classes = len(weights[last]) if last in weights else wanted.num_classes
    model = _built(wanted, lambda: models.get_model(name, num_classes=num_classes))
    _load(model, weights, wanted)
    return model.eval(), preprocess


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
            f"teacher: expected a file of torch.export.save (.pt2) or torch.jit.save ({reason}), path {path}"
        ) from error


def _own(wanted: Wanted) -> tuple[nn.Module, Preprocess]:
    """The user's function. Its model's `preprocess`, a dict of fields of Preprocess, says what it wants."""
    module, function = wanted.name.split(":", 1)
    sys.path.insert(0, "")
    try:
        build = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"teacher: {error}, got {wanted.name}, expected module:function") from error
    finally:
        sys.path.remove("")
    takes_classes = "num_classes" in inspect.signature(build).parameters
    model = _built(wanted, lambda: build(**({"num_classes": wanted.num_classes} if takes_classes else {})))
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"teacher: {wanted.name} returned {type(model).__name__}, expected a torch.nn.Module"
        )
    if wanted.checkpoint:
        _load(model, read_weights(wanted.checkpoint), wanted)
    return model.eval(), Preprocess(**getattr(model, "preprocess", {}))
