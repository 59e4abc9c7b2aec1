"""Stored crops with the labels of one or more teachers: gathered together, averaged as targets."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fkdx.calibration import CalibratedLabels, Calibration, calibrated
from fkdx.errors import refuse
from fkdx.image.augment import Step, are_steps, decode
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_same_classes, check_same_crops, check_same_images
from fkdx.labels.distributions import Score, gather_with_tails, probabilities
from fkdx.loader.ease import Ease
from fkdx.loader.partners import find_partners
from fkdx.loader.plan import Plan, Target
from fkdx.loader.pool import Work
from fkdx.loss.target import SparseTarget
from fkdx.stores.sources import Source, class_numbers

Labels = LabelFile | CalibratedLabels | str | os.PathLike  # a label file, open or not


class LabelledCrops:
    """Plans batches of the crops of a label file, or of several files for the same crops.

    Args:
        labels: one file per teacher.
        size: side of the crops in pixels.
        label_kind, calibration, on_missing: see CropLoader.
        score: ranks the crops for a curriculum, see `Ease`; None: crops are numbered as stored.

    Attributes:
        files: the label files, calibrated if there is a rule.
        stored: (N,) number of crops of each image that has labels, in the order of their keys.
        classes: the class names, in the label file's order if it has one.
        view: the fields of a `View` that say where boxes come from.
        bare: whether targets are a teacher's logits, not probabilities.

    Raises ValueError if the files do not label the same crops of the same images or cannot be averaged, or if
    images and labels do not match.
    """

    def __init__(
        self,
        source: Source,
        labels: Labels | Sequence[Labels],
        size: int,
        label_kind: str = "marginal_smoothing",
        *,
        calibration: Calibration | None = None,
        score: Score | None = None,
        on_missing: str = "raise",
    ) -> None:
        several = [labels] if isinstance(labels, Labels) else labels
        self.files = [LabelFile(file) if isinstance(file, str | os.PathLike) else file for file in several]
        for file in self.files:
            _check(file, self.files[0])
        if calibration is not None:
            self.files = list(calibrated(self.files, calibration))
        self._first = first = self.files[0]
        self._size, self._label_kind = size, label_kind
        self.bare = first.kind == "dense_logits"
        self._ease = None if score is None else Ease(self.files, score)
        self._image_of, self._label_of = _match(source, first, on_missing)
        if first.mix_size:
            number_of = {key: number for number, key in enumerate(source.keys)}
            self._image_of_label = np.array([number_of.get(key, -1) for key in first.keys])
        self.stored = first.crop_counts[self._label_of].astype(np.int64)
        self._sizes = first.image_sizes[self._label_of].astype(np.int64)
        self.classes, class_of = class_numbers(source, first.classes)
        self._class_of = class_of[self._image_of]
        self.view: dict[str, Any] = {"boxes": "ratios" if first.ratios else "pixels"}

    def plan(self, epoch: int, images: np.ndarray, crops: np.ndarray) -> Plan:
        """The plan of crops (n, m) of images (n,), numbered as in `stored`; the same in every epoch.

        With a `score`, crops are ranks, 0 being the easiest.
        """
        labels = self._label_of[images]
        if self._ease:
            crops = self._ease.crops_at(labels, crops)
        boxes, flips, answers = self._gather(labels, crops)
        work = Work(
            images=self._image_of[images].tolist(),
            counts=[crops.shape[1]] * len(images),
            boxes=np.ascontiguousarray(boxes.reshape(-1, 4), np.int32),
            flips=np.ascontiguousarray(flips.reshape(-1)).view(np.uint8),
            ratios=boxes.reshape(-1, 4) if self._first.ratios else None,
            sizes=[tuple(size) for size in self._sizes[images].tolist()],
        )
        partners = None
        if self._first.mix_size:
            partners = find_partners(self._first, self._image_of_label, labels, crops, self._size)
        steps = self._steps(labels, crops) if self._first.extra_form else None
        return Plan(work, crops, self._class_of[images], self._recover, answers, partners, steps)

    def _gather(
        self, labels: np.ndarray, crops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Boxes (n, m, 4), flips (n, m), and ids and values (n, m, K) of every teacher."""
        boxes, flips, answers = [], [], []
        for file in self.files:
            box, flip, ids, values, tails = gather_with_tails(file, labels, crops)
            boxes.append(box)
            flips.append(flip)
            answers.append((ids, values if tails is None else probabilities(file.kind, values, tails)))
        check_same_crops("CropLoader", self.files, boxes, flips)
        return boxes[0], flips[0], answers

    def _steps(self, labels: np.ndarray, crops: np.ndarray) -> list[list[Step]]:
        """The augmentation of each of the n m crops."""
        steps: list[list[Step]] = []
        for label, chosen in zip(labels.tolist(), crops.tolist()):
            try:
                of_image = decode(self._first.extra(label))
                steps += [of_image[crop] for crop in chosen]
            except (ValueError, IndexError) as error:
                key = self._first.keys[label]
                raise ValueError(f"CropLoader: steps of {key}: {error}, {self._first.path}") from None
        return steps

    def _recover(self, plan: Plan) -> Target:
        """The mean of the teachers' targets."""
        rows = plan.crops.size
        answers = [
            (torch.from_numpy(ids.reshape(rows, -1)), torch.from_numpy(values.reshape(rows, -1)))
            for ids, values in plan.answers
        ]
        if self._first.kind.startswith("dense"):
            return sum(values for _, values in answers) / len(answers)
        targets = [
            SparseTarget.from_topk(ids, values, self._first.num_classes, self._label_kind)
            for ids, values in answers
        ]
        return targets[0] if len(targets) == 1 else SparseTarget.ensemble(targets)


