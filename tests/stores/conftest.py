"""Fixtures of the stores' tests."""

import pytest
from loading import Data
from store_writers import draw_synsets


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return draw_synsets(tmp_path_factory.mktemp("synsets"))
