"""What calibration and curricula cost: the pass before training, and each batch.

    python bench/calibration.py [--images N]

Labels are random, 500 crops per image, K = 5 of 1,000 classes; a batch is 256 images with 4 crops each.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from labels import HEIGHT, WIDTH, C, K, draw_image
from timing import wall

from fkdx.calibration import Calibration, calibrated
from fkdx.labels import LabelFile, LabelWriter
from fkdx.loader.ease import Ease
from fkdx.loader.sampler import Sampler

CROPS, BATCH, M = 500, 256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="default %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        labels = LabelFile(write(Path(folder) / "labels.fkdl", args.images))
        start = time.perf_counter()
        view = calibrated([labels], Calibration(0.15, 0.3, 0.95))[0]
        seconds = time.perf_counter() - start
        print(f"one pass: {1e9 * seconds / (CROPS * len(labels)):.0f} ns a crop, {view.statistics}")
        images = np.random.default_rng(0).integers(0, len(labels), BATCH)
        ease, ranks = Ease([labels], "max"), np.tile(np.arange(M), (BATCH, 1))
        work = {
            "as stored": partial(batch, labels, images),
            "calibrated": partial(batch, view, images),
            "ranked": partial(ease.crops_at, images, ranks),
        }
        for name, seconds in wall(work, 20).items():
            print(f"{name:<10} {1e3 * seconds:6.2f} ms a batch of {BATCH} images, {M} crops each")


def write(path: Path, images: int) -> Path:
    rng = np.random.default_rng(0)
    drawn = [draw_image(rng, CROPS) for _ in range(20)]
    with LabelWriter(path, num_classes=C, k=K, crops=CROPS, classes=[f"{i:03d}" for i in range(C)]) as writer:
        for number in range(images):
            writer.add(f"{number % C:03d}/{number}.jpg", **drawn[number % 20], image_size=(HEIGHT, WIDTH))
    return path


def batch(labels: LabelFile, images: np.ndarray) -> None:
    """Choosing and reading the labels of a batch."""
    sampler = Sampler(labels.crop_counts.astype(np.int64), BATCH, M)
    labels.gather(images, sampler.crops(0, images, np.zeros_like(images)))


if __name__ == "__main__":
    main()
