"""Checkpoints that are whole or absent: written under another name, flushed to the disk, then renamed."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fkdx.models.weights import encode_weights


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


def save_weights(path: Path, model: nn.Module, facts: dict[str, Any] | None = None) -> None:
    """Weights alone, see `fkdx.models.weights.encode_weights`; facts: what they expect of their images."""
    write_whole(path, lambda temporary: temporary.write_bytes(encode_weights(model, facts)))
