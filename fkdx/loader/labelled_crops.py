"""Stored crops with the labels of one or more teachers: gathered together, averaged as targets."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fkdx.calibration import CalibratedLabels, Calibration, calibrated
from fkdx.errors import refuse
from fkdx.image.steps import FORM, PAIRED, are_steps, decode, decode_pairs
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_same_classes, check_same_crops, check_same_images
from fkdx.labels.distributions import Score, gather_with_tails, probabilities, tempered
from fkdx.labels.layout import WITHOUT_IDS
from fkdx.loader.ease import Ease
from fkdx.loader.partners import find_partners
from fkdx.loader.plan import Plan, Target
from fkdx.loader.pool import Work
from fkdx.loss.target import SparseTarget
from fkdx.stores import LabelledImages, Store, check_same_order, class_numbers, match_labels

Labels = LabelFile | CalibratedLabels | str | os.PathLike  # a label file, open or not


class LabelledCrops:
    """Plans batches of the crops of a label file, or of several files for the same crops.

    Args:
        labels: one file per teacher.
        size: side of the crops in pixels.
        label_kind, calibration, on_missing, check_images: see CropLoader.
        score: ranks the crops for a curriculum, see `Ease`; None: crops are numbered as stored.

    Attributes:
        files: the label files, calibrated if there is a rule.
        store: the images that have labels, in the order of these, under their keys.
        stored: (N,) number of crops of each image that has any.
        classes: the class names, in the label file's order if it has one.
        view: the fields of a `View` that say where boxes come from.
        bare: whether targets are a teacher's logits, not probabilities.
        mixed: whether crops are mixed with those of other images.

    Raises ValueError if the files do not label the same crops of the same images or cannot be averaged, or if
    images and labels do not match.
    """

    def __init__(
        self,
        store: Store,
        labels: Labels | Sequence[Labels],
        size: int,
        label_kind: str = "marginal_smoothing",
        *,
        calibration: Calibration | None = None,
        score: Score | None = None,
        on_missing: str = "raise",
        check_images: bool = False,
    ) -> None:
        several = [labels] if isinstance(labels, Labels) else labels
        self.files = [LabelFile(file) if isinstance(file, str | os.PathLike) else file for file in several]
        if not self.files:
            refuse("CropLoader", "labels", "an empty list", "label files, or None for plain classes")
        for file in self.files:
            _check(file, self.files[0])
        if calibration is not None:
            self.files = list(calibrated(self.files, calibration))
        self._first = first = self.files[0]
        self._size, self._label_kind = size, label_kind
        self.bare, self.mixed = first.kind == "dense_logits", bool(first.mix_size)
        self._ease = None if score is None else Ease(self.files, score)
        self.store = match_labels(store, first, on_missing, check_images)
        self._shown, self.stored = _with_crops(self.store, first)
        if first.mix_size:
            self._image_of_label = self.store.images_of_labels(len(first))
        self._sizes = first.image_sizes
        self.classes, self._class_of = _number_classes(self.store, first)
        self.view: dict[str, Any] = {"boxes": "ratios" if first.ratios else "pixels"}
        for file in self.files:
            file.forget()

    def plan(self, epoch: int, images: np.ndarray, crops: np.ndarray) -> Plan:
        """The plan of crops (n, m) of images (n,), numbered as in `stored`; the same in every epoch.

        With a `score`, crops are ranks, 0 being the easiest.
        """
        images = images if self._shown is None else self._shown[images]
        labels = self.store.labels_of(images)
        if self._ease:
            crops = self._ease.crops_at(labels, crops)
        boxes, flips, answers = self._gather(labels, crops)
        work = Work(
            images=images.tolist(),
            counts=[crops.shape[1]] * len(images),
            boxes=np.ascontiguousarray(boxes.reshape(-1, 4), np.int32),
            flips=np.ascontiguousarray(flips.reshape(-1)).view(np.uint8),
            ratios=boxes.reshape(-1, 4) if self._first.ratios else None,
            sizes=[tuple(size) for size in self._sizes[labels].tolist()],
        )
        partners = None
        if self._first.mix_size:
            partners = find_partners(self._first, self._image_of_label, labels, crops, self._size)
        steps = self._steps(labels, crops) if self._first.extra_form == FORM else None
        if self._first.extra_form == PAIRED:
            pairs = self._steps(labels, crops)
            steps = [own for own, _ in pairs]
            partners.steps = [pairs[row][1] for row in np.flatnonzero(partners.mix.operations)]
        classes = self._class_of[images].astype(np.int64)
        return Plan(work, crops, classes, self._recover, answers, partners, steps)

    def _gather(
        self, labels: np.ndarray, crops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]]:
        """Boxes (n, m, 4), flips (n, m), and ids, values (n, m, K) and tails (n, m) of every teacher."""
        boxes, flips, answers = [], [], []
        for file in self.files:
            box, flip, ids, values, tails = gather_with_tails(file, labels, crops)
            boxes.append(box)
            flips.append(flip)
            answers.append((ids, values, tails))
        check_same_crops("CropLoader", self.files, boxes, flips)
        return boxes[0], flips[0], answers

    def _steps(self, labels: np.ndarray, crops: np.ndarray) -> list:
        """The augmentation of each of the n m crops; where it is paired, the partner's beside it."""
        read = decode_pairs if self._first.extra_form == PAIRED else decode
        steps: list = []
        for label, chosen in zip(labels.tolist(), crops.tolist()):
            try:
                of_image = read(self._first.extra(label))
                steps += [of_image[crop] for crop in chosen]
            except (ValueError, IndexError) as error:
                key = self._first.keys[label]
                raise ValueError(f"CropLoader: steps of {key}: {error}, {self._first.path}") from None
        return steps

    def _recover(self, plan: Plan) -> Target:
        """The mean of the teachers' targets."""
        rows = plan.crops.size
        answers = []
        for file, (ids, values, tails) in zip(self.files, plan.answers, strict=True):
            if tails is not None:
                others = file.num_classes - file.k
                values = probabilities(file.kind, *tempered(values, tails, others, plan.temperature))
            answers.append(
                (torch.from_numpy(ids.reshape(rows, -1)), torch.from_numpy(values.reshape(rows, -1)))
            )
        if self._first.kind in WITHOUT_IDS:
            return sum(values for _, values in answers) / len(answers)
        targets = [
            SparseTarget.from_topk(ids, values, self._first.num_classes, self._label_kind)
            for ids, values in answers
        ]
        return targets[0] if len(targets) == 1 else SparseTarget.ensemble(targets)


