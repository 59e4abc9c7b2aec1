"""Checkpoints that are whole or absent: written under another name, flushed to the disk, then renamed."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from timm.models import load_state_dict
from torch import nn


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`; it gets its name when its bytes are on the disk.

    Raises OSError where that fails, with the space that is left; then `path` is what it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, RuntimeError) as error:  # torch says the latter of a full disk
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> OSError:
    """What to raise where writing failed."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    free = shutil.disk_usage(path.parent).free
    return OSError(f"train: cannot write ({reason}), {free} bytes are free there, {path}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, numbers, strings, lists and dicts of them."""
    write_whole(path, lambda temporary: torch.save(state, temporary))


def give_name(path: Path, name: Path) -> None:
    """Let `name` be the same file as `path`: a hard link, or a copy where there are none."""

    def link(temporary: Path) -> None:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

    write_whole(name, link)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU after checking every record's checksum. No code in it is ever run.

    Raises FileNotFoundError, and ValueError where the file is damaged or is not a checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as records:
            damaged = records.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged:
        raise ValueError(
            f"checkpoint: damaged ({damaged}), expected a whole file; resume from another one, {path}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it asks for code, as timm's own checkpoints do
        state = None
    if not isinstance(state, dict) or "position" not in state:
        raise ValueError(f"checkpoint: no position in it, expected a checkpoint of fkdx train, {path}")
    return state


def save_weights(path: Path, model: nn.Module, inputs: dict[str, Any] | None = None) -> None:
    """Weights alone as safetensors under the model's own names, as `timm.create_model` loads them.

    inputs: size, mean and std of the crops that they learned from, for those who use them as a teacher.
    """
    weights = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    about = {"format": "pt", **({"inputs": json.dumps(inputs)} if inputs else {})}
    write_whole(path, lambda temporary: temporary.write_bytes(to_bytes(weights, about)))


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights from .safetensors or a checkpoint of fkdx, timm or FKD: the average where it has one.

    FileNotFoundError where no file is there, ValueError where it holds no weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"checkpoint: no such file, got {path}, expected weights (.safetensors, .pt, .pth.tar)"
        )
    try:
        return load_state_dict(str(path))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"checkpoint: cannot read it ({reason}), expected weights (.safetensors, .pt, .pth.tar), {path}"
        ) from error


def differing(weights: dict[str, torch.Tensor], model: nn.Module) -> list[str]:
    """Names that only one of the two has, or that differ in shape."""
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in weights.items()}
    return sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
