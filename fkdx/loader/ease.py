"""How easy an image's crops are, judged by how sure the teachers were: the order of a curriculum."""

from collections.abc import Sequence

import numpy as np

from fkdx.calibration.rule import true_classes
from fkdx.errors import refuse
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.labels.distributions import Score, gather_with_tails, scores


class Ease:
    """Ranks crops by the mean of the teachers' scores; see `fkdx.labels.distributions.scores`.

    Raises ValueError for label files that do not hold the teachers' original probabilities.
    """

    def __init__(self, files: Sequence[LabelFile], score: Score) -> None:
        check_class_labels("CropLoader", *files)
        for file in files:
            rule = file.header.get("provenance", {}).get("calibration")
            if file.kind == "hard" or (rule and rule["low"] < rule["middle"]):
                got = "hard labels" if file.kind == "hard" else "labels, some of them calibrated to classes"
                expected = "the teachers' original probabilities"
                refuse("CropLoader", "choice", f"a curriculum over {got}", expected, file.path)
        self._files, self._score = files, score
        self._truth = true_classes(files[0])[1] if score == "truth" else np.zeros(len(files[0]), np.int64)

    def crops_at(self, images: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """(n, m) crops at ranks (n, m), 0 being the easiest, of the label files' images (n,)."""
        return np.stack([order[rank] for order, rank in zip(self._orders(images), ranks)])

    def _orders(self, images: np.ndarray) -> list[np.ndarray]:
        """Each image's crops (M,), from the easiest to the hardest."""
        orders: list[np.ndarray] = [None] * len(images)
        counts = self._files[0].crop_counts[images]
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            crops = np.broadcast_to(np.arange(count), (len(same), count))
            sure = sum(self._scores(file, images[same], crops) for file in self._files)
            for i, order in zip(same, np.argsort(-sure, axis=1, kind="stable")):
                orders[i] = order
        return orders

    def _scores(self, file: LabelFile, images: np.ndarray, crops: np.ndarray) -> np.ndarray:
        _, _, ids, values, tails = gather_with_tails(file, images, crops)
        return scores(file, self._score, ids, values, tails, self._truth[images])
