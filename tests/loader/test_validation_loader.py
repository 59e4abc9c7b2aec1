"""Validation batches are torchvision's crops, every image once."""

from pathlib import Path

import numpy as np
import pytest
from images import OWN_RULE
from loading import CLASSES, Data
from PIL import Image
from torchvision.transforms import functional as F

from fkdx import ValidationLoader


@pytest.mark.parametrize(("size", "crop_ratio"), [(32, 0.875), (24, 1.0), (16, 0.5)])
def test_validation_is_torchvisions(data: Data, size: int, crop_ratio: float) -> None:
    loader = ValidationLoader(data.root, 5, size, crop_ratio, resample=OWN_RULE)
    keys = []
    for batch in loader:
        for image, number, key in zip(batch.images, batch.classes, batch.keys):
            resized = F.resize(data.pixels(key), int(size / crop_ratio))
            assert np.array_equal(image, F.center_crop(resized, [size, size]))
            assert CLASSES[number] == key.split("/")[0]
        keys += batch.keys
    assert keys == data.keys
    assert len(loader) == 5


def test_validation_shows_every_image_once_over_all_ranks(data: Data) -> None:
    for world in (1, 2, 3, 5):
        loaders = [ValidationLoader(data.root, 4, 8, rank=r, world_size=world) for r in range(world)]
        shown = [key for loader in loaders for batch in loader for key in batch.keys]
        assert sorted(shown) == data.keys
        assert all(len(list(loader)) == len(loader) for loader in loaders)


def test_validation_classes(data: Data) -> None:
    names = ["zebra", "cat", "bee", "ant"]
    batch = next(iter(ValidationLoader(data.root, 23, 8, classes=names)))
    assert [names[number] for number in batch.classes] == [key.split("/")[0] for key in batch.keys]
    with pytest.raises(
        ValueError, match=r"1 classes of images are not among the 2 expected, for example 'cat'"
    ):
        ValidationLoader(data.root, 23, 8, classes=["ant", "bee"])


def test_images_without_a_class_are_named_or_left_out(tmp_path):
    draw(tmp_path, ["a/0.jpg", "b/1.jpg", "stray.jpg", "z.jpg"])
    with pytest.raises(ValueError, match=r"2 images are in no class folder \(stray.jpg, z.jpg\)"):
        ValidationLoader(tmp_path, 2, 16)
    parts = [ValidationLoader(tmp_path, 2, 16, on_error="skip", rank=rank, world_size=2) for rank in (0, 1)]
    assert sorted(key for part in parts for batch in part for key in batch.keys) == ["a/0.jpg", "b/1.jpg"]
    skipped = [list(part.skipped) for part in parts]
    assert skipped == [["stray.jpg"], ["z.jpg"]]


def test_unreadable_images_are_left_out_and_counted(tmp_path):
    names = [f"a/{number}.jpg" for number in range(5)]
    draw(tmp_path, names)
    for number in (1, 4):  # the last is alone in its batch
        (tmp_path / names[number]).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a/1\.jpg"):
        list(ValidationLoader(tmp_path, 2, 16))
    loader = ValidationLoader(tmp_path, 2, 16, on_error="skip")
    for _ in range(2):
        batches = list(loader)
        assert [batch.keys for batch in batches] == [["a/0.jpg"], ["a/2.jpg", "a/3.jpg"]]
        assert [len(batch.images) for batch in batches] == [len(batch.classes) for batch in batches] == [1, 2]
        assert loader.skipped.keys() == {"a/1.jpg", "a/4.jpg"}
    with pytest.raises(ValueError, match="on_error, got 'ignore', expected one of raise, skip"):
        ValidationLoader(tmp_path, 2, 16, on_error="ignore")
    with pytest.raises(ValueError, match=r"ValidationLoader: size, got \(16, 16\), expected a whole number"):
        ValidationLoader(tmp_path, 2, (16, 16), on_error="skip")
    assert repr(loader) == f"ValidationLoader({str(tmp_path)!r}: 5 images in batches of 2, 16 pixels)"
    whole = ValidationLoader(tmp_path, 2, 16, on_error="skip")
    kept = next(iter(whole)).images
    assert kept.shape == (1, 16, 16, 3)


def draw(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 20), (number * 9, 50, 90)).save(folder / name)
