"""Random crops drawn on the fly, with one-hot targets of the images' classes."""

from typing import Any

import numpy as np

from fkdx import _C
from fkdx.image.random_boxes import crop_stream
from fkdx.loader.plan import Plan
from fkdx.loader.pool import Work
from fkdx.loss.target import SparseTarget
from fkdx.stores import Store, check_all_classed, class_numbers


class DrawnCrops:
    """Plans batches of random crops, as torchvision's RandomResizedCrop and a flip would draw them.

    Attributes:
        stored: (N,) number of crops that a batch draws of each of the store's images.
        classes: names of the classes, in the store's order.
        view: the fields of a `View` that say where boxes come from.
        bare: False; targets are probabilities.
        mixed: False; crops are of one image each.

    Raises ValueError if an image has no class.
    """

    bare = mixed = False

    def __init__(self, store: Store, crops_per_image: int, seed: int, rule: _C.RandomCrops) -> None:
        self._keys, self._seed = store.keys, seed
        self.stored = np.full(len(store), crops_per_image)
        self.classes, self._class_of = class_numbers(store, None)
        check_all_classed(store, self._class_of)
        self.view: dict[str, Any] = {"boxes": "random", "random": rule}

    def plan(self, epoch: int, images: np.ndarray, crops: np.ndarray) -> Plan:
        """The plan of crops (n, m) of images (n,); an image's crops have consecutive numbers."""
        n, m = crops.shape
        work = Work(
            images=images.tolist(),
            counts=[m] * n,
            boxes=np.empty((n * m, 4), np.int32),
            flips=np.empty(n * m, np.uint8),
            streams=[crop_stream(self._seed, self._keys[image], epoch) for image in images],
            first_crops=crops[:, 0].tolist(),
        )
        return Plan(work, crops, self._class_of[images].astype(np.int64), self._recover, answers=[])

    def _recover(self, plan: Plan) -> SparseTarget:
        return SparseTarget.from_classes(plan.row_classes, len(self.classes))
