"""Colour jitter, RandAugment and random erasing of stored crops: drawn once, kept as steps, repeated exactly.

A step is a list of a name of OPERATIONS and its numbers; docs/format.md says what each of them does. The
pixels are Pillow's, through torchvision's functions of the same names.
"""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

from fkdx.crops import crop_stream

Step = list  # a name and its numbers
STREAM = 4  # of random numbers, beside those of boxes and partners
FORM = "steps"  # of the label file's extra bytes


def _shear(image: Image.Image, x: float, y: float) -> Image.Image:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(image, 0.0, [0, 0], 1.0, angles, center=[0, 0])


def _translate(image: Image.Image, x: float, y: float) -> Image.Image:
    shift = [int(x * image.width), int(y * image.height)]
    return F.affine(image, 0.0, shift, 1.0, [0.0, 0.0])


def _erase(image: Image.Image, top: float, left: float, height: float, width: float) -> Image.Image:
    size = np.array([image.height, image.width] * 2)
    top, left, bottom, right = np.rint(size * [top, left, top + height, left + width]).astype(int).tolist()
    image = image.copy()
    image.paste((0, 0, 0), (left, top, right, bottom))
    return image


OPERATIONS: dict[str, Callable[..., Image.Image]] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
    "sharpness": F.adjust_sharpness,
    "posterize": F.posterize,
    "solarize": F.solarize,
    "autocontrast": F.autocontrast,
    "equalize": F.equalize,
    "rotate": F.rotate,
    "shear": _shear,
    "translate": _translate,
    "erase": _erase,
}


def augmented(crop: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """A crop (S, S, 3) uint8 after all its steps. ValueError for a step of another name or numbers."""
    image = Image.fromarray(crop)
    for name, *numbers in steps:
        if name not in OPERATIONS:
            raise ValueError(f"augment: operation, got '{name}', expected one of {', '.join(OPERATIONS)}")
        try:
            image = OPERATIONS[name](image, *numbers)
        except TypeError as error:
            raise ValueError(f"augment: numbers of {name}, got {numbers} ({error})") from None
    return np.asarray(image)


def augment_rows(crops: np.ndarray, steps: Sequence[Sequence[Step]], threads: int) -> None:
    """Crops (B, S, S, 3) uint8 in place, each by its own steps, in so many threads. Errors as `augmented`."""

    def change(row: int) -> None:
        if steps[row]:
            crops[row] = augmented(crops[row], steps[row])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(change, range(len(steps))))


def are_steps(form: str | None, operations: Sequence[str]) -> bool:
    """Whether further operations that a label file's header tells of can be repeated here."""
    return form == FORM and OPERATIONS.keys() >= set(operations)


def encode(steps: Sequence[Sequence[Step]]) -> bytes:
    """The extra bytes of an image's crops, the steps of each."""
    return json.dumps(steps, separators=(",", ":")).encode()


def decode(data: bytes) -> list[list[Step]]:
    """The steps of every crop. ValueError where the bytes are of another form."""
    steps = json.loads(data)
    if not isinstance(steps, list) or not all(isinstance(crop, list) for crop in steps):
        raise ValueError("augment: extra bytes, expected a list of steps for every crop")
    return steps


# ---- drawing --------------------------------------------------------------------------------------------


def color_jitter(rng: np.random.Generator) -> list[Step]:
    """Brightness, contrast and saturation by 0.6 ... 1.4 and hue by -0.1 ... 0.1, in any order."""
    steps = [[name, _short(rng.uniform(0.6, 1.4))] for name in ("brightness", "contrast", "saturation")]
    steps.append(["hue", _short(rng.uniform(-0.1, 0.1))])
    return [steps[i] for i in rng.permutation(4)]


def rand_augment(rng: np.random.Generator) -> list[Step]:
    """Two of torchvision's 14 operations at magnitude 9 of 30 (Cubuk et al., RandAugment, 2020)."""
    part, steps = 9 / 30, []
    for choice in rng.integers(14, size=2):
        sign = 1 if rng.random() < 0.5 else -1
        shear, shift = _short(sign * 0.3 * part), _short(sign * 150 / 331 * part)
        factor = _short(1 + sign * 0.9 * part)
        steps += [
            [],
            [["shear", shear, 0]],
            [["shear", 0, shear]],
            [["translate", shift, 0]],
            [["translate", 0, shift]],
            [["rotate", sign * 30 * part]],
            [["brightness", factor]],
            [["saturation", factor]],
            [["contrast", factor]],
            [["sharpness", factor]],
            [["posterize", 8 - round(4 * part)]],
            [["solarize", 255 * (1 - part)]],
            [["autocontrast"]],
            [["equalize"]],
        ][choice]
    return steps


def erase(rng: np.random.Generator) -> list[Step]:
    """A black rectangle of 2 ... 33 % of every fourth crop, 0.3 ... 3.3 times as high as wide (Zhong et al.,
    Random Erasing, 2020)."""
    if rng.random() >= 0.25:
        return []
    area, aspect = rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    height, width = min(1.0, math.sqrt(area * aspect)), min(1.0, math.sqrt(area / aspect))
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    return [["erase", *map(_short, (top, left, height, width))]]


def _short(number: float) -> float:
    """What is applied is what is stored, and four digits are enough."""
    return round(float(number), 4)


AUGMENTS = {"color_jitter": color_jitter, "rand_augment": rand_augment, "erase": erase}


@dataclass(frozen=True)
class Augment:
    """The augmentations of these names, in the order of AUGMENTS, for all crops of a data set."""

    names: tuple[str, ...]
    seed: int

    def draw(self, key: str, crops: int) -> list[list[Step]]:
        """The steps of an image's crops, from (seed, key, crop index) alone."""
        stream = crop_stream(self.seed, key, STREAM)
        return [self._draw(np.random.default_rng([stream, crop])) for crop in range(crops)]

    def _draw(self, rng: np.random.Generator) -> list[Step]:
        return [step for name, draw in AUGMENTS.items() if name in self.names for step in draw(rng)]

    def extra(self) -> dict:
        """What the header of a label file says of them."""
        return {"operations": list(OPERATIONS), "form": FORM, "augment": list(self.names)}
