"""`fkdx convert`: store the same labels in another encoding: plain (fast to view) or compact (small)."""

import os
from typing import Any

from fkdx.commands.options import add_encoding, encoding_changes, make_parser, progress, say_summary
from fkdx.facts import Facts
from fkdx.labels import LabelFile
from fkdx.labels.rewrite import copy_images, writer_like


def convert(labels: LabelFile, output: str | os.PathLike, **options: Any) -> None:
    """Writes `labels` to `output`, all shards into one file; `options` are arguments of LabelWriter.

    `encoding="compact"` stores probabilities in 8 bits, at most 2.4 % off; with `value_type="float16"` it
    keeps those of the plain encoding.
    """
    with writer_like(labels, output, **options) as writer:
        copy_images(progress(labels, len(labels), "convert"), writer)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("convert", __doc__)
    add_encoding(parser)
    args = parser.parse_args(argv)
    convert(LabelFile(args.labels), args.output, overwrite=args.overwrite, **encoding_changes(args))
    with Facts(args.json) as facts:
        say_summary(facts, args.output)
    return 0
