"""A tiny data set, a tiny teacher, and the options of a run over both."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm
import torch
from images import draw_images, photo
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from fkdx import CropLoader, LabelFile
from fkdx.batch import prepare

CROPS, SIZE, TEACHER = 10, 32, "test_resnet"
NORMAL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # as the teacher wants it


def make_data(root: Path, images: int = 4) -> Path:
    """Three classes of noisy images of different sizes."""
    rng = np.random.default_rng(1)
    keys = [f"{name}/{number}.jpg" for name in ("ant", "bee", "cat") for number in range(images)]
    return draw_images(root, keys, lambda _: photo(rng, *(3 * rng.integers(20, 60, 2))))


def make_teacher(path: Path, classes: int = 3, seed: int = 2) -> torch.nn.Module:
    """A teacher with random weights, which are saved to `path`."""
    torch.manual_seed(seed)
    model = timm.create_model(TEACHER, num_classes=classes).eval()
    save_file(model.state_dict(), path)
    return model


def gray_teacher(num_classes: int) -> torch.nn.Module:
    """One that takes images of a single channel."""
    return timm.create_model(TEACHER, num_classes=num_classes, in_chans=1)


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


def of_kind(kind: str, options: list[str]) -> list[str]:
    """The same run with labels of a kind that keeps no top K."""
    at = options.index("--topk")
    return ["--kind", kind, *options[:at], *options[at + 2 :]]


@contextmanager
def teacher_inputs() -> Iterator[list[torch.Tensor]]:
    """What teachers are given, batch after batch; the first is the probe for the number of classes."""
    batches: list[torch.Tensor] = []

    def note(module: torch.nn.Module, inputs: tuple) -> None:
        if hasattr(module, "forward_features"):
            batches.append(inputs[0].clone())

    hook = register_module_forward_pre_hook(note)
    yield batches
    hook.remove()


def replayed(data: Path, labels: LabelFile) -> dict[tuple[str, int], torch.Tensor]:
    """What a student is given, by key and crop."""
    loader = CropLoader(data, labels, len(labels) * CROPS, CROPS, SIZE, on_missing="ignore")
    (batch,) = list(loader)
    pixels = prepare(batch.images, **NORMAL, mix=batch.mix)
    return {(key, int(crop)): row for key, crop, row in zip(batch.keys, batch.crops, pixels)}
