"""`fkdx info`: show what a label file holds, how large it is, and how sure the teacher was."""

import argparse
import json
from dataclasses import dataclass

import numpy as np

from fkdx.commands.options import at_least, progress, purpose
from fkdx.facts import Facts, add_json
from fkdx.labels import LabelFile
from fkdx.labels.distributions import image_probabilities

_BINS = 20


@dataclass(frozen=True)
class Sureness:
    """How sure the teacher was, over some images.

    Attributes:
        images, crops: how many were looked at.
        histogram: (20,) shares of the crops whose maximum probability lies in [0, 0.05), [0.05, 0.1), ...
            (FerKD, Fig. 2).
        coverage: (K,) mean sum of the 1, 2, ... K largest probabilities.
    """

    images: int
    crops: int
    histogram: np.ndarray
    coverage: np.ndarray


def sureness(labels: LabelFile, images: int = 2000) -> Sureness:
    """Statistics over at most `images` images, evenly spread over the file."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(images, len(labels))).round().astype(int))
    counts, sums, crops = np.zeros(_BINS), np.zeros(min(labels.k, 10)), 0
    for image in progress(chosen.tolist(), len(chosen), "info"):
        values = -np.sort(-image_probabilities(labels, labels[image]), axis=1)
        counts += np.histogram(values[:, 0].clip(0, 1), _BINS, (0, 1))[0]
        sums += np.cumsum(values, axis=1)[:, : len(sums)].sum(axis=0)
        crops += len(values)
    return Sureness(len(chosen), crops, counts / max(crops, 1), sums / max(crops, 1))


def describe(labels: LabelFile) -> dict[str, str]:
    """Facts about a label file by name, for people."""
    counts = labels.crop_counts
    total = int(counts.sum())
    few, many = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    per_image = few if few == many else f"{few} to {many}"
    boxes = "fractions of images of unknown size" if labels.ratios else "pixels"
    facts = {
        "path": labels.path,
        "images": f"{len(labels)} x {per_image} crops, {total} crops in all",
        "labels": content(labels),
        "stored": f"{labels.encoding}, {labels.value_type} values, boxes in {boxes}",
        "size": f"{labels.size} bytes, {labels.size / max(total, 1):.2f} a crop",
    }
    if labels.mix_size:
        facts["mixed"] = f"crops of two images at {labels.mix_size} pixels"
    if labels.extra_operations:
        facts["operations"] = ", ".join(labels.extra_operations)
    for name, moments in labels.moments.items():
        spread = moments.scale
        facts[name] = (
            f"{moments.zeros} zero vectors; of the {moments.crops} others, standard deviations are "
            f"{spread.min():.3g} to {spread.max():.3g}, their means {moments.mean.min():.3g} to "
            f"{moments.mean.max():.3g}"
        )
    for name, value in labels.header.items():
        if name in ("embeddings", "moments"):
            continue
        if name == "standardised":
            value = ", ".join(value)
        if name == "dataset":
            value = {fact: of for fact, of in value.items() if fact != "sizes"}
        if name == "classes":
            value = ", ".join([*value[:3], *(["..."] if len(value) > 4 else []), *value[3:][-1:]])
        facts[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return facts


def content(labels: LabelFile) -> str:
    """What the labels say."""
    if labels.embeddings:
        parts = " and ".join(f"{name} of {size} values" for name, size in labels.embeddings.items())
        return f"{labels.kind}, {parts}"
    return f"{labels.kind}, K = {labels.k} of {labels.num_classes} classes"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx info", description=purpose(__doc__))
    parser.add_argument("labels", help="label file or folder of shards")
    parser.add_argument(
        "--sample",
        type=at_least(0),
        default=2000,
        metavar="N",
        help="number of images to take statistics of (default: %(default)s)",
    )
    add_json(parser)
    args = parser.parse_args(argv)
    labels = LabelFile(args.labels)
    wanted = len(labels) and args.sample and not labels.embeddings
    summary = sureness(labels, args.sample) if wanted else None
    told = describe(labels)
    with Facts(args.json) as facts:
        text = "\n".join(f"{name:<12} {value}" for name, value in told.items())
        facts.say(text, **told | {"header": labels.header, "sureness": None})
        if summary:
            statistics = {name: np.asarray(x).tolist() for name, x in vars(summary).items()}
            facts.say(f"\n{sureness_text(summary)}", sureness=statistics)
    return 0


def sureness_text(summary: Sureness) -> str:
    lines = [f"maximum probability of {summary.crops} crops of {summary.images} images"]
    for i, share in enumerate(summary.histogram):
        lines.append(f"  {i / _BINS:.2f} to {(i + 1) / _BINS:.2f}  {share:6.1%}  {'#' * round(60 * share)}")
    lines += ["", "mean sum of the largest probabilities"]
    lines += [f"  {k:<3} {total:.4f}" for k, total in enumerate(summary.coverage, 1)]
    return "\n".join(lines)
