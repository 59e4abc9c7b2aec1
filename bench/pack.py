"""Measure the packing of FKD files against torch.load: python bench/pack.py [--files 4000] [--rounds 3]

FKD files of 200 crops, top-5, are written for images of random sizes, then read by torch.load (labels
only) and packed by fkdx with the images given (boxes recovered), on one core, in turns. The packed labels
are compared with torch.load's before anything is timed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, CROPS, KEPT = 1000, 200, 5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=4000, help="label files, one an image")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_files(root, args.files)
        pack_files(root)
        check(root)
        rates: dict[str, list[float]] = {"torch.load": [], "fkdx pack": []}
        for _ in range(args.rounds):
            for name, work in (("torch.load", load_files), ("fkdx pack", pack_files)):
                start = time.perf_counter()
                work(root)
                rates[name].append(args.files / (time.perf_counter() - start))
        size = (root / "labels.fkdl").stat().st_size
        before = sum(path.stat().st_size for path in (root / "labels").rglob("*.tar"))
    for name, all_rates in rates.items():
        print(f"{name:<12}{statistics.median(all_rates):8.0f} files/s")
    crops = args.files * CROPS
    print(f"bytes a crop: {before / crops:.1f} before, {size / crops:.1f} packed")
    return 0


def write_files(root: Path, count: int) -> None:
    import torch

    rng = np.random.default_rng()
    for number in range(count):
        height, width = rng.integers(200, 500, 2).tolist()
        top, left = rng.integers(0, height, CROPS), rng.integers(0, width, CROPS)
        sides = rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)
        boxes = np.stack([top, left, *sides], axis=1) / [height, width, height, width]
        ids = np.argpartition(rng.random((CROPS, CLASSES)), KEPT, axis=1)[:, :KEPT]
        values = -np.sort(-rng.dirichlet(np.full(KEPT + 1, 0.3), CROPS), axis=1)[:, :KEPT]
        label = np.stack([ids, values], axis=1).astype(np.float32)
        name = f"n{number % 100:03d}/{number}"
        for path in (root / f"labels/{name}.tar", root / f"images/{name}.JPEG"):
            path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([boxes.astype(np.float32), rng.random(CROPS) < 0.5, label], root / f"labels/{name}.tar")
        Image.new("RGB", (width, height)).save(root / f"images/{name}.JPEG")


def load_files(root: Path) -> None:
    import torch

    for path in (root / "labels").rglob("*.tar"):
        torch.load(path, weights_only=False)


def pack_files(root: Path) -> None:
    from fkdx.importers import Settings, open_foreign
    from fkdx.importers.images import Images
    from fkdx.importers.job import pack

    source = open_foreign(root / "labels", Settings(CLASSES, images=Images(root / "images")))
    pack(source, root / "labels.fkdl", overwrite=True)


def check(root: Path) -> None:
    """Packed labels are those of torch.load, with values rounded to float16."""
    import torch

    from fkdx.labels import LabelFile

    labels = LabelFile(root / "labels.fkdl")
    for image in labels:
        path = root / "labels" / Path(image.key).with_suffix(".tar")
        coords, flips, label = torch.load(path, weights_only=False)
        height, width = image.image_size
        same = np.array_equal(np.float32(image.boxes / [height, width, height, width]), coords)
        same = same and np.array_equal(image.flips, flips) and np.array_equal(image.ids, label[:, 0])
        if not same or not np.array_equal(image.values, label[:, 1].astype(np.float16)):
            raise SystemExit(f"{path}: packed labels differ")


if __name__ == "__main__":
    sys.exit(main())
