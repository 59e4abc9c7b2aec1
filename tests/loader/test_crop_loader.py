"""Exact pixels, and the same batches for all threads and ranks."""

import gc
import pickle
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from copy import copy, deepcopy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from guard import PATIENCE
from images import OWN_RULE
from loading import CLASSES, CROPS, KEPT, Data, draw_image, expected_crop, rows, write_labels
from PIL import Image

from fkdx import CropLoader, LabelFile, LabelWriter, ValidationLoader, reference
from fkdx.image.random_boxes import random_boxes


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_rows_are_what_the_labels_say(data: Data, interpolation: str) -> None:
    labels = LabelFile(data.labels)
    loader = CropLoader(data.root, labels, 8, 4, size=32, interpolation=interpolation, resample=OWN_RULE)
    seen = []
    for batch in loader:
        assert batch.images.shape == (8, 32, 32, 3)
        assert batch.images.dtype == torch.uint8
        dense = batch.target.to_dense()
        for i, key in enumerate(batch.keys):
            stored, crop = labels[key], batch.crops[i]
            pixels = expected_crop(
                data.pixels(key), stored.boxes[crop], stored.flips[crop], 32, interpolation == "bicubic"
            )
            assert np.array_equal(batch.images[i], pixels)
            assert CLASSES[batch.classes[i]] == key.split("/")[0]
            others = (1 - stored.values[crop].astype(np.float32).sum()) / (10 - KEPT)
            target = np.full(10, others, np.float32)
            target[stored.ids[crop]] = stored.values[crop]
            np.testing.assert_allclose(dense[i], target, atol=1e-6)
        assert len(set(batch.keys)) == 2
        assert batch.keys[:4] == [batch.keys[0]] * 4, "image after image"
        seen += batch.keys[::4]
    assert len(loader) == 11
    assert len(set(seen)) == 22
    assert loader.pool.foreign == 2 - sum(
        key.endswith(("/5.JPEG", "/16.JPEG")) for key in set(data.keys) - set(seen)
    )


