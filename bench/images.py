"""Crops per second on one core against the ceiling: decoding the union of the boxes and dropping it.

    python bench/images.py --images DIR [--m 1,4,8] [--size 224]

Crops are first compared with Pillow. The systems take turns in one run, so read the ratios, not the times.
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

Work = list[tuple[bytes, np.ndarray, np.ndarray]]  # encoded image, boxes, flips


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
    for data, boxes, flips in work:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        for got, (top, left, rows, columns), flip in zip(
            decode_crops(data, boxes, flips, size, resample=RESAMPLE), boxes, flips
        ):
            box = image.crop((left, top, left + columns, top + rows))
            expected = np.asarray(box.resize((size, size), Image.Resampling.BILINEAR))
            assert np.array_equal(got, expected[:, ::-1] if flip else expected), "pixels differ from Pillow's"


def systems(size: int, m: int) -> dict[str, Callable[[bytes, np.ndarray, np.ndarray], None]]:
    decoder = _C.CropDecoder()
    out = np.empty((m, size, size, 3), np.uint8)

    def crops(data: bytes, boxes: np.ndarray, flips: np.ndarray) -> None:
        decoder.decode_crops(data, boxes, flips, size, False, False, True, False, out)

    def variant(cpu: str) -> Callable[[bytes, np.ndarray, np.ndarray], None]:
        def run(data: bytes, boxes: np.ndarray, flips: np.ndarray) -> None:
            _C.force_cpu(cpu)
            crops(data, boxes, flips)

        return run

    ceiling = {"decode only": lambda data, boxes, flips: decoder.decode_region_only(data, boxes)}
    return ceiling | {cpu: variant(cpu) for cpu in _C.supported_cpus()}


def measure(work: Work, size: int, m: int, rounds: int) -> dict[str, float]:
    """Best seconds of each system over all images."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in systems(size, m).items():
            begin = time.perf_counter()
            for item in work:
                run(*item)
            best[name] = min(best.get(name, np.inf), time.perf_counter() - begin)
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
    for m in (int(n) for n in args.m.split(",")):
        work = [(data, random_boxes(rng, *image_size(data), m), np.arange(m) % 2 == 0) for data in encoded]
        check(work[:: max(1, len(work) // 20)], args.size)
        best = measure([(d, b, f.view(np.uint8)) for d, b, f in work], args.size, m, args.rounds)
        ceiling = best.pop("decode only")
        crops = m * len(work)
        print(f"m = {m}: decode only {crops / ceiling:.0f} crops/s")
        for name, seconds in best.items():
            beyond = (seconds - ceiling) / crops * 1e3
            print(
                f"  {name:<8}{crops / seconds:8.0f} crops/s  {ceiling / seconds:.2f}  {beyond:+.3f} ms a crop"
            )


if __name__ == "__main__":
    main()
