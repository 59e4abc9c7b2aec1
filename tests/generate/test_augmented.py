"""Strong augmentation in a labelling job: the student sees what the teacher saw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from generating import CROPS, SIZE, changed, replayed, teacher_inputs
from PIL import Image

from fkdx import CropLoader, LabelFile, LabelWriter, cli
from fkdx.image.augment import AUGMENTS

EVERY = ["--augment", *AUGMENTS]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("swirl", "name, got 'swirl', expected one of color_jitter"),
        ("erase=often", "erase, got 'erase=often', expected erase=PROBABILITY"),
        ("erase=0.1,0.2", "expected erase=PROBABILITY"),
        ("erase=1.5", "erase's probability, got 1.5, expected 0 ... 1"),
        ("erase=nan", "erase's probability, got nan"),
        ("rand_augment=2.5", "operations, got 2.5, expected 1 ... 14"),
        ("rand_augment=2,31", "magnitude, got 31.0, expected 0 ... 30"),
        ("color_jitter=-1", "expected 0 ... 1"),
        ("color_jitter=0.4,nan", "expected 0 ... 1"),
        ("color_jitter=0,0,0,0.6", "hue, got 0.6, expected 0 ... 0.5"),
    ],
)
def test_words_that_are_no_augmentation_are_refused(job_options, word: str, said: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run("generate", [*job_options[:-2], "--augment", word, *job_options[-2:]])
    assert said in capsys.readouterr().err.split("--augment: ")[1]


@pytest.mark.parametrize("more", [[], ["--mixup", "0.8", "--cutmix", "1"]], ids=["plain", "mixed"])
def test_a_student_sees_what_the_teacher_saw(job_options, job_images, more) -> None:
    with teacher_inputs() as seen:
        assert cli.run("generate", [*job_options[:-2], *more, *EVERY, *job_options[-2:]]) == 0
    labels = LabelFile(job_options[-1])
    student = replayed(job_images, labels)
    places = [(key, crop) for key in labels.keys for crop in range(CROPS)]
    for row, place in zip(torch.cat(seen[1:]), places, strict=True):
        assert torch.equal(row, student[place])
    kept = [json.loads(image.extra) for image in labels]
    assert all(len(steps) == CROPS for steps in kept)
    assert {step[0] for steps in kept for crop in steps for step in crop} > {"hue", "brightness"}
    assert labels.header["extra"]["augment"] == list(AUGMENTS)


def test_augmentation_changes_labels_but_not_crops(job_options: list[str], tmp_path: Path) -> None:
    files = []
    for name, more in (("a", []), ("b", EVERY)):
        run = changed(job_options, output=tmp_path / f"{name}.fkdl")
        assert cli.run("generate", [*run[:-2], *more, *run[-2:]]) == 0
        files.append(LabelFile(run[-1]))
    for plain, strong in zip(*files, strict=True):
        np.testing.assert_array_equal(plain.boxes, strong.boxes)
        assert (plain.values != strong.values).any()


def test_a_bad_image_takes_its_steps_with_it(job_options, job_images: Path, tmp_path: Path) -> None:
    assert cli.run("generate", [*job_options[:-2], *EVERY, *job_options[-2:]]) == 0
    labels = LabelFile(job_options[-1])
    student = replayed(job_images, labels)
    for path in job_images.glob("*/*.jpg"):
        target = tmp_path / "spoilt" / path.relative_to(job_images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no image" if path.stem == "1" else path.read_bytes())
    loader = CropLoader(tmp_path / "spoilt", labels, 12 * 2, 2, SIZE, on_error="skip")
    with pytest.warns(UserWarning, match="skipped"):
        (batch,) = list(loader)
    for key, crop, row in zip(batch.keys, batch.crops.tolist(), batch.images):
        pixels = (row.permute(2, 0, 1) / 255 - 0.5) / 0.5
        torch.testing.assert_close(pixels, student[key, crop], rtol=0, atol=1e-5)


def test_steps_missing_from_a_file_name_the_image(job_images: Path, tmp_path: Path) -> None:
    extra = {"operations": ["equalize"], "form": "steps"}
    with LabelWriter(tmp_path / "x.fkdl", num_classes=3, k=1, extra=extra) as writer:
        for path in job_images.glob("*/*.jpg"):
            width, height = Image.open(path).size
            crop = [[0, 0, height, width]], [False], [[0]], [[1.0]], (height, width)
            writer.add(path.relative_to(job_images).as_posix(), *crop, extra=b"[]")
    with pytest.raises(ValueError, match=r"steps of .*jpg: list index out of range.*x\.fkdl"):
        next(iter(CropLoader(job_images, tmp_path / "x.fkdl", 4, 1, SIZE)))
