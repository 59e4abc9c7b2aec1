"""`fkdx compare`: compare two label files of the same crops: how far the teachers agree, and where not.

Of embeddings it shows the mean and the lowest cosine, and linear CKA, which needs no equal sizes.
"""

import argparse
from dataclasses import asdict, dataclass, field

import numpy as np

from fkdx.commands.options import TAIL_HELP, at_least, progress, purpose
from fkdx.errors import expect
from fkdx.facts import Facts, add_json
from fkdx.labels import LabelFile
from fkdx.labels.comparable import (
    check_class_labels,
    check_plain_crops,
    check_same_classes,
    check_same_crops,
)
from fkdx.labels.distributions import TAILS, Distributions, Tail, recover, union
from fkdx.labels.similarity import LinearCKA, cosines

SAMPLE = 2000  # images whose embeddings are compared, at most
_SMALLEST = 1e-12  # a probability of 0 would make every cross-entropy infinite


@dataclass
class Sums:
    """Sums over crops; divide by `crops`."""

    crops: int = 0
    ab: float = 0.0
    ba: float = 0.0
    agree: int = 0

    def add(self, ab: np.ndarray, ba: np.ndarray, agree: np.ndarray) -> None:
        self.crops += len(ab)
        self.ab += float(ab.sum())
        self.ba += float(ba.sum())
        self.agree += int(agree.sum())

    def means(self) -> dict[str, float]:
        n = max(self.crops, 1)
        return {"crops": self.crops, "ab": self.ab / n, "ba": self.ba / n, "same_top": self.agree / n}

    def __str__(self) -> str:
        return "{crops:>9} {ab:>9.4f} {ba:>9.4f} {same_top:>9.2%}".format(**self.means())


@dataclass
class Comparison:
    """How far labels a and b agree.

    Attributes:
        total: sums over all crops; `ab` is the cross-entropy of b under a, in nats, `ba` that of a under b.
        classes: the same for each folder of images, the mutual cross-entropy of FKD's Fig. 3.
        worst: (sum of both cross-entropies, key, crop) of the crops on which they differ most.
    """

    total: Sums = field(default_factory=Sums)
    classes: dict[str, Sums] = field(default_factory=dict)
    worst: list[tuple[float, str, int]] = field(default_factory=list)


def compare(a: LabelFile, b: LabelFile, tail: Tail = "smoothing", worst: int = 10) -> Comparison:
    """Compares the labels of all images that are in both files.

    Args:
        tail: see `fkdx.labels.distributions.recover`.
        worst: number of crops to list.

    Raises ValueError where no image is in both, or their crops or classes differ.
    """
    for labels in (a, b):
        check_class_labels("compare", labels)
        check_same_classes("compare", labels, a)
        check_plain_crops("compare", labels)
    keys = common_keys(a, b)
    comparison = Comparison()
    for key in progress(keys, len(keys), "compare"):
        images = a[key], b[key]
        boxes, flips = [image.boxes for image in images], [image.flips for image in images]
        check_same_crops("compare", [a, b], boxes, flips, key)
        of_a, of_b = recover(a, images[0], tail), recover(b, images[1], tail)
        ab, ba = cross_entropy(of_a, of_b), cross_entropy(of_b, of_a)
        agree = _best(of_a) == _best(of_b)
        comparison.total.add(ab, ba, agree)
        comparison.classes.setdefault(key.split("/")[0], Sums()).add(ab, ba, agree)
        comparison.worst += [(float(x), key, crop) for crop, x in enumerate(ab + ba)]
        comparison.worst = sorted(comparison.worst, key=lambda item: -item[0])[:worst]
    return comparison


def common_keys(a: LabelFile, b: LabelFile) -> list[str]:
    """Keys of the images that are in both files. ValueError if there are none."""
    keys = [key for key in a.keys if key in b.keys]
    if not keys:
        raise ValueError(f"compare: the label files have no image in common, {a.path}, {b.path}")
    return keys


@dataclass
class Likeness:
    """How alike an embedding of a and one of b are: linear CKA, and if both have one size, the mean and the
    lowest cosine; None otherwise."""

    names: tuple[str, str]
    cka: float
    cosine: float | None
    lowest: float | None


