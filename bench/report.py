"""What `fkdx report` takes for a label file of ImageNet's size: seconds, memory, and the size of the page.

    python bench/report.py --file labels.fkdl --images 1281167 --crops 500     # writes the file (18 GB) once

The labels are drawn, and repeat after a thousand images. The page is made by the command itself, in a process
of its own, without images; its table and charts are as those of real labels.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import trange

from fkdx import LabelFile, LabelWriter

CLASSES, K, REPEAT = 1000, 5, 1000
CHILD = """
import json, resource, sys, time
from fkdx import cli
begin, cpu = time.perf_counter(), time.process_time()
assert cli.main(["report", sys.argv[1], "-o", sys.argv[2]]) == 0
print(json.dumps({"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, required=True, help="label file, written if it is not there")
    parser.add_argument("--images", type=int, default=1_281_167, metavar="N")
    parser.add_argument("--crops", type=int, default=500, metavar="M")
    args = parser.parse_args()
    if not args.file.exists():
        write(args.file, args.images, args.crops)
    labels = LabelFile(args.file)
    crops = int(labels.crop_counts.sum())
    print(f"{len(labels):,} images, {crops:,} crops, {labels.size / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        words = [sys.executable, "-c", CHILD, str(args.file), str(page)]
        found = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
        print(
            f"{found['seconds']:.1f} s ({found['cpu']:.1f} s of CPU, {len(os.sched_getaffinity(0))} cores), "
            f"{found['peak']:.0f} MB of memory at most, a page of {page.stat().st_size / 1e6:.1f} MB"
        )


def write(path: Path, images: int, crops: int) -> None:
    """Labels of a teacher that is usually right and sometimes unsure."""
    rng = np.random.default_rng(0)
    boxes, flips, ids, values = draw(rng, REPEAT, crops)
    names = [f"n{1440764 + 977 * c:08}" for c in range(CLASSES)]
    options = {"num_classes": CLASSES, "k": K, "crops": crops, "classes": names}
    with LabelWriter(path, **options, provenance={"teacher": "drawn"}) as writer:
        for first in trange(0, images, REPEAT, desc="writing", unit="thousand images", disable=None):
            count = min(REPEAT, images - first)
            true = (np.arange(first, first + count) * CLASSES // images)[:, None, None]
            keys = [f"{names[c]}/{names[c]}_{first + i}.JPEG" for i, c in enumerate(true[:, 0, 0].tolist())]
            sizes = np.tile((375, 500), (count, 1))
            shifted = (ids[:count] + true) % CLASSES
            writer.add_many(keys, boxes[:count], flips[:count], shifted, values[:count], sizes)


def draw(rng: np.random.Generator, images: int, crops: int) -> tuple[np.ndarray, ...]:
    """Boxes, flips, ids less the true class, and probabilities of the top K."""
    sides = np.stack([rng.integers(30, 375, (images, crops)), rng.integers(30, 500, (images, crops))], axis=2)
    corners = rng.integers(0, np.array([375, 500]) - sides + 1)
    others = rng.integers(1, CLASSES // K, (images, crops, K)) + CLASSES // K * np.arange(K)
    ids = np.where((rng.random((images, crops, 1)) < 0.85) & (np.arange(K) == 0), 0, others)
    values = -np.sort(-rng.dirichlet(np.full(K + 1, 0.4), (images, crops)).astype(np.float32), axis=2)[
        ..., :K
    ]
    return np.concatenate([corners, sides], axis=2), rng.random((images, crops)) < 0.5, ids, values


if __name__ == "__main__":
    main()
