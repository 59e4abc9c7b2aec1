"""What happens to a crop, by its score: it is shown with its label, shown with its class, or discarded."""

from dataclasses import dataclass

import numpy as np

from fkdx import _C
from fkdx.labels import LabelFile
from fkdx.labels.distributions import SCORES, Score
from fkdx.stores import in_order, keys_of_labels


@dataclass(frozen=True)
class Calibration:
    """FerKD's rule (equation 4). It depends on how sure the teacher was of a crop, the score s in [0, 1].

    If s < low or s > top, the crop is discarded. If low <= s < middle, its label is replaced by its image's
    class,
    smoothed: 1 - epsilon for the class, epsilon / (C - 1) for every other. Otherwise it keeps its label.

    An image that is left with fewer than `least` crops (and has more) gets discarded ones back until it has
    that many, those with scores nearest to [low, top] first. If middle > low, those below low get the class
    too.

    Attributes:
        low, middle, top: 0 <= low <= middle <= top <= 1 (T_L, T_M, T_T). Default: the paper's final choice.
        epsilon: 0 ... 0.5.
        score: "max", the largest probability, or "truth", that of the image's class; a class outside the
            stored top K gets an even share of the probability that the K leave.
        least: at least 1; give the `crops_per_image` of the training.

    Raises ValueError for anything else.

    Example:
        >>> import fkdx
        >>> import numpy as np
        >>> rule = fkdx.Calibration(low=0.15, middle=0.3, top=0.95, least=2)
        >>> scores = np.array([[[0.1, 0.2, 0.6, 0.99]]])  # one teacher, one image, four crops
        >>> rule.kept(scores).tolist()  # pass the rule to CropLoader(calibration=...)
        [[False, True, True, False]]
    """

    low: float = 0.15
    middle: float = 0.3
    top: float = 0.95
    epsilon: float = 0.1
    score: Score = "max"
    least: int = 4

    def __post_init__(self) -> None:
        thresholds = (self.low, self.middle, self.top)
        if not 0 <= self.low <= self.middle <= self.top <= 1:
            raise ValueError(
                f"calibration: thresholds, got {thresholds}, expected 0 <= low <= middle <= top <= 1"
            )
        if not 0 <= self.epsilon <= 0.5:
            raise ValueError(f"calibration: epsilon, got {self.epsilon}, expected 0 to 0.5")
        if self.score not in SCORES:
            raise ValueError(f"calibration: score, got '{self.score}', expected one of {', '.join(SCORES)}")
        if self.least < 1:
            raise ValueError(f"calibration: least, got {self.least}, expected 1 or more")

    @property
    def smooths(self) -> bool:
        """Whether any crop gets its image's class as label."""
        return self.low < self.middle

    @property
    def needs_classes(self) -> bool:
        """Whether the rule needs the classes of images."""
        return self.smooths or self.score == "truth"

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """(n, M) bool: which crops of n images are shown, from their scores (teachers, n, M).

        A crop that any of the teachers discards is not shown.
        """
        beyond = np.maximum(self.low - scores, scores - self.top).max(axis=0).clip(min=0)
        kept = beyond == 0
        nearest = np.argsort(beyond, axis=1, kind="stable")[:, : self.least]
        # Kept ones come first, so nothing changes if there are enough.
        np.put_along_axis(kept, nearest, True, axis=1)
        return kept


def true_classes(labels: LabelFile) -> tuple[list[str], np.ndarray]:
    """Class names in order, and the class (N,) of every image of a label file: the folder of its key, or of
    its canonical key.

    Raises ValueError if there is no such class.
    """
    keys, order = keys_of_labels(labels)
    names = labels.classes or in_order(keys.table.first_folders())
    class_of = np.empty(len(labels), np.int64)
    of_keys = keys.table.classes_of(names)
    number_of = {name: number for number, name in enumerate(names)}
    for image in np.flatnonzero(of_keys < 0).tolist():
        of_keys[image] = number_of.get(_C.canonical_key(keys[image]).rpartition("/")[0], -1)
    class_of[slice(None) if order is None else order] = of_keys
    if (class_of < 0).any() or len(names) != labels.num_classes:
        bare = labels.keys[int(class_of.argmin())] if (class_of < 0).any() else None
        got = f"'{bare}'" if bare is not None else f"{len(names)} class folders"
        raise ValueError(
            f"calibration: no ground truth, got {got}, expected keys <class>/<name> of {labels.num_classes} "
            f"classes; without them, use score 'max' and low = middle, {labels.path}"
        )
    return names, class_of
