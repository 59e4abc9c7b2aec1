"""A tiny data set, a tiny teacher, and the options of a run over both."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

CROPS, SIZE, TEACHER = 10, 32, "test_resnet"


def make_data(root: Path, images: int = 4) -> Path:
    """Three classes of noisy images of different sizes."""
    rng = np.random.default_rng(1)
    for name in ("ant", "bee", "cat"):
        (root / name).mkdir()
        for number in range(images):
            height, width = rng.integers(20, 60, 2)
            noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            noise.resize((int(width) * 3, int(height) * 3)).save(root / name / f"{number}.jpg")
    return root


def make_teacher(path: Path, classes: int = 3, seed: int = 2) -> torch.nn.Module:
    """A teacher with random weights, which are saved to `path`."""
    torch.manual_seed(seed)
    model = timm.create_model(TEACHER, num_classes=classes).eval()
    save_file(model.state_dict(), path)
    return model


def run_options(data: Path, checkpoint: Path, output: Path) -> list[str]:
    """A run; the last option is the file that it writes."""
    return [
        *("--data", str(data), "--teacher", TEACHER, "--checkpoint", str(checkpoint), "--size", str(SIZE)),
        *("--crops", str(CROPS), "--topk", "2", "--batch-size", "8", "--device", "cpu"),
        *("--output", str(output)),
    ]


def changed(options: list[str], **new: object) -> list[str]:
    """The same run with some options changed."""
    options = list(options)
    for name, value in new.items():
        options[options.index(f"--{name}") + 1] = str(value)
    return options