def compare_embeddings(a: LabelFile, b: LabelFile, images: int = SAMPLE) -> list[Likeness]:
    """Compares the embeddings of a and b, the first with the first and the second with the second.

    Of at most `images` of the images that are in both files, evenly spread; all crops of each. Zero vectors
    are left out of the cosines. ValueError where no image is in both, or their crops differ.
    """
    keys = common_keys(a, b)
    for labels in (a, b):
        expect("compare", bool(labels.embeddings), "labels", labels.kind, "embeddings in both", labels.path)
    chosen = np.unique(np.linspace(0, len(keys) - 1, min(images, len(keys))).round().astype(int))
    pairs = list(zip(a.embeddings.items(), b.embeddings.items()))
    likeness = [LinearCKA() for _ in pairs]
    standards = a.standard, b.standard
    found: list[list[np.ndarray]] = [[] for _ in pairs]
    for key in progress([keys[i] for i in chosen.tolist()], len(chosen), "compare"):
        one, other = a[key], b[key]
        check_same_crops("compare", [a, b], [one.boxes, other.boxes], [one.flips, other.flips], key)
        ours, theirs = standards[0].teachers(one.values), standards[1].teachers(other.values)
        first = (0, 0)
        for number, ((_, d), (_, e)) in enumerate(pairs):
            rows = ours[:, first[0] : first[0] + d], theirs[:, first[1] : first[1] + e]
            first = first[0] + d, first[1] + e
            likeness[number].add(*rows)
            if d == e:
                found[number].append(cosines(*rows))
    return [_likeness(pair, cka, parts) for pair, cka, parts in zip(pairs, likeness, found)]


def _likeness(pair: tuple, cka: LinearCKA, parts: list[np.ndarray]) -> Likeness:
    (name, _), (other, _) = pair
    cosine = np.concatenate(parts) if parts else np.empty(0)
    cosine = cosine[~np.isnan(cosine)]
    if not len(cosine):
        return Likeness((name, other), cka.value(), None, None)
    return Likeness((name, other), cka.value(), float(cosine.mean()), float(cosine.min()))


def cross_entropy(a: Distributions, b: Distributions) -> np.ndarray:
    """(M,) -sum_c a_c log b_c in nats: over the classes that either names, plus all others at once."""
    ids, first = union([a, b])
    named = -np.where(first, a.at(ids) * np.log(np.maximum(b.at(ids), _SMALLEST)), 0).sum(axis=1)
    others = a.num_classes - first.sum(axis=1)
    return named - others * a.base * np.log(np.maximum(b.base, _SMALLEST))


def _best(distributions: Distributions) -> np.ndarray:
    best = distributions.values.argmax(axis=1)
    return np.take_along_axis(distributions.ids, best[:, None], axis=1)[:, 0]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx compare", description=purpose(__doc__))
    parser.add_argument("a", help="label file or folder of shards")
    parser.add_argument("b", help="another label file with the same crops")
    parser.add_argument(
        "--tail",
        choices=TAILS,
        default=TAILS[0],
        help=TAIL_HELP,
    )
    parser.add_argument(
        "--worst",
        type=at_least(0),
        default=10,
        metavar="N",
        help="number of crops to list (default: %(default)s)",
    )
    add_json(parser)
    args = parser.parse_args(argv)
    a, b = LabelFile(args.a), LabelFile(args.b)
    with Facts(args.json) as facts:
        if a.embeddings or b.embeddings:
            pairs = compare_embeddings(a, b)
            facts.say(likeness_text(pairs), embeddings=[asdict(pair) for pair in pairs])
            return 0
        comparison = compare(a, b, args.tail, args.worst)
        worst = [{"entropy": entropy, "key": key, "crop": crop} for entropy, key, crop in comparison.worst]
        classes = {name: sums.means() for name, sums in comparison.classes.items()}
        facts.say(comparison_text(comparison), total=comparison.total.means(), classes=classes, worst=worst)
    return 0


def comparison_text(comparison: Comparison) -> str:
    width = max(len("all classes"), *(len(name) for name in comparison.classes))
    lines = [f"{'':<{width}} {'crops':>9} {'H(a, b)':>9} {'H(b, a)':>9} {'same top':>9}"]
    for name, sums in sorted(comparison.classes.items(), key=lambda item: -item[1].ab / item[1].crops):
        lines.append(f"{name:<{width}} {sums}")
    lines += [f"{'all classes':<{width}} {comparison.total}", ""]
    lines += [f"{entropy:9.4f}  {key} crop {crop}" for entropy, key, crop in comparison.worst]
    return "\n".join(lines)


def likeness_text(pairs: list[Likeness]) -> str:
    lines = [f"{'embeddings':<24} {'mean cosine':>11} {'lowest':>8} {'linear CKA':>10}"]
    for pair in pairs:
        name = " and ".join(pair.names) if pair.names[0] != pair.names[1] else pair.names[0]
        mean, lowest = ("-" if x is None else f"{x:.4f}" for x in (pair.cosine, pair.lowest))
        lines.append(f"{name:<24} {mean:>11} {lowest:>8} {pair.cka:>10.4f}")
    return "\n".join(lines)
