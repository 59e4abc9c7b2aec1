"""What several verbs share: their options, a progress bar, the line that describes a new label file."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from fkdx.facts import Facts, add_json
from fkdx.labels import ENCODINGS, VALUE_TYPES, LabelFile

DATA_HELP = "what DATA may be, `fkdx index --help` explains"
TAIL_HELP = "what classes outside the top K get: equal shares of the rest, or nothing (default: %(default)s)"


def purpose(about: str) -> str:
    """What a verb does, as a sentence, from the docstring of its module: "`fkdx VERB`: do this."."""
    text = about.split(": ", 1)[1]
    return text[0].upper() + text[1:]


def make_parser(verb: str, about: str, several: bool = False) -> argparse.ArgumentParser:
    """Options of a verb that makes one label file out of another one, or out of several.

    about: the docstring of its module.
    """
    parser = argparse.ArgumentParser(prog=f"fkdx {verb}", description=purpose(about))
    if several:
        parser.add_argument("labels", nargs="+", help="label files or folders of shards")
    else:
        parser.add_argument("labels", help="label file or folder of shards")
    add_output(parser)
    return parser


def add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="names of the images' classes in order, one a line; for images whose classes are numbers",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="label file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")
    add_json(parser)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoding", choices=ENCODINGS, help="encoding of the new file (default: that of the old one)"
    )
    parser.add_argument(
        "--value-type", choices=VALUE_TYPES[1:], help="type of stored values (default: the encoding's)"
    )


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` on, at most `most`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            expected = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")
        return value

    number.__name__ = "whole number"  # what argparse calls a text that is none
    return number


def encoding_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of LabelWriter for --encoding and --value-type."""
    options = {"encoding": args.encoding, "value_type": args.value_type}
    return {name: value for name, value in options.items() if value is not None}


def progress(images: Iterable, total: int, text: str) -> Iterable:
    """A bar on a terminal."""
    return tqdm(images, total=total, desc=text, unit="image", disable=None)


def say_summary(facts: Facts, path: str) -> None:
    """The size of a new label file."""
    labels = LabelFile(path)
    images, crops, size = len(labels), int(labels.crop_counts.sum()), labels.size
    text = f"{path}: {images} images, {crops} crops, {size} bytes ({size / max(1, crops):.1f} a crop)"
    facts.say(text, path=path, images=images, crops=crops, bytes=size)
