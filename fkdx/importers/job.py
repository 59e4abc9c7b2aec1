"""A foreign label set on its way into a label file: in parts of consecutive images, then as one file.

Parts make packing parallel and resumable, see `fkdx.labels.parts`. Which images a part holds depends on the
source alone, so the file is the same whoever works on it and however often it is interrupted.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx.errors import refuse
from fkdx.importers.foreign_labels import ForeignLabels, Unreadable
from fkdx.labels import ImageLabels, LabelWriter, size_marks
from fkdx.labels.parts import Parts, clear_removed
from fkdx.system import start_method

IMAGES_A_PART = 2048
PARTS_OF_MIXED = 16  # at most


@dataclass
class Report:
    """What a run did: images written, bytes of the file, images whose labels could not be read."""

    images: int = 0
    bytes: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)


class TooManyUnreadable(ValueError):
    """Labels of more images than allowed could not be read; nothing was written."""


@dataclass(frozen=True)
class Job:
    """A label set on its way into a label file: in parts of consecutive images, then as one file."""

    source: ForeignLabels
    target: Path
    options: dict[str, Any]  # of LabelWriter
    images_a_part: int

    def parts(self) -> list[range]:
        """Numbers of the images of each part; they do not depend on who works on it."""
        images, size = range(len(self.source.keys)), self.images_a_part
        if self.source.layout.mix_size:  # each part lists all images, because any may be a partner
            size = max(size, -(-len(images) // PARTS_OF_MIXED))
        return [images[first : first + size] for first in images[::size]]

    def begin(self) -> Parts:
        """The folder of parts. Raises ValueError if it was begun with other sources or options."""
        plan = {
            **self.options,
            "layout": asdict(self.source.layout),
            "images_a_part": self.images_a_part,
            "keys": blake2b("\n".join(self.source.keys).encode(), digest_size=16).hexdigest(),
            **{f"source's {name}": value for name, value in self.source.origin},
        }
        return Parts.begin(Path(f"{self.target}.parts"), json.loads(json.dumps(plan)), "pack")

    def pack_part(self, number: int, folder: Parts) -> list[Unreadable]:
        """Write one part, unless it is there already with all its images."""
        if folder.is_done(number) and not folder.report(number)["failed"]:
            return []
        unreadable, images = [], self.parts()[number]
        with LabelWriter(folder.labels_path(number), **self.options, overwrite=True) as writer:
            for labels in self.source.read(images):
                if isinstance(labels, ImageLabels):
                    labels = _add(writer, labels)
                if labels is not None:
                    unreadable.append(labels)
        failed = [{"key": one.key, "reason": one.reason} for one in unreadable]
        folder.set_done(number, {"images": len(images) - len(failed), "failed": failed})
        return unreadable

    def expected_bytes(self) -> int:
        """Size of the finished file, from what its first image adds to an empty one."""
        sizes = []
        with TemporaryDirectory() as folder:
            for first in (range(0), range(1)):
                path = Path(folder, f"{len(first)}.fkdl")
                with LabelWriter(path, **self.options) as writer:
                    for labels in self.source.read(first):
                        if isinstance(labels, ImageLabels):
                            _add(writer, labels)
                sizes.append(path.stat().st_size)
        return sizes[0] + (sizes[1] - sizes[0]) * len(self.source.keys)


def pack(
    source: ForeignLabels,
    target: str | Path,
    *,
    workers: int = 1,
    allow_missing: int = 0,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    images_a_part: int | None = None,
    **options: Any,
) -> Report:
    """Writes the labels of `source` to the label file `target`.

    `workers` processes read and write; the file is the same whatever their number. `options` are those of
    `LabelWriter` that the source does not know: encoding, value_type, repair.

    Raises TooManyUnreadable (a ValueError) where labels of more than `allow_missing` images cannot be read,
    FileExistsError unless `overwrite`. Nothing is written under `target` then.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise FileExistsError(f"pack: {target} exists; remove it, or ask to overwrite it (--overwrite)")
    if source.layout.kind == "hard" and options.get("value_type"):
        refuse(
            "pack",
            "value type (--value-type)",
            options["value_type"],
            "none: hard labels are class ids without values",
        )
    job = Job(
        source, target, {**_options(source, provenance or {}), **options}, images_a_part or IMAGES_A_PART
    )
    clear_removed(Path(f"{target}.parts"))
    expected, folder = job.expected_bytes(), job.begin()
    with folder.lock():
        report = _pack_all(job, folder, workers, f"{source.name} -> {expected / 1e9:.3g} GB")
        _list_unreadable(report.unreadable, target, allow_missing)
        folder.join(range(len(job.parts())), target, _with_sizes(job))
    folder.remove()
    report.bytes = target.stat().st_size
    return report


