"""Top-1 and top-5 of a model on a validation folder; exact totals whatever the number of processes."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from fkdx.batch import prepare
from fkdx.loader import ValidationLoader
from fkdx.train.distributed import Stop, World
from fkdx.train.recipe import Recipe


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: ValidationLoader, recipe: Recipe, world: World, stop: Stop
) -> dict[str, float]:
    """{"top1", "top5" in percent, "images"} of `model` over all processes.

    With ReaL labels only images that have any count, and a guess is right if it is among them.
    Raises Interrupted on every process if one was told to stop, and ValueError where nothing can be counted.
    """
    device = next(model.parameters()).device
    dtype = recipe.dtype
    real = read_real(recipe.real_labels) if recipe.real_labels else None
    totals = torch.zeros(3, dtype=torch.int64, device=device)  # right at first, right in five, images
    model.eval()
    for batch in loader:
        images = prepare(batch.images, recipe.mean, recipe.std, dtype)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            guesses = model(images).topk(min(5, len(loader.classes)), dim=1).indices
        right = (
            guesses == batch.classes.to(device)[:, None] if real is None else among(guesses, batch.keys, real)
        )
        totals += torch.stack([right[:, 0].sum(), right.any(1).sum(), right.new_ones(len(right)).sum()])
        if stop.signal:
            break
    stop.agree(int(world.max([stop.signal])[0]))
    top1, top5, images = world.sum(totals.tolist())
    if not images:
        raise ValueError(f"evaluate: no image to count, expected some with labels, {recipe.val}")
    return {"top1": 100 * top1 / images, "top5": 100 * top5 / images, "images": int(images)}


def read_real(path: str) -> list[list[int]]:
    """ImageNet-ReaL's real.json: for the n-th validation image the list of its classes, possibly empty."""
    try:
        real = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"real_labels: not JSON ({error}), expected a list of lists of classes, {path}"
        ) from None
    if not isinstance(real, list) or not all(isinstance(classes, list) for classes in real):
        raise ValueError(f"real_labels: got something else, expected a list of lists of classes, {path}")
    return real


def among(guesses: Tensor, keys: list[str], real: list[list[int]]) -> Tensor:
    """Which guesses (n, 5) are among their image's classes, for images that have any: (at most n, 5) bool."""
    rows = []
    for row, key in zip(guesses.tolist(), keys):
        if answers := real[image_number(key, len(real)) - 1]:
            rows.append([guess in answers for guess in row])
    return torch.tensor(rows, dtype=torch.bool, device=guesses.device).view(-1, guesses.shape[1])


def image_number(key: str, images: int) -> int:
    """The last number in an image's name, from 1 to `images`: ILSVRC2012_val_00000123.JPEG is the 123rd."""
    number = Path(key).stem.split("_")[-1]
    if not (number.isdecimal() and 1 <= int(number) <= images):
        raise ValueError(
            f"real_labels: the image's name, got {key}, expected ILSVRC2012_val_ and 1 to {images}"
        )
    return int(number)
