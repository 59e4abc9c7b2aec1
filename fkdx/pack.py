"""Pack existing soft labels of any known format into one label file.

    fkdx pack FKD_labels/imagenet -o labels.fkdl --images imagenet/train

No pickle in the sources is executed. Boxes become whole pixels where the images are given, and stay ratios of
the image size where they are not.

OUT appears when every source was read. Sources that cannot be read are listed in OUT.unreadable.txt, and
nothing is written unless --allow-missing accepts as many. Work in progress is kept in OUT.parts: the same
command goes on where an interrupted one stopped.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx.importers import FORMATS, open_source
from fkdx.importers.fkd import LABEL_TYPES
from fkdx.importers.images import Images
from fkdx.importers.label_maps import AXES
from fkdx.importers.source import Settings, Source, Unreadable
from fkdx.labels import ENCODINGS, VALUE_TYPES, ImageLabels, LabelFile, LabelWriter, complete, shard_path

IMAGES_A_PART = 2048


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

    source: Source
    target: Path
    options: dict[str, Any]  # of LabelWriter
    images_a_part: int

    @property
    def folder(self) -> Path:
        return Path(f"{self.target}.parts")

    def parts(self) -> list[range]:
        """Numbers of the images of each part; they do not depend on who works on it."""
        images = range(len(self.source.keys))
        if self.source.layout.mix_size:  # partners must lie in the same file
            return [images]
        return [images[first : first + self.images_a_part] for first in images[:: self.images_a_part]]

    def begin(self) -> None:
        """Makes the folder of parts. Raises ValueError where it was begun with other sources or options."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = {**self.options, "layout": asdict(self.source.layout), "images_a_part": self.images_a_part}
        text = json.dumps(plan, sort_keys=True, indent=1)
        path = self.folder / "job.json"
        if not path.exists():
            path.write_text(text)
        elif path.read_text() != text:
            raise ValueError(
                f"pack: unfinished work, got parts of other labels or options, expected the same as when it "
                f"was begun; repeat that command or remove {self.folder}"
            )

    def pack_part(self, number: int) -> list[Unreadable]:
        """Writes one part, unless it is there already with all its images."""
        path, images = shard_path(self.folder, number), self.parts()[number]
        if complete(path) and np.count_nonzero(LabelFile(path).crop_counts) == len(images):
            return []
        unreadable = []
        with LabelWriter(path, **self.options, overwrite=True) as writer:
            for labels in self.source.read(images):
                if isinstance(labels, ImageLabels):
                    labels = _add(writer, labels)
                if labels is not None:
                    unreadable.append(labels)
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

    def finish(self) -> None:
        """Joins the parts into the target and removes them."""
        paths = [shard_path(self.folder, number) for number in range(len(self.parts()))]
        if len(paths) == 1:
            os.replace(paths[0], self.target)
        else:
            with LabelWriter(self.target, **self.options, overwrite=True) as writer:
                for part in map(LabelFile, paths):
                    for image in range(len(part)):
                        writer.copy_image(part, image)
                    for sort, count in part.header.get("repairs", {}).items():
                        writer.repairs[sort] += count
        shutil.rmtree(self.folder)


def pack(
    source: Source,
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
        raise FileExistsError(f"pack: {target} exists; remove it or ask for overwriting")
    job = Job(
        source, target, {**_options(source, provenance or {}), **options}, images_a_part or IMAGES_A_PART
    )
    job.begin()
    parts, report = job.parts(), Report()
    by_part: dict[int, list[Unreadable]] = {}
    told = f"{source.name} -> {job.expected_bytes() / 1e9:.3g} GB"
    with tqdm(total=len(source.keys), unit=" images", desc=told, disable=None) as bar:
        for number, unreadable in _pack_parts(job, workers):
            by_part[number] = unreadable
            bar.update(len(parts[number]))
    report.unreadable = [one for number in sorted(by_part) for one in by_part[number]]
    _list_unreadable(report.unreadable, target, allow_missing)
    job.finish()
    report.images = len(source.keys) - len(report.unreadable)
    report.bytes = target.stat().st_size
    return report


def _options(source: Source, provenance: dict[str, Any]) -> dict[str, Any]:
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
        "extra": {"operations": list(layout.operations), "form": "json"} if layout.operations else None,
    }


def _add(writer: LabelWriter, labels: ImageLabels) -> Unreadable | None:
    try:
        writer.add_image(labels)
    except ValueError as error:
        return Unreadable(labels.key, str(error))
    return None


_job: Job  # in a worker process


