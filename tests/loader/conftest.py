"""Fixtures of the loader's tests."""

import pytest
from loading import Data, draw_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Images and labels that no test changes."""
    return draw_data(tmp_path_factory.mktemp("data"))
