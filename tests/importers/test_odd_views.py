"""TinyViT and dataset reinforcement: files that are there in part, and samples of another form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import draw_black

from fkdx import FormatError, cli
from fkdx.importers import Settings, open_foreign
from fkdx.importers.foreign_labels import Unreadable
from fkdx.importers.images import Images

CLASSES, K = 6, 3
RECORD = np.dtype([("seed", "<i4"), ("ids", "<i2", K), ("values", "<f2", K)])


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Images:
    return Images(
        draw_black(tmp_path / "images", [f"{name}/{name}{i}.png" for name in "ab" for i in range(2)], rng)
    )


@pytest.fixture
def epoch(tmp_path: Path, rng: np.random.Generator) -> Path:
    """One epoch of TinyViT's labels from two ranks, two images each."""
    folder = tmp_path / f"labels/logits_top{K}_epoch0"
    folder.mkdir(parents=True)
    for rank in range(2):
        rows = np.zeros(2, RECORD)
        rows["seed"] = rng.integers(0, 2**31, 2)
        rows["ids"], rows["values"] = np.arange(K), [0.5, 0.3, 0.1]
        (folder / f"rank{rank}-keys.txt").write_text(f"{2 * rank}\n{2 * rank + 1}\n")
        (folder / f"rank{rank}-values.bin").write_bytes(rows.tobytes())
    return folder


def tinyvit(epoch: Path, images: Images) -> Any:
    return open_foreign(epoch.parent, Settings(CLASSES, images=images, lost_operations="none"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "rank1-keys.txt").unlink(), "files, got one of the two of rank 1"),
        (lambda folder: (folder / "rank0-values.bin").unlink(), "files, got one of the two of rank 0"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "files, got none"),
        (lambda folder: (folder / "rank0-keys.txt").write_bytes(b"\xff\n1\n"), "key, got "),
    ],
)
def test_ranks_that_are_not_whole(epoch: Path, images: Images, change: Callable, said: str) -> None:
    """What a rank said must not be lost in silence."""
    assert tinyvit(epoch, images).layout.crops == 1
    change(epoch)
    (epoch / "rankX-keys.txt").write_text("no rank")
    with pytest.raises(FormatError, match=f"TinyVitLabels: {said}.*{epoch}"):
        tinyvit(epoch, images)


def test_a_seed_that_is_none(epoch: Path, images: Images) -> None:
    path = epoch / "rank1-values.bin"
    rows = np.frombuffer(path.read_bytes(), RECORD).copy()
    rows["seed"][0] = -5
    path.write_bytes(rows.tobytes())
    (bad,) = [found for found in tinyvit(epoch, images).read(range(4)) if isinstance(found, Unreadable)]
    assert bad == Unreadable(images.samples[2], "seed, got -5, expected 0 or more")


@pytest.mark.parametrize("wrong", [("--scale", "2", "1"), ("--scale", "nan", "1"), ("--ratio", "0", "1")])
def test_ranges_that_are_empty(epoch: Path, images: Images, tmp_path: Path, wrong: tuple, capsys) -> None:
    source = ["pack", str(epoch.parent), "--images", str(images.root), "--lost-operations", "none"]
    assert cli.main([*source, "-o", str(tmp_path / "x.fkdl"), *wrong]) == 1
    assert f"pack: {wrong[0]}, got " in capsys.readouterr().err


def reinforcement(tmp_path: Path, images: Images, settings: dict, params: list) -> Any:
    folder = tmp_path / "plus"
    folder.mkdir()
    config = {"num_samples": 1, "topk": 1, "image_augmentation": {"random_resized_crop": {}}} | settings
    torch.save({"reinforce": config}, folder / "config.pth.tar")
    for number in range(len(images.samples)):
        torch.save((number, [{"params": params, "prob": ([0.9], [1])}]), folder / f"{number}.pth.tar")
    return open_foreign(folder, Settings(CLASSES, images=images))


def test_samples_of_another_form_are_listed(tmp_path: Path, images: Images) -> None:
    """A box that is none is what is wrong with one image, and does not end the packing of others."""
    none = {"image_augmentation": {"random_resized_crop": None}}
    source = reinforcement(tmp_path, images, none, [None])
    found = list(source.read(range(4)))
    assert all(
        isinstance(bad, Unreadable) and "sample, got one of unknown form" in bad.reason for bad in found
    )


@pytest.mark.parametrize("value", [0, "5"])
def test_numbers_that_are_none(tmp_path: Path, images: Images, value: object) -> None:
    with pytest.raises(FormatError, match=f"num_samples, got {value!r}, expected a whole number from 1"):
        reinforcement(tmp_path, images, {"num_samples": value}, [(0, 0, 9, 9)])
