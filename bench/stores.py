"""Measure CropLoader on the same images in every store: python bench/stores.py --images DIR [--m 1,4]

Writes the images of a folder (<class>/<name>) as one tar file, as MosaicML's shards, as zip and by `fkdx
repack`, with labels of 16 crops, and lets the loaders take turns of an epoch each, of the same crops, with
everything in the page cache. Printed are the medians of crops per second, of the clock and of this process's
CPU time, and the CPU time's ratio to the folder; the clock says little on a machine that others use.
"""

import argparse
import statistics
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fkdx import CropLoader, LabelWriter
from fkdx.cli import main as run
from fkdx.image.random_boxes import random_boxes
from fkdx.stores import ImageFolder

CROPS = 16
Turn = tuple[float, float]  # crops per second of the clock, of CPU time


def folder(images: Path, to: Path) -> Path:
    return images


def tar(images: Path, to: Path) -> Path:
    with tarfile.open(to / "images.tar", "w", dereference=True) as archive:
        archive.add(images, arcname="train")
    return to / "images.tar"


def zipped(images: Path, to: Path) -> Path:
    with zipfile.ZipFile(to / "images.zip", "w") as archive:
        for key in ImageFolder(images).keys:
            archive.write(images / key, key)
    return to / "images.zip"


def mds(images: Path, to: Path) -> Path:
    from streaming import MDSWriter

    columns = {"image": "bytes", "filename": "str"}
    with MDSWriter(out=str(to / "mds"), columns=columns, size_limit=1 << 26) as out:
        for key in ImageFolder(images).keys:
            out.write({"image": (images / key).read_bytes(), "filename": key})
    return to / "mds"


def repacked(images: Path, to: Path) -> Path:
    run(["repack", str(images), "-o", str(to / "shards"), "--shard-size", "64M"])
    return to / "shards"


WRITERS: dict[str, Callable[[Path, Path], Path]] = {
    "folder": folder,
    "folder again": folder,  # how far two rows of the same differ
    "tar": tar,
    "zip": zipped,
    "mds": mds,
    "repacked": repacked,
}


def make_labels(images: Path, path: Path) -> Path:
    rng, store = np.random.default_rng(0), ImageFolder(images)
    with LabelWriter(path, num_classes=1000, k=5, crops=CROPS) as writer:
        for image, key in enumerate(store.keys):
            size = store.image_size(image)
            boxes, flips = random_boxes(size, 0, key, CROPS)
            ids = np.stack([rng.permutation(1000)[:5] for _ in range(CROPS)])
            writer.add(key, boxes, flips, ids, np.full((CROPS, 5), 0.1), size)
    return path


def turn(loader: CropLoader, epoch: int) -> Turn:
    """One epoch; nothing of it is prepared before it begins or after it ends."""
    loader.set_epoch(epoch)
    begin, spent = time.perf_counter(), time.process_time()
    crops = sum(len(batch.images) for batch in loader)
    return crops / (time.perf_counter() - begin), crops / (time.process_time() - spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, <class>/<name>")
    parser.add_argument("--m", default="1,4", help="crops of an image in a batch (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="crops of a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each store (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        labels = make_labels(args.images, Path(made) / "labels.fkdl")
        stores = {name: write(args.images, Path(made)) for name, write in WRITERS.items()}
        for m in map(int, args.m.split(",")):
            print_table(m, measure(stores, labels, m, args))


def measure(stores: dict[str, Path], labels: Path, m: int, args: argparse.Namespace) -> dict[str, list[Turn]]:
    """The epochs of every store; in each round all of them take their turn."""
    loaders = {name: CropLoader(path, labels, args.batch, m, threads=1) for name, path in stores.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in stores}
    for epoch in range(args.rounds + 1):
        for name in list(stores)[:: 1 if epoch % 2 else -1]:
            turns[name].append(turn(loaders[name], epoch))
    for loader in loaders.values():
        loader.close()
    return {name: rows[1:] for name, rows in turns.items()}  # the first one warms up


def print_table(m: int, turns: dict[str, list[Turn]]) -> None:
    print(f"\nm = {m}: crops/s\n{'':<14} {'clock':>8} {'CPU time':>9} {'of folder':>10}")
    base = np.array([cpu for _, cpu in turns["folder"]])
    for name, rows in turns.items():
        clock, cpu = (statistics.median(row[i] for row in rows) for i in (0, 1))
        ratio = float(np.median(np.array([row[1] for row in rows]) / base))
        print(f"{name:<14} {clock:>8.0f} {cpu:>9.0f} {ratio:>10.3f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
