"""`fkdx concat`: several label files of different images as one file."""

import os
from collections.abc import Sequence
from typing import Any

from fkdx.commands.rewrite import copy_images, parser_of, progress, say, writer_like
from fkdx.commands.rows import check_same_classes
from fkdx.labels import LabelFile


def concat(files: Sequence[LabelFile], output: str | os.PathLike, **options: Any) -> None:
    """Writes the images of all `files` to `output`; `options` are arguments of LabelWriter.

    Raises ValueError where the files' labels are not of one kind, K and classes, or an image is in two of
    them.
    """
    check_same_classes(files)
    first = files[0]
    for file in files:
        if (file.kind, file.k, file.ratios) != (first.kind, first.k, first.ratios):
            got = f"got {file.kind} with K = {file.k}, expected {first.kind} with K = {first.k}"
            raise ValueError(f"concat: kind, {got} and the same sort of boxes, {file.path}")
    crops = first.crops if all(file.crops == first.crops for file in files) else None
    provenance = {"concatenated": [file.header.get("provenance") for file in files]}
    with writer_like(first, output, crops=crops, provenance=provenance, dataset=None, **options) as writer:
        for file in files:
            copy_images(progress(file, len(file), os.path.basename(file.path)), writer)


def main(argv: list[str] | None = None) -> int:
    args = parser_of("concat", __doc__, several=True).parse_args(argv)
    concat([LabelFile(path) for path in args.labels], args.output, overwrite=args.overwrite)
    say(args.output)
    return 0
