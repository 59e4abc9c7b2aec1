"""Colour jitter, RandAugment and random erasing of stored crops: drawn once, stored as steps, repeated
exactly.

A step is a list: a name in OPERATIONS and its numbers; docs/format.md says what each operation does. The
pixels are Pillow's, through torchvision's functions of the same names.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from PIL import Image
from torchvision.transforms import functional as F

from fkdx.errors import expect
from fkdx.image.random_boxes import Draws, crop_stream
from fkdx.image.steps import FORM, Step
from fkdx.system import submit

_expect = partial(expect, "augment")


def _shear(image: Image.Image, x: float, y: float) -> Image.Image:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(image, 0.0, [0, 0], 1.0, angles, center=[0, 0])


def _translate(image: Image.Image, x: float, y: float) -> Image.Image:
    shift = [int(x * image.width), int(y * image.height)]
    return F.affine(image, 0.0, shift, 1.0, [0.0, 0.0])


def _erase(
    image: Image.Image, top: float, left: float, height: float, width: float, *colour: int
) -> Image.Image:
    size = np.array([image.height, image.width] * 2)
    top, left, bottom, right = np.rint(size * [top, left, top + height, left + width]).astype(int).tolist()
    image = image.copy()
    image.paste(colour or (0, 0, 0), (left, top, right, bottom))
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
    """A crop (S, S, 3) uint8 after all its steps. ValueError for an unknown step or wrong numbers."""
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
    """Augments crops (B, S, S, 3) uint8 in place, each by its own steps; raises what `augmented` raises."""

    def change(row: int) -> None:
        if steps[row]:
            crops[row] = augmented(crops[row], steps[row])

    with ThreadPoolExecutor(threads) as pool:
        for done in [submit(pool, change, row) for row in range(len(steps))]:
            done.result()


# ---- drawing --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation change by a factor of 1 - strength ... 1 + strength, the hue by
    -strength ... strength, in random order."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __post_init__(self) -> None:
        strengths = self._factors()
        in_range = all(0 <= strength <= 1 for strength in strengths.values())  # not for NaN
        _expect(in_range, "color_jitter", strengths, "0 ... 1")
        _expect(0 <= self.hue <= 0.5, "color_jitter's hue", self.hue, "0 ... 0.5")

    def _factors(self) -> dict[str, float]:
        return {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}

    def draw(self, rng: np.random.Generator) -> list[Step]:
        steps = [[name, _short(rng.uniform(1 - most, 1 + most))] for name, most in self._factors().items()]
        steps.append(["hue", _short(rng.uniform(-self.hue, self.hue))])
        return [steps[i] for i in rng.permutation(4)]


@dataclass(frozen=True)
class RandAugment:
    """`operations` of torchvision's 14 operations, drawn at random, at `magnitude` (0 ... 30) (Cubuk et al.,
    RandAugment, 2020)."""

    operations: float = 2
    magnitude: float = 9

    def __post_init__(self) -> None:
        whole = self.operations in range(1, 15)
        _expect(whole, "rand_augment's operations", self.operations, "1 ... 14")
        _expect(0 <= self.magnitude <= 30, "rand_augment's magnitude", self.magnitude, "0 ... 30")

    def draw(self, rng: np.random.Generator) -> list[Step]:
        part, steps = self.magnitude / 30, []
        for choice in rng.integers(14, size=int(self.operations)):
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


@dataclass(frozen=True)
class RandomErasing:
    """With `probability`, a black rectangle of 2 ... 33 % of the crop, 0.3 ... 3.3 times as high as wide
    (Zhong et al., Random Erasing, 2020)."""

    probability: float = 0.25

    def __post_init__(self) -> None:
        _expect(0 <= self.probability <= 1, "erase's probability", self.probability, "0 ... 1")

    def draw(self, rng: np.random.Generator) -> list[Step]:
        if rng.random() >= self.probability:
            return []
        area, aspect = rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        height, width = min(1.0, math.sqrt(area * aspect)), min(1.0, math.sqrt(area / aspect))
        top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
        return [["erase", *map(_short, (top, left, height, width))]]


def _short(number: float) -> float:
    """Rounded to four digits, so that what is applied is exactly what is stored."""
    return round(float(number), 4)


AUGMENTS = {"color_jitter": ColorJitter, "rand_augment": RandAugment, "erase": RandomErasing}


def augment_of(word: str) -> tuple[str, ColorJitter | RandAugment | RandomErasing]:
    """The name in AUGMENTS and the augmentation of a word such as `rand_augment=2,9`; numbers left out at its
    end have their defaults. ValueError for any other word."""
    name, _, numbers = word.partition("=")
    _expect(name in AUGMENTS, "name", repr(name), f"one of {', '.join(AUGMENTS)}")
    names = [field.name for field in fields(AUGMENTS[name])]
    try:
        strengths = [float(number) for number in numbers.split(",")] if numbers else []
    except ValueError:
        strengths = None
    fits = strengths is not None and len(strengths) <= len(names)
    _expect(fits, name, repr(word), f"{name}={','.join(names).upper()}")
    return name, AUGMENTS[name](*strengths)


@dataclass(frozen=True)
class Augment:
    """The augmentations of these words, as `augment_of` reads them, for all crops of a data set. They are
    applied in the order of AUGMENTS."""

    words: tuple[str, ...]
    seed: int

    def draw(self, key: str, crops: int) -> list[list[Step]]:
        """The steps of an image's crops, from (seed, key, crop index) alone."""
        stream, augments = crop_stream(self.seed, key, Draws.AUGMENTS), dict(map(augment_of, self.words))
        in_order = [augments[name] for name in AUGMENTS if name in augments]
        steps = []
        for crop in range(crops):
            rng = np.random.default_rng([stream, crop])
            steps.append([step for augment in in_order for step in augment.draw(rng)])
        return steps

    def extra(self) -> dict:
        """What the header of a label file records about them."""
        return {"operations": list(OPERATIONS), "form": FORM, "augment": list(self.words)}
