"""`fkdx convert`: store the same labels in another encoding: plain (fast to view) or compact (small)."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fkdx.commands.options import add_encoding, encoding_changes, make_parser, progress, say_summary
from fkdx.errors import expect
from fkdx.facts import Facts
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.int8 import SAMPLE, Change, change
from fkdx.labels.rewrite import copy_images, writer_like
from fkdx.labels.standard import Standard, standard_header


def convert(
    labels: LabelFile, output: str | os.PathLike, standardise: bool = False, **options: Any
) -> Change | None:
    """Writes `labels` to `output`, all shards into one file.

    `encoding="compact"` stores probabilities in 8 bits, at most 2.4 % off; with `value_type="float16"` it
    keeps those of the plain encoding.

    Args:
        standardise: of embeddings, take away each dimension's mean and divide it by its deviation before it
            is stored; the header keeps both, and `LabelFile.standard` undoes it.
        options: arguments of LabelWriter.

    Returns what int8 changed, measured on a sample; None for other values.

    Raises ValueError for `standardise` of labels that are no embeddings, or are standardised already.
    """
    images: Any = labels
    if standardise:
        ok = bool(labels.embeddings) and "standardised" not in labels.header
        got = "those of classes" if not labels.embeddings else "standardised ones"
        expect("convert", ok, "labels", got, "embeddings as a teacher gave them", labels.path)
        options["standardised"] = standard_header(labels.moments)
        standard = Standard.from_header(options["standardised"], labels.embeddings)
        images = _standardised(labels, standard)
    with writer_like(labels, output, **options) as writer:
        copy_images(progress(images, len(labels), "convert"), writer)
    return _changed(labels, LabelFile(output))


def _standardised(labels: LabelFile, standard: Standard) -> Iterator[ImageLabels]:
    for image in labels:
        yield replace(image, values=standard.stored(image.values))


def _changed(old: LabelFile, new: LabelFile) -> Change | None:
    if not old.embeddings or new.value_type != "int8" or old.value_type == "int8":
        return None
    most = max(1, SAMPLE // max(1, int(old.crop_counts.max(initial=1))))
    chosen = np.unique(np.linspace(0, len(old) - 1, min(most, len(old))).round().astype(int)).tolist()
    keys = [old.keys[image] for image in chosen]
    exact, stored = (
        np.concatenate([labels.standard.teachers(labels[key].values) for key in keys])
        for labels in (old, new)
    )
    return change(exact, stored, list(old.embeddings.values()))


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("convert", __doc__)
    add_encoding(parser)
    parser.add_argument(
        "--standardise",
        action="store_true",
        help="of embeddings: store each dimension less its mean, divided by its deviation, so that int8 "
        "rounds all dimensions alike",
    )
    args = parser.parse_args(argv)
    options = {"overwrite": args.overwrite, "standardise": args.standardise, **encoding_changes(args)}
    changed = convert(LabelFile(args.labels), args.output, **options)
    with Facts(args.json) as facts:
        say_summary(facts, args.output)
        if changed:
            facts.say(str(changed), int8={"cosine": changed.cosine, "gradient": changed.gradient})
            if not changed.small and not args.standardise:
                print("convert: int8 is coarse for these; try --standardise, or float16", file=sys.stderr)
    return 0
