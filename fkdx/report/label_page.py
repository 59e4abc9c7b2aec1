"""The page of a label file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fkdx.calibration import Calibration
from fkdx.calibration.rule import true_classes
from fkdx.importers.fkd_export import FKD_KINDS, fkd_bytes
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.labels.layout import Encoding
from fkdx.labels.rounding import record_bytes
from fkdx.report import charts
from fkdx.report.comparison import Comparison, compare
from fkdx.report.inspector import Inspector, choose, gallery, table_rows
from fkdx.report.page import as_text, listed, render
from fkdx.report.problems import Problem, find_embedding_problems, find_problems
from fkdx.report.survey import Survey, survey
from fkdx.stores import Store
from fkdx.stores.imagenet import with_words

PICTURED = 22  # images with their crops ...
CROPS_OF_IMAGE = 8  # ... and how many of them: with two galleries about 200 pictures
GALLERY = 12

COLUMNS = (  # of the table of images: name of the number, title
    ("key", "key"),
    ("folder", "folder"),
    ("teacher", "teacher's class"),
    ("score", "mean largest probability"),
    ("agreement", "agrees with folder"),
    ("unity", "crops agree"),
    ("spread", "spread"),
    ("entropy", "entropy"),
)
COLUMNS_OF_EMBEDDINGS = (("key", "key"), ("unity", "crops agree (cosine)"), ("spread", "spread"))


@dataclass
class LabelReport:
    """A surveyed label file, ready to be shown.

    Attributes:
        names: the C class names, synsets with their words; numbers where the file has none.
        notes: what is left out of the page, and why.
    """

    labels: LabelFile
    found: Survey
    names: list[str]
    inspector: Inspector
    comparison: Comparison | None
    notes: list[str]


def open_report(
    labels: LabelFile,
    source: Store | None = None,
    other: LabelFile | None = None,
    most_crops: int = 100_000_000,
    size: int | None = None,
    advance: Callable[[int], object] = lambda images: None,
) -> LabelReport:
    """Reads the label file once.

    Args:
        labels: labels of any kind; of embeddings what needs classes is left out.
        source: its images, for pictures.
        other: labels of another teacher over the same crops.
        most_crops: read at most; of larger files evenly spread crops of every image.
        size: pixels of a pictured crop; None: as the labels say, at most 160.
        advance: called with the number of images of each step.

    Raises ValueError where `other` labels other images, crops or classes, or is beside embeddings.
    """
    if other:
        check_class_labels("report", labels, other)
    names, truth, notes = _classes(labels)
    if source is None:
        notes.append("No pictures: the images were not given (--images).")
    elif labels.ratios:
        notes.append("No pictures of crops: the boxes are parts of images of unknown size.")
    found = survey(labels, truth, most_crops, advance)
    if found.crops_of:
        notes.append(
            f"Counts are of {found.crops_of} evenly spread crops of each image, {found.tally.crops:,} in all."
        )
    inputs = labels.header.get("provenance", {})
    interpolation = inputs.get("interpolation")
    inspector = Inspector(
        labels,
        found,
        names,
        source,
        size or min(int(_digits(inputs.get("size")) or 112), 160),
        interpolation if interpolation in ("bilinear", "bicubic") else "bilinear",
        other,
    )
    return LabelReport(labels, found, names, inspector, compare(labels, other) if other else None, notes)


def _classes(labels: LabelFile) -> tuple[list[str], np.ndarray | None, list[str]]:
    """The names of the classes, the true ones of the images, and what to say where they are not known."""
    if labels.embeddings:
        note = "Embeddings have no classes: how sure the teacher was, and of what, is left out."
        return [], None, [note]
    names, truth, notes = labels.classes or [], None, []
    try:
        names, truth = true_classes(labels)
    except ValueError:
        notes.append(
            "True classes are unknown (the keys name no class folders of this file), so nothing is "
            "compared with them."
        )
    if len(names) != labels.num_classes:
        names = [str(c) for c in range(labels.num_classes)]
    return with_words(names), truth, notes


def label_page(
    report: LabelReport, title: str, server: bool = False, advance: Callable[[], object] = lambda: None
) -> str:
    """The HTML page; with `server` the table and the inspector ask the server instead of holding all."""
    labels, found, names = report.labels, report.found, report.names
    groups = choose(found, PICTURED)
    shown = [image for images in groups.values() for image in images]
    details, hardest, easiest = {}, [], []
    if not server:
        for image in shown:
            details[image] = report.inspector.detail(image, CROPS_OF_IMAGE)
            advance()
    for rows, best in ((hardest, False), (easiest, True)) if names else ():
        rows += gallery(report.inspector, GALLERY, best, advance)
    rows = [] if server else [report.inspector.row(image) for image in table_rows(found)]
    data = {
        "server": server,
        "columns": COLUMNS if names else COLUMNS_OF_EMBEDDINGS,
        "sort": "agreement" if names else "unity",
        "rows": rows,
        "details": details,
        "groups": groups,
        "keys": {image: labels.keys[image] for image in shown},
        "classes": names if len(names) <= 30_000 else [],
        "hardest": hardest,
        "easiest": easiest,
        "bars": charts.bars([], "The likeliest classes of one crop"),
    }
    return render(
        "labels.html",
        _charts(report),
        data,
        title=title,
        subtitle=f"{len(labels):,} images, {found.tally.crops:,} crops, {_outputs(labels)}",
        classes=bool(names),
        facts=_facts(labels),
        left_out=report.notes,
        problems=_problems(report),
        pairs=_pairs(found, names),
        comparison=report.comparison and report.comparison.facts(),
        table_note=_table_note(server, len(rows), len(labels)),
    )


def _outputs(labels: LabelFile) -> str:
    if labels.embeddings:
        return " and ".join(f"{name} of {size:,} values" for name, size in labels.embeddings.items())
    return f"{labels.num_classes:,} classes"


def _problems(report: LabelReport) -> list[Problem]:
    labels = report.labels
    if not labels.embeddings:
        return find_problems(report.found, report.names, labels.k)
    moments = labels.moments.values()
    zeros = sum(each.zeros for each in moments)
    return find_embedding_problems(report.found, zeros, zeros + sum(each.crops for each in moments))


def _charts(report: LabelReport) -> dict[str, charts.Spec]:
    tally = report.found.tally
    specs: dict[str, charts.Spec | None] = {
        **(_charts_of_classes(report) if report.names else {}),
        "alike": charts.histogram(
            tally.alike, "cosine", "Histogram of the cosine of embeddings with the mean of their image's"
        )
        if tally.alike.any()
        else None,
        "centres": charts.centres(tally) if tally.centres.any() else None,
        "area": charts.histogram(tally.area, "share of the area", "Histogram of the area of crops")
        if tally.area.any()
        else None,
        "sizes": charts.sizes(_sizes(report.labels)),
    }
    return {name: spec for name, spec in specs.items() if spec}


def _charts_of_classes(report: LabelReport) -> dict[str, charts.Spec | None]:
    tally, rule = report.found.tally, Calibration()
    return {
        "thresholds": charts.thresholds(tally, rule.low, rule.middle, rule.top),
        "entropy": charts.histogram(tally.entropy, "entropy / log C", "Histogram of the entropy of crops"),
        "coverage": charts.coverage(tally) if len(tally.coverage) > 1 else None,
        "margin": charts.histogram(
            tally.margin, "margin", "Histogram of the margin between the two likeliest classes"
        ),
        "outside": charts.histogram(
            tally.outside, "probability", "Histogram of the probability outside the top K"
        ),
        "balance": charts.class_balance(tally.likeliest, report.names, "crops"),
        "confusion": charts.confusion(tally, report.names),
        "agreement": report.comparison and report.comparison.chart(),
    }


def _facts(labels: LabelFile) -> dict[str, str]:
    provenance = labels.header.get("provenance", {})
    named = {name: provenance[name] for name in provenance if name not in ("command",)}
    facts = {
        "labels": f"{_kind(labels)}, {labels.encoding}, {labels.value_type} values",
        "crops an image": str(labels.crops) if labels.crops else "varying",
        "size": f"{labels.size / 1e6:,.1f} MB, {labels.size / max(int(labels.crop_counts.sum()), 1):.2f} "
        "bytes a crop",
        **listed(named),
        "digest": labels.digest,
    }
    if "command" in provenance:
        facts["command"] = as_text(provenance["command"])
    if labels.mix_size:
        facts["mixed"] = f"crops of two images, {labels.mix_size} pixels"
    return facts


def _kind(labels: LabelFile) -> str:
    return _outputs(labels) if labels.embeddings else f"{labels.kind}, K = {labels.k}"


def _sizes(labels: LabelFile) -> dict[str, float]:
    crops = max(int(labels.crop_counts.sum()), 1)
    sizes = {f"this file ({labels.encoding}, {labels.value_type})": labels.size / crops}
    other: Encoding = "plain" if labels.encoding == "compact" else "compact"
    record = record_bytes(labels, other)
    if record is not None:
        sizes[f"its crops, {other}"] = record
    if labels.kind in FKD_KINDS and not labels.mix_size:
        first = labels[0]
        file = fkd_bytes(labels.kind, first.boxes, first.flips, first.ids, first.values, first.image_size)
        sizes["FKD, one file an image"] = len(file) / max(len(first.flips), 1)
    return sizes


def _pairs(found: Survey, names: list[str], most: int = 25) -> list[tuple[str, str, int, float]]:
    return [
        (names[true], names[likeliest], count, count / max(int(found.tally.of_class[true]), 1))
        for (true, likeliest), count in found.tally.confused.most_common(most)
    ]


def _table_note(server: bool, rows: int, images: int) -> str:
    if server or rows == images:
        return "All images of the file. A key opens the image below."
    return (
        f"{rows:,} of {images:,} images: those that lead in one of the columns, and evenly spread ones. A "
        "key that is a link opens the image below; `fkdx serve` shows all of them."
    )


def _digits(value: Any) -> int | None:
    value = value[-1] if isinstance(value, list) and value else value
    return (
        int(value) if isinstance(value, int | float) or (isinstance(value, str) and value.isdigit()) else None
    )
