"""`fkdx report`: a page for a browser about a label file, or about runs of the trainer."""

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from fkdx.commands.options import DATA_HELP, add_classes, at_least
from fkdx.facts import Facts, add_json
from fkdx.files import check_replaceable, write_whole
from fkdx.labels import LabelFile
from fkdx.stores import open_store

WATCH_SECONDS = 20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx report", description=__doc__.split(": ", 1)[1])
    parser.add_argument(
        "what", nargs="+", metavar="LABELS|RUN", help="a label file, or output folders of runs"
    )
    parser.add_argument("--images", metavar="DATA", help=f"images of the labels, for pictures; {DATA_HELP}")
    add_classes(parser)
    parser.add_argument(
        "--labels",
        metavar="LABELS",
        help="with runs: the labels they learned from, for the teacher's accuracy of each class (default: as "
        "the first recipe says, if the file is there)",
    )
    parser.add_argument("--against", metavar="LABELS", help="labels of another teacher over the same crops")
    parser.add_argument(
        "--most-crops",
        type=at_least(1),
        default=100_000_000,
        metavar="N",
        help="crops to read at most, evenly spread in larger files (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the page (default: %(default)s)"
    )
    parser.add_argument("--watch", action="store_true", help="write the page of runs again every 20 seconds")
    add_json(parser)
    args = parser.parse_args(argv)
    check_replaceable(args.output, b"<!doctype html>", "page")
    if all(is_run(path) for path in args.what):
        report_runs(args)
    elif len(args.what) == 1:
        report_labels(args)
    else:
        raise ValueError(f"report: expected one label file, or folders of runs, got {' '.join(args.what)}")
    return 0


def is_run(path: str) -> bool:
    return (Path(path) / "log.jsonl").is_file()


def report_labels(args: argparse.Namespace) -> None:
    from fkdx.report.label_page import label_page, open_report

    labels = LabelFile(args.what[0])
    if not len(labels):
        raise ValueError(f"report: this file holds no images, {labels.path}")
    source = open_store(args.images, args.classes) if args.images else None
    other = LabelFile(args.against) if args.against else None
    with tqdm(total=len(labels), desc="reading", unit="image", disable=None) as bar:
        report = open_report(labels, source, other, args.most_crops, advance=bar.update)
    with tqdm(desc="pictures", unit="image", disable=None) as bar:
        write(args, label_page(report, Path(labels.path).name, advance=bar.update))


def report_runs(args: argparse.Namespace) -> None:
    from fkdx.report.run_page import run_page
    from fkdx.report.runs import read_run

    teacher = teacher_of(args)
    while True:
        runs = [read_run(folder) for folder in args.what]
        write(args, run_page(runs, ", ".join(run.name for run in runs), teacher))
        if not args.watch or all(run.state != "under way" for run in runs):
            return
        time.sleep(WATCH_SECONDS)


def teacher_of(args: argparse.Namespace) -> dict[str, float] | None:
    """How often the teacher of the first labels that these runs name is right, by class; None if unknown."""
    from fkdx.labels.comparable import check_class_labels
    from fkdx.report.runs import read_run
    from fkdx.report.survey import agreement

    if args.labels:
        labels = LabelFile(args.labels)
        check_class_labels("report", labels)
        return agreement(labels)
    names = [read_run(run).recipe.get("labels") for run in args.what]
    there = [name for name in names if name and isinstance(name, str) and Path(name).exists()]
    if not there:
        return None
    try:
        return agreement(LabelFile(there[0]))
    except ValueError:  # labels of no classes, or of classes that their keys do not name
        return None


def write(args: argparse.Namespace, page: str) -> None:
    """Writes the page; with --watch, that is a line of facts each time."""
    content = page.encode()
    write_whole(args.output, content)
    with Facts(args.json) as facts:
        facts.say(f"{args.output}  {len(content) / 1e6:.1f} MB", path=str(args.output), bytes=len(content))
