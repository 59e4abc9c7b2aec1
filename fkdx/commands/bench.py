"""`fkdx bench loader`: measure how fast this machine loads batches of a data set, and where the time goes."""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fkdx import _C
from fkdx.commands.options import DATA_HELP, add_classes, at_least
from fkdx.facts import Facts, add_json
from fkdx.stores import open_store

if TYPE_CHECKING:
    from fkdx.loader import Batch, CropLoader


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx bench", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    loader = what.add_parser("loader", help="batches of crops of images on disk")
    loader.add_argument(
        "--data",
        required=True,
        help=f"the images; {DATA_HELP}",
        metavar="DATA",
    )
    add_classes(loader)
    loader.add_argument("--labels", help="label file (default: draw random crops on the fly)")
    loader.add_argument(
        "--crops-per-image",
        type=at_least(1),
        default=4,
        metavar="M",
        help="of one batch (default: %(default)s)",
    )
    loader.add_argument(
        "--batch-size",
        type=at_least(1),
        default=256,
        metavar="N",
        help="crops in a batch (default: %(default)s)",
    )
    loader.add_argument(
        "--size", type=at_least(1), default=224, help="side of a crop in pixels (default: 224)"
    )
    loader.add_argument("--threads", type=at_least(1), help="number of decoding threads (default: all cores)")
    loader.add_argument(
        "--batches",
        type=at_least(1),
        default=20,
        help="batches to measure, after two to warm up (default: 20)",
    )
    loader.add_argument("--profile", action="store_true", help="print where the time goes")
    add_json(loader)
    args = parser.parse_args(argv)
    bench_loader(args)
    return 0


def bench_loader(args: argparse.Namespace) -> None:
    from fkdx.loader import CropLoader

    images = open_store(args.data, args.classes)
    loader = CropLoader(
        images, args.labels, args.batch_size, args.crops_per_image, args.size, threads=args.threads
    )
    batches = endless(loader)
    for _ in range(2):
        next(batches)
    before, begin, begin_here = loader.pool.stages(), time.perf_counter(), time.thread_time()
    for _ in range(args.batches):
        next(batches)
    seconds, seconds_here = time.perf_counter() - begin, time.thread_time() - begin_here
    after = loader.pool.stages()
    crops = args.batches * args.batch_size
    images = crops / args.crops_per_image
    threads, rates = loader.pool.threads, (crops / seconds, images / seconds)
    rows = {}
    if args.profile:
        spent = {name: after[name] - before[name] for name in after}
        rows = stages(spent, seconds_here, entropy_share(loader))
    text = f"{rates[0]:.0f} crops/s ({rates[1]:.0f} images/s), {threads} threads"
    text += f"\n\n{stages_text(rows, threads)}" if rows else ""
    with Facts(args.json) as facts:
        facts.say(text, crops_per_s=rates[0], images_per_s=rates[1], threads=threads, ms_per_image=rows)


def endless(loader: "CropLoader") -> "Iterator[Batch]":
    while True:
        yield from loader


def stages(spent: dict[str, int], seconds_here: float, entropy: float) -> dict[str, float]:
    """Milliseconds per image of each stage, summed over threads.

    `spent` is what `ImagePool.stages` counted, `seconds_here` the time of the thread that takes the batches,
    `entropy` the share of decoding that is entropy decoding.
    """
    nanoseconds = {
        "read": spent["read_ns"],
        "entropy decode": spent["decode_ns"] * entropy,
        "IDCT and colour": spent["decode_ns"] * (1 - entropy),
        "resize and flip": spent["resize_ns"],
        "wait": spent["wait_ns"],
        "labels, Python": seconds_here * 1e9,
    }
    return {name: spent_ns / spent["images"] / 1e6 for name, spent_ns in nanoseconds.items()}


def stages_text(rows: dict[str, float], threads: int) -> str:
    """One row per stage: milliseconds per image, and its share of what all threads did."""
    lines = [f"{'stage':<16} {'ms/image':>11} {'share':>7}"]
    for name, milliseconds in rows.items():
        lines.append(f"{name:<16} {milliseconds:>11.3f} {milliseconds / sum(rows.values()):>7.1%}")
    lines += ["", f"{threads} threads: all but the last row; the last is the thread that takes the batches."]
    return "\n".join(lines)


def entropy_share(loader: "CropLoader", images: int = 50) -> float:
    """Share of entropy decoding in the time of a whole decode, measured on the first images."""
    decoder, whole, entropy = _C.CropDecoder(), 0.0, 0.0
    source = loader.pool.store
    for image in range(min(images, len(source))):
        encoded = source.encoded(image)
        if _C.is_jpeg(encoded):
            box = np.array([[0, 0, *decoder.read_size(encoded)]], np.int32)
            entropy += fastest(decoder.decode_coefficients_only, encoded)
            whole += fastest(decoder.decode_region_only, encoded, box)
    return min(1.0, entropy / whole) if whole else 0.0


def fastest(work: Callable[..., None], *arguments: object, turns: int = 5) -> float:
    """Seconds of the fastest of `turns` runs."""
    seconds = []
    for _ in range(turns):
        begin = time.perf_counter()
        work(*arguments)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
