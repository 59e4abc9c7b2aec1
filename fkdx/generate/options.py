"""Options of `fkdx generate`."""

import argparse
import shlex
import sys

from fkdx.image import INTERPOLATIONS
from fkdx.image.augment import AUGMENTS, strengths_of
from fkdx.labels import ENCODINGS, KINDS
from fkdx.models.heads import HEADS
from fkdx.models.machine import PRECISIONS

POSITIVE = ("crops", "topk", "batch_size", "temperature", "size", "threads")
DESCRIPTION = """
Run a teacher over stored crops of every image and write what it says into a label file.

The work is cut into shards, so that it may be stopped at any time: repeat the command to go on.
Started by torchrun, every process claims shards of the same job; the labels do not depend on how
many processes there are.
"""
EXAMPLES = """
examples:
  fkdx generate --data train --teacher resnet50 --pretrained -o labels.fkdl
  fkdx generate --data train --teacher resnet18 --checkpoint run/best.safetensors --size 64 -o labels.fkdl
  torchrun --nproc_per_node 8 -m fkdx generate --data train --teacher tf_efficientnet_l2.ns_jft_in1k_475 \\
      --pretrained --crops 500 --scale 0.08 0.936 --precision bfloat16 -o labels.fkdl
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options given, checked one by one; `command` is the command line itself."""
    parser = argparse.ArgumentParser(
        prog="fkdx generate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for add in (_add_files, _add_crops, _add_labels, _add_teacher, _add_machine):
        add(parser)
    args = parser.parse_args(argv)
    args.command = shlex.join(sys.argv if argv is None else ["fkdx", "generate", *argv])
    for name in POSITIVE:
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')}: got {value}, expected more than 0")
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Options that are right one by one but not together."""
    if args.status:
        if not args.output:
            parser.error("--status needs --output")
        return
    if not args.data or not args.teacher:
        parser.error("--data and --teacher are required")
    if not args.output and not args.evaluate:
        parser.error("nothing to do: give --output FILE, --evaluate DIR, or both")
    if args.checkpoint and len(args.checkpoint) != len(args.teacher):
        parser.error(
            f"--checkpoint: got {len(args.checkpoint)}, expected {len(args.teacher)}, one a teacher "
            "('pretrained' where it has pretrained weights)"
        )
    if args.checkpoint and "pretrained" in args.checkpoint:
        args.pretrained = True
    if args.head and "logits" not in args.kind:
        parser.error(f"--head: its outputs are stored before the softmax, got --kind {args.kind}")
    if args.maps and (args.evaluate or args.dry_run):
        parser.error("--maps: only labels are made of maps, got --evaluate or --dry-run with it")
    if min(args.mixup, args.cutmix) < 0:
        parser.error(f"--mixup, --cutmix: got {args.mixup} and {args.cutmix}, expected no negative number")
    if args.maps and (args.mixup or args.cutmix or args.augment):
        parser.error("--maps: whole images are seen, got --mixup, --cutmix or --augment with it")
    for word in args.augment:
        try:
            strengths_of(word)
        except ValueError as error:
            parser.error(f"--augment: {str(error).removeprefix('augment: ')}")
    if args.policy and args.crops_from:
        parser.error("--policy and --crops-from exclude each other")


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", help="images: a folder a class, or tar shards")
    add("-o", "--output", metavar="FILE", help="label file to write (.fkdl), or a folder for shards of one")
    add(
        "--classes",
        metavar="FILE",
        help="the teacher's class names in order, one a line (default: the folders, or ImageNet's)",
    )
    add("--evaluate", metavar="DIR", help="first measure the teacher on these validation images")
    add("--dry-run", action="store_true", help="tell what would be done, how large and how long, and stop")
    add("--status", action="store_true", help="tell how far the job of --output is, and stop")
    add("--strict", action="store_true", help="stop at the first image that cannot be read")


def _add_crops(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("crops").add_argument
    add("--crops", type=int, default=200, metavar="M", help="of every image (default %(default)s)")
    add("--seed", type=int, default=0, help="of boxes and flips (default %(default)s)")
    add("--flip", type=float, default=0.5, metavar="P", help="chance to be mirrored (default %(default)s)")
    add("--crops-from", metavar="FILE", help="the crops of another label file instead")
    add("--policy", metavar="FILE", help="YAML: centre, corners, grids and random crops instead")
    add(
        "--scale",
        type=float,
        nargs=2,
        default=(0.08, 1.0),
        metavar=("LOW", "HIGH"),
        help="a crop's share of the image's area (default 0.08 1)",
    )
    add(
        "--ratio",
        type=float,
        nargs=2,
        default=(3 / 4, 4 / 3),
        metavar=("LOW", "HIGH"),
        help="a crop's width / height (default 0.75 1.333)",
    )
    add(
        "--augment",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"change every crop further, and keep how: {', '.join(AUGMENTS)}; with strengths: "
        "color_jitter=0.4,0.4,0.4,0.1 rand_augment=2,9 erase=0.25",
    )
    add("--mixup", type=float, default=0.0, metavar="A", help="mix with another image: alpha of Beta(A, A)")
    add("--cutmix", type=float, default=0.0, metavar="A", help="paste from another image; with both, either")


def _add_labels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("labels").add_argument
    add("--kind", choices=KINDS, default="topk", help="what is stored of an answer (default %(default)s)")
    add("--topk", type=int, default=5, metavar="K", help="classes kept of C (default %(default)s)")
    add(
        "--temperature", type=float, default=1.0, metavar="T", help="before the softmax (default %(default)s)"
    )
    add(
        "--encoding",
        choices=ENCODINGS,
        default="plain",
        help="compact: smaller, rounded (default %(default)s)",
    )
    add(
        "--store",
        choices=("ensemble", "separate", "both"),
        default="ensemble",
        help="several teachers: their mean in one file, a file each (NAME.0.fkdl, ...), or both",
    )


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "teacher; what is not given comes from its own configuration"
    ).add_argument
    add(
        "--teacher",
        action="append",
        metavar="NAME",
        help="a timm model, torchvision:NAME, an exported file (.pt2, .pt, .ts), or module:function; "
        "repeated, several label the same crops in one pass",
    )
    add(
        "--checkpoint",
        action="append",
        metavar="FILE",
        help="its weights (.safetensors or .pth), one for each teacher in their order, or 'pretrained'",
    )
    add("--pretrained", action="store_true", help="timm's or torchvision's weights instead of a checkpoint")
    add("--head", choices=HEADS, help="keep a self-supervised projection head; store its D outputs")
    add(
        "--maps",
        action="store_true",
        help="fast and rough: one forward an image, pooled in the crops (ReLabel)",
    )
    add("--size", type=int, metavar="PIXELS", help="side of its input")
    add("--interpolation", choices=INTERPOLATIONS, help="of crops")
    add("--mean", type=float, nargs=3, metavar="X", help="of pixels in [0, 1]")
    add("--std", type=float, nargs=3, metavar="X", help="of pixels in [0, 1]")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    add("--batch-size", type=int, default=64, metavar="N", help="crops a batch (default %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the teacher (default: bfloat16 on a GPU, float32 elsewhere)",
    )
    add("--compile", action="store_true", help="torch.compile the teacher")
    add("--threads", type=int, metavar="N", help="that decode images (default: one a core)")
