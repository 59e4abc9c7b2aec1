"""Options of `fkdx generate`."""

import argparse
import re
import shlex
import sys
from pathlib import Path

from fkdx.facts import add_json
from fkdx.generate.settings import TOPK, TOPK_KINDS, Settings
from fkdx.image import INTERPOLATIONS
from fkdx.image.augment import AUGMENTS
from fkdx.image.random_boxes import RATIO, SCALE
from fkdx.labels import ENCODINGS, KINDS, VALUE_TYPES
from fkdx.models.embed import FEATURES
from fkdx.models.heads import HEADS
from fkdx.models.machine import PRECISIONS

DESCRIPTION = """
Run a teacher over crops of every image and write its answers into a label file.

The work is cut into shards and can be stopped at any time: repeat the command to go on. Started by
torchrun, all processes share the shards of one job; the labels do not depend on how many they are.
"""
EXAMPLES = """
examples:
  fkdx generate --data train --teacher resnet50 --pretrained -o labels.fkdl
  fkdx generate --data train --teacher resnet18 --checkpoint run/best.safetensors --size 64 -o labels.fkdl
  torchrun --nproc_per_node 8 -m fkdx generate --data train --teacher tf_efficientnet_l2.ns_jft_in1k_475 \\
      --pretrained --crops 500 --scale 0.08 0.936 --precision bfloat16 -o labels.fkdl
"""


def parse(argv: list[str] | None) -> Settings:
    """The options given, or an end with the usage and what is wrong with them."""
    parser = argparse.ArgumentParser(
        prog="fkdx generate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for add in (_add_files, _add_crops, _add_labels, _add_teacher, _add_machine):
        add(parser)
    given = vars(parser.parse_args(argv))
    command = shlex.join(_for_header(sys.argv if argv is None else ["fkdx", "generate", *argv]))
    try:
        return Settings(
            command=command,
            **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()},
        )
    except ValueError as error:
        parser.error(str(error))


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="DATA", help="images to label; what DATA may be, `fkdx index --help` explains")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="label file to write (.fkdl); a name without .fkdl becomes a folder of shards",
    )
    add(
        "--classes",
        metavar="FILE",
        help="names of the teacher's classes in the order of its outputs, one a line (default: the class "
        "folders, or ImageNet's classes)",
    )
    add("--evaluate", metavar="DIR", help="first measure the teacher's accuracy on these validation images")
    add("--dry-run", action="store_true", help="print what would be done, how large and how long, and stop")
    add("--status", action="store_true", help="print how far the job of --output is, and stop")
    add_json(parser)
    add("--strict", action="store_true", help="stop at the first image that cannot be read")
    add(
        "--allow-warnings",
        action="store_true",
        help="label JPEG files that libjpeg finds damaged but decodes in some way; train with the same",
    )
    add(
        "--shards",
        type=_item,
        default=(0, 1),
        metavar="I/N",
        help="do only work item I of N (0 ... N-1), for a queue: items may run anywhere, in any order and "
        "more than once; the same command without --shards then writes the file",
    )


def _item(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64)."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"got {text}, expected I/N with 0 <= I < N")
    return int(match[1]), int(match[2])


def _for_header(words: list[str]) -> list[str]:
    """A command line without what changes no label, so that all who work on a job note the same: --shards
    and --json (which may be abbreviated to --sh and --j)."""
    kept = []
    for before, word in zip(["", *words], words):
        if not word.startswith(("--sh", "--j")) and not (before.startswith("--sh") and "=" not in before):
            kept.append(word)
    return kept


