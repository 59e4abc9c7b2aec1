"""Pack existing soft labels of any known format into one label file.

    fkdx pack FKD_labels/imagenet -o labels.fkdl --images imagenet/train

No pickle is ever executed. With --images, boxes are stored in whole pixels; without, as fractions of the
image size.

OUT appears once all labels have been read. Images with unreadable labels are listed in OUT.unreadable.txt,
and nothing is written unless --allow-missing allows that many. Work in progress is kept in OUT.parts: after
an interruption, repeat the command and it continues where it stopped.
"""

import argparse
import math
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fkdx.commands.options import DATA_HELP
from fkdx.errors import refuse
from fkdx.facts import Facts, add_json
from fkdx.image import INTERPOLATIONS
from fkdx.importers import FORMATS, open_foreign
from fkdx.importers.fkd import LABEL_TYPES
from fkdx.importers.foreign_labels import ForeignLabels, Settings
from fkdx.importers.images import Images
from fkdx.importers.job import pack
from fkdx.importers.label_maps import AXES
from fkdx.labels import ENCODINGS, VALUE_TYPES, fingerprint
from fkdx.stores import read_classes
from fkdx.system import available_cores


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    _check(args)
    classes = read_classes(args.classes) if args.classes else None
    images = Images(args.images, classes) if args.images else None
    labels = open_foreign(args.source, _settings(args, classes, images), args.format)
    print(describe(labels), file=sys.stderr)
    try:
        report = pack(
            labels,
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
            "pack: a worker process died, perhaps for lack of memory. Repeat the command to continue "
            "where it stopped; fewer --workers need less memory."
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; repeat the command to continue") from None
    left_out = len(report.unreadable)
    with Facts(args.json) as facts:
        facts.say(
            f"{args.output}: {report.images:,} images, {report.bytes:,} bytes",
            **{"path": args.output, "images": report.images, "bytes": report.bytes, "left_out": left_out},
        )
        if left_out:
            facts.say(f"{left_out} images left out, listed in {args.output}.unreadable.txt")
    return 0


def _check(args: argparse.Namespace) -> None:
    """ValueError for what cannot be meant, before anything is read."""
    for name in ("workers", "num_classes", "mix_size", "crops", "topk"):
        value = getattr(args, name)
        if value is not None and value < 1:
            refuse("pack", f"--{name.replace('_', '-')}", value, "1 or more")
    for name, most in (("scale", 1), ("ratio", math.inf)):
        low, high = getattr(args, name)
        if not 0 < low <= high <= most:
            refuse("pack", f"--{name}", f"{low} {high}", "0 < LOW <= HIGH" + " <= 1" * (most == 1))
    if os.path.isdir(args.output):
        refuse("pack", "--output", "a folder", "the name of a file, such as labels.fkdl", args.output)
    if args.classes and args.num_classes:
        names = len(read_classes(args.classes))
        if names != args.num_classes:
            got = f"{names} names, but --num-classes {args.num_classes}"
            refuse("pack", "--classes", got, "as many", args.classes)


def describe(labels: ForeignLabels) -> str:
    """What is about to be packed, for people."""
    layout = labels.layout
    crops = f"{layout.crops} crops" if layout.crops else "a varying number of crops"
    lines = [
        f"{labels.name}: {len(labels.keys):,} images x {crops}, {layout.kind} labels, "
        f"K = {layout.k} of {layout.num_classes} classes",
        *labels.notes,
    ]
    return "\n".join(lines)


def _settings(args: argparse.Namespace, classes: list[str] | None, images: Images | None) -> Settings:
    return Settings(
        num_classes=args.num_classes,
        classes=tuple(classes) if classes else None,
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
        "decoder": "unknown",  # of the crops that the teacher saw
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx pack",
        description=__doc__,
        epilog="\n".join(["formats:", *(f"  {name:<15} {labels.about}" for name, labels in FORMATS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", help="folder of the labels")
    add("-o", "--output", required=True, metavar="OUT", help="label file to write, usually *.fkdl")
    add("--format", default="auto", metavar="NAME", help="label format, see below (default: detected)")
    add("--images", metavar="DATA", help=f"the labelled images; {DATA_HELP}")
    add("--num-classes", type=int, metavar="C", help="number of classes (default: number of class folders)")
    add("--classes", metavar="FILE", help="file of class names in class order, one per line")
    add(
        "--workers",
        type=int,
        default=available_cores(),
        metavar="N",
        help="number of processes (default: all cores)",
    )
    add("--allow-missing", type=int, default=0, metavar="N", help="leave out up to N unreadable images")
    add("--repair", action="store_true", help="fix and count faulty labels instead of refusing them")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add_json(parser)

    add = parser.add_argument_group("how values are stored").add_argument
    add("--encoding", default="plain", choices=ENCODINGS, help="encoding; compact is about 40 %% smaller")
    add(
        "--value-type",
        choices=VALUE_TYPES[1:],
        help="type of the values (default: float16; log8 for probabilities in compact files)",
    )

    add = parser.add_argument_group("the teacher, for the header of the file").add_argument
    add("--teacher", metavar="NAME", help="name of the teacher, timm's if it has one")
    add("--teacher-size", type=int, metavar="PIXELS", help="side of the crops that the teacher saw")
    add("--teacher-interpolation", choices=INTERPOLATIONS, help="interpolation with which they were resized")
    add("--temperature", type=float, metavar="T", help="temperature of the softmax behind the probabilities")

    add = parser.add_argument_group("what only some formats need").add_argument
    defaults = Settings()
    add(
        "--image-suffix",
        default=defaults.image_suffix,
        metavar="SUFFIX",
        help="suffix of image files, for fkd without --images (default: %(default)s)",
    )
    add(
        "--label-type",
        metavar="TYPE",
        help=f"meaning of the labels, for fkd: {', '.join(LABEL_TYPES)}; for lpqld: MR (default), MS",
    )
    add(
        "--mix-size",
        type=int,
        default=defaults.mix_size,
        metavar="PIXELS",
        help="side of the crops that were mixed, for sre2l, lpld, lpqld, g-vbsm (default: the largest CutMix "
        "edge) and reinforcement (default: 224)",
    )
    add(
        "--seed",
        type=int,
        default=defaults.seed,
        help="seed of the order of images, for sre2l; of the crops, for relabel and token-labeling (default: "
        "%(default)s)",
    )
    add(
        "--lost-operations",
        choices=["none", "accept"],
        help="for tinyvit: RandAugment, erasing and mixing were off (none), or ignore that they are lost",
    )
    add(
        "--scale",
        type=float,
        nargs=2,
        default=defaults.scale,
        metavar=("LOW", "HIGH"),
        help="range of a crop's share of the image's area, for tinyvit, relabel, token-labeling (default: "
        "0.08 1.0)",
    )
    add(
        "--ratio",
        type=float,
        nargs=2,
        default=defaults.ratio,
        metavar=("LOW", "HIGH"),
        help="range of a crop's width / height, for the same formats (default: 3/4 4/3)",
    )
    add(
        "--crops",
        type=int,
        default=defaults.crops,
        metavar="M",
        help="crops to draw of each image, for relabel and token-labeling (default: %(default)s)",
    )
    add(
        "--topk",
        type=int,
        default=defaults.k,
        metavar="K",
        help="classes to keep of each crop, for relabel and token-labeling (default: %(default)s)",
    )
    add(
        "--map-axes",
        choices=AXES,
        default=defaults.map_axes,
        help="axes of the boxes pooled from label maps, for relabel and token-labeling (default: "
        "%(default)s)",
    )
    return parser
