"""What a label file costs: bytes per crop, time to read and to open, error of the compact encoding.

    python bench/labels.py [--labels FILE]

The same labels in FKD's format, read by one `torch.load` per image, are measured beside fkdx's file. Answers
are compared first. With `--labels`, the error of the compact encoding is measured on those labels instead of
drawn ones.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fkdx import _C
from fkdx.importers.fkd_export import fkd_bytes
from fkdx.labels import LabelFile, LabelWriter, layout

C, K, M_BATCH, BATCH = 1000, 5, 4, 256
HEIGHT, WIDTH = 375, 500


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--labels", metavar="FILE", help="plain label file for the error of the compact encoding"
    )
    parser.add_argument(
        "--images", type=int, default=1000, metavar="N", help="images, a multiple of 20 (default %(default)s)"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for crops in (16, 200, 500):
            measure_reading(Path(folder), rng, args.images, crops)
        measure_large(Path(folder), rng)
        measure_error(Path(folder), rng, args.labels)
        measure_opening(Path(folder), rng)
    return 0


def draw_image(rng: np.random.Generator, crops: int) -> dict[str, np.ndarray]:
    """Crops and labels such as a teacher's: usually sure, sometimes not at all."""
    sizes = np.stack([rng.integers(30, HEIGHT, crops), rng.integers(30, WIDTH, crops)], axis=1)
    corners = rng.integers(0, np.array([HEIGHT, WIDTH]) - sizes + 1)
    logits = (
        rng.normal(0, 1, (crops, C)) + rng.exponential(8, (crops, 1)) * np.eye(C)[rng.integers(0, C, crops)]
    )
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = np.argsort(-rows, axis=1)[:, :K]
    values = np.take_along_axis(rows, ids, axis=1).astype(np.float32)
    return {
        "boxes": np.hstack([corners, sizes]),
        "flips": rng.random(crops) < 0.5,
        "ids": ids,
        "values": values,
    }


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_reading(folder: Path, rng: np.random.Generator, images: int, crops: int) -> None:
    drawn = [draw_image(rng, crops) for _ in range(20)]
    keys = [f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(images)]
    paths = {encoding: folder / f"{crops}_{encoding}.fkdl" for encoding in layout.ENCODINGS}
    for encoding, path in paths.items():
        many, single = (writing_time(path, keys, drawn, encoding, step) for step in (20, 1))
        size = path.stat().st_size / images / crops
        print(
            f"{crops} crops, {encoding:<8} {size:5.2f} bytes a crop, "
            f"written at {1e6 * single:.0f} us an image, {1e6 * many:.0f} in calls of 20 images"
        )
    fkd = folder / f"{crops}.tar"
    one = drawn[0]
    fkd.write_bytes(fkd_bytes("topk", one["boxes"], one["flips"], one["ids"], one["values"], (HEIGHT, WIDTH)))
    load = lambda: torch.load(fkd, weights_only=False)  # noqa: E731
    check_answers(LabelFile(paths["plain"]), keys, one, load())
    fkd_time = best_of(200, load)
    fkd_size = fkd.stat().st_size
    print(
        f"{crops} crops, FKD      {fkd_size / crops:5.2f} bytes a crop, "
        f"torch.load {1e6 * fkd_time:.0f} us an image"
    )
    for encoding, path in paths.items():
        native, single = reading_times(LabelFile(path), rng, crops)
        print(
            f"{crops} crops, {encoding:<8} {M_BATCH} crops of an image: {1e6 * native:.2f} us in C++ "
            f"({fkd_time / native:.0f} x faster than torch.load), {1e6 * single:.2f} us through Python "
            f"({fkd_time / single:.0f} x)"
        )


def writing_time(path: Path, keys: list[str], drawn: list[dict], encoding: str, step: int) -> float:
    """Seconds an image, in calls of `step` images; without what opening and closing the file take."""
    names, crops = [f"n{i:08d}" for i in range(C)], len(drawn[0]["flips"])
    together = {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}
    options = {"crops": crops, "classes": names, "encoding": encoding, "overwrite": True}
    with LabelWriter(path, num_classes=C, k=K, **options) as writer:
        start = time.perf_counter()
        for first in range(0, len(keys), step):
            if step == 1:
                writer.add(keys[first], **drawn[first % 20], image_size=(HEIGHT, WIDTH))
            else:
                sizes = [(HEIGHT, WIDTH)] * step
                writer.add_many(keys[first : first + step], **together, image_sizes=sizes)
        return (time.perf_counter() - start) / len(keys)


