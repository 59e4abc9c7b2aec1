"""Crops of one image, exactly as Pillow makes them, with the image decoded once for all of them.

The pixels are those of `Image.open(file).convert("RGB")`, cut by `crop(box)`, resized by
`resize((size, size))` and mirrored if the flip is set, bit for bit; EXIF orientation is ignored.
libjpeg-turbo decodes JPEG, and only as far as the crops need; Pillow decodes everything else.
`docs/images.md` says which files are refused.

`resample` is the order of the two passes of the resize. "pillow12": rows before columns, which all published
labels were made with (columns first only for boxes over a hundred times taller than wide, as in Pillow 12.3).
"pillow13": columns first if the height shrinks by more than twice as many pixels as the width, as Pillow does
from version 13 on.
"""

import io
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError

from fkdx import _C
from fkdx.errors import refuse, whole

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS = get_args(Interpolation)
Resample = Literal["pillow12", "pillow13"]
RESAMPLES = get_args(Resample)

_thread = threading.local()


def decode_crops(
    data: bytes | str | os.PathLike[str],
    boxes: npt.ArrayLike,
    flips: npt.ArrayLike,
    size: int,
    interpolation: Interpolation = "bilinear",
    resample: Resample = "pillow12",
    allow_warnings: bool = False,
    whole_file: bool = False,
) -> np.ndarray:
    """Decode an image once and cut its crops.

    Args:
        data: the encoded image, or the path of its file.
        boxes: (m, 4) integers: top, left, height, width in pixels of the decoded image.
        flips: (m,) bool: mirror left and right.
        size: side of the result in pixels.
        interpolation: "bilinear" or "bicubic", both antialiased.
        resample: "pillow12" or "pillow13", see the module.
        allow_warnings: accept damaged images that libjpeg decodes with a warning. Warnings that change no
            pixel (an unknown JFIF version, bytes between markers) are always accepted; see
            `harmless_warnings`.
        whole_file: read the file to its end even if the boxes do not need it, so that truncated or damaged
            files are always refused.

    Returns:
        (m, size, size, 3) uint8 RGB.

    Raises:
        ImageError: a broken or oversized image, or a box outside of it; the text includes the path.
        OSError: the file cannot be read.
        ValueError: any other bad argument.

    Example:
        >>> import fkdx
        >>> from PIL import Image
        >>> Image.linear_gradient("L").save("gradient.jpg")  # 256 x 256 pixels
        >>> boxes = [[0, 0, 256, 256], [64, 0, 128, 128]]  # top, left, height, width
        >>> fkdx.decode_crops("gradient.jpg", boxes, flips=[False, True], size=32).shape
        (2, 32, 32, 3)
    """
    boxes, flips = _checked_crops("decode_crops", boxes, flips)
    bicubic, pillow13 = _checked_options("decode_crops", size, interpolation, resample)
    out = np.empty((len(boxes), size, size, 3), np.uint8)
    with _path_in_errors(data):
        encoded = _encoded(data)
        if _C.is_jpeg(encoded):
            rules = size, bicubic, pillow13, allow_warnings, whole_file
            _decoder().decode_crops(encoded, boxes, flips, *rules, out)
        else:
            _decoder().resize_crops(_pillow_pixels(encoded), boxes, flips, size, bicubic, pillow13, out)
    return out


