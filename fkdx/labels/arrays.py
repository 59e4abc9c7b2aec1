"""What users give LabelWriter as arrays, checked and converted to those that the codec takes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from fkdx.errors import refuse
from fkdx.labels import layout
from fkdx.labels.dataset import check_key
from fkdx.labels.file import Mixes

Arrays = dict[str, np.ndarray]


def partner_numbers(images: Sequence[str] | None, mix_size: int, path: str | os.PathLike) -> dict[str, int]:
    """The number in the file of every image that crops may be mixed with, by key; empty where none are.

    Raises ValueError, naming the file's `path`, where its writer was given one of both alone, or a key that
    no file can hold or that is there twice.
    """
    if (images is None) != (mix_size == 0):
        raise ValueError(f"LabelWriter: mixed crops need both `images` and `mix_size`; give both, {path}")
    if not 0 <= mix_size <= layout.MAX_SIDE:
        refuse("LabelWriter", "mix_size", mix_size, f"1 to {layout.MAX_SIDE} pixels", path)
    try:
        names = sorted(check_key(key) for key in images or ())
    except ValueError as error:
        raise ValueError(f"LabelWriter: images: {error}, {path}") from None
    numbers = {name.decode(): number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        repeated = next(one for one, other in pairwise(names) if one == other).decode()
        refuse("LabelWriter", "images", f"'{repeated}' twice", "each once", path)
    return numbers


@dataclass(frozen=True)
class GivenArrays:
    """For files of one layout.

    Attributes:
        kind, k: of the labels.
        crops: of every image, or None if it varies.
        ratios: whether boxes are parts of the image.
        partners: numbers of the images that crops may be mixed with, by key; empty where crops are not mixed.

    All methods raise ValueError for a wrong type, shape or number.
    """

    kind: str
    k: int
    crops: int | None
    ratios: bool
    partners: dict[str, int]

    def of_image(self, boxes, flips, ids, values, tails, mixes) -> Arrays:
        """The crops of one image; see `LabelWriter.add`."""
        self._check_count(np.asarray(flips).size)  # np.size() of a tensor is no number
        return self._crops(boxes, flips, ids, values, tails, mixes)

    def of_images(self, count: int, boxes, flips, ids, values, tails) -> Arrays:
        """The crops of `count` images one after the other; see `LabelWriter.add_many`."""
        flips = _bools("flips", flips)
        if flips.ndim != 2 or len(flips) != count:
            raise ValueError(f"flips, got shape {flips.shape}, expected (N, M) with {count} images")

        def flat(name: str, array: ArrayLike | None) -> np.ndarray | None:
            if array is None:
                return None
            array = np.asarray(array)
            if array.shape[:2] != flips.shape:
                raise ValueError(
                    f"{name}, got shape {array.shape}, expected {flips.shape} in front, as flips"
                )
            return array.reshape(-1, *array.shape[2:])

        self._check_count(flips.shape[1])
        return self._crops(
            flat("boxes", boxes), flips.reshape(-1), flat("ids", ids), flat("values", values),
            flat("tails", tails), None,
        )  # fmt: skip

    def image_size(self, image_size: tuple[int, int] | None) -> tuple[int, int]:
        if self.ratios:
            return (0, 0)
        sides = () if image_size is None else tuple(image_size)
        whole = all(isinstance(side, Integral) and 1 <= side <= layout.MAX_SIDE for side in sides)
        if len(sides) != 2 or not whole:
            raise ValueError(f"image_size, got {image_size}, expected (height, width) of 1 to 65535 pixels")
        return int(sides[0]), int(sides[1])

    def image_sizes(self, count: int, image_sizes: ArrayLike | None) -> np.ndarray:
        """(N, 2) uint16 heights and widths; zeros with ratios."""
        if self.ratios:
            return np.zeros((count, 2), np.uint16)
        sizes = np.asarray(image_sizes)
        if (
            sizes.shape != (count, 2)
            or sizes.dtype.kind not in "iu"
            or not 1 <= sizes.min(initial=1) <= sizes.max(initial=1) <= layout.MAX_SIDE
        ):
            raise ValueError(
                f"image_sizes, got shape {sizes.shape}, expected ({count}, 2) of 1 to 65535 whole pixels"
            )
        return np.ascontiguousarray(sizes, np.uint16)

    def _check_count(self, count: int) -> None:
        """Of the crops of an image."""
        if count > layout.MAX_CROPS or (self.crops and count != self.crops):
            raise ValueError(f"crops, got {count}, expected {self.crops or f'at most {layout.MAX_CROPS}'}")

    def _crops(self, boxes, flips, ids, values, tails, mixes) -> dict[str, np.ndarray]:
        flips = np.array(_bools("flips", flips), ndmin=1)
        count = len(flips)
        if flips.ndim != 1:
            raise ValueError(f"flips, got shape {flips.shape}, expected (M,)")
        arrays = {"flips": flips.view(np.uint8), **self._box_arrays("", boxes, count)}
        if self.kind not in layout.WITHOUT_IDS:
            ids = np.asarray(ids)
            arrays["ids"] = _integers("ids", ids[:, None] if ids.ndim == 1 else ids, (count, self.k))
        if self.kind != "hard":
            values = np.asarray(values)
            arrays["values"] = _floats(
                "values", values[:, None] if values.ndim == 1 else values, (count, self.k)
            )
        if self.kind == "topk_logits":
            arrays["tails"] = _floats("tails", tails, (count,))
        if (mixes is not None) != bool(self.partners):
            raise ValueError("mixes, expected in files of mixed crops and only there")
        if mixes is not None:
            arrays |= self._mix_arrays(mixes, count)
        return arrays

    def _box_arrays(self, view: str, boxes: ArrayLike, count: int) -> dict[str, np.ndarray]:
        if self.ratios:
            return {f"{view}ratios": _floats("boxes", boxes, (count, 4))}
        return {f"{view}boxes": _integers("boxes", boxes, (count, 4))}

    def _mix_arrays(self, mixes: Mixes, count: int) -> dict[str, np.ndarray]:
        try:
            partners = [0 if key is None else self.partners[key] for key in mixes.partners]
        except KeyError as error:
            raise ValueError(f"partner, got {error}, expected one of `images`") from None
        operations = _integers("operations", mixes.operations, (count,))
        if operations.size and not 0 <= operations.min() <= operations.max() <= layout.MIXED:
            raise ValueError(f"operations, got {operations.max()}, expected 0 to {layout.MIXED}")
        pairs = zip(mixes.partners, operations.tolist())
        alone = [crop for crop, (key, operation) in enumerate(pairs) if key is None and operation]
        if alone:
            raise ValueError(f"partner, got none of crop {alone[0]}, which is mixed, expected a key")
        operations = operations.astype(np.uint8)
        operations |= _bools("flips", mixes.flips) * np.uint8(layout.PARTNER_FLIPPED)
        return {
            "partners": np.array(partners, np.uint32).reshape(count),
            **self._box_arrays("partner_", mixes.boxes, count),
            "operations": operations,
            "lambdas": _floats("lambdas", mixes.lambdas, (count,)),
            "mix_boxes": _integers("mix_boxes", mixes.mix_boxes, (count, 4)),
        }


def _bools(name: str, array: ArrayLike) -> np.ndarray:
    array = np.asarray(array)
    bits = array.dtype == bool or (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all())
    if not bits and array.size:
        raise ValueError(f"{name}, got {array.dtype} {array.ravel()[:4].tolist()}, expected bool, or 0 and 1")
    return array.astype(bool, copy=False)


def _integers(name: str, array: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array)
    if array.shape != shape or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(
            f"{name}, got {array.dtype} of shape {array.shape}, expected integers of shape {shape}"
        )
    if array.dtype.itemsize > 2 and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name}, got values up to {array.max()}, expected 32-bit integers")
    return np.array(array, np.int32, order="C")


def _floats(name: str, array: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(array)
    if array.shape != shape or (array.dtype.kind not in "fiu" and array.size):
        raise ValueError(
            f"{name}, got {array.dtype} of shape {array.shape}, expected floats of shape {shape}"
        )
    return np.array(array, np.float32, order="C")