def check_answers(labels: LabelFile, keys: list[str], drawn: dict, loaded: list[np.ndarray]) -> None:
    image = labels[keys[0]]
    ratios = image.boxes / np.array([HEIGHT, WIDTH, HEIGHT, WIDTH])
    np.testing.assert_allclose(loaded[0], ratios, rtol=1e-6)
    np.testing.assert_array_equal(loaded[1], image.flips)
    np.testing.assert_array_equal(loaded[2][:, 0], image.ids)
    np.testing.assert_allclose(loaded[2][:, 1], image.values, rtol=1e-3, atol=1e-7)
    boxes, flips, ids, values = labels.gather([labels.find(keys[0])], [[3, 1]])
    for got, want in zip((boxes, flips, ids, values), ("boxes", "flips", "ids", "values")):
        np.testing.assert_allclose(got[0], drawn[want][[3, 1]], rtol=1e-3, atol=1e-7)


def reading_times(labels: LabelFile, rng: np.random.Generator, crops: int) -> tuple[float, float]:
    """Seconds an image: in calls of BATCH images, and in calls of one image."""
    labels.verify()  # warms the map
    requests = [
        (rng.integers(0, len(labels), BATCH), rng.integers(0, crops, (BATCH, M_BATCH))) for _ in range(100)
    ]
    singles = [(images[:1], drawn[:1]) for images, drawn in requests for _ in range(10)]

    def read(batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
        for images, drawn in batches:
            labels.gather(images, drawn)

    return best_of(9, lambda: read(requests)) / (100 * BATCH), best_of(9, lambda: read(singles)) / 1000


def measure_large(folder: Path, rng: np.random.Generator, images: int = 400_000, crops: int = 16) -> None:
    """Batches out of files that no cache holds, as in training: 222 and 119 MB."""
    drawn = [draw_image(rng, crops) for _ in range(20)]
    together = {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}
    keys = [f"n{i:08d}.JPEG" for i in range(images)]
    for encoding in layout.ENCODINGS:
        path = folder / f"large_{encoding}.fkdl"
        with LabelWriter(path, num_classes=C, k=K, crops=crops, encoding=encoding) as writer:
            for first in range(0, images, 20):
                writer.add_many(keys[first : first + 20], **together, image_sizes=[(HEIGHT, WIDTH)] * 20)
        labels = LabelFile(path)
        labels.verify()
        seconds = []
        for _ in range(200):
            request = rng.integers(0, images, BATCH), rng.integers(0, crops, (BATCH, M_BATCH))
            start = time.perf_counter()
            labels.gather(*request)
            seconds.append(time.perf_counter() - start)
        print(
            f"{images} images x {crops} crops, {encoding:<8} {M_BATCH} crops each of {BATCH} images in one "
            f"call: {1e6 * statistics.median(seconds):.0f} us"
        )


# ---- error of the compact encoding -------------------------------------------------------------------------


def measure_error(folder: Path, rng: np.random.Generator, path: str | None) -> None:
    if path is None:
        path = str(folder / "drawn.fkdl")
        with LabelWriter(path, num_classes=C, k=K, value_type="float32") as writer:
            for i in range(50):
                writer.add(f"{i}", **draw_image(rng, 500), image_size=(HEIGHT, WIDTH))
    plain = LabelFile(path)
    options = {"num_classes": plain.num_classes, "k": plain.k, "encoding": "compact"}
    with LabelWriter(folder / "compact.fkdl", plain.kind, **options) as writer:
        for image in plain:
            writer.add_image(image)
    worst, differences = 0.0, []
    for before, after in zip(plain, LabelFile(folder / "compact.fkdl")):
        p, q = before.values.astype(np.float64), after.values.astype(np.float64)
        worst = max(worst, float(np.abs(q / np.maximum(p, 1e-30) - 1)[p >= 4.1e-6].max(initial=0)))
        student = student_log_probabilities(rng, before.ids, p, plain.num_classes)
        differences.append(soft_loss(before.ids, q, student) - soft_loss(before.ids, p, student))
    difference = np.concatenate(differences)
    print(
        f"compact: probabilities at most {worst:.2%} off; the loss differs by {abs(difference.mean()):.1e} "
        f"in the mean of {len(difference)} crops, {np.abs(difference).mean():.1e} for one crop"
    )


def student_log_probabilities(
    rng: np.random.Generator, ids: np.ndarray, values: np.ndarray, classes: int
) -> np.ndarray:
    """Of a student that learnt something of the labels: noise, and a part of the teacher's logits."""
    logits = rng.normal(0, 1, (len(ids), classes))
    lift = 0.7 * np.log(np.maximum(values, 1e-9) * classes)
    np.put_along_axis(logits, ids.astype(np.int64), lift, axis=1)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def soft_loss(ids: np.ndarray, values: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
    """(M,) soft cross-entropy of marginal smoothing."""
    classes = log_probabilities.shape[1]
    base = (1 - values.sum(axis=1)) / (classes - values.shape[1])
    named = np.take_along_axis(log_probabilities, ids.astype(np.int64), axis=1)
    return -((values - base[:, None]) * named).sum(axis=1) - base * log_probabilities.sum(axis=1)


# ---- opening a large file ----------------------------------------------------------------------------------


def measure_opening(
    folder: Path, rng: np.random.Generator, images: int = 1_281_167, crops: int = 500
) -> None:
    path = folder / "large.fkdl"
    write_sparse(path, images, crops)
    opened = best_of(9, lambda: LabelFile(path))
    start = time.perf_counter()
    labels = LabelFile(path)
    assert labels.find(f"n{images - 1:08d}.JPEG") == images - 1
    first = time.perf_counter() - start
    wanted = [f"n{i:08d}.JPEG" for i in rng.integers(0, images, 1000)]
    found = best_of(3, lambda: [labels.find(key) for key in wanted]) / 1000
    print(
        f"{images} images x {crops} crops, {path.stat().st_size / 1e9:.1f} GB: opened in {1e3 * opened:.2f} "
        f"ms, first key found after {1e3 * first:.0f} ms (all keys checked), others in {1e6 * found:.1f} us"
    )


def write_sparse(path: Path, images: int, crops: int) -> None:
    """A label file whose blocks are a hole: as large as ImageNet's, on hardly any disk."""
    block = layout.align64(crops * 28 + (crops + 7) // 8)
    identity = bytes(16)
    top = layout.PREAMBLE.pack(layout.MAGIC, 1, 0, 0, 0, 0, 0, 1, 0, C, K, crops, 0, identity, 0)
    index = np.zeros(images, layout.INDEX)
    index["offset"] = 64 + block * np.arange(images, dtype=np.uint64)
    index["crops"], index["size"] = crops, (HEIGHT, WIDTH)
    keys = b"".join(b"n%08d.JPEG" % i for i in range(images))
    starts = (np.arange(images + 1) * (len(keys) // images)).astype("<u4").tobytes()
    parts = [b"{}", index.tobytes(), starts + keys]
    padded = [part.ljust(layout.align64(len(part)), b"\0") for part in parts]
    at = [64 + block * images]
    for part in padded:
        at.append(at[-1] + len(part))
    crcs = [_C.crc32c(part) for part in padded]
    footer = layout.FOOTER.pack(
        at[0],
        2,
        at[1],
        images,
        at[2],
        len(parts[2]),
        *crcs,
        0,
        bytes(32),
        identity,
        at[3] + layout.FOOTER_SIZE,
    )
    with open(path, "wb") as file:
        file.write(top + _C.crc32c(top).to_bytes(4, "little"))
        file.seek(at[0])
        file.write(b"".join(padded) + footer + _C.crc32c(footer).to_bytes(4, "little") + layout.END_MAGIC)


if __name__ == "__main__":
    raise SystemExit(main())
