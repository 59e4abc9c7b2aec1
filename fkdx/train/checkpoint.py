"""Checkpoints, written whole or not at all."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fkdx.files import write_whole
from fkdx.models.weights import encode_weights


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: tensors, numbers, strings, lists and dicts of them."""
    write_whole(path, lambda temporary: torch.save(state, temporary))


def give_name(path: Path, name: Path) -> None:
    """Let `name` be the same file as `path`: a hard link, or a copy if the file system has none."""

    def link(temporary: Path) -> None:
        temporary.unlink()  # a link is made, not filled
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

    if not (name.exists() and name.samefile(path)):
        write_whole(name, link)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU after checking every record's checksum. No code in it is ever run.

    Raises FileNotFoundError, and ValueError if the file is damaged or no checkpoint of a run.
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
    except (pickle.UnpicklingError, RuntimeError):  # it asks for code, as timm's, or is another archive
        state = None
    if not isinstance(state, dict) or "position" not in state:
        raise ValueError(f"checkpoint: no position in it, expected a checkpoint of fkdx train, {path}")
    return state


def save_weights(path: Path, model: nn.Module, facts: dict[str, Any] | None = None) -> None:
    """Weights alone, see `fkdx.models.weights.encode_weights`; facts: what they expect of their images."""
    write_whole(path, lambda temporary: temporary.write_bytes(encode_weights(model, facts)))