@pytest.mark.parametrize("options", [{}, {"choice": "cycle"}, {"drop_last": False}], ids=str)
def test_ranks_and_threads_do_not_change_the_batches(data: Data, options: dict) -> None:
    def passes(threads: int, world: int) -> list[list[tuple]]:
        loaders = [
            CropLoader(
                data.root,
                data.labels,
                16,
                2,
                size=16,
                seed=5,
                threads=threads,
                rank=r,
                world_size=world,
                **options,
            )
            for r in range(world)
        ]
        assert len({len(loader) for loader in loaders}) == 1
        found = []
        for _ in range(2):
            for parts in zip(*loaders, strict=True):
                found.append([row for part in parts for row in rows(part)])
        return found

    expected = passes(1, 1)
    assert expected[: len(expected) // 2] != expected[len(expected) // 2 :], "epochs differ"
    for threads, world in ((8, 1), (2, 2), (1, 4), (3, 8)):
        assert passes(threads, world) == expected


def test_resume(data: Data, rng: np.random.Generator) -> None:
    """Stopped after any number of batches, others go on to the same end, on one rank or on several."""
    passes = 3

    def loaders(threads: int, world: int = 1) -> list[CropLoader]:
        shared = {"size": 8, "seed": 9, "drop_last": False, "threads": threads, "world_size": world}
        return [CropLoader(data.root, data.labels, 16, 2, rank=rank, **shared) for rank in range(world)]

    def batches(ranks: list[CropLoader]) -> Iterator[list[tuple]]:
        """Global batches, from where the loaders are to the end of their third pass."""
        while ranks[0].state_dict()["epoch"] < passes:
            for parts in zip(*ranks, strict=True):
                yield [row for part in parts for row in rows(part)]

    whole = list(batches(loaders(threads=1)))
    for stop in range(len(whole) + 1):
        (first,) = loaders(threads=2)
        taken = list(islice(batches([first]), stop))
        assert taken == whole[:stop]
        others = loaders(threads=3, world=int(rng.choice([1, 2, 4])))
        for loader in others:
            loader.load_state_dict(first.state_dict())
            loader.set_epoch(first.state_dict()["epoch"])  # as training loops do; it is no other epoch
        assert list(batches(others)) == whole[stop:]


def test_resume_refuses_another_plan(data: Data) -> None:
    state = CropLoader(data.root, data.labels, 16, 2, seed=9).state_dict()
    for change in ({"seed": 8}, {"batch_size": 32}, {"crops_per_image": 4}, {"images": 22}, {"step": 99}):
        with pytest.raises(ValueError, match=f"load_state_dict: {next(iter(change))}"):
            CropLoader(data.root, data.labels, 16, 2, seed=9).load_state_dict(state | change)


def test_numbers_are_whole(data: Data) -> None:
    """numpy's, too: a seed from its generators, an epoch of its ranges."""
    loader = CropLoader(data.root, data.labels, 16, 2, 16, seed=np.int64(9))
    loader.set_epoch(np.int64(2))
    other = CropLoader(data.root, data.labels, 16, 2, 16, seed=9)
    other.set_epoch(2)
    assert next(iter(loader)).keys == next(iter(other)).keys
    with pytest.raises(ValueError, match=r"CropLoader: seed, got 1\.5, expected a whole number"):
        CropLoader(data.root, data.labels, 16, 2, seed=1.5)
    for epoch in (0.5, float("nan"), "1"):
        with pytest.raises(ValueError, match=r"set_epoch: epoch, got .*, expected a whole number"):
            loader.set_epoch(epoch)
    with pytest.raises(ValueError, match=r"load_state_dict: state, got \['model'\], expected what"):
        loader.load_state_dict({"model": {}})
    with pytest.raises(ValueError, match="CropLoader: labels, got an empty list"):
        CropLoader(data.root, [], 16, 2)


def test_early_end_and_set_epoch(data: Data) -> None:
    loader = CropLoader(data.root, data.labels, 8, 2, size=8)
    first = list(rows(next(iter(loader))))
    assert list(rows(next(iter(loader)))) == first, "a pass that was broken off begins again"
    loader.set_epoch(3)
    assert list(rows(next(iter(loader)))) != first
    loader.set_epoch(0)
    assert list(rows(next(iter(loader)))) == first


def test_a_pass_is_over_with_its_last_batch(data: Data) -> None:
    """Whoever counts the batches, as Lightning does, never asks for one more."""

    def counted(loader: CropLoader) -> list[list[tuple]]:
        batches = iter(loader)
        return [list(rows(next(batches))) for _ in range(len(loader))]

    loader = CropLoader(data.root, data.labels, 8, 2, size=8)
    passes = [list(rows(batch)) for _ in range(2) for batch in loader]
    loader.set_epoch(0)
    assert [*counted(loader), *counted(loader)] == passes
    state = loader.state_dict()
    assert (state["epoch"], state["step"]) == (4, 0)
    loader.set_epoch(0)
    assert counted(loader) == passes[: len(loader)]


def test_an_epoch_chosen_during_a_pass_is_that_of_the_next(data: Data) -> None:
    loader = CropLoader(data.root, data.labels, 8, 2, size=8)
    for _ in loader:
        loader.set_epoch(20)
    assert loader.state_dict()["epoch"] == 20


def test_a_batch_moves_as_a_whole_and_says_what_it_is(data: Data) -> None:
    """`to` is what Lightning and accelerate ask of a batch."""
    loader = CropLoader(data.root, data.labels, 8, 2, size=16)
    batch = next(iter(loader))
    moved = batch.to("meta")
    assert {moved.images.device, moved.target.device, moved.classes.device} == {torch.device("meta")}
    assert (moved.keys, moved.mix) == (batch.keys, None)
    text = "Batch((8, 16, 16, 3) torch.uint8 of 4 images, target SparseTarget(kind='marginal_smoothing', "
    assert repr(batch).startswith(text)
    words = f"CropLoader({str(data.root)!r}: {len(loader)} batches of 8 crops of 4 images, 16 pixels)"
    assert repr(loader) == words


def test_a_loader_is_not_copied(data: Data) -> None:
    loaders = CropLoader(data.root, data.labels, 8, 2, size=16), ValidationLoader(data.root, 2, 16)
    for loader in loaders:
        for copied in (pickle.dumps, copy, deepcopy):
            with pytest.raises(TypeError, match=f"{type(loader).__name__}: a loader has threads and cannot"):
                copied(loader)


def test_the_planner_may_collect_a_forgotten_pass(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = CropLoader(data.root, data.labels, 8, 4, size=16)
    forgotten, collected, faults = threading.Event(), threading.Event(), []

    def temperature(epoch: int, done: float) -> float:
        if done and not collected.is_set():
            forgotten.wait(PATIENCE)
            gc.collect()
            collected.set()
        return 1.0

    monkeypatch.setattr(loader, "_temperature", temperature)
    monkeypatch.setattr(sys, "unraisablehook", faults.append)
    ring: list = [iter(loader)]
    next(ring[0])
    ring.append(ring)
    del ring
    forgotten.set()
    assert collected.wait(PATIENCE)
    assert not faults
    assert len(list(loader)) == 11


def test_a_pass_with_m_crops_counts_as_m_epochs(data: Data) -> None:
    loader = CropLoader(data.root, data.labels, 8, 2, size=8)
    list(loader)
    assert loader.state_dict()["epoch"] == 2
    second = [list(rows(batch)) for batch in loader]
    other = CropLoader(data.root, data.labels, 8, 2, size=8)
    other.set_epoch(2)
    assert [list(rows(batch)) for batch in other] == second


def test_hard_labels_without_a_label_file(data: Data) -> None:
    loader = CropLoader(data.root, None, 8, 2, size=16, seed=4, scale=(0.2, 0.9), resample=OWN_RULE)
    loader.set_epoch(6)
    for batch in loader:
        assert torch.equal(batch.target.to_dense().argmax(1), batch.classes)
        for i, key in enumerate(batch.keys):
            image = data.pixels(key)
            size = image.height, image.width
            boxes, flips = random_boxes(size, 4, key, 2, scale=(0.2, 0.9), draws=6)
            crop = int(batch.crops[i])
            assert np.array_equal(batch.images[i], expected_crop(image, boxes[crop], flips[crop], 16))
    assert loader.classes == CLASSES


def test_boxes_as_ratios(data: Data, tmp_path: Path) -> None:
    """Ratios of known boxes give the crops of those boxes."""
    rng = np.random.default_rng(0)
    pixels = write_labels(tmp_path / "pixels.fkdl", data.root, data.keys, np.random.default_rng(0))
    ratios = write_labels(tmp_path / "ratios.fkdl", data.root, data.keys, rng, ratios=True)
    one, two = (CropLoader(data.root, labels, 8, 2, size=16) for labels in (pixels, ratios))
    assert [list(rows(batch)) for batch in one] == [list(rows(batch)) for batch in two]


def test_top_k_logits(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    """Logits and the log of what the other classes sum to give the teacher's probabilities."""
    logits = {key: rng.normal(size=(CROPS, 10)).astype(np.float32) * 3 for key in data.keys}
    options = {"num_classes": 10, "k": KEPT, "value_type": "float32"}
    with LabelWriter(tmp_path / "x.fkdl", "topk_logits", **options) as writer:
        for key, rows_of in logits.items():
            width, height = Image.open(data.root / key).size
            order = np.argsort(-rows_of, axis=1)
            kept, rest = order[:, :KEPT], order[:, KEPT:]
            tails = np.log(np.exp(np.take_along_axis(rows_of, rest, 1)).sum(1))
            boxes, flips = random_boxes((height, width), 1, key, CROPS)
            values = np.take_along_axis(rows_of, kept, 1)
            writer.add(key, boxes, flips, kept, values, (height, width), tails=tails)
    for batch in CropLoader(data.root, tmp_path / "x.fkdl", 8, 2, size=8):
        for i, key in enumerate(batch.keys):
            expected = torch.tensor(logits[key][batch.crops[i]]).softmax(0)
            got = batch.target.to_dense()[i]
            ids = batch.target.ids[i].long()
            np.testing.assert_allclose(got[ids], expected[ids], rtol=1e-5)
            np.testing.assert_allclose(got.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("label_kind", ["marginal_smoothing", "marginal_renorm"])
def test_top_k_logits_at_a_temperature(
    data: Data, tmp_path: Path, rng: np.random.Generator, label_kind: str
) -> None:
    """A number, or a function of the epoch and of how much of it is done, also in place of a bad image."""
    path = write_labels(tmp_path / "x.fkdl", data.root, data.keys, rng, kind="topk_logits")
    labels = LabelFile(path)
    asked = []

    def moving(epoch: int, done: float) -> float:
        asked.append((epoch, done))
        return 20 - epoch - 8 * done

    for given in (4.0, moving):
        loader = CropLoader(data.root, path, 8, 2, size=8, label_kind=label_kind, teacher_temperature=given)
        loader.set_epoch(2)
        for step, batch in enumerate(loader):
            temperature = given if given == 4.0 else moving(2, step / len(loader))
            found = [(labels[key], crop) for key, crop in zip(batch.keys, batch.crops.tolist())]
            ids, values = (np.array([getattr(i, part)[c] for i, c in found]) for part in ("ids", "values"))
            tails = [image.tails[crop] for image, crop in found]
            expected = reference.loss.tempered_target(ids, values, tails, 10, label_kind, temperature)
            np.testing.assert_allclose(batch.target.to_dense(), expected, atol=2e-6)
    assert {(2, step / len(loader)) for step in range(len(loader))} == set(asked)


def test_a_temperature_that_labels_do_not_have_is_refused(data: Data, tmp_path: Path, rng) -> None:
    classes = [*CLASSES, *"defghij"]
    logits = write_labels(tmp_path / "x", data.root, data.keys, rng, kind="topk_logits", classes=classes)
    for labels, temperature, words in (
        (data.labels, 2, "one for labels of kind topk, expected labels of kind topk_logits"),
        ([logits, data.labels], lambda epoch, done: 1.0, "of kind topk_logits and topk, expected"),
        (None, 2, "one without labels"),
        (logits, 0, "got 0, expected a positive number"),
    ):
        with pytest.raises(ValueError, match=f"CropLoader: teacher_temperature, .*{words}"):
            CropLoader(data.root, labels, 8, 2, size=8, teacher_temperature=temperature)


def test_crops_of_unknown_operations_are_refused(data: Data, tmp_path: Path) -> None:
    extra = {"operations": ["rand_augment"], "form": "json"}
    with LabelWriter(tmp_path / "x.fkdl", num_classes=10, k=1, extra=extra):
        pass
    with pytest.raises(ValueError, match=r"crops changed by rand_augment.*x.fkdl"):
        CropLoader(data.root, tmp_path / "x.fkdl", 8, 2)


def test_dense_labels(data: Data, tmp_path: Path) -> None:
    path = write_labels(tmp_path / "x.fkdl", data.root, data.keys, np.random.default_rng(0), kind="dense")
    labels = LabelFile(path)
    batch = next(iter(CropLoader(data.root, labels, 8, 2, size=16)))
    assert batch.target.shape == (8, 10)
    for i, key in enumerate(batch.keys):
        np.testing.assert_array_equal(batch.target[i], labels[key].values[batch.crops[i]].astype(np.float32))


# ---- images and labels that do not match, and other arguments ---------------------------------------------


def test_missing_labels_and_images(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    shutil.copytree(data.root, tmp_path / "x")
    (tmp_path / "x" / data.keys[3]).unlink()
    draw_image(rng, tmp_path / "x" / "bee" / "new.jpg")
    text = rf"1 of 23 images have no label \(such as bee/new.jpg\), 1 of 23 .* \(such as {data.keys[3]}\)"
    with pytest.raises(ValueError, match=text):
        CropLoader(tmp_path / "x", data.labels, 8, 2, check_images=True)
    with pytest.raises(ValueError, match=rf"of 23 labels .* 1 have no image \(such as {data.keys[3]}\)"):
        CropLoader(tmp_path / "x", data.labels, 8, 2)
    loader = CropLoader(tmp_path / "x", data.labels, 22, 1, size=8, on_missing="ignore")
    assert sorted(next(iter(loader)).keys) == [key for key in data.keys if key != data.keys[3]]
    other = write_labels(tmp_path / "other.fkdl", tmp_path / "x", ["bee/new.jpg"], rng)
    with pytest.raises(ValueError, match="do not match"):
        CropLoader(data.root, other, 8, 2, on_missing="ignore")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 7}, "batch_size"),
        ({"batch_size": 8, "world_size": 8}, "batch_size"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"crops_per_image": 7, "batch_size": 7}, "crops_per_image"),
        ({"crops_per_image": 0}, "crops_per_image"),
        ({"batch_size": 200}, "100 images"),
        ({"on_error": "ignore"}, "on_error"),
        ({"on_missing": "skip"}, "on_missing"),
        ({"prefetch": 0}, "prefetch"),
        ({"threads": -1}, "threads"),
        ({"cache_bytes": -1}, "cache"),
        ({"size": 0}, "size"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"resample": "pillow11"}, "resample"),
        ({"label_kind": "best"}, "kind"),
        ({"choice": "best"}, "choice"),
        ({"size": (16, 16)}, r"CropLoader: size, got \(16, 16\), expected a whole number"),
        ({"batch_size": 8.0}, "loader: batch_size, got 8.0, expected a whole number"),
        ({"crops_per_image": "2"}, "crops_per_image, got '2', expected a whole number"),
        ({"prefetch": 1.5}, "prefetch, got 1.5, expected a whole number"),
        ({"threads": "2"}, "threads, got '2', expected a whole number"),
        ({"cache_bytes": 1e6}, "cache_bytes, got 1000000.0, expected a whole number"),
        ({"interpolation": None}, "interpolation, got 'None', expected one of"),
    ],
)
def test_bad_arguments(data: Data, options: dict, text: str) -> None:
    arguments = {"batch_size": 8, "crops_per_image": 2} | options
    with pytest.raises(ValueError, match=text):
        CropLoader(data.root, data.labels, **arguments)