def _check(labels: LabelFile, first: LabelFile) -> None:
    paired = bool(labels.mix_size)
    if labels.extra_operations and not are_steps(labels.extra_form, labels.extra_operations, paired):
        got = f"crops changed by {', '.join(labels.extra_operations)}"
        refuse("CropLoader", "labels", got, "plain or mixed ones", labels.path)
    if labels is first:
        return
    if labels.embeddings or first.embeddings:
        got, expected = "embeddings", "labels of classes; `fkdx merge` puts two embeddings into one file"
        refuse("CropLoader", "labels of several teachers", got, expected, labels.path)
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


def _with_crops(store: LabelledImages, labels: LabelFile) -> tuple[np.ndarray | None, np.ndarray]:
    """The images that have crops, None if all have; and the number of crops of each (n,).

    Images that are only partners of mixed crops have none.
    """
    if labels.crops and not labels.mix_size:
        return None, np.broadcast_to(np.int64(labels.crops), len(store))
    counts = labels.crop_counts if store.label_of is None else labels.crop_counts[store.label_of]
    if counts.all():
        return None, counts.astype(np.int64)
    shown = np.flatnonzero(counts)
    return shown, counts[shown].astype(np.int64)


def _number_classes(store: LabelledImages, labels: LabelFile) -> tuple[list[str], np.ndarray]:
    """Class names and the class of every image. Where labels name none, the images do if there are as many as
    the labels have classes, in an order that is sure: otherwise a number would mean another class to the
    teacher. ValueError where the order is not sure."""
    counted = not labels.embeddings  # which belong to no classes
    if counted and labels.classes is None:
        if len(store.class_names) != labels.num_classes:
            return list(store.class_names), np.broadcast_to(np.int32(-1), len(store))
        check_same_order(store, labels.path)
    return class_numbers(store, labels.classes)
