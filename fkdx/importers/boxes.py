"""Boxes as foreign formats keep them, turned into pixels."""

import numpy as np

from fkdx._C import FormatError


def boxes_from_ratios(ratios: np.ndarray, image_size: tuple[int, int], path: str) -> np.ndarray:
    """Pixel boxes (M, 4) int32 from (top/H, left/W, height/H, width/W) (M, 4).

    PIL rounds each *edge* of a crop, half to even, in float64; so does this, and float32 ratios of whole
    pixels come back exactly at every image size. float16 ratios do so below 2,048 pixels if each number
    is rounded by itself; above that they are refused. Raises FormatError for a box outside the image.
    """
    height, width = image_size
    scale = np.array([height, width, height, width], np.float64)
    pixels = ratios.astype(np.float64) * scale
    if ratios.dtype == np.float16:
        if max(height, width) > 2047:
            got = f"float16 boxes of an image of {height} x {width}"
            raise FormatError(f"boxes_from_ratios: boxes, got {got}, expected at most 2047 pixels, {path}")
        boxes = np.rint(pixels)
    else:
        start = np.rint(pixels[:, :2])
        boxes = np.concatenate([start, np.rint(pixels[:, :2] + pixels[:, 2:]) - start], axis=1)
    check_boxes(boxes, image_size, path)
    return boxes.astype(np.int32)


def check_boxes(boxes: np.ndarray, image_size: tuple[int, int], path: str) -> None:
    """Raises FormatError unless every box (top, left, height, width) lies inside the image and is not
    empty.
    """
    height, width = image_size
    inside = (boxes[:, :2] >= 0).all() and (boxes[:, 2:] >= 1).all()  # False for NaN too
    ends = boxes[:, :2] + boxes[:, 2:]
    if not (inside and (ends[:, 0] <= height).all() and (ends[:, 1] <= width).all()):
        got = f"one outside the image of {height} x {width}"
        raise FormatError(f"check_boxes: boxes, got {got}, expected boxes of this image, {path}")


def check_ratios(ratios: np.ndarray, path: str) -> np.ndarray:
    """float32 ratios (M, 4), checked: inside 0 ... 1 but for rounding. float16 is refused: it does not
    name a pixel.
    """
    if ratios.dtype == np.float16:
        got = "float16 boxes, whose pixels need the image sizes"
        raise FormatError(f"check_ratios: boxes, got {got}, expected the images (--images DIR), {path}")
    ratios = ratios.astype(np.float32)
    ends = ratios[:, :2] + ratios[:, 2:]
    if not ((ratios >= 0).all() and (ratios[:, 2:] > 0).all() and (ends <= 1 + 1e-6).all()):
        raise FormatError(
            f"check_ratios: boxes, got one outside the image, expected ratios in 0 ... 1, {path}"
        )
    return ratios
