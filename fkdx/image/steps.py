"""Steps of augmentation as a label file keeps them: names and numbers; `augment` applies them.

This part needs no torch, because label sets are packed without it.
"""

import json
from collections.abc import Sequence

Step = list  # a name and its numbers
FORM = "steps"  # of the label file's extra bytes
PAIRED = "paired steps"  # of mixed crops: each has its own steps and those of the crop it is mixed with
NAMES = (  # of all steps; `augment.OPERATIONS` has what each of them does
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "rotate",
    "shear",
    "translate",
    "erase",
)


def are_steps(form: str | None, operations: Sequence[str], paired: bool = False) -> bool:
    """Whether the further operations named in a label file's header can be repeated here.

    `paired`: by somebody who repeats those of the partners of mixed crops, too.
    """
    return (form == FORM or (paired and form == PAIRED)) and set(operations) <= set(NAMES)


def encode(steps: Sequence[Sequence[Step]]) -> bytes:
    """The extra bytes of an image's crops, the steps of each."""
    return json.dumps(steps, separators=(",", ":")).encode()


def decode(data: bytes) -> list[list[Step]]:
    """The steps of every crop. ValueError if the bytes have another form."""
    steps = json.loads(data)
    if not isinstance(steps, list) or not all(isinstance(crop, list) for crop in steps):
        raise ValueError("augment: extra bytes, expected a list of steps for every crop")
    return steps


def decode_pairs(data: bytes) -> list[tuple[list[Step], list[Step]]]:
    """The steps of every crop and of the one that it is mixed with. ValueError if the bytes have another
    form."""
    pairs = decode(data)
    if not all(len(pair) == 2 and all(isinstance(one, list) for one in pair) for pair in pairs):
        raise ValueError("augment: extra bytes, expected two lists of steps for every crop")
    return [(own, other) for own, other in pairs]
