"""`fkdx calibrate`: calibrate labels as FerKD does: drop useless crops, give weak ones their class."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fkdx.calibration import CalibratedLabels, Calibration, calibrated
from fkdx.commands.convert import convert
from fkdx.commands.options import add_encoding, add_output, encoding_changes, say_summary
from fkdx.facts import Facts
from fkdx.files import check_replaceable
from fkdx.labels import LabelFile
from fkdx.labels.distributions import SCORES


def calibrate(
    labels: LabelFile,
    output: str | os.PathLike,
    rule: Calibration,
    others: Sequence[LabelFile] = (),
    **options: Any,
) -> CalibratedLabels:
    """Writes `labels`, calibrated by `rule`, to `output`, and returns them.

    `others` are the labels of other teachers for the same crops. A crop that any of them discards is left out
    as well, so that each teacher of an ensemble gets a file and all files have the same crops. `options` are
    arguments of LabelWriter. Errors are those of `fkdx.calibration.calibrated`.
    """
    view = calibrated([labels, *others], rule)[0]
    convert(view, output, **options)
    return view


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fkdx calibrate",
        description="Calibrate a label file as FerKD does. A crop is dropped if the teacher is less sure "
        "of it than LOW or surer than TOP. Between LOW and MIDDLE, its label is replaced by the image's "
        "class, smoothed; between MIDDLE and TOP, it keeps its label. `fkdx train --calibrate '[LOW, "
        "MIDDLE, TOP]'` does the same without a new file.",
    )
    rule = Calibration()
    parser.add_argument("labels", help="label file or folder of shards; keys are <class>/<name>")
    add_output(parser)
    parser.add_argument(
        "--thresholds", type=float, nargs=3, metavar=("LOW", "MIDDLE", "TOP"),
        default=(rule.low, rule.middle, rule.top), help="thresholds of sureness, from 0 to 1 (default: "
        "0.15 0.3 0.95)",
    )  # fmt: skip
    parser.add_argument(
        "--epsilon", type=float, default=rule.epsilon, metavar="E",
        help="probability that a smoothed class leaves to all others (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--score", choices=SCORES, default=rule.score,
        help="measure of sureness: the largest probability, or that of the image's class (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--least", type=int, default=rule.least, metavar="M",
        help="least number of crops that an image keeps; those nearest to the thresholds come back first. "
        "Give the crops_per_image of the training (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="others", nargs="+", default=[], metavar="FILE",
        help="labels of an ensemble's other teachers; a crop that any of them drops is dropped",
    )  # fmt: skip
    parser.add_argument(
        "--table", metavar="CSV", help="table to write, with what became of each class's crops"
    )
    add_encoding(parser)
    args = parser.parse_args(argv)
    if args.table and not Path(args.table).absolute().parent.is_dir():
        raise FileNotFoundError(f"calibrate: --table, no such folder, {Path(args.table).parent}")
    if args.table:
        check_replaceable(args.table, b"class,", "table of classes")
    rule = Calibration(*args.thresholds, args.epsilon, args.score, args.least)
    files = [LabelFile(path) for path in (args.labels, *args.others)]
    options = {"overwrite": args.overwrite, **encoding_changes(args)}
    view = calibrate(files[0], args.output, rule, files[1:], **options)
    if args.table:
        view.statistics.write_csv(args.table)
    with Facts(args.json) as facts:
        facts.say(str(view.statistics), calibration=view.statistics.total())
        say_summary(facts, args.output)
    return 0
