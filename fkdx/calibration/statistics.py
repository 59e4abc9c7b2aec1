"""What a calibration did to one teacher's labels, by class and in total."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from fkdx.calibration.rule import Calibration

_SHOWN = 3  # classes at either end of the text


@dataclass(frozen=True)
class Statistics:
    """Counts for every class, each (C,) int64; one class "all" where the images' classes are unknown.

    Attributes:
        names: names of the classes.
        images, crops: images and crops in the label file.
        too_hard, too_easy: crops with a score below the lowest or above the highest threshold.
        kept: crops that may be shown.
        smoothed: crops among them that get their class as label.
        emptied: images that would have been left without crops.
        filled: images that got crops back, including the emptied ones.
        returned: crops that they got back.
    """

    names: list[str]
    images: np.ndarray
    crops: np.ndarray
    too_hard: np.ndarray
    too_easy: np.ndarray
    kept: np.ndarray
    smoothed: np.ndarray
    emptied: np.ndarray
    filled: np.ndarray
    returned: np.ndarray

    @classmethod
    def empty(cls, names: list[str]) -> "Statistics":
        return cls(names, *(np.zeros(len(names), np.int64) for _ in fields(cls)[1:]))

    def add(
        self, rule: Calibration, truth: np.ndarray, teacher: int, shown: np.ndarray, scores: np.ndarray
    ) -> None:
        """Count n images of classes `truth` (n,): which of their crops are shown (n, M), and why, from the
        scores of all teachers (teachers, n, M). These are the statistics of number `teacher`."""
        sure = scores[teacher]
        outside = ((scores < rule.low) | (scores > rule.top)).any(axis=0)
        back = outside & shown
        counts = {
            "images": np.ones(len(truth), np.int64),
            "crops": np.full(len(truth), sure.shape[1]),
            "too_hard": (sure < rule.low).sum(axis=1),
            "too_easy": (sure > rule.top).sum(axis=1),
            "kept": shown.sum(axis=1),
            "smoothed": (shown & (sure < rule.middle)).sum(axis=1) * rule.smooths,
            "emptied": outside.all(axis=1) & (sure.shape[1] > 0),
            "filled": back.any(axis=1),
            "returned": back.sum(axis=1),
        }
        for name, numbers in counts.items():
            np.add.at(getattr(self, name), truth, numbers)

    def __str__(self) -> str:
        """The total counts, and the classes that lose most and least."""
        total = self.total()
        crops = max(total["crops"], 1)
        lines = [
            f"{total['crops']} crops of {total['images']} images",
            f"  too hard   {total['too_hard'] / crops:7.2%}",
            f"  too easy   {total['too_easy'] / crops:7.2%}",
            f"  shown      {total['kept'] / crops:7.2%}",
            f"  with class {total['smoothed'] / crops:7.2%}, all others shown with their label",
            f"  {total['filled']} images were left with too few crops ({total['emptied']} with none): "
            f"{total['returned']} discarded crops came back",
        ]
        order = np.argsort(self.lost, kind="stable")[::-1]
        if len(order) > 1:
            most, least = (
                ", ".join(f"{self.names[i]} {self.lost[i]:.1%}" for i in part)
                for part in (order[:_SHOWN], order[::-1][:_SHOWN])
            )
            lines += [f"  most discarded in   {most}", f"  least discarded in  {least}"]
        return "\n".join(lines)

    def total(self) -> dict[str, int]:
        """The counts of all classes together, by name."""
        return {f.name: int(getattr(self, f.name).sum()) for f in fields(self)[1:]}

    @property
    def lost(self) -> np.ndarray:
        """(C,) share of the crops that are not shown."""
        return 1 - self.kept / np.maximum(self.crops, 1)

    def write_csv(self, path: str | Path) -> None:
        """Writes one line per class."""
        with open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["class", *(f.name for f in fields(self)[1:])])
            table.writerows(zip(self.names, *(getattr(self, f.name).tolist() for f in fields(self)[1:])))
