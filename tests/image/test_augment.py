"""Strong augmentation: each step is what torchvision does."""

import subprocess
import sys

import numpy as np
import pytest
from images import photo
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from fkdx.image.augment import AUGMENTS, OPERATIONS, Augment, augmented
from fkdx.image.steps import NAMES, decode, encode

DEFAULTS = ("erase=0.25", "rand_augment=2,9", "color_jitter=0.4,0.4,0.4,0.1")
TORCHVISIONS = {
    "ShearX": lambda m: ["shear", m, 0],
    "ShearY": lambda m: ["shear", 0, m],
    "TranslateX": lambda m: ["translate", m * 3, 0],
    "TranslateY": lambda m: ["translate", 0, m * 3],
    "Rotate": lambda m: ["rotate", m * 100],
    "Brightness": lambda m: ["brightness", 1 + m],
    "Color": lambda m: ["saturation", 1 + m],
    "Contrast": lambda m: ["contrast", 1 + m],
    "Sharpness": lambda m: ["sharpness", 1 + m],
    "Posterize": lambda m: ["posterize", 3],
    "Solarize": lambda m: ["solarize", 178.5],
    "AutoContrast": lambda m: ["autocontrast"],
    "Equalize": lambda m: ["equalize"],
}


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_a_step_is_torchvisions_operation(name: str, rng: np.random.Generator) -> None:
    for side in (32, 57, 224):
        crop, strength = photo(rng, side, side), float(rng.uniform(-0.3, 0.3))
        step = TORCHVISIONS[name](strength)
        magnitude = {
            "Rotate": strength * 100,
            "TranslateX": strength * 3 * side,
            "TranslateY": strength * 3 * side,
            "Posterize": 3,
            "Solarize": 178.5,
        }.get(name, strength)
        expected = _apply_op(Image.fromarray(crop), name, magnitude, InterpolationMode.NEAREST, None)
        np.testing.assert_array_equal(augmented(crop, [step]), np.asarray(expected))


def test_erasing_blackens_its_rectangle_alone(rng: np.random.Generator) -> None:
    crop = photo(rng, 40, 40) | 1
    erased = augmented(crop, [["erase", 0.25, 0.5, 0.5, 0.1]])
    expected = crop.copy()
    expected[10:30, 20:24] = 0
    np.testing.assert_array_equal(erased, expected)


def test_drawn_steps_depend_on_seed_key_and_crop_alone() -> None:
    augment = Augment(tuple(AUGMENTS), 3)
    many = augment.draw("a/b.jpg", 300)
    assert augment.draw("a/b.jpg", 5) == many[:5]
    assert Augment(tuple(AUGMENTS), 4).draw("a/b.jpg", 5) != many[:5]
    assert augment.draw("a/c.jpg", 5) != many[:5]
    assert {step[0] for steps in many for step in steps} == set(OPERATIONS)
    assert decode(encode(many)) == many
    rectangles = [step[1:] for steps in many for step in steps if step[0] == "erase"]
    assert 45 < len(rectangles) < 105
    for top, left, height, width in rectangles:
        assert height > 0
        assert top + height <= 1.0001
        assert left + width <= 1.0001
        assert 0.01 < height * width < 0.34


def test_strengths_are_what_the_words_say() -> None:
    def numbers(word: str, name: str, seed: int = 3) -> list[float]:
        drawn = Augment((word,), seed).draw("a/b.jpg", 400)
        return [step[-1] for steps in drawn for step in steps if step[0] == name]

    for name, words in (("brightness", "0.7"), ("contrast", "0,0.7"), ("saturation", "0,0,0.7")):
        found = numbers(f"color_jitter={words}", name)
        assert (round(min(found), 1), round(max(found), 1)) == (0.3, 1.7)
    assert 0.28 < max(numbers("color_jitter=0,0,0,0.3", "hue")) <= 0.3
    assert set(numbers("color_jitter=0", "brightness")) == {1.0}
    assert set(map(abs, numbers("rand_augment=1,20", "rotate"))) == {20}
    assert 40 < len(numbers("rand_augment=5", "equalize")) < 250
    assert len(numbers("erase=1", "erase")) == 400
    assert numbers("erase=0", "erase") == []
    plain, spelt = (Augment(words, 3).draw("k", 50) for words in (tuple(AUGMENTS), DEFAULTS))
    assert plain == spelt


def test_steps_that_nobody_knows_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="operation, got 'swirl', expected one of brightness"):
        augmented(photo(rng, 8, 8), [["swirl", 1]])
    with pytest.raises(ValueError, match=r"numbers of rotate, got \['far'\]"):
        augmented(photo(rng, 8, 8), [["rotate", "far"]])
    with pytest.raises(ValueError, match="expected a list of steps"):
        decode(b'{"a": 1}')
    with pytest.raises(ValueError, match="Expecting value"):
        decode(b"")


def test_every_step_that_a_file_may_name_can_be_done():
    assert tuple(OPERATIONS) == NAMES


def test_labels_are_packed_without_torch():
    code = "import sys, fkdx.importers, fkdx.commands.pack; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
