"""Fixtures of tests that train on the toy data set."""

from pathlib import Path

import pytest
from toy import COMMON, make_toy


@pytest.fixture(scope="module")
def toy_root(tmp_path_factory) -> Path:
    """The folder of `toy_data`."""
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def toy_data(toy_root, run_seed) -> list[str]:
    """Arguments that name images and labels."""
    return make_toy(toy_root, run_seed)


@pytest.fixture
def soft(toy_data, tmp_path) -> list[str]:
    """Arguments of a run from labels into an empty folder, tmp_path/run."""
    return [*COMMON, "--output", str(tmp_path / "run"), *toy_data]
