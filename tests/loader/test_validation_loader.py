"""Validation batches are torchvision's crops, every image once."""

import numpy as np
import pytest
from images import OWN_RULE
from loading import CLASSES, Data, draw_data
from torchvision.transforms import functional as F

from fkdx import ValidationLoader


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return draw_data(tmp_path_factory.mktemp("data"))


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
    with pytest.raises(ValueError, match=r"1 class folders are not among the 2 classes, for example 'cat'"):
        ValidationLoader(data.root, 23, 8, classes=["ant", "bee"])