def resize_crops(
    image: npt.NDArray[np.uint8],
    boxes: npt.ArrayLike,
    flips: npt.ArrayLike,
    size: int,
    interpolation: Interpolation = "bilinear",
    resample: Resample = "pillow12",
) -> np.ndarray:
    """Cut crops from an image that is already decoded.

    Args:
        image: (H, W, 3) uint8 RGB.
        others: as for `decode_crops`.

    Returns:
        (m, size, size, 3) uint8 RGB.

    Raises:
        ImageError, ValueError: as `decode_crops`.

    Example:
        >>> import fkdx
        >>> import numpy as np
        >>> image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        >>> crops = fkdx.resize_crops(image, [[0, 0, 2, 2], [0, 0, 2, 2]], [False, True], size=2)
        >>> bool((crops[0] == image[:2, :2]).all()), bool((crops[1] == image[:2, 1::-1]).all())
        (True, True)
    """
    boxes, flips = _checked_crops("resize_crops", boxes, flips)
    bicubic, pillow13 = _checked_options("resize_crops", size, interpolation, resample)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        refuse("resize_crops", "image", f"{image.dtype} {image.shape}", "uint8 (H, W, 3)")
    out = np.empty((len(boxes), size, size, 3), np.uint8)
    _decoder().resize_crops(np.ascontiguousarray(image), boxes, flips, size, bicubic, pillow13, out)
    return out


def validation_crop(
    data: bytes | str | os.PathLike[str],
    size: int = 224,
    crop_ratio: float = 0.875,
    interpolation: Interpolation = "bilinear",
    resample: Resample = "pillow12",
    allow_warnings: bool = False,
    whole_file: bool = False,
) -> np.ndarray:
    """The centre crop that classifiers are evaluated on.

    The shorter side is resized to `floor(size / crop_ratio)` and the centre `size` x `size` cut out, bit for
    bit what torchvision's Resize and CenterCrop give for a Pillow image; a ratio above 1 pads with black as
    they do. `allow_warnings` and `whole_file` are those of `decode_crops`.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageError, OSError, ValueError: as `decode_crops`.

    Example:
        >>> import fkdx
        >>> from PIL import Image
        >>> Image.new("RGB", (500, 375), "red").save("red.png")
        >>> fkdx.validation_crop("red.png", size=224).shape
        (224, 224, 3)
    """
    bicubic, pillow13 = _checked_options("validation_crop", size, interpolation, resample)
    if not (math.isfinite(crop_ratio) and 0 < crop_ratio <= size):
        refuse("validation_crop", "crop_ratio", crop_ratio, f"above 0 and at most {size}")
    resize = math.floor(size / crop_ratio)
    out = np.empty((size, size, 3), np.uint8)
    with _path_in_errors(data):
        encoded = _encoded(data)
        if _C.is_jpeg(encoded):
            rules = size, bicubic, pillow13, allow_warnings, whole_file
            _decoder().decode_validation(encoded, resize, *rules, out)
        else:
            _decoder().resize_validation(_pillow_pixels(encoded), resize, size, bicubic, pillow13, out)
    return out


