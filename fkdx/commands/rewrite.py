"""What slice, concat, convert and merge share: a label file made from another one's images."""

import argparse
import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from fkdx.labels import ENCODINGS, VALUE_TYPES, ImageLabels, LabelFile, LabelWriter


def writer_like(labels: LabelFile, path: str | os.PathLike, **changes: Any) -> LabelWriter:
    """A writer of a file of the same kind of labels as `labels`, but for `changes` to its arguments."""
    header = labels.header
    options: dict[str, Any] = {
        "kind": labels.kind,
        "num_classes": labels.num_classes,
        "k": labels.k,
        "crops": labels.crops,
        "classes": labels.classes,
        "provenance": header.get("provenance"),
        "dataset": header.get("dataset"),
        "encoding": labels.encoding,
        "value_type": labels.value_type,
        "ratios": labels.ratios,
        "images": labels.keys[:] if labels.mix_size else None,
        "mix_size": labels.mix_size,
        "extra": header.get("extra"),
    }
    if "encoding" in changes or "kind" in changes:
        options["value_type"] = None  # the default of the new ones
    return LabelWriter(path, **options | changes)


def progress(images: Iterable, total: int, text: str) -> Iterable:
    """A bar on a terminal."""
    return tqdm(images, total=total, desc=text, unit="image", disable=None)


def copy_images(images: Iterable[ImageLabels], writer: LabelWriter) -> None:
    """Adds images; partners of mixed crops that have no crops themselves are known to the writer already."""
    for image in images:
        if len(image.flips) or image.mixes is None:
            writer.add_image(image)


def parser_of(verb: str, about: str, several: bool = False) -> argparse.ArgumentParser:
    """Options of a verb that makes one label file of another one's images, or of several ones'.

    about: the docstring of its module.
    """
    parser = argparse.ArgumentParser(prog=f"fkdx {verb}", description=about.split(": ", 1)[1])
    if several:
        parser.add_argument("labels", nargs="+", help="label files or folders of shards")
    else:
        parser.add_argument("labels", help="label file or folder of shards")
    add_output(parser)
    return parser


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="label file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def add_encoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoding", choices=ENCODINGS, help="default: as it is")
    parser.add_argument("--value-type", choices=VALUE_TYPES[1:], help="default: that of the encoding")


def encoding_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of LabelWriter for --encoding and --value-type."""
    given = {"encoding": args.encoding, "value_type": args.value_type}
    return {name: value for name, value in given.items() if value is not None}


def say(path: str) -> None:
    labels = LabelFile(path)
    crops = max(1, int(labels.crop_counts.sum()))
    size = labels.size
    print(f"{path}: {len(labels)} images, {crops} crops, {size} bytes ({size / crops:.1f} a crop)")
