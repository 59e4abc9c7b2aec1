"""`fkdx slice`: take a part of a label file: fewer crops, a smaller K, some classes."""

import os
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from fkdx.commands.options import add_encoding, at_least, encoding_changes, make_parser, progress, say_summary
from fkdx.errors import refuse
from fkdx.facts import Facts
from fkdx.image.steps import FORM, PAIRED, decode, encode
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.rewrite import copy_images, writer_like

CUT = {"dense_logits": "topk_logits", "dense": "topk"}  # what becomes of labels with all classes


def slice_labels(
    labels: LabelFile,
    output: str | os.PathLike,
    crops: int | None = None,
    k: int | None = None,
    folders: Collection[str] | None = None,
    **options: Any,
) -> None:
    """Writes a part of `labels` to `output`.

    Args:
        crops: keep this many of each image's crops, the first ones; images with fewer keep all of theirs.
        k: keep the K most probable classes of each crop; what logits lose goes into their tail. Labels with
            all classes become top-K labels: dense_logits topk_logits, dense topk.
        folders: keep the images whose first folder is one of these. Class ids do not change.
        options: further arguments of LabelWriter.

    Raises ValueError if no image has as many crops, if K is larger than the file's, if labels name no
    classes, or if nothing is left.
    """
    classes = labels.num_classes if labels.kind in CUT else labels.k
    if k is not None and labels.kind == "embedding":
        refuse("slice", "k", k, "none: embeddings have no classes to keep", labels.path)
    if k is not None and not 1 <= k <= classes:
        refuse("slice", "k", k, f"1 to {classes}", labels.path)
    most = int(labels.crop_counts.max(initial=0))
    if crops is not None and not 1 <= crops <= most:
        refuse("slice", "crops", crops, f"1 to {most}, the most that an image has", labels.path)
    keys = [key for key in labels.keys if folders is None or key.split("/")[0] in folders]
    if not keys:
        raise ValueError(f"slice: no image lies in {', '.join(sorted(folders or []))}, {labels.path}")
    changes: dict[str, Any] = {"k": k or labels.k, **options}
    cut = labels.kind in CUT and k is not None and k < classes
    if cut:
        changes["kind"] = CUT[labels.kind]
    if crops is not None:
        changes["crops"] = crops if labels.crops else None
    if folders is not None:
        changes["dataset"] = None  # the fingerprint was that of all images
    with writer_like(labels, output, **changes) as writer:
        for key in progress(keys, len(keys), "slice"):
            image = labels[key]
            if cut:
                image = _most_probable(image, changes["k"], labels.kind == "dense_logits")
            part = _part(image, crops, changes["k"])
            copy_images([_with_own_steps(part, labels)], writer)


def _most_probable(image: ImageLabels, k: int, logits: bool) -> ImageLabels:
    """The K largest values with their classes; of logits, the log of what exp of the others sums to."""
    ids = np.argsort(-image.values, axis=1, kind="stable")
    values = np.take_along_axis(image.values, ids, axis=1)
    cut = replace(image, ids=ids[:, :k], values=values[:, :k])
    if not logits:
        return cut
    tails = np.logaddexp.reduce(values[:, k:].astype(np.float64), axis=1)
    return replace(cut, tails=tails.astype(np.float32))


def _part(image: ImageLabels, crops: int | None, k: int) -> ImageLabels:
    kept = slice(crops)
    part = {name: getattr(image, name)[kept] for name in ("boxes", "flips", "ids", "values")}
    if image.tails is not None:
        cut = image.values[kept, k:].astype(np.float64)
        tails = np.logaddexp.reduce(np.concatenate([image.tails[kept, None], cut], axis=1), axis=1)
        part["tails"] = tails.astype(np.float32)
    if image.ids.shape[1] > k:
        part["ids"], part["values"] = part["ids"][:, :k], part["values"][:, :k]
    if image.mixes is not None:
        part["mixes"] = image.mixes[kept]
    return replace(image, **part)


def _with_own_steps(image: ImageLabels, labels: LabelFile) -> ImageLabels:
    """The same with the augmentation of those crops alone that it has."""
    if labels.extra_form not in (FORM, PAIRED):
        return image
    try:
        steps = decode(image.extra) if image.extra else []
    except ValueError as error:
        raise ValueError(f"slice: steps of {image.key}: {error}, {labels.path}") from None
    crops = len(image.flips)
    return replace(image, extra=encode(steps[:crops])) if len(steps) > crops else image


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("slice", __doc__)
    parser.add_argument("--crops", type=at_least(1), metavar="N", help="keep the first N crops of each image")
    parser.add_argument(
        "-k", "--topk", type=at_least(1), metavar="K", dest="k", help="keep the K most probable classes"
    )
    parser.add_argument("--classes", nargs="+", metavar="FOLDER", help="keep the images in these folders")
    add_encoding(parser)
    args = parser.parse_args(argv)
    labels = LabelFile(args.labels)
    options = encoding_changes(args)
    slice_labels(labels, args.output, args.crops, args.k, args.classes, overwrite=args.overwrite, **options)
    with Facts(args.json) as facts:
        say_summary(facts, args.output)
    return 0
