"""Random logits, labels, targets and images as tensors, for the tests of losses and batches."""

import numpy as np
import torch

from fkdx import SparseTarget
from fkdx.batch import Mix, Mixer

CLASSES = [1, 2, 7, 16, 17, 997, 1000, 1001, 1025, 21841, 65537]
MIXERS = [None, Mixer(mixup=0.8), Mixer(cutmix=1.0), Mixer(selfmix=1.0)]
ROUNDING = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def random_labels(rng, rows: int, classes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-K labels as a teacher gives them: descending values that sum to at most 1."""
    logits = rng.normal(scale=3.0, size=(rows, classes))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    ids = np.argsort(-p, axis=1)[:, :k]
    return ids, np.take_along_axis(p, ids, 1).astype(np.float32)


def random_logits(rng, rows, classes, dtype=torch.float32, spread=3.0, shift=0.0) -> torch.Tensor:
    return torch.from_numpy(rng.normal(shift, spread, (rows, classes))).to(dtype)


def mixed_target(rng, rows: int, classes: int) -> SparseTarget:
    """An ensemble of two teachers, mixed."""
    first, second = (
        SparseTarget.from_topk(*random_labels(rng, rows, classes, 5), classes, kind)
        for kind in ("marginal_smoothing", "marginal_renorm")
    )
    return SparseTarget.ensemble([first, second]).mix(rng.permutation(rows), rng.random(rows))


def random_images(rng, rows=6, height=37, width=21) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (rows, height, width, 3), dtype=np.uint8))


def draw_mix(mixer, images, rng, crops_per_image=3) -> Mix | None:
    return mixer and mixer.draw(*images.shape[:3], rng, crops_per_image)
