"""Measure CropLoader against other loaders: python bench/loader.py --images DIR [--m 1,4,8] [--threads 1,2]

Every system cuts the same stored crops (200 an image, top-5 labels) out of the same images in the page cache,
pinned to as many cores as it has threads. A small folder is listed several times, because real epochs are
long. First the pixels are checked against Pillow; then all systems and numbers of threads take turns, and the
median of their turns is printed: uint8 batches with sparse targets, float32 batches with dense ones.
`ceiling` is libjpeg-turbo alone decoding the union of an image's boxes. An index with entry points lies
beside the images. More peers take part if they are installed: `pip install simplejpeg torchcodec
nvidia-dali-cuda130` (DALI runs on the CPU and needs no GPU; its crops differ from Pillow's by 0.16 of 255 on
average, the others' by 0.003).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, <class>/<name>")
    parser.add_argument("--m", default="1,4,8", help="crops of an image in a batch")
    parser.add_argument("--threads", default="1", help="worker threads, and cores, one table each")
    parser.add_argument("--batch", type=int, default=256, help="crops of a batch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every system and number of threads")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of one turn, after two batches to warm up"
    )
    parser.add_argument("--only", default="", help="some systems, such as fkdx,ceiling; default: all")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--labels", type=Path, help=argparse.SUPPRESS)  # of a table's own process
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: time on a core, of a machine that others use",
    )
    args = parser.parse_args()
    if args.labels:
        print(json.dumps(measure_table(args)))
        return 0
    from fkdx.cli import main as fkdx

    with tempfile.TemporaryDirectory() as folder:
        args.images = listed(args.images, Path(folder) / "images", 20 * args.batch)
        write_labels(args.images, Path(folder))
        with redirect_stdout(sys.stderr):
            fkdx(["index", str(args.images), "--entry-points"])
        counts = [int(threads) for threads in args.threads.split(",")]
        turns = [[one_table(args, Path(folder), threads) for threads in counts] for _ in range(args.rounds)]
    tables = [median_table(same) for same in zip(*turns)]
    if args.json:
        print(json.dumps(tables, indent=2))
    else:
        for table in tables:
            print_table(table)
        print_scaling(tables)
    return 0


def one_table(args: argparse.Namespace, folder: Path, threads: int) -> dict:
    """One turn of every system, in a process of its own, so that all threads are pinned from the start."""
    options = ["--images", args.images, "--m", args.m, "--threads", threads, "--batch", args.batch]
    options += ["--seconds", args.seconds, "--only", args.only, "--clock", args.clock, "--labels", folder]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, options)],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(done.stdout)


def median_table(turns: tuple[dict, ...]) -> dict:
    """The same table from several turns."""
    medians = {
        m: {kind: statistics.median(turn["crops_per_second"][m][kind] for turn in turns) for kind in speeds}
        for m, speeds in turns[0]["crops_per_second"].items()
    }
    return {**turns[0], "crops_per_second": medians}


# ---- images and labels ------------------------------------------------------------------------------------


def listed(root: Path, folder: Path, least: int) -> Path:
    """A folder that links to the images of `root` as often as makes `least` of them."""
    from fkdx.stores import ImageFolder

    keys = [Path(key) for key in ImageFolder(root).keys]
    for number in range(-(-least // len(keys))):
        for key in keys:
            link = folder / key.parent / f"{number}-{key.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((root / key).resolve())
    return folder


def write_labels(root: Path, folder: Path, crops: int = 200, num_classes: int = 1000) -> None:
    """The same random labels as labels.fkdl and as one FKD file an image below tars/."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from fkdx import LabelWriter
    from fkdx.image import image_size
    from fkdx.image.random_boxes import random_boxes
    from fkdx.stores import ImageFolder

    rng = np.random.default_rng(0)
    with LabelWriter(
        folder / "labels.fkdl", num_classes=num_classes, k=5, crops=crops, value_type="float32"
    ) as writer:
        for key in tqdm(ImageFolder(root).keys, desc="labels", unit="image", disable=None):
            height, width = image_size(root / key)
            boxes, flips = random_boxes((height, width), 0, key, crops, scale=(0.08, 0.936))
            values = np.sort(rng.dirichlet(np.full(8, 0.3), crops)[:, :5].astype(np.float32))[:, ::-1] * 0.99
            ids = np.stack([rng.permutation(num_classes)[:5] for _ in range(crops)])
            writer.add(key, boxes, flips, ids, values, (height, width))
            ratios = (boxes / [height, width, height, width]).astype(np.float32)
            labels = np.stack([ids, values], axis=1).astype(np.float32)
            (folder / "tars" / key).parent.mkdir(parents=True, exist_ok=True)
            torch.save([ratios, flips, labels], folder / "tars" / f"{key}.tar")