def _check(labels: LabelFile, first: LabelFile) -> None:
    if labels.extra_operations and not are_steps(labels.extra_form, labels.extra_operations):
        got = f"crops changed by {', '.join(labels.extra_operations)}"
        refuse("CropLoader", "labels", got, "plain or mixed ones", labels.path)
    if labels is first:
        return
    if any((labels.mix_size, first.mix_size, labels.extra_form, first.extra_form)):
        got = "mixed or augmented crops"
        refuse("CropLoader", "labels of several teachers", got, "plain ones", labels.path)
    check_same_images("CropLoader", labels, first)
    check_same_classes("CropLoader", labels, first, unnamed=False)
    kinds = (first.kind, labels.kind)
    if "dense_logits" in kinds or len({kind.startswith("dense") for kind in kinds}) > 1:
        got = f"kinds {first.kind} and {labels.kind}"
        expected = "top-K probabilities of all, or dense ones of all"
        refuse("CropLoader", "labels of several teachers", got, expected, labels.path)


def _match(source: Source, labels: LabelFile, on_missing: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n,) that have labels, in the order of their keys, and the numbers (n,) of their labels.

    Images that are only partners of mixed crops are left out; they do not count as missing.
    """
    names = labels.keys[:]
    number_of = {names[number]: number for number in np.flatnonzero(labels.crop_counts).tolist()}
    images = [i for i, key in enumerate(source.keys) if key in number_of]
    unknown, absent = set(source.keys).difference(names), set(number_of).difference(source.keys)
    if not images or (on_missing == "raise" and (unknown or absent)):
        raise ValueError(
            f"CropLoader: images and labels do not match: {len(unknown)} of {len(source)} images have no "
            f"label (such as {min(unknown, default=None)}), {len(absent)} of {len(number_of)} labels have no "
            f"image (such as {min(absent, default=None)}), {labels.path}; give the folder the labels were "
            "made for, or set on_missing='ignore'"
        )
    return np.array(images), np.array([number_of[source.keys[i]] for i in images])
