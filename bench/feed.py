"""How many cores feed a student: python bench/feed.py --images DIR [--rates 3000,10000,25000]

The student is simulated: it takes a batch every batch / rate seconds and does nothing between. A loader
keeps up when the student waits for less than 2 % of the time; the table has the fewest cores with which it
does. Where all cores of this machine are too few, the number is computed from the CPU time of a crop and
marked with ~, and so it is for all higher rates, without another run. The loaders are those of
`bench/loader.py`, uint8 crops of 224 pixels with sparse targets, 4 of an image, an index with entry points
beside the images; each runs in a process of its own, pinned to its cores, and fkdx's crops are compared with
Pillow's there first.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

WAITING = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, <class>/<name>")
    parser.add_argument("--rates", default="3000,10000,25000", help="crops a second that the student takes")
    parser.add_argument("--m", type=int, default=4, help="crops of an image in a batch")
    parser.add_argument("--batch", type=int, default=256, help="crops of a batch")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of one run, after a third as much to fill queues"
    )
    parser.add_argument("--only", default="", help="some systems, such as fkdx,torchvision; default: all")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)  # folder, system, threads, rate
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if args.run:
        print(json.dumps(one_run(args, *args.run)))
        return 0
    import loader
    import loader_systems

    from fkdx.cli import main as fkdx

    cores = len(os.sched_getaffinity(0))
    names = [name for name in loader_systems.systems() if name in (args.only or name).split(",")]
    rates = sorted(map(int, args.rates.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        args.images = loader.listed(args.images, Path(folder) / "images", 20 * args.batch)
        loader.write_labels(args.images, Path(folder))
        with redirect_stdout(sys.stderr):
            fkdx(["index", str(args.images), "--entry-points"])
        print(f"{'':<12} {'crops/s':>8} {'cores':>6} {'waits':>6} {'CPU us a crop':>14} {'MB':>6}")
        for name in names:
            measure(args, folder, name, rates, cores)
    return 0


def measure(args: argparse.Namespace, folder: str, name: str, rates: list[int], cores: int) -> None:
    """A row a rate, slow ones first: what is too slow for one is too slow for the next."""
    threads = 1
    for rate in rates:
        while threads <= cores:
            found = start(args, folder, name, threads, rate)
            if found["waiting"] < WAITING:
                break
            threads += 1
        computed = f"~{math.ceil(found['cpu'] * rate / (1 - WAITING))}"
        print_row(name, rate, str(threads) if threads <= cores else computed, found)


def start(args: argparse.Namespace, folder: str, name: str, threads: int, rate: int) -> dict:
    cores = sorted(os.sched_getaffinity(0))[:threads]
    options = ["--images", args.images, "--m", args.m, "--batch", args.batch, "--seconds", args.seconds]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, options), "--run", folder, name, str(threads), str(rate)],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(done.stdout)


def one_run(args: argparse.Namespace, folder: str, name: str, threads: str, rate: str) -> dict:
    """{"waiting": share of the time, "cpu": seconds a crop, "MB"} of a loader before a simulated student."""
    import loader
    import loader_systems
    import torch
    from processes import cpu_seconds, resident

    from fkdx.stores import ImageFolder

    torch.set_num_threads(int(threads))
    places = Path(folder) / "labels.fkdl", Path(folder) / "tars"
    work = loader_systems.Work(args.images, *places, list(ImageFolder(args.images).keys), 1000)
    work.batch, work.crops, work.threads = args.batch, args.m, int(threads)
    loader.check_pixels(loader_systems, work)
    batches = loader_systems.systems()[name](work)
    interval = args.batch / int(rate)
    take(batches, interval, args.seconds / 3)  # what is made ahead is made already when the clock starts
    cpu, begin = cpu_seconds(), time.perf_counter()
    waited, count = take(batches, interval, args.seconds)
    spent = time.perf_counter() - begin
    used, memory = cpu_seconds() - cpu, resident()
    batches.close()
    return {"waiting": waited / spent, "cpu": used / (count * args.batch), "MB": memory / 1e6}


def take(batches: Iterator, interval: float, seconds: float) -> tuple[float, int]:
    """Seconds that a student waits who wants a batch every `interval` seconds, and how many it got.

    It begins with a batch that it has still to learn from.
    """
    waited, count, begin = 0.0, 0, time.perf_counter()
    free = begin + interval  # when the student has done its last batch
    while free - begin < seconds:
        time.sleep(max(0.0, free - time.perf_counter()))
        asked = time.perf_counter()
        next(batches)
        got = time.perf_counter()
        waited, count, free = waited + got - asked, count + 1, max(free, got) + interval
    return waited, count


def print_row(name: str, rate: int, cores: str, found: dict) -> None:
    shares = f"{found['waiting']:>6.1%} {1e6 * found['cpu']:>14.0f} {found['MB']:>6.0f}"
    print(f"{name:<12} {rate:>8,} {cores:>6} {shares}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
