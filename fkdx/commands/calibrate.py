"""`fkdx calibrate`: FerKD's surgical calibration: drop useless crops, give weak ones their class."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from fkdx.calibration import CalibratedLabels, Calibration, calibrated
from fkdx.commands import add_encoding, add_output, encoding_changes, print_summary
from fkdx.commands.convert import convert
from fkdx.labels import LabelFile
from fkdx.labels.distributions import SCORES


def calibrate(
    labels: LabelFile,
    output: str | os.PathLike,
    rule: Calibration,
    others: Sequence[LabelFile] = (),
    **options: Any,
) -> CalibratedLabels:
    """Writes `labels` to `output` as `rule` leaves them, and returns them.

    A crop that a teacher of `others`, whose labels are of the same crops, discards is left out as well; so
    each teacher of an ensemble gets a file, and all files have the same crops. `options` are arguments of
    LabelWriter. Errors are those of `fkdx.calibration.calibrated`.
    """
    view = calibrated([labels, *others], rule)[0]
    convert(view, output, **options)
    return view


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fkdx calibrate",
        description="FerKD's surgical calibration of a label file. A crop of which the teacher is less sure "
        "than LOW or surer than TOP is dropped; between LOW and MIDDLE its label gives way to the image's "
        "class, smoothed; between MIDDLE and TOP it stays as it is. `fkdx train --calibrate '[LOW, MIDDLE, "
        "TOP]'` does the same without a new file.",
    )
    rule = Calibration()
    parser.add_argument("labels", help="label file or folder of shards; keys are <class>/<name>")
    add_output(parser)
    parser.add_argument(
        "--thresholds", type=float, nargs=3, metavar=("LOW", "MIDDLE", "TOP"),
        default=(rule.low, rule.middle, rule.top), help="in 0 ... 1 (default: 0.15 0.3 0.95)",
    )  # fmt: skip
    parser.add_argument(
        "--epsilon", type=float, default=rule.epsilon, metavar="E",
        help="what a smoothed class leaves to all others (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--score", choices=SCORES, default=rule.score,
        help="how sure: the largest probability, or that of the image's class (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--least", type=int, default=rule.least, metavar="M",
        help="an image keeps at least so many crops, those nearest to the thresholds coming back; give the "
        "crops_per_image of the training (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="others", nargs="+", default=[], metavar="FILE",
        help="labels of an ensemble's other teachers: crops that one of them drops are dropped too",
    )  # fmt: skip
    parser.add_argument("--table", metavar="CSV", help="write what became of every class's crops")
    add_encoding(parser)
    args = parser.parse_args(argv)
    rule = Calibration(*args.thresholds, args.epsilon, args.score, args.least)
    files = [LabelFile(path) for path in (args.labels, *args.others)]
    options = {"overwrite": args.overwrite, **encoding_changes(args)}
    view = calibrate(files[0], args.output, rule, files[1:], **options)
    print(view.statistics)
    if args.table:
        view.statistics.write_csv(args.table)
    print_summary(args.output)
    return 0
