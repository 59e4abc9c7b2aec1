"""Options of `fkdx generate`."""

import argparse
import shlex
import sys

from fkdx.labels import ENCODINGS, KINDS
from fkdx.teacher import PRECISIONS

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
    if not args.checkpoint and not args.pretrained:
        parser.error("the teacher has no weights: give --checkpoint FILE, or --pretrained")
    return args


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="images: a folder a class, or tar shards")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="label file to write (.fkdl)")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="the teacher's class names in order, one a line (default: the folders; ImageNet's are known)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")


def _add_crops(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("crops").add_argument
    add("--crops", type=int, default=200, metavar="M", help="of every image (default %(default)s)")
    add("--seed", type=int, default=0, help="of boxes and flips (default %(default)s)")
    add("--flip", type=float, default=0.5, metavar="P", help="chance to be mirrored (default %(default)s)")
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


def _add_labels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("labels").add_argument
    add("--kind", choices=KINDS, default="topk", help="what is stored of an answer (default %(default)s)")
    add(
        "--encoding",
        choices=ENCODINGS,
        default="plain",
        help="compact: smaller, rounded (default %(default)s)",
    )
    add("--topk", type=int, default=5, metavar="K", help="classes kept of C (default %(default)s)")
    add(
        "--temperature", type=float, default=1.0, metavar="T", help="before the softmax (default %(default)s)"
    )


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "teacher; what is not given comes from its own configuration"
    ).add_argument
    add("--teacher", required=True, metavar="NAME", help="a timm model")
    add("--checkpoint", metavar="FILE", help="its weights (.safetensors or .pth)")
    add("--pretrained", action="store_true", help="timm's pretrained weights instead of a checkpoint")
    add("--size", type=int, metavar="PIXELS", help="side of its input")
    add("--interpolation", choices=("bilinear", "bicubic"), help="of crops")
    add("--mean", type=float, nargs=3, metavar="X", help="of pixels in [0, 1]")
    add("--std", type=float, nargs=3, metavar="X", help="of pixels in [0, 1]")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    add("--batch-size", type=int, default=64, metavar="N", help="crops a batch (default %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="float32", help="of the teacher (default %(default)s)")
    add("--compile", action="store_true", help="torch.compile the teacher")
    add("--threads", type=int, metavar="N", help="that decode images (default: one a core)")