# ---- sources and memory -----------------------------------------------------------------------------------


def test_tar_shards_give_the_same_batches(data: Data, tmp_path: Path) -> None:
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for key in data.keys[shard::3]:
                tar.add(data.root / key, key)
    folder, shards = (CropLoader(root, data.labels, 8, 2, size=16) for root in (data.root, tmp_path))
    assert [list(rows(batch)) for batch in folder] == [list(rows(batch)) for batch in shards]


def test_cache_keeps_encoded_images(data: Data, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "x")
    total = sum(path.stat().st_size for path in (tmp_path / "x").rglob("*.JPEG"))
    loader = CropLoader(tmp_path / "x", data.labels, 23, 1, size=8, cache_bytes=total)
    small = CropLoader(tmp_path / "x", data.labels, 23, 1, size=8, cache_bytes=total // 2)
    first = list(rows(next(iter(loader))))
    next(iter(small))
    assert loader.pool.stages()["cached_bytes"] == total
    assert 0 < small.pool.stages()["cached_bytes"] <= total // 2
    shutil.rmtree(tmp_path / "x")
    loader.set_epoch(0)
    assert list(rows(next(iter(loader)))) == first
    with pytest.raises(FileNotFoundError):
        next(iter(small))


def test_batches_are_the_callers(data: Data) -> None:
    """Memory is used again, but never while anyone holds a tensor of it."""
    loader = CropLoader(data.root, data.labels, 2, 2, size=16, prefetch=1)
    held = list(loader)
    copies = [batch.images.clone() for batch in held]
    for batch, before in zip(held, copies):
        assert torch.equal(batch.images, before)
    part = held[3].images.numpy()[1:, 2:]
    expected = part.copy()
    del held, batch
    for _ in range(3):
        addresses = {batch.images.data_ptr() for batch in loader}
        assert len(addresses) <= 5
    assert np.array_equal(part, expected)
