"""`fkdx compare`: two label files over the same crops: how far the teachers agree, and where they do not."""

import argparse
from dataclasses import dataclass, field

import numpy as np

from fkdx.commands.rewrite import progress
from fkdx.commands.rows import TAILS, Rows, check_same_classes, check_same_crops, recover, union
from fkdx.labels import LabelFile

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

    def __str__(self) -> str:
        n = max(self.crops, 1)
        return f"{self.crops:>9} {self.ab / n:>9.4f} {self.ba / n:>9.4f} {self.agree / n:>9.2%}"


@dataclass
class Comparison:
    """Of labels a and b.

    Attributes:
        total: over all crops; `ab` is the cross-entropy of b under a, in nats, `ba` that of a under b.
        classes: the same by the folder of the images, the mutual cross-entropy of FKD's Fig. 3.
        worst: (cross-entropy in both directions, key, crop) of the crops on which they differ most.
    """

    total: Sums = field(default_factory=Sums)
    classes: dict[str, Sums] = field(default_factory=dict)
    worst: list[tuple[float, str, int]] = field(default_factory=list)


def compare(a: LabelFile, b: LabelFile, tail: str = "smoothing", worst: int = 10) -> Comparison:
    """Compares the labels of all images that both files have.

    Args:
        tail: see `rows.recover`.
        worst: how many crops to list.

    Raises ValueError where no image is in both, or their crops or classes differ.
    """
    check_same_classes([a, b])
    keys = [key for key in a.keys if key in b.keys]
    if not keys:
        raise ValueError(f"compare: no image of {a.path} is in {b.path}")
    found = Comparison()
    for key in progress(keys, len(keys), "compare"):
        images = a[key], b[key]
        check_same_crops([a, b], images)
        rows = recover(a, images[0], tail), recover(b, images[1], tail)
        ab, ba = cross_entropy(*rows), cross_entropy(rows[1], rows[0])
        agree = _best(rows[0]) == _best(rows[1])
        found.total.add(ab, ba, agree)
        found.classes.setdefault(key.split("/")[0], Sums()).add(ab, ba, agree)
        found.worst += [(float(x), key, crop) for crop, x in enumerate(ab + ba)]
        found.worst = sorted(found.worst, key=lambda item: -item[0])[:worst]
    return found


def cross_entropy(a: Rows, b: Rows) -> np.ndarray:
    """(M,) -sum_c a_c log b_c in nats, over the classes that either names, and all others at once."""
    ids, first = union([a, b])
    named = -np.where(first, a.at(ids) * np.log(np.maximum(b.at(ids), _SMALLEST)), 0).sum(axis=1)
    others = a.num_classes - first.sum(axis=1)
    return named - others * a.base * np.log(np.maximum(b.base, _SMALLEST))


def _best(rows: Rows) -> np.ndarray:
    best = rows.values.argmax(axis=1)
    return np.take_along_axis(rows.ids, best[:, None], axis=1)[:, 0]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx compare", description=__doc__.split(": ", 1)[1])
    parser.add_argument("a", help="label file or folder of shards")
    parser.add_argument("b", help="another one, with the same crops")
    parser.add_argument("--tail", choices=TAILS, default=TAILS[0], help="what classes get that were not kept")
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="crops to list (default %(default)s)"
    )
    args = parser.parse_args(argv)
    found = compare(LabelFile(args.a), LabelFile(args.b), args.tail, args.worst)
    width = max(len("all classes"), *(len(name) for name in found.classes))
    print(f"{'':<{width}} {'crops':>9} {'H(a, b)':>9} {'H(b, a)':>9} {'same top':>9}")
    for name, sums in sorted(found.classes.items(), key=lambda item: -item[1].ab / item[1].crops):
        print(f"{name:<{width}} {sums}")
    print(f"{'all classes':<{width}} {found.total}\n")
    for entropy, key, crop in found.worst:
        print(f"{entropy:9.4f}  {key} crop {crop}")
    return 0
