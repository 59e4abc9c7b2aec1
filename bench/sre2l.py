"""SRe2L's way with stored labels, told again in plain torch: how it makes, replays and learns from them.

Labels are `epoch_<e>/batch_<b>.tar`, torch.save of crops, flips, partners, lambda, box and logits (see
docs/importers.md); images come in the order of a RandomSampler with seed 42, so that rows need no names.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import hflip, normalize, to_tensor

SEED = 42  # of the order of images


def batches(images: int, epochs: int, batch_size: int) -> Iterator[tuple[int, int, list[int]]]:
    """Epoch, batch and images of every batch."""
    sampler = RandomSampler(range(images), generator=torch.Generator().manual_seed(SEED))
    for epoch in range(epochs):
        order = list(sampler)
        for number, first in enumerate(range(0, images, batch_size)):
            yield epoch, number, order[first : first + batch_size]


def cut(image: Image.Image, coords: Tensor, flip: bool, size: int, mean, std) -> Tensor:
    """One crop as the networks see it. coords: top / H, left / W, height / H, width / W."""
    (top, height), (left, width) = coords[::2] * image.height, coords[1::2] * image.width
    crop = image.crop((left.item(), top.item(), (left + width).item(), (top + height).item()))
    crop = crop.resize((size, size), Image.Resampling.BILINEAR)
    return normalize(to_tensor(hflip(crop) if flip else crop), mean, std)


def mix(images: Tensor, partners: Tensor | None, box: list[int] | None) -> Tensor:
    """CutMix of a batch, with one box for all."""
    if partners is not None:
        top, left, bottom, right = box
        images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return images


@torch.no_grad()
def relabel(
    folder: Path, teacher: nn.Module, labels: Path, epochs: int, batch_size: int, size: int, mean, std
) -> None:
    """Label CutMix'ed random crops of every image, once an epoch."""
    data, rng = ImageFolder(folder), np.random.default_rng(SEED)
    for epoch, number, chosen in batches(len(data), epochs, batch_size):
        pictures = [data[index][0] for index in chosen]
        drawn = [RandomResizedCrop.get_params(one, (0.08, 1), (3 / 4, 4 / 3)) for one in pictures]
        sizes = [[one.height, one.width] * 2 for one in pictures]
        coords = torch.tensor(drawn, dtype=torch.float32) / torch.tensor(sizes)
        flips = torch.rand(len(chosen)) < 0.5
        crops = [cut(*of, size, mean, std) for of in zip(pictures, coords, flips.tolist())]
        lam, partners = float(rng.beta(1, 1)), torch.randperm(len(chosen))
        half, centre = int(size * math.sqrt(1 - lam)) // 2, rng.integers(0, size, 2)
        box = [*np.clip(centre - half, 0, size).tolist(), *np.clip(centre + half, 0, size).tolist()]
        logits = teacher(mix(torch.stack(crops), partners, box)).half()
        path = labels / f"epoch_{epoch}" / f"batch_{number}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([coords, flips, partners, lam, box, logits], path)


class Replayed(Dataset):
    """Batches as stored: what SRe2L's patch of torch's fetcher does. Indices are those of `batches`."""

    def __init__(self, folder: Path, labels: Path, size: int, mean, std) -> None:
        self.images, self.labels, self.pixels = ImageFolder(folder), labels, (size, mean, std)

    def __getitems__(self, index: tuple[int, int, list[int]]) -> tuple[Tensor, Tensor]:
        """Mixed images (B, 3, S, S) and the teacher's logits (B, C)."""
        epoch, number, chosen = index
        path = self.labels / f"epoch_{epoch}" / f"batch_{number}.tar"
        coords, flips, partners, _, box, logits = torch.load(path, weights_only=True)
        pictures = [self.images[one][0] for one in chosen]
        crops = [cut(*of, *self.pixels) for of in zip(pictures, coords, flips.tolist())]
        return mix(torch.stack(crops), partners, box), logits.float()


def loss_of(output: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """KL divergence at a temperature, without its square."""
    target = (logits / temperature).softmax(1)
    return nn.KLDivLoss(reduction="batchmean")((output / temperature).log_softmax(1), target)


def learn(
    student: nn.Module, data: Replayed, epochs: int, batch_size: int, temperature: float, workers: int
) -> float:
    """Train a student; steps a second."""
    groups = [[p for p in student.parameters() if (p.ndim > 1) == decayed] for decayed in (True, False)]
    decays = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.01, 0.0))]
    optimizer = torch.optim.AdamW(decays, lr=0.001)
    plan = list(batches(len(data.images), epochs, batch_size))
    loader = DataLoader(data, batch_sampler=plan, num_workers=workers, collate_fn=list)
    student.train()
    began = time.perf_counter()
    for (epoch, _, _), (images, logits) in zip(plan, loader, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        optimizer.zero_grad()
        loss_of(student(images), logits, temperature).backward()
        optimizer.step()
    return len(plan) / (time.perf_counter() - began)


@torch.no_grad()
def accuracy(student: nn.Module, folder: Path, mean, std) -> float:
    """Top-1 in percent on images that have the student's size."""
    student.eval()
    right = count = 0
    data = ImageFolder(folder, lambda image: normalize(to_tensor(image), mean, std))
    for images, classes in DataLoader(data, batch_size=500):
        right += (student(images).argmax(1) == classes).sum().item()
        count += len(classes)
    return 100 * right / count


def hardness(teacher: nn.Module, crops: Tensor, classes: Tensor) -> Tensor:
    """How little the teacher sees a class in crops, by which RDED selects them."""
    return functional.cross_entropy(teacher(crops), classes, reduction="none")
