"""Answers of a teacher, chunk by chunk, become shards; the shards of a finished job become one label file."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from fkdx.generate.feed import Chunk, View
from fkdx.generate.shards import Job, Shard, write_json
from fkdx.labels import LabelFile, LabelWriter
from fkdx.teacher import Answer


def write_shard(job: Job, shard: Shard, answers: Iterable[tuple[Chunk, Answer]], options: dict) -> None:
    """Write one shard's label file, then its report. `options` are those of LabelWriter.

    RuntimeError, naming the image, where a teacher's outputs were not finite.
    """
    failed = []
    with LabelWriter(job.labels_path(shard), **options, overwrite=True) as writer:
        for _, parts in groupby(answers, key=lambda part: part[0].views[0].key):
            for view, rows in _by_image(list(parts)):
                finite = rows.pop("finite")
                if view.failure:
                    failed.append({"key": view.key, "reason": view.failure})
                elif not finite.all():
                    crop = int(np.argmin(finite))
                    raise RuntimeError(
                        f"generate: outputs of the teacher for crop {crop} are not finite, {view.key}"
                    )
                else:
                    writer.add(view.key, view.boxes, view.flips, image_size=view.image_size, **rows)
    images = shard.last - shard.first
    write_json(job.report_path(shard), {"images": images - len(failed), "failed": failed})


def _by_image(parts: list[tuple[Chunk, Answer]]) -> Iterator[tuple[View, dict[str, np.ndarray]]]:
    """The answers for one group of images, whose crops came in one or more chunks, image by image."""
    views = parts[0][0].views
    columns = {}
    for name in ("ids", "values", "tails", "finite"):
        tensors = [getattr(answer, name) for _, answer in parts]
        if tensors[0] is not None:
            arrays = [rows.cpu().numpy().reshape(len(views), -1, *rows.shape[1:]) for rows in tensors]
            columns[name] = np.concatenate(arrays, axis=1)
    for place, view in enumerate(views):
        yield view, {name: column[place] for name, column in columns.items()}


def merge_shards(job: Job, shards: list[Shard], target: Path, options: dict) -> list[dict]:
    """Write all shards of a finished job into one label file; returns what failed as {"key", "reason"}."""
    failed = []
    with LabelWriter(target, **options) as writer:
        for shard in shards:
            failed += job.report(shard)["failed"]
            for image in LabelFile(job.labels_path(shard)):
                writer.add(
                    image.key,
                    image.boxes,
                    image.flips,
                    image.ids,
                    image.values,
                    image.image_size,
                    tails=image.tails,
                )
    return failed