def _with_sizes(job: Job) -> dict[str, Any]:
    """The job's options, with the sizes of all images in the fingerprint, if there are any."""
    dataset, images = job.options.get("dataset"), getattr(job.source, "images", None)
    if dataset is None or images is None:
        return job.options
    sizes = np.array([size for _, size in images.files()])
    return {**job.options, "dataset": {**dataset, "sizes": size_marks(sizes)}}


def _pack_all(job: Job, folder: Parts, workers: int, title: str) -> Report:
    """Write all parts that are not there yet."""
    images, parts = len(job.source.keys), job.parts()
    by_part: dict[int, list[Unreadable]] = {}
    with tqdm(total=images, unit=" images", desc=title, disable=None) as bar:
        for number, unreadable in _pack_parts(job, folder, workers):
            by_part[number] = unreadable
            bar.update(len(parts[number]))
    unreadable = [one for number in sorted(by_part) for one in by_part[number]]
    return Report(images=images - len(unreadable), unreadable=unreadable)


def _options(source: ForeignLabels, provenance: dict[str, Any]) -> dict[str, Any]:
    layout = source.layout
    return {
        "kind": layout.kind,
        "num_classes": layout.num_classes,
        "k": layout.k,
        "crops": layout.crops,
        "classes": source.classes and list(source.classes),
        "provenance": {**source.provenance, **provenance},
        "ratios": layout.ratios,
        "images": list(source.keys) if layout.mix_size else None,
        "mix_size": layout.mix_size,
        "extra": {"operations": list(layout.operations), "form": layout.form} if layout.operations else None,
    }


def _add(writer: LabelWriter, labels: ImageLabels) -> Unreadable | None:
    try:
        writer.add_image(labels)
    except ValueError as error:
        return Unreadable(labels.key, str(error))
    return None


_work: tuple[Job, Parts]  # in a worker process


def _pack_parts(job: Job, folder: Parts, workers: int) -> Iterator[tuple[int, list[Unreadable]]]:
    """(part, what could not be read) of all parts, in any order."""
    numbers = range(len(job.parts()))
    if min(workers, len(numbers)) <= 1:
        for number in numbers:
            yield number, job.pack_part(number, folder)
        return
    with ProcessPoolExecutor(workers, get_context(start_method()), _start_worker, (job, folder)) as pool:
        futures = [pool.submit(_pack_part, number) for number in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(job: Job, folder: Parts) -> None:
    global _work
    _work = job, folder


def _pack_part(number: int) -> tuple[int, list[Unreadable]]:
    job, folder = _work
    return number, job.pack_part(number, folder)


def _list_unreadable(unreadable: list[Unreadable], target: Path, allowed: int) -> None:
    """Writes the list beside the target; raises where it is longer than allowed."""
    path = Path(f"{target}.unreadable.txt")
    if not unreadable:
        path.unlink(missing_ok=True)
        return
    path.write_text("".join(f"{one.key}\t{one.reason}\n" for one in unreadable))
    if len(unreadable) > allowed:
        first = unreadable[0]
        raise TooManyUnreadable(
            f"pack: unreadable labels, got {len(unreadable)} images, expected at most {allowed} "
            f"(--allow-missing), listed in {path}; the first: {first.key}: {first.reason}"
        )
