"""`fkdx concat`: join label files of different images into one."""

import os
from collections.abc import Sequence
from typing import Any

from fkdx.commands.options import make_parser, progress, say_summary
from fkdx.errors import refuse
from fkdx.facts import Facts
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_same_classes
from fkdx.labels.rewrite import copy_images, writer_like


def concat(files: Sequence[LabelFile], output: str | os.PathLike, **options: Any) -> None:
    """Writes the images of all `files` to `output`; `options` are arguments of LabelWriter.

    Raises ValueError unless all labels have the same kind, K, classes and embeddings and their crops were
    mixed and changed alike, and if an image has crops in two files.
    """
    first = files[0]
    for file in files:
        check_same_classes("concat", file, first)
        if (file.kind, file.k, file.ratios) != (first.kind, first.k, first.ratios):
            expected = f"{first.kind} with K = {first.k} and the same sort of boxes"
            refuse("concat", "kind", f"{file.kind} with K = {file.k}", expected, file.path)
        if changes_of(file) != changes_of(first):
            expected = f"{changes_of(first)} as in {first.path}"
            refuse("concat", "crops", changes_of(file), expected, file.path)
        if file.embeddings != first.embeddings:
            refuse("concat", "embeddings", file.embeddings, f"{first.embeddings} in this order", file.path)
        if file.header.get("standardised") != first.header.get("standardised"):
            expected = f"as in {first.path}, or not at all"
            refuse("concat", "embeddings", "embeddings standardised otherwise", expected, file.path)
    if first.mix_size:  # a file's partners may be images of another one
        options["images"] = sorted({key for file in files for key in file.keys})
    crops = first.crops if all(file.crops == first.crops for file in files) else None
    provenance = {"concatenated": [file.header.get("provenance") for file in files]}
    with writer_like(first, output, crops=crops, provenance=provenance, dataset=None, **options) as writer:
        for file in files:
            copy_images(progress(file, len(file), os.path.basename(file.path)), writer)


def changes_of(labels: LabelFile) -> str:
    """What happened to the crops before the teacher saw them, in words."""
    words = [f"mixed at {labels.mix_size} pixels"] if labels.mix_size else []
    if labels.extra_operations:
        words.append(f"changed by {', '.join(labels.extra_operations)} ({labels.extra_form})")
    return " and ".join(words) or "plain crops"


def main(argv: list[str] | None = None) -> int:
    args = make_parser("concat", __doc__, several=True).parse_args(argv)
    concat([LabelFile(path) for path in args.labels], args.output, overwrite=args.overwrite)
    with Facts(args.json) as facts:
        say_summary(facts, args.output)
    return 0
