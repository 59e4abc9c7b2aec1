"""Pack existing soft labels of any known format into one label file.

    fkdx pack FKD_labels/imagenet -o labels.fkdl --images imagenet/train

No pickle in the sources is executed. Boxes become whole pixels where the images are given, and stay ratios of
the image size where they are not.

OUT appears when every source was read. Sources that cannot be read are listed in OUT.unreadable.txt, and
nothing is written unless --allow-missing accepts as many. Work in progress is kept in OUT.parts: the same
command goes on where an interrupted one stopped.
"""

import argparse
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fkdx.importers import FORMATS, open_foreign
from fkdx.importers.fkd import LABEL_TYPES
from fkdx.importers.foreign_labels import ForeignLabels, Settings
from fkdx.importers.images import Images
from fkdx.importers.job import pack
from fkdx.importers.label_maps import AXES
from fkdx.labels import ENCODINGS, VALUE_TYPES, fingerprint
from fkdx.stores.sources import read_lines


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    images = Images(args.images) if args.images else None
    source = open_foreign(args.source, _settings(args, images), args.format)
    print(describe(source), file=sys.stderr)
    try:
        report = pack(
            source,
            args.output,
            workers=args.workers,
            allow_missing=args.allow_missing,
            overwrite=args.overwrite,
            provenance=_provenance(args),
            dataset=fingerprint(images.files()) if images else None,
            encoding=args.encoding,
            value_type=args.value_type,
            repair=args.repair,
        )
    except BrokenProcessPool:
        raise RuntimeError(
            "pack: a worker process died (out of memory?); the same command goes on where it stopped, "
            "fewer --workers need less memory"
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on where this one was") from None
    print(f"{args.output}: {report.images:,} images, {report.bytes:,} bytes")
    if report.unreadable:
        print(f"{len(report.unreadable)} images left out, listed in {args.output}.unreadable.txt")
    return 0


def describe(source: ForeignLabels) -> str:
    layout = source.layout
    crops = f"{layout.crops} crops" if layout.crops else "a varying number of crops"
    lines = [
        f"{source.name}: {len(source.keys):,} images x {crops}, {layout.kind} labels, "
        f"K = {layout.k} of {layout.num_classes} classes",
        *source.notes,
    ]
    return "\n".join(lines)


def _settings(args: argparse.Namespace, images: Images | None) -> Settings:
    return Settings(
        num_classes=args.num_classes,
        classes=tuple(read_lines(args.classes)) if args.classes else None,
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
    add(
        "--image-suffix", default=defaults.image_suffix, metavar="SUFFIX", help="fkd without --images (.JPEG)"
    )
    add("--label-type", metavar="TYPE", help=f"fkd: {', '.join(LABEL_TYPES)}")
    add("--mix-size", type=int, default=defaults.mix_size, metavar="PIXELS", help="sre2l, lpld, g-vbsm, "
        "reinforcement: side of the crops that were mixed (%(default)s)")  # fmt: skip
    add("--seed", type=int, default=defaults.seed, help="sre2l: of the order of the images; relabel, "
        "token-labeling: of the crops (%(default)s)")  # fmt: skip
    add("--lost-operations", choices=["none", "accept"], help="tinyvit: whether RandAugment, erasing and "
        "mixing were off, or their loss is accepted")  # fmt: skip
    add("--scale", type=float, nargs=2, default=defaults.scale, metavar=("LOW", "HIGH"), help="tinyvit, "
        "relabel, token-labeling: share of the image's area in a crop (0.08 1.0)")  # fmt: skip
    add(
        "--ratio",
        type=float,
        nargs=2,
        default=defaults.ratio,
        metavar=("LOW", "HIGH"),
        help="and its width / height (3/4 4/3)",
    )
    add(
        "--crops",
        type=int,
        default=defaults.crops,
        metavar="M",
        help="relabel, token-labeling: for an image (200)",
    )
    add("--topk", type=int, default=defaults.k, metavar="K", help="and the classes kept of each (5)")
    add("--map-axes", choices=AXES, default=defaults.map_axes, help="and how boxes are pooled (%(default)s)")
    return parser
