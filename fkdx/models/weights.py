"""Weights of teachers and students: read from any checkpoint, put into a model, written with their facts."""

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from timm.models import clean_state_dict, load_state_dict
from torch import Tensor, nn

from fkdx.models.embed import classifier_prefixes

WRAPPERS = ("model_state_dict", "student", "net")  # keys around the weights that timm does not know
COUNTER = ".num_batches_tracked"  # of a batch norm; only norms without a momentum need it


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights in a .safetensors file or a checkpoint of fkdx, timm, FKD or a plain torch program.

    Where a checkpoint also holds an average of the weights, that is taken. Nothing in the file is executed.
    FileNotFoundError if there is no such file, ValueError if it holds no weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: no checkpoint at {path}; expected .safetensors, .pt or .pth.tar")
    open(path, "rb").close()  # safetensors calls a file that may not be read missing
    try:
        weights = load_state_dict(str(path))
        inner = next((weights[key] for key in WRAPPERS if isinstance(weights.get(key), dict)), None)
        weights = clean_state_dict(inner) if inner else weights
    except Exception as error:
        raise ValueError(
            f"weights: cannot read weights ({_reason(error)}), expected .safetensors, .pt or .pth.tar, {path}"
        ) from error
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        names = ", ".join(map(str, list(weights)[:4]))
        raise ValueError(f"weights: no tensors by name, got {names or 'nothing'}, {path}")
    return weights


def _reason(error: Exception) -> str:
    """What is wrong with a file of weights, without the advice to run what is in it."""
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "it is of another kind, or asks for code, which is never run"
    return text if len(text.split()) > 1 else "it is of another kind"


def load_weights(
    model: nn.Module, weights: dict[str, Tensor], name: str, path: str, new_head: bool = False
) -> None:
    """Put weights into the model called `name`; with `new_head`, up to two tensors (a classifier's) may have
    another shape, and stay as they are.

    With `new_head` a classifier that is only in one of the two, the weights or the model, is passed over too.
    Where the weights are those of a run on embeddings, and the model has no projection, the backbone's are
    taken. Other projects' names of timm's models are translated, and counters of batches that old
    checkpoints lack start at their first value. ValueError if the weights are still those of another model.
    """
    expected = model.state_dict()
    if not any(n.startswith("projection.") for n in expected):
        weights = without_projection(weights)
    weights = _renamed(model, weights)
    weights = {n: v for n, v in expected.items() if n.endswith(COUNTER)} | weights
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    unlike = {n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape}
    allowed = 2 if new_head else 0
    if new_head:
        heads = classifier_prefixes(model)
        missing, unknown = ({n for n in names if not n.startswith(heads)} for names in (missing, unknown))
    faults = {"missing": missing, "unknown": unknown, "of another shape": unlike}
    for fault, names in faults.items():
        if len(names) > (allowed if names is unlike else 0):
            raise ValueError(
                f"weights: the checkpoint is of another model: {len(names)} weights {fault} "
                f"(the first is {min(names)}), expected those of {name}, {path}"
            )
    model.load_state_dict({n: v for n, v in weights.items() if n not in unlike}, strict=not new_head)


def _renamed(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the model's names, if timm knows how to translate them."""
    if not {n for n in weights.keys() ^ model.state_dict().keys() if not n.endswith(COUNTER)}:
        return weights
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return translate(weights, model) if translate else weights
    except Exception:  # it misses names that it expects: these are another model's weights
        return weights


def backbone_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the backbone, of a model that is a backbone and a head; all weights of another one."""
    own = {n.removeprefix("backbone."): v for n, v in weights.items() if n.startswith("backbone.")}
    return own or weights


def without_projection(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the backbone, of a run on embeddings; all weights of another one."""
    projected = "projection.weight" in weights or "projection.0.weight" in weights
    return backbone_weights(weights) if projected else weights


def differing(weights: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Names that only one of the two has, or that differ in shape."""
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in weights.items()}
    return sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over names and bytes of a model's state dict: the same whatever file the weights came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- what is known of weights besides their values --------------------------------------------------------


def encode_weights(model: nn.Module, facts: dict[str, Any] | None = None) -> bytes:
    """A model's weights as safetensors under the model's own names, as `timm.create_model` loads them.

    facts: what the weights expect, for `trained_facts`: size, mean and std of the images, and names of the
    classes. The same weights and facts give the same bytes.
    """
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    about = {"format": "pt", **({"inputs": json.dumps(facts, sort_keys=True)} if facts else {})}
    return _in_order(save(weights, about))


def _in_order(file: bytes) -> bytes:
    """The file with its metadata sorted: safetensors writes them in another order in every process."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


def trained_facts(path: str | Path) -> dict[str, Any]:
    """What `fkdx train` wrote beside weights: size, mean and std of images, names of the classes, if any."""
    if not Path(path).is_file():  # nothing comes out of a pipe
        return {}
    try:
        if str(path).endswith(".safetensors"):
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("inputs", "{}"))
        else:
            state = torch.load(path, "cpu", weights_only=True, mmap=True)
            facts = state.get("inputs") or {**state["recipe"], "classes": state.get("classes")}
    except Exception:  # `read_weights` reports files that are no checkpoints
        return {}
    found = {name: facts.get(name) for name in ("size", "mean", "std", "classes")}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if v}
