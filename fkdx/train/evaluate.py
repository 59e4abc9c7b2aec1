"""Top-1 and top-5 of a model on a validation folder; exact totals whatever the number of processes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fkdx.batch import prepare
from fkdx.loader import ValidationLoader
from fkdx.models.accuracy import as_percentages, count_right, guesses
from fkdx.train.distributed import Stop, World
from fkdx.train.recipe import Recipe


@dataclass(frozen=True)
class Accuracy:
    """What an evaluation found, over all processes.

    Attributes:
        totals: {"top1", "top5" in percent, "images"}, and images "skipped", and "warned" of, if any.
        classes: (C, 2) int64: the images of every class, and those of them whose first guess is right; None
            with ReaL labels, where an image may have several classes.
    """

    totals: dict[str, float]
    classes: np.ndarray | None


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: ValidationLoader, recipe: Recipe, world: World, stop: Stop
) -> Accuracy:
    """The accuracy of `model`; with ReaL labels only images that have any count.

    Raises Interrupted on every process if one of them got a signal, and ValueError if nothing can be counted.
    """
    device, dtype = next(model.parameters()).device, recipe.dtype
    real = read_real(recipe.real_labels) if recipe.real_labels else None
    totals = torch.zeros(3, dtype=torch.int64, device=device)
    of_class = torch.zeros(len(loader.classes), 2, dtype=torch.int64, device=device)
    set_evaluating(model)
    for batch in loader:
        images = laid_out(prepare(batch.images, recipe.mean, recipe.std, dtype), recipe)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = guesses(model(images))
        classes = batch.classes.to(device)
        right = found == classes[:, None] if real is None else among(found, batch.keys, real)
        totals += count_right(right)
        if real is None:
            of_class.index_add_(0, classes, torch.stack([torch.ones_like(classes), right[:, 0].long()], 1))
        if stop.signal:
            break
    stop.agree(int(world.max([stop.signal])[0]))
    counts = world.sum(totals.tolist())
    if not counts[-1]:
        raise ValueError(f"evaluate: no image to count, expected some with labels, {recipe.val}")
    found = as_percentages(counts) | odd_images(loader, world)
    if real is not None:
        return Accuracy(found, None)
    return Accuracy(found, np.array(world.sum(of_class.flatten().tolist()), np.int64).reshape(-1, 2))


def set_evaluating(model: nn.Module) -> None:
    """Evaluation mode. What some models of older versions of timm keep of their weights there, they forget
    only when they train, as an average of weights never does."""
    model.train()
    model.eval()


def odd_images(loader: ValidationLoader, world: World) -> dict[str, int]:
    """How many images all processes have "skipped" and "warned" of, if any."""
    counts = zip(("skipped", "warned"), world.sum([len(loader.skipped), len(loader.warned)]))
    return {name: int(count) for name, count in counts if count}


def laid_out(images: Tensor, recipe: Recipe) -> Tensor:
    """Images (B, 3, S, S) in the memory that the student's weights have; `prepare` makes them NHWC."""
    return images if recipe.channels_last else images.contiguous()


def read_real(path: str) -> list[list[int]]:
    """ImageNet-ReaL's real.json: for the n-th validation image the list of its classes, possibly empty."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"real_labels: no such file, {path}")
    try:
        real = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"real_labels: not JSON ({error}), expected a list of lists of classes, {path}"
        ) from None
    if not isinstance(real, list) or not all(isinstance(classes, list) for classes in real):
        raise ValueError(f"real_labels: got something else, expected a list of lists of classes, {path}")
    return real


def among(found: Tensor, keys: list[str], real: list[list[int]]) -> Tensor:
    """Which guesses (n, 5) are among their image's classes, for images that have any: (at most n, 5) bool."""
    rows = []
    for row, key in zip(found.tolist(), keys):
        if answers := real[image_number(key, len(real)) - 1]:
            rows.append([guess in answers for guess in row])
    return torch.tensor(rows, dtype=torch.bool, device=found.device).view(-1, found.shape[1])


def image_number(key: str, images: int) -> int:
    """The last number in an image's name, from 1 to `images`: ILSVRC2012_val_00000123.JPEG is the 123rd."""
    number = Path(key).stem.split("_")[-1]
    if not (number.isdecimal() and 1 <= int(number) <= images):
        raise ValueError(
            f"real_labels: the image's name, got {key}, expected ILSVRC2012_val_ and 1 to {images}"
        )
    return int(number)