def _pack_parts(job: Job, workers: int) -> Iterator[tuple[int, list[Unreadable]]]:
    """(part, what could not be read) of all parts, in any order."""
    numbers = range(len(job.parts()))
    if min(workers, len(numbers)) <= 1:
        for number in numbers:
            yield number, job.pack_part(number)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (job,)) as pool:
        futures = [pool.submit(_pack_part, number) for number in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(job: Job) -> None:
    global _job
    _job = job


def _pack_part(number: int) -> tuple[int, list[Unreadable]]:
    return number, _job.pack_part(number)


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


# ---- the command ------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        images = Images(args.images) if args.images else None
        settings = Settings(
            num_classes=args.num_classes,
            classes=tuple(Path(args.classes).read_text().splitlines()) if args.classes else None,
            images=images,
            image_suffix=args.image_suffix,
            label_type=args.label_type,
            mix_size=args.mix_size,
            seed=args.seed,
            lost_operations=args.lost_operations,
            scale=tuple(args.scale),
            ratio=tuple(args.ratio),
            crops=args.crops,
            k=args.topk,
            map_axes=args.map_axes,
        )
        source = open_source(args.source, settings, args.format)
        print(describe(source), file=sys.stderr)
        report = pack(
            source,
            args.output,
            workers=args.workers,
            allow_missing=args.allow_missing,
            overwrite=args.overwrite,
            provenance=_provenance(args),
            encoding=args.encoding,
            value_type=args.value_type,
            repair=args.repair,
        )
    except BrokenProcessPool:
        print(
            "fkdx pack: a worker process died (out of memory?); the same command goes on where it stopped, "
            "fewer --workers need less memory",
            file=sys.stderr,
        )
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        print(f"fkdx pack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fkdx pack: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    print(f"{args.output}: {report.images:,} images, {report.bytes:,} bytes")
    if report.unreadable:
        print(f"{len(report.unreadable)} images left out, listed in {args.output}.unreadable.txt")
    return 0


def describe(source: Source) -> str:
    layout = source.layout
    crops = f"{layout.crops} crops" if layout.crops else "a varying number of crops"
    lines = [
        f"{source.name}: {len(source.keys):,} images x {crops}, {layout.kind} labels, "
        f"K = {layout.k} of {layout.num_classes} classes",
        *source.notes,
    ]
    return "\n".join(lines)


def _provenance(args: argparse.Namespace) -> dict[str, Any]:
    teacher = {"name": args.teacher, "size": args.teacher_size, "interpolation": args.teacher_interpolation}
    teacher = {name: value for name, value in teacher.items() if value is not None}
    return {
        "teacher": teacher or "unknown",
        "temperature": "unknown" if args.temperature is None else args.temperature,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx pack",
        description=__doc__,
        epilog="\n".join(["formats:", *(f"  {name:<15} {source.about}" for name, source in FORMATS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", help="folder of the labels")
    add("-o", "--output", required=True, metavar="OUT", help="label file to write, usually *.fkdl")
    add("--format", default="auto", metavar="NAME", help="of the source, see below; by default found out")
    add("--images", metavar="DIR", help="folder of the labelled images, <class>/<image>")
    add("--num-classes", type=int, metavar="C", help="of the teacher; by default the class folders counted")
    add("--classes", metavar="FILE", help="class names in class order, one a line")
    add(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (all cores)"
    )
    add("--allow-missing", type=int, default=0, metavar="N", help="leave out up to N unreadable images")
    add("--repair", action="store_true", help="mend and count faulty labels instead of refusing them")
    add("--overwrite", action="store_true", help="replace OUT where it exists")

    add = parser.add_argument_group("how values are stored").add_argument
    add("--encoding", default="plain", choices=ENCODINGS, help="compact is about 40 %% smaller")
    add("--value-type", choices=VALUE_TYPES[1:], help="float16, in compact files log8, by default")

    add = parser.add_argument_group("who labelled, for the header of the file").add_argument
    add("--teacher", metavar="NAME")
    add("--teacher-size", type=int, metavar="PIXELS", help="side of the crops that the teacher saw")
    add("--teacher-interpolation", choices=["bilinear", "bicubic"], help="how they were resized")
    add("--temperature", type=float, metavar="T", help="of the softmax that made the probabilities")

    add = parser.add_argument_group("what only some formats need to be told").add_argument
    defaults = Settings()
    add("--image-suffix", default=defaults.image_suffix, help="fkd without --images (.JPEG)")
    add("--label-type", metavar="TYPE", help=f"fkd: {', '.join(LABEL_TYPES)}")
    add("--mix-size", type=int, default=defaults.mix_size, help="sre2l, lpld, g-vbsm, reinforcement: "
        "side of the crops that were mixed, in pixels (%(default)s)")  # fmt: skip
    add("--seed", type=int, default=defaults.seed, help="sre2l: of the order of the images; relabel, "
        "token-labeling: of the crops (%(default)s)")  # fmt: skip
    add("--lost-operations", choices=["none", "accept"], help="tinyvit: whether RandAugment, erasing and "
        "mixing were off, or their loss is accepted")  # fmt: skip
    add("--scale", type=float, nargs=2, default=defaults.scale, help="tinyvit, relabel, token-labeling: "
        "share of the image's area in a crop (0.08 1.0)")  # fmt: skip
    add("--ratio", type=float, nargs=2, default=defaults.ratio, help="and its width / height (3/4 4/3)")
    add("--crops", type=int, default=defaults.crops, help="relabel, token-labeling: for an image (200)")
    add("--topk", type=int, default=defaults.k, help="and the classes kept of each (5)")
    add("--map-axes", choices=AXES, default=defaults.map_axes, help="and how boxes are pooled (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
