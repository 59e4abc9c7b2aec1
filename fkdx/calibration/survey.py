"""One pass over the labels of one or more teachers that decides which crops are left."""

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from fkdx.calibration.rule import Calibration, true_classes
from fkdx.calibration.statistics import Statistics
from fkdx.calibration.view import CalibratedLabels, Kept
from fkdx.errors import refuse
from fkdx.labels import LabelFile
from fkdx.labels.comparable import (
    check_class_labels,
    check_plain_crops,
    check_same_classes,
    check_same_crops,
    check_same_images,
)
from fkdx.labels.distributions import gather_with_tails, scores

_BLOCK = 1 << 20  # values per step


def calibrated(
    files: Sequence[LabelFile], rule: Calibration, progress: bool | None = None
) -> list[CalibratedLabels]:
    """Calibrates the label files of one or more teachers, each by that teacher's scores.

    A crop that any of the teachers discards is removed from all files, so that they still label the same
    crops. All labels are read once.

    Args:
        progress: True shows a progress bar, False does not, None does on a terminal.

    Raises ValueError if labels hold no probabilities or crops are not plain, if the rule needs classes that
    are unknown, or if the files differ in images, numbers of crops or classes.
    """
    first = files[0]
    names, truth = find_truth(files, rule)
    counts = first.crop_counts.astype(np.int64)
    kept = Kept(np.zeros_like(counts), np.zeros((len(counts), (max(counts, default=0) + 7) // 8), np.uint8))
    statistics = [Statistics.empty(names) for _ in files]
    hidden = None if progress is None else not progress
    with tqdm(total=len(first), desc="calibrate", unit="image", disable=hidden) as bar:
        for images in blocks(counts, max(labels.k for labels in files)):
            crops = np.broadcast_to(np.arange(counts[images[0]]), (len(images), counts[images[0]]))
            sure = _scores(files, rule, images, crops, truth[images])
            shown = rule.kept(sure)
            kept.counts[images] = shown.sum(axis=1)
            packed = np.packbits(shown, axis=1, bitorder="little")
            kept.bits[images[0] : images[-1] + 1, : packed.shape[1]] = packed
            for teacher, counted in enumerate(statistics):
                counted.add(rule, truth[images], teacher, shown, sure)
            bar.update(len(images))
    return [
        CalibratedLabels(labels, rule, kept, truth, counted) for labels, counted in zip(files, statistics)
    ]


def find_truth(files: Sequence[LabelFile], rule: Calibration) -> tuple[list[str], np.ndarray]:
    """Class names in order, and the class (N,) of every image; ["all"] and zeros if the rule needs none.

    Raises ValueError, before anything is read, if the files cannot be calibrated.
    """
    for labels in files:
        check_fit(labels, files[0])
    return true_classes(files[0]) if rule.needs_classes else (["all"], np.zeros(len(files[0]), np.int64))


def blocks(counts: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """Neighbouring images with the same number of crops, about _BLOCK values at a time."""
    for run in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(counts)) + 1):
        step = max(1, _BLOCK // max(1, int(counts[run[0]]) * k)) if len(run) else 1
        yield from (run[i : i + step] for i in range(0, len(run), step))


def _scores(
    files: Sequence[LabelFile], rule: Calibration, images: np.ndarray, crops: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """(teachers, n, m) scores of crops of images of classes (n,)."""
    gathered = [gather_with_tails(labels, images, crops) for labels in files]
    boxes, flips = [labels[0] for labels in gathered], [labels[1] for labels in gathered]
    check_same_crops("calibration", files, boxes, flips)
    return np.stack(
        [
            scores(labels, rule.score, ids, values, tails, truth)
            for labels, (_, _, ids, values, tails) in zip(files, gathered)
        ]
    )


def check_fit(labels: LabelFile, first: LabelFile) -> None:
    """Raises ValueError if labels cannot be calibrated, or not together with those of another teacher."""
    check_class_labels("calibration", labels)
    if labels.kind == "hard":
        refuse("calibration", "labels", "hard ones", "probabilities", labels.path)
    check_plain_crops("calibration", labels)
    check_same_images("calibration", labels, first)
    check_same_classes("calibration", labels, first)
