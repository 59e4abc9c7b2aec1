"""Online teachers: they answer for the very images that the student sees."""

from collections.abc import Iterable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from fkdx.models.teacher import Preprocess, Teacher, combined


class OnlineTeachers:
    """The answer of one or several frozen teachers, each at its own resolution.

    ValueError if they have different numbers of outputs.
    """

    def __init__(self, teachers: Iterable[Teacher]) -> None:
        self.teachers = list(teachers)
        outputs = {teacher.name: teacher.num_outputs for teacher in self.teachers}
        if len(set(outputs.values())) > 1:
            raise ValueError(f"teacher: outputs, got {outputs}, expected the same number of all teachers")
        self.num_outputs = self.teachers[0].num_outputs

    def __call__(
        self, images: Tensor, mean: Sequence[float], std: Sequence[float], temperature: float = 1.0
    ) -> Tensor:
        """Logits (B, C) float32, without a gradient, for a student's images (B, 3, S, S).

        mean, std: by which the images are normalised. Of several teachers: logits whose softmax at
        `temperature` is the mean of all of theirs.
        """
        answers = [
            teacher(seen_by(teacher.preprocess, images, mean, std)).clone()  # leaves inference mode
            for teacher in self.teachers
        ]
        return answers[0] if len(answers) == 1 else temperature * combined(answers, temperature)


@cache  # a copy to a GPU waits for all that runs there
def _channels(numbers: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=device)[:, :, None, None]


def seen_by(wanted: Preprocess, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as another model expects them. Mixed or erased parts stay as they are."""
    if (*mean, *std) != (*wanted.mean, *wanted.std):
        numbers = tuple(mean), tuple(std), tuple(wanted.mean), tuple(wanted.std)
        ours, spread, theirs, wanted_spread = _channels(numbers, images.device)
        images = (images.float() * spread + ours - theirs) / wanted_spread
    if images.shape[-1] == wanted.size:
        return images
    size = (wanted.size, wanted.size)
    return functional.interpolate(images.float(), size, mode=wanted.interpolation, antialias=True)