# ---- one turn ----------------------------------------------------------------------------------------------


def measure_table(args: argparse.Namespace) -> dict:
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    import loader_systems

    from fkdx.stores import ImageFolder

    threads = int(args.threads)
    torch.set_num_threads(threads)
    work = loader_systems.Work(
        args.images, args.labels / "labels.fkdl", args.labels / "tars", ImageFolder(args.images).keys, 1000
    )
    work.batch, work.threads = args.batch, threads
    systems = {**loader_systems.systems(), "ceiling": loader_systems.ceiling}
    systems = {name: system for name, system in systems.items() if name in (args.only or name).split(",")}
    table = {"threads": threads, "pixels": check_pixels(loader_systems, work), "crops_per_second": {}}
    for work.crops in map(int, args.m.split(",")):
        speeds = table["crops_per_second"][work.crops] = {}
        for name, system in systems.items():
            for work.floats in (False, True):
                if not (name == "ceiling" and work.floats):
                    kind = f"{name} float32" if work.floats else name
                    speeds[kind] = one_turn(system(work), args.batch, args.seconds, args.clock)
    return table


def one_turn(batches: Iterator, batch: int, seconds: float, clock: str) -> float:
    """Crops a second. Closing the generator ends its workers."""
    from processes import cpu_seconds

    now = time.perf_counter if clock == "wall" else cpu_seconds
    for _ in range(2):
        next(batches)
    count, begin = 0, now()
    while now() - begin < seconds:
        next(batches)
        count += 1
    speed = count * batch / (now() - begin)
    batches.close()
    return speed


def check_pixels(loader_systems: object, work: object) -> int:
    """How many of fkdx's crops were compared with Pillow's. SystemExit where a pixel differs."""
    import numpy as np
    from PIL import Image

    from fkdx import CropLoader, LabelFile

    labels = LabelFile(work.labels)
    worst, crops = 0, 0
    options = {"threads": work.threads, "drop_last": False, "resample": loader_systems.RESAMPLE}
    for batch in CropLoader(work.root, labels, 64, 1, work.size, **options):
        for pixels, key, crop in zip(batch.images.numpy(), batch.keys, batch.crops.tolist()):
            stored = labels[key]
            image = Image.open(work.root / key).convert("RGB")
            ratios = stored.boxes[crop] / np.array([image.height, image.width] * 2)
            expected = np.asarray(loader_systems.cut(image, ratios, stored.flips[crop], work.size), np.int16)
            worst, crops = max(worst, int(np.abs(pixels - expected).max())), crops + 1
        if crops >= 256:
            break
    if worst:
        raise SystemExit(f"loader: fkdx's pixels differ from Pillow's by up to {worst}")
    return crops


def print_table(table: dict) -> None:
    threads = table["threads"]
    print(f"\n{threads} thread{'s' * (threads > 1)}; {table['pixels']} crops equal Pillow's in every pixel")
    print(f"{'m':>2}  {'system':<20} {'crops/s':>8}  fkdx uint8 is")
    for m, speeds in table["crops_per_second"].items():
        for kind, speed in sorted(speeds.items(), key=lambda item: -item[1]):
            print(f"{m:>2}  {kind:<20} {speed:>8.0f}  {speeds['fkdx'] / speed:.2f} x")


def print_scaling(tables: list[dict]) -> None:
    first, *others = tables
    for table in others:
        for m, speeds in table["crops_per_second"].items():
            gains = {name: speed / first["crops_per_second"][m][name] for name, speed in speeds.items()}
            shown = ", ".join(f"{name} {gains[name]:.2f} x" for name in ("fkdx", "ceiling") if name in gains)
            print(f"m = {m}: {table['threads']} threads against {first['threads']}: {shown}")


if __name__ == "__main__":
    sys.exit(main())
