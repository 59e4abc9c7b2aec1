"""Answers of teachers, chunk by chunk, become shards; the shards of a finished job become label files."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from fkdx.generate.feed import Chunk, ImageCrops
from fkdx.generate.shards import Shard
from fkdx.image.steps import encode
from fkdx.labels import LabelFile, LabelWriter, write_manifest
from fkdx.labels.int8 import SAMPLE, Change, change
from fkdx.labels.parts import Parts
from fkdx.models.teacher import Answer


@dataclass(frozen=True)
class Output:
    """A label file that a job makes, or a folder of shards where `path` does not end in .fkdl.

    `members` are the numbers of its teachers: of several the mean probabilities are stored. `options` are
    those of LabelWriter; `standardise` says whether embeddings are standardised when the parts are joined.
    """

    path: Path
    members: tuple[int, ...]
    options: dict
    standardise: bool = False

    @property
    def part_options(self) -> dict:
        """The options of a part's file: before all parts are there, nobody knows means and deviations."""
        if not self.standardise:
            return self.options
        exact = "float32" if self.options["value_type"] == "float32" else "float16"
        return {**self.options, "encoding": "plain", "value_type": exact}


def write_shard(
    job: Parts, shard: Shard, outputs: list[Output], answers: list[tuple[Chunk, list[Answer]]], facts: dict
) -> None:
    """Write a shard's label files, one an output, then its report, to which `facts` are added.

    RuntimeError, naming the image, where a teacher's outputs were not finite.
    """
    failed, warned = [], 0
    exact: list[dict[str, np.ndarray]] = [{} for _ in outputs]  # of some images, what int8 rounds
    paths = [job.labels_path(shard.number, number) for number in range(len(outputs))]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                LabelWriter(path, **output.part_options, **_named(output, answers), overwrite=True)
            )
            for path, output in zip(paths, outputs)
        ]
        for _, parts in groupby(answers, key=lambda part: part[0].images[0].key):
            for image, rows in _by_image(list(parts)):
                if image.failure:
                    failed.append({"key": image.key, "reason": image.failure})
                    continue
                warned += image.warned
                for writer, row, kept in zip(writers, rows, exact):
                    _check_finite(row.pop("finite"), image)
                    row |= {"mixes": image.mixes, "extra": encode(image.steps) if image.steps else b""}
                    if writer.value_type == "int8" and len(kept) * len(image.boxes) < SAMPLE:
                        kept[image.key] = row["values"]
                    writer.add(image.key, image.boxes, image.flips, image_size=image.image_size, **row)
    files = [LabelFile(path) for path in paths]
    digests = [file.digest for file in files]
    if changes := [asdict(one) for one in map(_int8_change, files, exact) if one]:
        facts = {**facts, "int8": changes}
    counts = {"images": shard.last - shard.first - len(failed), "failed": failed, "warned": warned}
    job.set_done(shard.number, {**counts, "digests": digests, **facts})


def _int8_change(file: LabelFile, exact: dict[str, np.ndarray]) -> Change | None:
    if not exact:
        return None
    stored = np.concatenate([file[key].values for key in exact])
    return change(np.concatenate(list(exact.values())), stored, list(file.embeddings.values()))


def _by_image(
    parts: list[tuple[Chunk, list[Answer]]],
) -> Iterator[tuple[ImageCrops, list[dict[str, np.ndarray]]]]:
    """The answers for a group of images, whose crops came in one or more chunks: per image one an output."""
    images = parts[0][0].images
    tables = []
    for answers in zip(*(answers for _, answers in parts)):
        table = {}
        for name in ("ids", "values", "tails", "finite"):
            columns = [getattr(answer, name) for answer in answers]
            if columns[0] is not None:
                arrays = [rows.cpu().numpy().reshape(len(images), -1, *rows.shape[1:]) for rows in columns]
                table[name] = np.concatenate(arrays, axis=1)
        tables.append(table)
    for place, image in enumerate(images):
        yield image, [{name: column[place] for name, column in table.items()} for table in tables]


def _named(output: Output, answers: list[tuple[Chunk, list[Answer]]]) -> dict[str, list[str]]:
    """What a file of mixed crops has to know: all images in it, partners included."""
    if not output.options["mix_size"]:
        return {}
    images = [image for chunk, _ in answers for image in chunk.images if not image.failure]
    return {
        "images": sorted({image.key for image in images}.union(*(image.mixes.partners for image in images)))
    }


def _check_finite(finite: np.ndarray, image: ImageCrops) -> None:
    if not finite.all():
        crop = int(np.argmin(finite))
        raise RuntimeError(f"generate: the teacher's outputs for crop {crop} are not finite, {image.key}")


def finish(job: Parts, shards: list[Shard], output: Output, number: int, sizes: str) -> None:
    """Make an output of a finished job from its shards; does nothing if that has been done.

    `sizes` are those of a fingerprint, of all images; one file has them in its header, a set in its manifest.
    """
    if output.path.exists():
        return
    numbers = [shard.number for shard in shards]
    if output.path.suffix != ".fkdl":
        folder = job.labels_path(0, number).parent
        write_manifest(folder, [job.labels_path(shard, number) for shard in numbers], sizes)
        folder.rename(output.path)
        return
    options = {**output.options, "dataset": {**output.options["dataset"], "sizes": sizes}}
    if options["mix_size"]:
        options["images"] = sorted(
            set().union(*(LabelFile(job.labels_path(shard, number)).keys for shard in numbers))
        )
    job.join(numbers, output.path, options, number, output.standardise)
