"""Images of another store, under other names."""

from collections.abc import Sequence

import numpy as np

from fkdx.stores.keys import Keys
from fkdx.stores.store import Place, Store


class Selection(Store):
    """Some or all images of a store, under their own keys.

    Attributes:
        store: where they lie.
        images: (N,) number of each image in `store`; None: the same.
    """

    def __init__(self, store: Store, keys: Keys, images: np.ndarray | None) -> None:
        self.store, self.path, self.keys, self.images = store, store.path, keys, images
        self.class_names, self.numbered, self.told = store.class_names, store.numbered, store.told
        self.sequential = store.sequential
        self.class_of = store.class_of if images is None else store.class_of[images]

    def head(self, image: int) -> bytes:
        return self.store.head(self._image(image))

    def place(self, image: int) -> Place:
        return self.store.place(self._image(image))

    def places(self, images: Sequence[int]) -> list[Place]:
        return self.store.places(images if self.images is None else self.images[images].tolist())

    def encoded(self, image: int) -> bytes:
        return self.store.encoded(self._image(image))

    @property
    def reading_order(self) -> np.ndarray:
        order = self.store.reading_order
        if self.images is None:
            return order
        turn_of = np.empty(len(order), np.int64)
        turn_of[order] = np.arange(len(order))
        return np.argsort(turn_of[self.images])

    def sizes(self) -> np.ndarray:
        return self._taken(self.store.sizes())

    def rough_sizes(self) -> np.ndarray:
        return self._taken(self.store.rough_sizes())

    def check_unchanged(self) -> None:
        self.store.check_unchanged()

    def _taken(self, values: np.ndarray) -> np.ndarray:
        return values if self.images is None else values[self.images]

    def _image(self, image: int) -> int:
        return image if self.images is None else int(self.images[image])
