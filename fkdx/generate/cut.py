"""Crops of one image under way in the loader's pool, for teachers of every shape at once."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fkdx.loader.pool import ImagePool, Pending, View, Work
from fkdx.stores import Store

Shape = tuple[int, str]  # size, interpolation
Pixels = dict[Shape, np.ndarray]  # (crops, size, size, 3) uint8 of every shape


class Cut:
    """The same crops under way in every shape."""

    def __init__(self, pendings: list[Pending]) -> None:
        self._pendings = pendings

    def finish(self) -> dict[int, Exception]:
        """Wait for the crops; the errors by the image's place in the work. Raises what no image is to blame
        for."""
        errors = {i: error for pending in self._pendings for i, error in pending.finish().items()}
        for error in errors.values():
            if not isinstance(error, OSError | ValueError):
                raise error
        return errors

    @property
    def work(self) -> Work:
        """With its boxes and flips, once it is finished."""
        return self._pendings[0].work

    @property
    def warned(self) -> bool:
        """Whether the first image's file has faults that change no pixel, once it is finished."""
        return 0 in self._pendings[0].warned()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the first image, once it is finished."""
        height, width = self._pendings[0].sizes()[0].tolist()
        return height, width


@dataclass(frozen=True)
class Cutter:
    """The pool with the images that it cuts, and whether damaged ones are accepted."""

    source: Store
    pool: ImagePool
    allow_warnings: bool = False

    def begin(self, view: dict[str, Any], work: Work, pixels: Pixels, urgent: bool = False) -> Cut:
        """Start to fill `pixels` as `work` says; `view` says where its boxes come from."""
        view = {**view, "whole_file": True, "allow_warnings": self.allow_warnings}
        return Cut(
            [
                self.pool.submit(_copy(work), rows, urgent, View(size, interpolation, **view))
                for (size, interpolation), rows in pixels.items()
            ]
        )


def _copy(work: Work) -> Work:
    """With boxes and flips of its own, which a pool may write."""
    return replace(work, boxes=work.boxes.copy(), flips=work.flips.copy())
