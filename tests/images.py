"""Images that tests make for themselves: something like a photo, and every kind of JPEG."""

import io
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from fkdx import _C, reference

try:
    import cv2  # changes LD_LIBRARY_PATH when it is imported: before the first test, not in one
except ModuleNotFoundError:  # it has no wheel for a Python without the GIL
    cv2 = None

# The order of passes that the installed Pillow follows.
OWN_RULE = "pillow12" if int(PIL.__version__.split(".")[0]) <= 12 else "pillow13"

PILLOW_KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True, "subsampling": 2},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restarts": {"restart_marker_blocks": 3, "subsampling": 2},
    "optimized": {"optimize": True, "quality": 30},
    "rgb": {"keep_rgb": True},
    "gray": {},
    "gray progressive": {"progressive": True},
    "cmyk": {},
    "ycck": {},
}
OPENCV_KINDS = {"4:4:0": 0x121111, "4:1:1": 0x411111}
JPEG_KINDS = [*PILLOW_KINDS, *(OPENCV_KINDS if cv2 else ())]


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: coarse colours with noise on top."""
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.integers(-30, 31, smooth.shape), 0, 255).astype(np.uint8)


def save_image(path: Path, pixels: np.ndarray, form: str = "JPEG", **options: object) -> None:
    """An image file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, form, **options)


def draw_images(root: Path, keys: Iterable[str], pixels: Callable[[str], np.ndarray]) -> Path:
    """JPEG files under these names, of the pixels (height, width, 3) of each; the folder."""
    for key in keys:
        save_image(root / key, pixels(key), quality=90)
    return root


def draw_black(root: Path, keys: Iterable[str], rng: np.random.Generator) -> Path:
    """Black images of different sizes under these names; the folder."""
    return draw_images(root, keys, lambda _: np.zeros((*rng.integers(40, 90, 2), 3), np.uint8))


def encode(rng: np.random.Generator, kind: str, height: int, width: int) -> bytes:
    """A JPEG file of one of JPEG_KINDS."""
    pixels = photo(rng, height, width)
    if kind in OPENCV_KINDS:
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, OPENCV_KINDS[kind]]
        return cv2.imencode(".jpg", pixels, options)[1].tobytes()
    image = Image.fromarray(pixels)
    if kind.startswith("gray"):
        image = image.convert("L")
    if kind in ("cmyk", "ycck"):
        image = Image.merge("CMYK", [*image.split(), image.convert("L")])
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": int(rng.integers(40, 96)), **PILLOW_KINDS[kind]})
    data = stream.getvalue()
    if kind == "ycck":  # the byte of the Adobe marker that names the colour transform
        at = data.index(b"Adobe") + 11
        data = data[:at] + b"\x02" + data[at + 1 :]
    return data


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """(count, 4) int32: top, left, height and width of boxes inside the image."""
    sides = rng.integers(1, [height + 1, width + 1], (count, 2))
    corners = rng.integers(0, [height, width] - sides + 1)
    return np.concatenate([corners, sides], 1).astype(np.int32)


def with_size(data: bytes, height: int, width: int) -> bytes:
    """The same JPEG file, claiming another size in its header."""
    start = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: start + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[start + 9 :]


def other_jfif(data: bytes) -> bytes:
    """The same JPEG file under an unknown JFIF version, which changes no pixel."""
    at = data.index(b"JFIF\0") + 5
    return data[:at] + b"\2" + data[at + 1 :]


def cut_short(data: bytes) -> bytes:
    """The first four fifths of a JPEG file: libjpeg decodes it with a warning."""
    return data[: len(data) * 4 // 5]


def unfinished(data: bytes) -> bytes:
    """A progressive JPEG file without its last scans, properly closed: no decoder warns, each guesses."""
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    return data[: scans[len(scans) // 2]] + b"\xff\xd9"


def sealed(entries: bytes) -> bytes:
    """Coded entry points with the right checksum."""
    return _C.crc32c(entries[4:]).to_bytes(4, "little") + entries[4:]


def _coded(orders: bytes, points: list[list[int]]) -> bytes:
    """The codes of the numbers of each point, before they are folded to be positive."""
    text = ""
    for numbers in points:
        for order, number in zip(orders, numbers, strict=True):
            bits = f"{(2 * number if number >= 0 else -2 * number - 1) + 2**order:b}"
            text += "0" * (len(bits) - order - 1) + bits
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def write_entry_points(
    image: bytes, change: dict[tuple[int, int], int] | None = None, shift: int = 0
) -> bytes:
    """Entry points before every unit, with every checksum right, of a baseline JPEG without restarts.

    Args:
        change: what is added to (point, field). Point 0 is the start of the scan and is not written; field 0
            is the place in bits, 1, 2 and 3 are the predictors.
        shift: what is added to the first predictor of all points, so that none contradicts another.
    """
    _, columns, states = reference.stores.huffman_states(image)
    points = [[8 * byte + bit, *dc] for byte, bit, *dc in states]
    for point in points[1:]:
        point[1] += shift
    for (point, part), more in (change or {}).items():
        points[point][part] += more
    numbers = []
    for i in range(1, len(points)):
        model = i - columns if i >= columns else i - 1
        way = points[model][0] - points[model - 1][0] if model else 0
        dcs = zip(points[i][1:], points[model][1:])
        numbers.append([points[i][0] - points[i - 1][0] - way, *(dc - other for dc, other in dcs)])
    orders = bytes([8, *[3] * (len(points[0]) - 1)])
    head = struct.pack("<4xIIH", _C.crc32c(image), len(image), 1)
    return sealed(head + orders + _coded(orders, numbers))
