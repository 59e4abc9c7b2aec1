"""Stored crops that were mixed with crops of other images come out of the loader as the teacher saw them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from images import encode
from label_draws import write_mixed_shards
from PIL import Image

from fkdx import CropLoader, LabelFile, LabelWriter, reference
from fkdx.batch import prepare
from fkdx.image.augment import augmented
from fkdx.image.random_boxes import random_boxes
from fkdx.image.steps import NAMES, PAIRED, decode_pairs
from fkdx.image.steps import encode as encode_steps
from fkdx.labels import Mixes
from fkdx.loader.partners import scale_boxes

CROPS, SIDE = 6, 32
KEYS = [f"{name}/{number}.jpg" for name in ("ant", "bee") for number in range(7)]
ALONE = "bee/alone.jpg"  # no crops of its own: only a partner
AS_BYTES = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # prepare gives pixels in 0 ... 255


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    for key in (*KEYS, ALONE):
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng, "4:2:0", *rng.integers(40, 90, 2).tolist()))
    return tmp_path / "images"


def crop_of(images: Path, key: str, rng: np.random.Generator, ratios: bool) -> tuple:
    """A random box of an image, in pixels or parts of it, and a flip."""
    width, height = Image.open(images / key).size
    boxes, flips = random_boxes((height, width), int(rng.integers(1000)), key, 1)
    return (boxes[0] / [height, width, height, width] if ratios else boxes[0]), flips[0]


def write_mixed(
    images: Path,
    rng: np.random.Generator,
    ratios: bool = False,
    operations: tuple[int, ...] = (0, 1, 2, 3),
    steps: list[list] | None = None,
) -> LabelFile:
    """Labels of all sorts of mixes; crops and partners go through some of the `steps`."""
    path = images.parent / "labels.fkdl"
    kind = {"num_classes": 2, "k": 1, "ratios": ratios, "overwrite": True, "classes": ["ant", "bee"]}
    if steps:
        kind["extra"] = {"operations": list(NAMES), "form": PAIRED}
    with LabelWriter(path, images=[*KEYS, ALONE], mix_size=SIDE, **kind) as writer:
        for key in KEYS:
            own = [crop_of(images, key, rng, ratios) for _ in range(CROPS)]
            boxes, flips = zip(*own)
            chosen = rng.choice(operations, CROPS)
            partners = [ALONE, *rng.choice([*KEYS, ALONE], CROPS - 1).tolist()]
            other = [crop_of(images, partner, rng, ratios) for partner in partners]
            corners = rng.integers(0, SIDE, (CROPS, 2))
            cuts = np.concatenate([corners, rng.integers(1, SIDE + 1 - corners)], axis=1)
            mixed = chosen > 0
            mixes = Mixes(
                [partner if on else None for partner, on in zip(partners, mixed)],
                np.stack([box for box, _ in other]) * mixed[:, None],
                np.array([flip for _, flip in other]) & mixed,
                chosen,
                np.where(mixed, rng.random(CROPS), 0).astype(np.float32),
                cuts * (chosen & 2 > 0)[:, None],
            )
            size = None if ratios else Image.open(images / key).size[::-1]
            ids = np.full((CROPS, 1), KEYS.index(key) // 7)
            drawn = (
                [[[steps[rng.integers(len(steps))]] for _ in range(2)] for _ in range(CROPS)] if steps else 0
            )
            extra = encode_steps(drawn) if steps else b""
            writer.add(key, np.stack(boxes), flips, ids, np.ones((CROPS, 1)), size, mixes=mixes, extra=extra)
    return LabelFile(path)


def draw_steps(rng: np.random.Generator, steps: list[list]) -> list[list]:
    """A step for every crop and for every partner."""
    return [[[steps[rng.integers(len(steps))]] for _ in range(2)] for _ in range(CROPS)]


def slow_replay(images: Path, labels: LabelFile, key: str, crop: int, size: int) -> np.ndarray:
    """What the teacher saw, (S, S, 3) float64 in 0 ... 255, from the label file one crop at a time."""

    def cut(name: str, box: np.ndarray, flip: bool) -> np.ndarray:
        pixels = np.asarray(Image.open(images / name).convert("RGB"))
        if labels.ratios:
            (top, left, height, width), (h, w) = box.astype(np.float64), pixels.shape[:2]
            bottom, right = round((top + height) * h), round((left + width) * w)
            box = round(top * h), round(left * w), bottom - round(top * h), right - round(left * w)
        return reference.image.cut_crop(pixels, box, flip, size)

    stored = labels[key]
    own_steps, other_steps = decode_pairs(stored.extra)[crop] if stored.extra else ([], [])
    own = augmented(cut(key, stored.boxes[crop], stored.flips[crop]), own_steps)
    mixes = stored.mixes[crop : crop + 1]
    if not mixes.operations[0]:
        return own.astype(np.float64)
    other = augmented(cut(mixes.partners[0], mixes.boxes[0], mixes.flips[0]), other_steps)
    box = scale_boxes(mixes.mix_boxes[0], SIDE, size)
    return reference.batch.mix_views(own, other, mixes.operations[0], mixes.lambdas[0], box)


STEPS = [["solarize", 90.0], ["shear", 0.3, 0], ["erase", 0.1, 0.2, 0.5, 0.4], ["brightness", 1.4]]


WAYS = [(SIDE, False, None), (SIDE, True, None), (24, False, None), (SIDE, False, STEPS)]


@pytest.mark.parametrize(("size", "ratios", "steps"), WAYS)
def test_mixed_crops_are_what_the_teacher_saw(
    images: Path, rng: np.random.Generator, size: int, ratios: bool, steps: list | None
):
    labels = write_mixed(images, rng, ratios, steps=steps)
    seen = set()
    for batch in CropLoader(images, labels, 2 * CROPS, CROPS, size):
        assert batch.mix is None or batch.mix.of(batch.target) is batch.target
        pixels = prepare(batch.images, **AS_BYTES, mix=batch.mix).permute(0, 2, 3, 1).numpy()
        for row, (key, crop) in enumerate(zip(batch.keys, batch.crops.tolist())):
            mixes = labels[key].mixes
            expected = slow_replay(images, labels, key, crop, size)
            # One rounding to float32, of 1 - lambda, and one of the result.
            np.testing.assert_allclose(pixels[row], expected, rtol=2e-7, atol=2e-5)
            if mixes.operations[crop] != 1:
                inside = np.s_[:] if mixes.operations[crop] != 3 else pasted(mixes.mix_boxes[crop], size)
                np.testing.assert_array_equal(pixels[row][inside], expected[inside])
            seen.add(int(mixes.operations[crop]))
    assert seen == {0, 1, 2, 3}


def pasted(box: np.ndarray, size: int) -> tuple[slice, slice]:
    top, left, height, width = scale_boxes(box, SIDE, size)
    return slice(top, top + height), slice(left, left + width)


@pytest.mark.parametrize("operations", [(0,), (2,), (1,)])
def test_a_mix_is_there_only_where_the_device_has_to_blend(images, rng, operations) -> None:
    labels = write_mixed(images, rng, operations=operations)
    batches = list(CropLoader(images, labels, 4, 2, SIDE))
    assert all((batch.mix is not None) == (operations == (1,)) for batch in batches)


def test_ranks_and_threads_do_not_change_the_mixes(images: Path, rng: np.random.Generator) -> None:
    labels = write_mixed(images, rng)

    def pixels(**options: int) -> list[torch.Tensor]:
        loader = CropLoader(images, labels, 8, 2, SIDE, **options)
        return [prepare(batch.images, mix=batch.mix) for batch in loader]

    whole = pixels(threads=1)
    parts = [pixels(threads=3, rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))


@pytest.mark.parametrize("ordered", [True, False])
def test_shards_give_the_batches_of_one_file(images: Path, rng: np.random.Generator, ordered: bool) -> None:
    labels = write_mixed(images, rng, ratios=bool(rng.integers(2)), steps=STEPS)
    shown = np.flatnonzero(labels.crop_counts)
    shown = shown if ordered else rng.permutation(shown)
    shards = write_mixed_shards(labels, images.parent / "set", np.array_split(shown, 3))
    assert len(shards) == len(labels)
    for options in ({}, {"check_images": True}, {"rank": 1, "world_size": 2}, {"seed": 3}):
        loaders = [CropLoader(images, each, 8, 2, SIDE, **options) for each in (labels, shards)]
        for epoch in (0, 2):
            for loader in loaders:
                loader.set_epoch(epoch)
            for batch, other in zip(*loaders, strict=True):
                assert batch.keys == other.keys
                same = [torch.equal(*(prepare(one.images, mix=one.mix) for one in (batch, other)))]
                same += [np.array_equal(batch.crops, other.crops), torch.equal(batch.classes, other.classes)]
                same += [torch.equal(batch.target.to_dense(), other.target.to_dense())]
                assert all(same)


@pytest.mark.gpu
def test_mixes_come_to_the_gpu(images: Path, rng: np.random.Generator) -> None:
    labels = write_mixed(images, rng)
    here, there = (CropLoader(images, labels, 14, 2, SIDE, device=device) for device in (None, "cuda"))
    for batch, other in zip(here, there, strict=True):
        assert other.images.is_cuda
        assert torch.equal(prepare(other.images, mix=other.mix).cpu(), prepare(batch.images, mix=batch.mix))


@pytest.mark.parametrize("steps", [None, STEPS], ids=["plain", "augmented"])
def test_a_bad_partner_is_an_error_or_gives_way(images: Path, rng: np.random.Generator, steps) -> None:
    labels = write_mixed(images, rng, operations=(1, 2, 3), steps=steps)
    whole = shutil.copytree(images, images.parent / "whole")
    (images / ALONE).write_bytes(b"\xff\xd8 no image")
    options = {"size": SIDE, "on_error": "skip"}
    with pytest.raises(ValueError, match=r"alone\.jpg"):
        list(CropLoader(images, labels, 14 * CROPS, CROPS, SIDE))
    loader = CropLoader(images, labels, 14, 1, **options, choice="cycle")
    with pytest.warns(UserWarning, match=r"alone\.jpg"):
        batches = [batch for _ in range(CROPS) for batch in loader]
    for batch in batches:
        pixels = prepare(batch.images, **AS_BYTES, mix=batch.mix).permute(0, 2, 3, 1).numpy()
        for row, (key, crop) in enumerate(zip(batch.keys, batch.crops.tolist())):
            assert labels[key].mixes.partners[crop] != ALONE
            expected = slow_replay(whole, labels, key, crop, SIDE)
            np.testing.assert_allclose(pixels[row], expected, rtol=2e-7, atol=2e-5)


def test_a_partner_that_is_absent_is_named(images: Path, rng: np.random.Generator) -> None:
    labels = write_mixed(images, rng, operations=(1,))
    (images / ALONE).unlink()
    loader = CropLoader(images, labels, len(KEYS) * CROPS, CROPS, SIDE)
    with pytest.raises(OSError, match=r"cannot open .*bee/alone\.jpg"):
        next(iter(loader))
    loader = CropLoader(images, labels, len(KEYS) * CROPS, CROPS, SIDE, check_images=True)
    with pytest.raises(ValueError, match=r"mixed with bee/alone\.jpg, which is not among the images"):
        next(iter(loader))


def test_scaled_boxes_keep_their_edges_together(rng: np.random.Generator) -> None:
    assert scale_boxes(np.array([1, 2, 3, 4]), 8, 8).tolist() == [1, 2, 3, 4]
    left = scale_boxes(np.array([0, 0, 475, 101]), 475, 224)
    right = scale_boxes(np.array([0, 101, 475, 374]), 475, 224)
    assert left[3] == right[1]
    assert right[1] + right[3] == left[2] == 224
