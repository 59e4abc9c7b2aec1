"""A loader that decodes for as long as it may, one image in a hundred corrupt: soak.py SEED FIRST SECONDS.

Memory may grow by 2 MB in 100,000 decodes (a line through the last four fifths of the samples), and threads
and file descriptors not at all.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from images import JPEG_KINDS, encode

from fkdx import CropLoader

IMAGES, MOST_GROWTH, LEAST = 200, 2.0, 20_000  # decodes before a line says anything
PATIENCE = 20.0  # seconds in which threads that have been joined leave the kernel's list
PAGE = os.sysconf("SC_PAGE_SIZE")


def draw(root: Path, rng: np.random.Generator) -> None:
    for i in range(IMAGES):
        path = root / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encode(rng, JPEG_KINDS[i % len(JPEG_KINDS)], 90, 110)
        path.write_bytes(data[: len(data) // 2] if i % 100 == 7 else data)


def facts() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def more_than(before: tuple[int, int]) -> bool:
    """Whether more threads or files are left, also after a while."""
    end = time.monotonic() + PATIENCE
    while (more := any(now > was for now, was in zip(facts(), before))) and time.monotonic() < end:
        time.sleep(0.01)
    return more


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def soak(root: Path, seed: int, seconds: float) -> dict:
    loader = CropLoader(root, None, 50, 1, 32, seed=seed, threads=2, on_error="skip")
    samples, before, begun, failures = [], None, time.monotonic(), []
    while time.monotonic() - begun < seconds:
        for _ in loader:
            pass
        samples.append((loader.pool.stages()["images"], resident_megabytes()))
        before = before or facts()
    decoded = samples[-1][0]
    if more_than(before):
        failures.append(f"threads and files, got {facts()}, expected no more than {before}")
    if len(loader.skipped) != IMAGES // 100:
        failures.append(f"skipped images, got {len(loader.skipped)}, expected {IMAGES // 100}")
    rest = np.array(samples[len(samples) // 5 :])
    growth = np.polyfit(rest[:, 0] / 100_000, rest[:, 1], 1)[0] if len(rest) > 1 else 0.0
    if decoded >= LEAST and growth > MOST_GROWTH:
        failures.append(f"memory grows by {growth:.2f} MB in 100,000 decodes, {decoded} decodes")
    loader.close()
    return {"count": decoded, "failures": failures, "growth": round(float(growth), 3)}


def main() -> None:
    warnings.simplefilter("ignore")
    seed, first, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), np.random.default_rng([seed, first]))
        said = soak(Path(folder), seed + first, seconds)
    print(json.dumps(said))
    sys.exit(bool(said["failures"]))


if __name__ == "__main__":
    main()
