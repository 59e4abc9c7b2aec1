"""Crops per second of CPU time on one core, against two ceilings.

    python bench/images.py --images DIR [--m 1,4,8] [--size 224]

`libjpeg-turbo` decodes the union of the boxes and drops it; `Huffman code` is our own decoder reading the
units (MCUs) of the boxes from entry points, and nothing else: what no way of making crops can leave out.
Crops are first compared with Pillow. The systems take turns in one run: read the ratios, not the times.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fkdx import _C
from fkdx.image import decode_crops, image_size

from loader_systems import RESAMPLE  # isort: skip

Work = list[tuple[bytes, np.ndarray, np.ndarray, bytes]]  # encoded image, boxes, flips, entry points
Run = Callable[[bytes, np.ndarray, np.ndarray, bytes], None]
CEILINGS = ["libjpeg-turbo", "Huffman code"]


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """Boxes of RandomResizedCrop with its usual scale (0.08, 1) and ratio (3/4, 4/3)."""
    boxes: list[tuple[int, ...]] = []
    while len(boxes) < count:
        area, ratio = height * width * rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        rows, columns = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            corner = rng.integers(0, [height - rows + 1, width - columns + 1])
            boxes.append((*corner, rows, columns))
    return np.array(boxes, np.int32)


def check(work: Work, size: int) -> None:
    """Stop unless every crop is Pillow's, bit for bit."""
    for data, boxes, flips, _ in work:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        for got, (top, left, rows, columns), flip in zip(
            decode_crops(data, boxes, flips, size, resample=RESAMPLE), boxes, flips
        ):
            box = image.crop((left, top, left + columns, top + rows))
            expected = np.asarray(box.resize((size, size), Image.Resampling.BILINEAR))
            assert np.array_equal(got, expected[:, ::-1] if flip else expected), "pixels differ from Pillow's"


def systems(size: int, m: int) -> dict[str, Run]:
    decoder = _C.CropDecoder()
    out = np.empty((m, size, size, 3), np.uint8)
    pillow13 = RESAMPLE == "pillow13"

    def variant(cpu: str, points: bool) -> Run:
        def run(data: bytes, boxes: np.ndarray, flips: np.ndarray, entries: bytes) -> None:
            _C.force_cpu(cpu)
            entries = entries if points else b""
            rules = size, False, pillow13, True, False
            decoder.decode_crops(data, boxes, flips, *rules, out, entries)

        return run

    runs: dict[str, Run] = {
        "libjpeg-turbo": lambda data, boxes, flips, entries: decoder.decode_region_only(data, boxes),
        "Huffman code": lambda data, boxes, flips, entries: decoder.read_units_only(data, boxes, entries),
    }
    for cpu in _C.supported_cpus():
        runs |= {cpu: variant(cpu, points=True), f"{cpu}, no points": variant(cpu, points=False)}
    return runs


def measure(work: Work, size: int, m: int, rounds: int) -> dict[str, float]:
    """Best seconds of each system over all images."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in systems(size, m).items():
            begin = time.thread_time()
            for item in work:
                run(*item)
            best[name] = min(best.get(name, np.inf), time.thread_time() - begin)
    _C.force_cpu("")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of JPEG files, searched recursively"
    )
    parser.add_argument("--count", type=int, default=200, help="how many of them (default: %(default)s)")
    parser.add_argument("--m", default="1,4,8", help="crops an image (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts (default: %(default)s)")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    paths = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    encoded = [paths[i].read_bytes() for i in rng.permutation(len(paths))[: args.count]]
    maker = _C.CropDecoder()
    entries = [maker.make_entry_points(data) for data in encoded]
    for m in (int(n) for n in args.m.split(",")):
        boxes = [random_boxes(rng, *image_size(data), m) for data in encoded]
        flips = (np.arange(m) % 2 == 0).view(np.uint8)
        work = [(data, box, flips, points) for data, box, points in zip(encoded, boxes, entries)]
        check(work[:: max(1, len(work) // 20)], args.size)
        best = measure(work, args.size, m, args.rounds)
        print(f"m = {m}{'us an image':>31}{'crops/s':>9}{'of ' + CEILINGS[0]:>18}{'of ' + CEILINGS[1]:>17}")
        for name, seconds in best.items():
            image, crops = seconds / len(work) * 1e6, m * len(work) / seconds
            shares = "".join(
                f"{best[ceiling] / seconds:{width}.2f}" for ceiling, width in zip(CEILINGS, (18, 17))
            )
            print(f"  {name:<22}{image:>11.0f}{crops:>9.0f}{shares}")


if __name__ == "__main__":
    main()
