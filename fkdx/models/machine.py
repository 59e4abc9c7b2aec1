"""Where a model runs and how precisely: one choice of device and one table of precisions for all programs."""

import os

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AMP = {"none": "float32", "bf16": "bfloat16", "fp16": "float16"}  # the same in a recipe's words


def pick_device(name: str = "auto") -> torch.device:
    """The device by that name, and an index with it: `auto` is a GPU if there is one, otherwise the CPU.

    Of several GPUs, "cuda" is the one that torchrun gives to this process, or else torch's current one.
    ValueError for an unknown name, and for a GPU that torch does not see.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"device: got {name}, expected cpu, cuda, cuda:N or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: got {name}, but torch sees no GPU; try cpu or auto")
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK') or torch.cuda.current_device()}"
    return torch.device(name)
