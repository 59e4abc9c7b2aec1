"""`fkdx merge`: average several teachers' labels of the same crops, or put their embeddings side by side."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fkdx.commands.options import (
    TAIL_HELP,
    add_encoding,
    at_least,
    encoding_changes,
    make_parser,
    progress,
    say_summary,
)
from fkdx.errors import expect, refuse
from fkdx.facts import Facts
from fkdx.labels import LabelFile
from fkdx.labels.comparable import (
    check_same_changes,
    check_same_classes,
    check_same_crops,
    check_same_images,
)
from fkdx.labels.distributions import TAILS, Distributions, Tail, recover, union
from fkdx.labels.rewrite import copy_images, labelled, writer_like


def merge(
    files: Sequence[LabelFile],
    output: str | os.PathLike,
    k: int | None = None,
    tail: Tail = "smoothing",
    **options: Any,
) -> None:
    """Writes the mean of the teachers' distributions, cut to the K most probable classes, to `output`; of
    embeddings, those of both teachers.

    Each teacher's labels are recovered first, so that a class that only one of them kept counts with what the
    others gave it (as in FerKD's ensembles).

    Args:
        files: label files with the same crops.
        k: by default the largest of the files; dense files stay dense.
        tail: see `fkdx.labels.distributions.recover`.
        options: further arguments of LabelWriter.

    Raises ValueError where images, crops, classes or the mixing and augmentation of crops differ.
    """
    first = files[0]
    embeds = any(file.embeddings for file in files)
    for file in files:
        ok = bool(file.embeddings) == embeds
        expect("merge", ok, "labels", file.kind, "embeddings, as another file's", file.path)
        check_same_classes("merge", file, first)
        check_same_images("merge", file, first)
    if embeds:
        if k is not None:
            refuse("merge", "k", k, "none for embeddings", first.path)
        put_side_by_side(files, output, **options)
        return
    dense = k is None and any(file.kind.startswith("dense") for file in files)
    k = first.num_classes if dense else k or max(file.k for file in files)
    changes: dict[str, Any] = {
        "kind": "dense" if dense else "topk",
        "k": k,
        "provenance": {"mean_of": [file.header.get("provenance") for file in files], "tail": tail},
        **options,
    }
    if dense:
        changes["encoding"] = "plain"
    with writer_like(first, output, **changes) as writer:
        for images in progress(zip(*map(labelled, files)), len(first), "merge"):
            one = images[0]
            boxes, flips = [image.boxes for image in images], [image.flips for image in images]
            check_same_crops("merge", files, boxes, flips, one.key)
            check_same_changes("merge", files, images)
            ids, values = mean([recover(file, image, tail) for file, image in zip(files, images)], k)
            merged = replace(one, ids=None if dense else ids, values=values, tails=None)
            copy_images([merged], writer)


def put_side_by_side(files: Sequence[LabelFile], output: str | os.PathLike, **options: Any) -> None:
    """Writes the embeddings of all files, at most two, to `output`; names that occur twice get a number."""
    first = files[0]
    named = [(name, size) for file in files for name, size in file.embeddings.items()]
    names = [name for name, _ in named]
    own = [f"{name}.{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    embeddings = dict(zip(own, (size for _, size in named)))
    done = [file.header.get("standardised", {}).get(name) for file in files for name in file.embeddings]
    changes = {
        "embeddings": embeddings,
        "standardised": {name: numbers for name, numbers in zip(own, done) if numbers},
        "provenance": {"side_by_side": [file.header.get("provenance") for file in files]},
    }
    with writer_like(first, output, **changes, **options) as writer:
        for images in progress(zip(*map(labelled, files)), len(first), "merge"):
            one = images[0]
            boxes, flips = [image.boxes for image in images], [image.flips for image in images]
            check_same_crops("merge", files, boxes, flips, one.key)
            check_same_changes("merge", files, images)
            values = np.concatenate([image.values for image in images], axis=1)
            copy_images([replace(one, values=values)], writer)


def mean(distributions: Sequence[Distributions], k: int) -> tuple[np.ndarray, np.ndarray]:
    """ids (M, K) and probabilities (M, K) of the K most probable classes of the mean of distributions.

    If K = C, they are in the order of classes. If the distributions name fewer than K classes, other classes,
    lowest first, fill the row with the probability that they have.
    """
    num_classes = distributions[0].num_classes
    ids, first = union(distributions)
    if first.sum(axis=1).min(initial=k) < k:
        every = np.broadcast_to(np.arange(num_classes), (len(ids), num_classes))
        ids, first = every, np.ones(every.shape, bool)
    values = np.mean([one.at(ids) for one in distributions], axis=0)
    if k == num_classes:
        return ids, values
    chosen = np.argsort(np.where(first, -values, np.inf), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, chosen, axis=1), np.take_along_axis(values, chosen, axis=1)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("merge", __doc__, several=True)
    parser.add_argument(
        "-k",
        "--topk",
        type=at_least(1),
        metavar="K",
        dest="k",
        help="classes to keep of each crop (default: the largest K)",
    )
    parser.add_argument(
        "--tail",
        choices=TAILS,
        default=TAILS[0],
        help=TAIL_HELP,
    )
    add_encoding(parser)
    args = parser.parse_args(argv)
    files = [LabelFile(path) for path in args.labels]
    merge(files, args.output, args.k, args.tail, overwrite=args.overwrite, **encoding_changes(args))
    with Facts(args.json) as facts:
        say_summary(facts, args.output)
    return 0
