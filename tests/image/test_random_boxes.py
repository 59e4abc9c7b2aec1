"""Random boxes: the integers of the slow twin, the distribution of torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from fkdx import reference
from fkdx.image.random_boxes import random_boxes


def test_equals_reference(rng: np.random.Generator) -> None:
    for _ in range(200):
        size = tuple(int(2 ** rng.uniform(0, 12)) for _ in range(2))
        seed, draws = int(rng.integers(2**63)), int(rng.integers(1000))
        scale = tuple(np.sort(rng.uniform(0.01, 1, 2)))
        ratio = tuple(np.sort(rng.uniform(0.2, 5, 2)))
        key, first = f"n{rng.integers(1000)}/ä{rng.integers(1000)}.JPEG", int(rng.integers(500))
        boxes, flips = random_boxes(
            size, seed, key, 4, scale=scale, ratio=ratio, flip=0.3, draws=draws, first=first
        )
        for i in range(4):
            expected = reference.image.random_box(size, seed, key, first + i, scale, ratio, 0.3, draws)
            assert (tuple(boxes[i]), flips[i]) == expected


def test_known_numbers() -> None:
    """The same integers for ever, on every machine: labels were made with them."""
    boxes, flips = random_boxes((375, 500), 7, "n01440764/n01440764_10026.JPEG", 3)
    assert boxes.tolist() == [[127, 101, 147, 184], [77, 122, 295, 240], [25, 66, 317, 382]]
    assert flips.tolist() == [True, False, True]


def test_boxes_lie_inside(rng: np.random.Generator) -> None:
    for size in [(1, 1), (1, 5000), (5000, 1), (3, 4), (375, 500)]:
        boxes, _ = random_boxes(size, int(rng.integers(2**31)), "x", 1000)
        top, left, height, width = boxes.T
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] >= 1).all()
        assert (top + height <= size[0]).all()
        assert (left + width <= size[1]).all()


def test_crops_can_be_drawn_alone() -> None:
    boxes, flips = random_boxes((375, 500), 1, "a/b.jpg", 20)
    part, part_flips = random_boxes((375, 500), 1, "a/b.jpg", 5, first=10)
    assert (part == boxes[10:15]).all()
    assert (part_flips == flips[10:15]).all()
    other, _ = random_boxes((375, 500), 1, "a/c.jpg", 20)
    assert (other != boxes).any(axis=1).all()


@pytest.mark.parametrize("size", [(375, 500), (100, 400)])
def test_distribution_is_torchvisions(rng: np.random.Generator, size: tuple[int, int]) -> None:
    count, scale, ratio = 10_000, (0.08, 1.0), (3 / 4, 4 / 3)
    image = Image.new("RGB", size[::-1])
    torch.manual_seed(int(rng.integers(2**31)))
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)])
    ours, flips = random_boxes(size, int(rng.integers(2**31)), "x", count, scale=scale, ratio=ratio)
    for name, of in {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
    }.items():
        distance = _kolmogorov_smirnov(of(ours), of(theirs))
        assert distance < 3.3 * np.sqrt(2 / count), name  # by chance once in 1e9
    assert abs(flips.mean() - 0.5) < 6 * 0.5 / np.sqrt(count)


def _kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> float:
    values = np.concatenate([x, y])
    below = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": (0, 1)},
        {"scale": (0.5, 0.2)},
        {"scale": (0.5, 1.5)},
        {"ratio": (0, 1)},
        {"ratio": (2, 1)},
        {"ratio": (float("nan"), 1)},
        {"flip": 1.5},
        {"count": -1},
        {"first": -1},
        {"size": (0, 5)},
    ],
)
def test_bad_arguments(bad: dict) -> None:
    arguments = {"size": (10, 10), "seed": 0, "key": "x", "count": 1} | bad
    with pytest.raises(ValueError, match="random_boxes"):
        random_boxes(**arguments)
