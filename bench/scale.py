"""What labels of very many images weigh, cost and need: python bench/scale.py {sizes,hours,failures}

    sizes      bytes and files of the label file, by data set, kind, K and encoding
    hours      hours of a GPU that teachers need, and what they cost
    failures   a simulation of 64 GPUs that fail: hours, and the share of work that is done twice

Sizes are not estimated: a label file of each kind is written and its bytes an image are read off. The rates
of teachers are timm's published measurements; prices and failure rates are assumptions.
"""

import argparse
import heapq
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fkdx.generate.shards import plan_shards
from fkdx.labels import LabelWriter
from fkdx.labels.layout import MAX_KEY_BYTES


@dataclass(frozen=True)
class DataSet:
    """Images, classes, stored crops of each image, and a key of usual length."""

    name: str
    images: int
    classes: int
    crops: int
    key: str


DATA_SETS = (
    DataSet("ImageNet-1K", 1_281_167, 1000, 200, "n01440764/n01440764_10026.JPEG"),
    DataSet("ImageNet-21K", 14_197_122, 21_841, 50, "n01440764/n01440764_10026.JPEG"),
    DataSet("a billion", 1_000_000_000, 21_841, 10, "00000/000000000.jpg"),
)
# kind, K, encoding
LABELS = (
    ("hard", 1, "plain"),
    ("smoothing", 1, "plain"),
    ("topk", 5, "plain"),
    ("topk", 5, "compact"),
    ("topk", 10, "plain"),
    ("topk", 10, "compact"),
    ("topk_logits", 10, "plain"),
    ("embedding", 768, "plain"),
    ("embedding", 768, "compact"),
    ("dense", 0, "plain"),
)
# Images a second of one RTX 4090: timm's results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv (2026-08-08)
TEACHERS = {
    ("resnet50", 224): 4302.84,
    ("vit_large_patch16_224", 224): 954.12,
    ("tf_efficientnetv2_l", 480): 320.56,
    ("tf_efficientnet_l2", 475): 83.83,
}
FAILURES = (50_000, 500, 24, 4)  # hours between failures of one GPU


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("sizes", "hours", "failures"))
    parser.add_argument("--gpu-price", type=float, default=1.0, help="of a GPU for an hour (default: 1)")
    parser.add_argument("--gpus", type=int, default=64, help="that work at the same time (default: 64)")
    parser.add_argument(
        "--restart", type=float, default=300, help="seconds until a GPU is back (default: 300)"
    )
    args = parser.parse_args()
    if args.what == "sizes":
        print_sizes()
    elif args.what == "hours":
        print_hours(args.gpu_price)
    else:
        print_failures(args.gpus, args.restart)


