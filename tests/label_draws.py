"""The writer of label files for tests: random ones of every kind, or of given images and answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fkdx.labels import LabelFile, LabelWriter, Mixes, shard_path, write_manifest
from fkdx.labels.rewrite import copy_images, writer_like

HEIGHT, WIDTH = 375, 500


def draw_boxes(
    rng: np.random.Generator, count: int, height: int = HEIGHT, width: int = WIDTH, smallest: int = 1
) -> np.ndarray:
    """(count, 4) int64 boxes inside an image."""
    heights, widths = rng.integers(smallest, height + 1, count), rng.integers(smallest, width + 1, count)
    tops, lefts = rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1)
    return np.stack([tops, lefts, heights, widths], axis=1)


def draw_labels(rng: np.random.Generator, count: int, kind: str, num_classes: int, k: int) -> dict:
    """ids and values (and tails) of `count` crops, in descending order where the kind wants it."""
    probabilities = rng.dirichlet(np.full(num_classes, rng.choice([0.02, 0.2, 2])), count).astype(np.float32)
    logits = rng.normal(0, 4, (count, num_classes)).astype(np.float32)
    dense = logits if kind.endswith("logits") else probabilities
    if kind == "embedding":
        values = rng.normal(0, rng.choice([1e-3, 1, 50]), (count, num_classes + k))
        return {"values": values.astype(np.float32)}
    if kind.startswith("dense"):
        return {"values": dense}
    ids = np.argsort(-dense, axis=1, kind="stable")[:, :k]
    if kind == "hard":
        return {"ids": ids}
    values = np.take_along_axis(dense, ids, axis=1)
    if kind != "topk_logits":
        return {"ids": ids, "values": values}
    others = np.exp(logits.astype(np.float64)).sum(axis=1) - np.exp(values.astype(np.float64)).sum(axis=1)
    with np.errstate(divide="ignore"):
        tails = np.log(np.maximum(others, 0)) if k < num_classes else np.full(count, -np.inf)
    return {"ids": ids, "values": values, "tails": tails.astype(np.float32)}


def draw_mixes(rng: np.random.Generator, count: int, keys: list[str], size: int, ratios: bool) -> Mixes:
    operations = rng.integers(0, 4, count)
    boxes = rng.random((count, 4)).astype(np.float32) / 2 if ratios else draw_boxes(rng, count)
    return Mixes(
        partners=[str(rng.choice(keys)) if operation else None for operation in operations],
        boxes=boxes,
        flips=rng.random(count) < 0.5,
        operations=operations,
        lambdas=rng.random(count).astype(np.float32),
        mix_boxes=draw_boxes(rng, count, size, size),
    )


def write_labels(
    path: Path,
    rng: np.random.Generator,
    kind: str = "topk",
    images: int = 5,
    num_classes: int = 100,
    k: int = 5,
    crops: int | None = 7,
    ratios: bool = False,
    mix_size: int = 0,
    extra: bool = False,
    sizes: dict[str, tuple[int, int]] | None = None,
    answers: Callable[[str, int], dict] | None = None,
    smallest: int = 1,
    **options,
) -> dict[str, dict]:
    """Writes a label file; returns the arguments of every `LabelWriter.add` by key, sorted by key.

    Of images of these (height, width) by key, or of random ones; `answers` gives a key's ids and values for a
    number of crops, by default random ones. Boxes have edges of at least `smallest` pixels.
    """
    if sizes is None:
        names = [f"n{i % 3}/übung_{i}.JPEG" for i in rng.permutation(images)]
        sizes = {name: tuple(rng.integers(1, 700, 2).tolist()) for name in names}
    keys = list(sizes)
    if mix_size:
        options |= {"images": [*keys, "n0/only a partner.JPEG"], "mix_size": mix_size}
    if extra:
        options["extra"] = {"operations": ["rand_augment"], "form": "json"}
    k = {"hard": 1, "smoothing": 1}.get(kind, num_classes if kind.startswith("dense") else k)
    own = {"num_classes": num_classes, "k": k}
    if kind == "embedding":
        own = {"embeddings": {"cls": num_classes, **({"patches": k} if k else {})}}
    written = {}
    with LabelWriter(path, kind, **own, crops=crops, ratios=ratios, **options) as writer:
        for key, (height, width) in sizes.items():
            count = crops or int(rng.integers(0, 9))
            boxes = draw_boxes(rng, count, height, width, smallest)
            if ratios:
                boxes = (boxes / np.array([height, width, height, width])).astype(np.float32)
            written[key] = {
                "boxes": boxes,
                "flips": rng.random(count) < 0.5,
                **(answers(key, count) if answers else draw_labels(rng, count, kind, num_classes, k)),
                "image_size": None if ratios else (height, width),
            }
            if mix_size:
                written[key]["mixes"] = draw_mixes(rng, count, options["images"], mix_size, ratios)
            if extra:
                written[key]["extra"] = rng.bytes(int(rng.integers(0, 50)))
            writer.add(key, **written[key])
    return dict(sorted(written.items(), key=lambda item: item[0].encode()))


def write_mixed_shards(labels: LabelFile, folder: Path, parts: list[np.ndarray]) -> LabelFile:
    """Images of a file of mixed crops as a set: shard i holds the images parts[i], and their partners."""
    folder.mkdir()
    for number, part in enumerate(parts):
        images = [labels[image] for image in part.tolist()]
        named = {image.key for image in images}.union(
            *(filter(None, image.mixes.partners) for image in images)
        )
        with writer_like(labels, shard_path(folder, number), images=sorted(named)) as writer:
            copy_images(images, writer)
    return LabelFile(write_manifest(folder, [shard_path(folder, number) for number in range(len(parts))]))
