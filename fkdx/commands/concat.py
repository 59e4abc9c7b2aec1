"""`fkdx concat`: several label files of different images as one file."""

import os
from collections.abc import Sequence
from typing import Any

from fkdx.commands import make_parser, print_summary, progress
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_plain_crops, check_same_classes
from fkdx.labels.rewrite import copy_images, writer_like


def concat(files: Sequence[LabelFile], output: str | os.PathLike, **options: Any) -> None:
    """Writes the images of all `files` to `output`; `options` are arguments of LabelWriter.

    Raises ValueError where the files' labels are not of one kind, K and classes, or an image is in two of
    them.
    """
    first = files[0]
    for file in files:
        check_same_classes("concat", file, first)
        check_plain_crops("concat", file)
        if (file.kind, file.k, file.ratios) != (first.kind, first.k, first.ratios):
            got = f"got {file.kind} with K = {file.k}, expected {first.kind} with K = {first.k}"
            raise ValueError(f"concat: kind, {got} and the same sort of boxes, {file.path}")
    crops = first.crops if all(file.crops == first.crops for file in files) else None
    provenance = {"concatenated": [file.header.get("provenance") for file in files]}
    with writer_like(first, output, crops=crops, provenance=provenance, dataset=None, **options) as writer:
        for file in files:
            copy_images(progress(file, len(file), os.path.basename(file.path)), writer)


def main(argv: list[str] | None = None) -> int:
    args = make_parser("concat", __doc__, several=True).parse_args(argv)
    concat([LabelFile(path) for path in args.labels], args.output, overwrite=args.overwrite)
    print_summary(args.output)
    return 0
