"""Fixtures of the loader's tests."""

from pathlib import Path

import numpy as np
import pytest
from loading import Data, draw_data
from PIL import Image


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Images and labels that no test changes."""
    return draw_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 small images, one of them corrupt."""
    root = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(1)
    for i in range(40):
        path = root / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
        if i == 7:
            path.write_bytes(path.read_bytes()[:-400])
    return root
