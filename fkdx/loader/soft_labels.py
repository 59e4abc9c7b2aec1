"""The stored labels of one or more teachers for the same crops: gathered together, averaged as targets."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from fkdx.calibration import Calibration, calibrated
from fkdx.calibration.rule import scores_of, true_classes
from fkdx.image.augment import Step, are_steps, decode
from fkdx.labels import LabelFile
from fkdx.loss.target import SparseTarget

Given = LabelFile | str | os.PathLike  # a label file, open or not


class SoftLabels:
    """What teachers said of stored crops; `files`, one a teacher, calibrated first where a rule is given.

    Raises ValueError where the files do not label the same crops of the same images, or are of kinds whose
    targets cannot be averaged.
    """

    def __init__(
        self, labels: Given | Sequence[Given], label_kind: str, calibration: Calibration | None = None
    ) -> None:
        given = [labels] if isinstance(labels, Given) else list(labels)
        self.files = [LabelFile(file) if isinstance(file, str | os.PathLike) else file for file in given]
        for file in self.files:
            _check(file, self.files[0])
        if calibration is not None:
            self.files = list(calibrated(self.files, calibration))
        self.first, self._label_kind = self.files[0], label_kind

    def gather(
        self, images: np.ndarray, crops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Boxes (n, m, 4), flips (n, m), and ids and values (n, m, K) of every teacher in turn."""
        boxes, flips, *tables = _gather(self.first, images, crops)
        for file in self.files[1:]:
            own_boxes, own_flips, *more = _gather(file, images, crops)
            if not (np.array_equal(boxes, own_boxes) and np.array_equal(flips, own_flips)):
                raise ValueError(f"CropLoader: labels of other crops than {self.first.path}, {file.path}")
            tables += more
        return boxes, flips, tables

    def rank_by(self, score: str) -> None:
        """Makes `easiest_first` known. ValueError where labels do not tell how sure the teachers were."""
        for file in self.files:
            rule = file.header.get("provenance", {}).get("calibration")
            if file.kind == "hard" or (rule and rule["low"] < rule["middle"]):
                got = "hard labels" if file.kind == "hard" else "labels, some of them calibrated to classes"
                raise ValueError(
                    f"CropLoader: choice, got a curriculum over {got}, expected the teachers' own "
                    f"probabilities, {file.path}"
                )
        self._score = score
        self._truth = true_classes(self.first)[1] if score == "truth" else np.zeros(len(self.first), np.int64)

    def easiest_first(self, images: np.ndarray) -> list[np.ndarray]:
        """Each image's crops (M,), those that the teachers are surest of first."""
        orders: list[np.ndarray] = [None] * len(images)
        counts = self.first.crop_counts[images]
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            crops = np.broadcast_to(np.arange(count), (len(same), count))
            sure = sum(self._scores(file, images[same], crops) for file in self.files)
            for i, order in zip(same, np.argsort(-sure, axis=1, kind="stable")):
                orders[i] = order
        return orders

    def _scores(self, file: LabelFile, images: np.ndarray, crops: np.ndarray) -> np.ndarray:
        _, _, ids, values = file.gather(images, crops)
        tails = file.gather_tails(images, crops) if file.kind == "topk_logits" else None
        return scores_of(file, self._score, ids, values, tails, self._truth[images])

    def steps(self, images: np.ndarray, crops: np.ndarray) -> list[list[Step]] | None:
        """The augmentation of each of the n m crops; None where there is none."""
        if self.first.extra_form is None:
            return None
        found: list[list[Step]] = []
        for image, chosen in zip(images.tolist(), crops.tolist()):
            try:
                kept = decode(self.first.extra(image))
                found += [kept[crop] for crop in chosen]
            except (ValueError, IndexError) as error:
                key = self.first.keys[image]
                raise ValueError(f"CropLoader: steps of {key}: {error}, {self.first.path}") from None
        return found

    def target(self, crops: int, tables: Sequence[np.ndarray]) -> SparseTarget | torch.Tensor:
        """The mean of the teachers' targets of so many crops, from what was gathered for them."""
        rows = [torch.from_numpy(table.reshape(crops, -1)) for table in tables]
        if self.first.kind.startswith("dense"):
            return sum(rows[3::2], rows[1]) / len(self.files)
        classes = self.first.num_classes
        targets = [
            SparseTarget.from_topk(ids, values, classes, self._label_kind)
            for ids, values in zip(rows[::2], rows[1::2])
        ]
        return targets[0] if len(targets) == 1 else SparseTarget.ensemble(targets)


def _gather(labels: LabelFile, images: np.ndarray, crops: np.ndarray) -> tuple[np.ndarray, ...]:
    boxes, flips, ids, values = labels.gather(images, crops)
    if labels.kind == "topk_logits":
        tails = labels.gather_tails(images, crops)[..., None]
        top = np.maximum(values.max(axis=2, keepdims=True), tails)
        values = np.exp(values - top)
        values /= values.sum(axis=2, keepdims=True) + np.exp(tails - top)
    return boxes, flips, ids, values


def _check(labels: LabelFile, first: LabelFile) -> None:
    if labels.extra_operations and not are_steps(labels.extra_form, labels.extra_operations):
        raise ValueError(
            f"CropLoader: labels, got crops changed by {', '.join(labels.extra_operations)}, expected plain "
            f"or mixed ones, {labels.path}"
        )
    if labels is first:
        return
    if any((labels.mix_size, first.mix_size, labels.extra_form, first.extra_form)):
        raise ValueError(
            "CropLoader: labels of several teachers, got mixed or augmented crops, expected plain ones, "
            f"{labels.path}"
        )
    if labels.keys[:] != first.keys[:] or not np.array_equal(labels.crop_counts, first.crop_counts):
        raise ValueError(f"CropLoader: labels of other images or crops than {first.path}, {labels.path}")
    if (labels.num_classes, labels.classes) != (first.num_classes, first.classes):
        raise ValueError(f"CropLoader: labels of other classes than {first.path}, {labels.path}")
    kinds = (first.kind, labels.kind)
    if "dense_logits" in kinds or len({kind.startswith("dense") for kind in kinds}) > 1:
        raise ValueError(
            f"CropLoader: labels of several teachers, got kinds {first.kind} and {labels.kind}, expected "
            f"top-K probabilities of all or dense ones of all, {labels.path}"
        )