def print_sizes() -> None:
    print(f"{'':28}" + "".join(f"{f'{data.name}, {data.crops} crops':>26}" for data in DATA_SETS))
    for kind, k, encoding in LABELS:
        name = f"{kind}, {'D' if kind == 'embedding' else 'K'} = {k}" if k > 1 else kind
        cells = []
        for data in DATA_SETS:
            each = image_bytes(data, kind, k, encoding)
            cells.append(f"{each / data.crops:9.1f} B{readable(each * data.images):>15}")
        print(f"{name + (', compact' if encoding == 'compact' else ''):28}" + "".join(cells))
    files = [-(-data.images * len(data.key) // MAX_KEY_BYTES) for data in DATA_SETS]
    print(f"{'files, at least':28}" + "".join(f"{count:26,}" for count in files))
    print(f"{'files of FKD':28}" + "".join(f"{data.images:26,}" for data in DATA_SETS))


def image_bytes(data: DataSet, kind: str, k: int, encoding: str) -> float:
    """Bytes that one more image adds to a label file: block, index entry and key."""
    few, more = (file_bytes(data, kind, k, encoding, images) for images in (64, 128))
    return (more - few) / 64


def file_bytes(data: DataSet, kind: str, k: int, encoding: str, images: int) -> int:
    """Bytes of a label file of that many images, of 375 x 500 pixels."""
    kept = k or data.classes
    if kind == "dense":
        images //= 16  # as much as 16 images of it are large enough
    values = np.full((data.crops, kept), 0.5 / kept, np.float32)
    row = {"values": None if kind == "hard" else values}
    if kind not in ("dense", "embedding"):
        row["ids"] = np.tile(np.arange(kept), (data.crops, 1))
    if kind == "topk_logits":
        row["tails"] = np.zeros(data.crops, np.float32)
    boxes, flips = np.tile([0, 0, 300, 400], (data.crops, 1)), np.zeros(data.crops, bool)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.fkdl"
        options = {"crops": data.crops, "encoding": encoding}
        if kind == "embedding":
            options |= {"embeddings": {"cls": k}}
        else:
            options |= {"num_classes": data.classes, "k": kept}
        with LabelWriter(path, kind, **options) as writer:
            for image in range(images):
                key = f"{image:05}" + data.key[5:]
                writer.add(key, boxes, flips, image_size=(375, 500), **row)
        return path.stat().st_size * (16 if kind == "dense" else 1)


def print_hours(price: float) -> None:
    print(f"{'teacher, pixels':28}{'images/s':>10}" + "".join(f"{data.name:>24}" for data in DATA_SETS))
    for (teacher, size), rate in TEACHERS.items():
        hours = [data.images * data.crops / rate / 3600 for data in DATA_SETS]
        cells = "".join(f"{f'{h:,.0f} h, {h * price:,.0f}':>24}" for h in hours)
        print(f"{f'{teacher}, {size}':28}{rate:>10,.0f}{cells}")


def print_failures(gpus: int, restart: float) -> None:
    data, crops = DATA_SETS[0], 500
    rate = TEACHERS["tf_efficientnet_l2", 475]
    seconds = [(s.last - s.first) * crops / rate for s in plan_shards(data.images, crops, 64)]
    print(
        f"{data.name}, {crops} crops, {rate} crops/s a GPU, {gpus} GPUs, {len(seconds):,} shards, "
        f"{sum(seconds) / gpus / 3600:.1f} h without failures"
    )
    print(f"{'a GPU fails every':>18}{'failures':>10}" + "".join(f"{name:>22}" for name in PLANS))
    for hours in FAILURES:
        runs = [plan(seconds, gpus, hours * 3600, restart, random.Random(1)) for plan in PLANS.values()]
        cells = "".join(f"{f'{run.hours:.1f} h, {run.lost:.2%} lost':>22}" for run in runs)
        print(f"{f'{hours:,} h':>18}{runs[0].failures:>10,}{cells}")


@dataclass(frozen=True)
class Run:
    """How a job went: hours until its last shard, failures, and the share of GPU time that was lost."""

    hours: float
    failures: int
    lost: float


def from_a_queue(seconds: list[float], gpus: int, between: float, restart: float, rng: random.Random) -> Run:
    """Every GPU takes the next shard that nobody has; one that fails loses its shard, which is done again."""
    left = list(range(len(seconds)))[::-1]
    free = [(0.0, gpu) for gpu in range(gpus)]  # when each GPU is free
    fails = [rng.expovariate(1 / between) for _ in range(gpus)]
    end = lost = failures = 0
    while left:
        now, gpu = heapq.heappop(free)
        shard = left.pop()
        if now + seconds[shard] <= fails[gpu]:
            heapq.heappush(free, (now + seconds[shard], gpu))
            end = max(end, now + seconds[shard])
            continue
        lost += max(fails[gpu] - now, 0)
        failures += 1
        left.append(shard)
        back = max(fails[gpu], now) + restart
        fails[gpu] = back + rng.expovariate(1 / between)
        heapq.heappush(free, (back, gpu))
    return Run(end / 3600, failures, lost / (lost + sum(seconds)))


def in_fixed_parts(
    seconds: list[float], gpus: int, between: float, restart: float, rng: random.Random
) -> Run:
    """Every GPU has its own part of the shards, and goes on with it after a failure (`--shards I/GPUS`)."""
    runs = [from_a_queue(seconds[gpu::gpus], 1, between, restart, rng) for gpu in range(gpus)]
    lost = sum(run.lost / (1 - run.lost) * sum(seconds[gpu::gpus]) for gpu, run in enumerate(runs))
    share = lost / (lost + sum(seconds))
    return Run(max(run.hours for run in runs), sum(run.failures for run in runs), share)


PLANS = {"from a queue": from_a_queue, "in fixed parts": in_fixed_parts}


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


if __name__ == "__main__":
    main()
