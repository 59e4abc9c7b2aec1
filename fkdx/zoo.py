"""Where teachers come from: any timm model, with pretrained weights or a checkpoint."""

import difflib
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from fkdx.teacher import Preprocess, Teacher


def load_teacher(
    name: str,
    checkpoint: str | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    overrides: dict | None = None,
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
) -> Teacher:
    """Build the teacher called `name` and load its weights.

    `num_classes` is used only where neither the checkpoint nor the pretrained weights say it; `overrides`
    replaces fields of the teacher's own `Preprocess`. ValueError where the name is unknown or the weights do
    not fit, OSError where they cannot be read.
    """
    overrides = overrides or {}
    model = _timm_model(name, checkpoint, pretrained, num_classes, overrides.get("size"))
    origin = {"checkpoint": checkpoint and Path(checkpoint).name, "weights_sha256": hash_weights(model)}
    preprocess = replace(_timm_preprocess(model), **overrides)
    return Teacher(name, model.eval(), preprocess, origin, device, precision, compiled)


def read_weights(path: str) -> dict[str, Tensor]:
    """The state dict of a .safetensors or .pth file (a bare one, or a trainer's checkpoint around it).

    Nothing in the file is executed: it is read weights-only.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"teacher: no checkpoint at {path}")
    try:
        weights = load_state_dict(path)
    except Exception as error:
        raise ValueError(
            f"teacher: cannot read weights ({str(error).splitlines()[0]}), path {path}"
        ) from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"teacher: expected a checkpoint that holds tensors by name, path {path}")
    return weights


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names and bytes of a model's state dict: the same whatever file the weights came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _timm_model(
    name: str, checkpoint: str | None, pretrained: bool, num_classes: int | None, size: int | None
) -> nn.Module:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"teacher: timm knows no model '{name}'{hint}")
    config = timm.get_pretrained_cfg(name)
    weights = read_weights(checkpoint) if checkpoint else None
    options = {"num_classes": _count_classes(weights, config) or num_classes} if weights else {}
    if size and config.fixed_input_size:
        options["img_size"] = size
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:  # no pretrained weights by that name, or none to be had
        raise ValueError(f"teacher: {name}: {str(error).splitlines()[0]}; give --checkpoint FILE") from error
    if weights:
        _load(model, weights, f"{name}, path {checkpoint}")
    return model


def _count_classes(weights: dict[str, Tensor], config: timm.models.PretrainedCfg) -> int | None:
    names = [config.classifier] if isinstance(config.classifier, str) else list(config.classifier or ())
    found = [weights[f"{name}.weight"].shape[0] for name in names if f"{name}.weight" in weights]
    return found[0] if found else None


def _load(model: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    expected = model.state_dict()
    if weights.keys() != expected.keys():  # another project's names for the same model, perhaps
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        weights = convert(weights, model) if convert else weights
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    unlike = [
        name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape
    ]
    for fault, names in (("missing", missing), ("unknown", unknown), ("of another shape", sorted(unlike))):
        if names:
            raise ValueError(
                f"teacher: the checkpoint is of another model: {len(names)} weights {fault} "
                f"(the first is {names[0]}), expected those of {what}"
            )
    model.load_state_dict(weights)


def _timm_preprocess(model: nn.Module) -> Preprocess:
    config = resolve_model_data_config(model)
    return Preprocess(
        size=config["input_size"][-1],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_ratio=config["crop_pct"],
    )