def _add_crops(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("crops").add_argument
    add("--crops", type=int, default=200, metavar="M", help="crops of each image (default: %(default)s)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of all random numbers: boxes, flips, mixing, augmentation (default: %(default)s)",
    )
    add(
        "--scale",
        type=float,
        nargs=2,
        default=SCALE,
        metavar=("LOW", "HIGH"),
        help="range of a crop's share of the image's area (default: 0.08 1)",
    )
    add(
        "--ratio",
        type=float,
        nargs=2,
        default=RATIO,
        metavar=("LOW", "HIGH"),
        help="range of a crop's width / height (default: 0.75 1.333)",
    )
    add(
        "--flip",
        type=float,
        default=0.5,
        metavar="P",
        help="probability that a crop is mirrored (default: %(default)s)",
    )
    add(
        "--crops-from",
        metavar="FILE",
        help="label file whose crops are used instead of random ones",
    )
    add(
        "--policy",
        metavar="FILE",
        help="YAML file that lists centre, corner, grid and random crops, instead of random ones",
    )
    add(
        "--augment",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"augmentations of every crop, stored with it: {', '.join(AUGMENTS)}; with strengths: "
        "color_jitter=0.4,0.4,0.4,0.1 rand_augment=2,9 erase=0.25",
    )
    add(
        "--mixup",
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="mix crops with those of other images by Mixup, lambda from Beta(ALPHA, ALPHA) (default: off)",
    )
    add(
        "--cutmix",
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="mix crops by CutMix; with --mixup, each crop by one of the two (default: off)",
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("labels").add_argument
    add(
        "--kind",
        choices=KINDS,
        default="topk",
        help="what is stored of the teacher's answer (default: %(default)s)",
    )
    add(
        "--topk",
        type=int,
        metavar="K",
        help=f"classes kept of each crop, of kinds {' and '.join(TOPK_KINDS)} (default: {TOPK})",
    )
    add(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="temperature that divides the logits before the softmax, of kinds that store probabilities "
        "(default: %(default)s)",
    )
    add(
        "--encoding",
        choices=ENCODINGS,
        default="plain",
        help="encoding of the label file; compact is about 40 %% smaller, its values rounded by up to 2.4 %% "
        "(default: %(default)s)",
    )
    add(
        "--value-type",
        choices=VALUE_TYPES[1:],
        help="type of stored values (default: float16; compact: log8, or int8 for embeddings)",
    )
    add(
        "--standardise",
        action="store_true",
        help="of embeddings: store each dimension less its mean, divided by its deviation, so that int8 "
        "rounds all dimensions alike",
    )
    add(
        "--features",
        choices=FEATURES,
        default="pooled",
        help="with --kind embedding: what the model gives without its classifier, or of a vision transformer "
        "its class token, the mean of its patches, or both as two embeddings (default: %(default)s)",
    )
    add(
        "--store",
        choices=("ensemble", "separate", "both"),
        default="ensemble",
        help="what several teachers write: their mean in one file, a file for each (NAME.0.fkdl, ...), or "
        "both (default: %(default)s)",
    )


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "teacher", "What is not given comes from its weights file or its own configuration."
    ).add_argument
    add(
        "--teacher",
        action="append",
        default=[],
        metavar="NAME",
        help="a timm model, torchvision:NAME, an exported file (.pt2, .pt, .ts), or module:function; give it "
        "several times, and all label the same crops in one pass",
    )
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="file of the teacher's weights (.safetensors or .pth), one for each teacher in their order, or "
        "'pretrained'",
    )
    add("--pretrained", action="store_true", help="use timm's or torchvision's weights, not a checkpoint")
    add(
        "--head",
        choices=HEADS,
        help="self-supervised projection head of the teacher to keep; its outputs are stored, not classes",
    )
    add(
        "--maps",
        action="store_true",
        help="one forward pass for each image, whose map of logits is pooled in the crops (ReLabel): faster "
        "by about the number of crops, but only an approximation",
    )
    add("--size", type=int, metavar="PIXELS", help="side of the crops that the teacher sees")
    add("--interpolation", choices=INTERPOLATIONS, help="interpolation when crops are resized")
    add("--mean", type=float, nargs=3, metavar="X", help="mean of the pixels in [0, 1], red, green and blue")
    add("--std", type=float, nargs=3, metavar="X", help="standard deviation of the pixels in [0, 1]")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
    add("--batch-size", type=int, default=64, metavar="N", help="crops in a batch (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        help="precision of the teacher (default: bfloat16 on a GPU, float32 elsewhere)",
    )
    add("--compile", action="store_true", help="run the teacher through torch.compile")
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads that decode images (default: one a core, shared among a machine's processes)",
    )