def image_size(data: bytes | str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of an image in pixels, read from its header only; EXIF orientation is ignored.

    Args:
        data: the encoded image, or the path of its file.

    Raises:
        ImageError, OSError: as `decode_crops`.

    Example:
        >>> import fkdx
        >>> from PIL import Image
        >>> Image.new("RGB", (500, 375)).save("black.jpg")
        >>> fkdx.image_size("black.jpg")
        (375, 500)
    """
    with _path_in_errors(data):
        encoded = _encoded(data)
        if _C.is_jpeg(encoded):
            return _decoder().read_size(encoded)
        with _open(encoded) as image:
            return image.height, image.width


def harmless_warnings() -> int:
    """The number of warnings about the last JPEG that this thread read that changed no pixel."""
    return _decoder().harmless_warnings


def installed_rule() -> Resample:
    """The order of passes that the installed Pillow follows; to compare pixels with it."""
    return "pillow12" if int(PIL.__version__.split(".")[0]) <= 12 else "pillow13"


def pillow_difference(encoded: bytes, allow_warnings: bool = False) -> int:
    """How far the pixels of a whole JPEG file are from Pillow's at most, in levels of 255; 0 for other files.

    They are equal wherever a file is sound. What lies in a damaged file, and above all in a progressive one
    that ends early, two versions of libjpeg-turbo make up differently.

    Raises ImageError where fkdx or Pillow refuses the file.
    """
    if not _C.is_jpeg(encoded):
        return 0
    height, width = _decoder().read_size(encoded)
    ours = _decoder().decode_box(encoded, 0, 0, height, width, allow_warnings, False, whole_file=True)
    theirs = _pillow_pixels(encoded)
    if np.array_equal(ours, theirs):
        return 0
    return int(np.abs(ours.astype(np.int16) - theirs).max())


def decoder() -> str:
    """What decodes images here: libraries and versions, of which the pixels of damaged files may depend."""
    info = _C.build_info()
    huffman = "with our Huffman decoder" if info["jpeg_huffman"] else "alone"
    return f"libjpeg-turbo {info['jpeg']} {huffman} for JPEG, Pillow {PIL.__version__} for the rest"


@contextmanager
def _path_in_errors(data: bytes | str | os.PathLike[str]) -> Iterator[None]:
    """Adds the path to errors that only know what is wrong with the bytes."""
    try:
        yield
    except _C.ImageError as error:
        if isinstance(data, bytes):
            raise
        raise _C.ImageError(f"{error}, {os.fspath(data)}") from None


def _decoder() -> _C.CropDecoder:
    if not hasattr(_thread, "decoder"):
        _thread.decoder = _C.CropDecoder()
    return _thread.decoder


def _encoded(data: bytes | str | os.PathLike[str]) -> bytes:
    encoded = data if isinstance(data, bytes) else Path(data).read_bytes()
    if not encoded:
        raise _C.ImageError("image: size, got an empty file, expected an image")
    return encoded


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        start = encoded[:8].hex(" ")
        raise _C.ImageError(
            f"image: format, got bytes {start} ..., expected an image that Pillow reads"
        ) from None
    except Exception as error:  # plugins raise whatever comes: NotImplementedError, struct.error ...
        raise _C.ImageError(f"image: header, got a corrupt file: {_said(error)}") from None


def _pillow_pixels(encoded: bytes) -> np.ndarray:
    with _open(encoded) as image:
        try:
            return np.ascontiguousarray(image.convert("RGB"))
        except Exception as error:  # RuntimeError of AVIF, IndexError of GIF ...
            raise _C.ImageError(f"image: {image.format} data, got a corrupt file: {_said(error)}") from None


def _said(error: Exception) -> str:
    """The text of an error, or its class where it has none."""
    return str(error) or type(error).__name__


def _checked_crops(name: str, boxes: npt.ArrayLike, flips: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.asarray(boxes)
    flips = np.asarray(flips)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.issubdtype(boxes.dtype, np.integer):
        refuse(name, "boxes", f"{boxes.dtype} {boxes.shape}", "integers (m, 4)")
    if flips.shape != boxes.shape[:1]:
        refuse(name, "flips", flips.shape, boxes.shape[:1])
    bits = flips.dtype == bool or (flips.dtype.kind in "iuf" and np.isin(flips, (0, 1)).all())
    if not bits and flips.size:
        refuse(name, "flips", f"{flips.dtype} {flips[:4].tolist()}", "bool, or 0 and 1")
    if boxes.size and (boxes.min() < -(2**31) or boxes.max() >= 2**31):
        refuse(name, "boxes", f"{boxes.min()} .. {boxes.max()}", "32-bit integers")
    return np.ascontiguousarray(boxes, np.int32), np.ascontiguousarray(flips, bool).view(np.uint8)


def _checked_options(name: str, size: int, interpolation: str, resample: str) -> tuple[bool, bool]:
    if not 1 <= whole(name, "size", size) <= 16384:
        refuse(name, "size", size, "1 .. 16384")
    if interpolation not in INTERPOLATIONS:
        refuse(name, "interpolation", repr(interpolation), " or ".join(INTERPOLATIONS))
    if resample not in RESAMPLES:
        refuse(name, "resample", repr(resample), " or ".join(RESAMPLES))
    return interpolation == "bicubic", resample == "pillow13"
