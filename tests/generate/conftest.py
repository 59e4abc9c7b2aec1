"""A small labelling job, whose images are made once."""

from pathlib import Path

import pytest
from generating import make_data, make_teacher, run_options


@pytest.fixture(scope="session")
def job_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of three classes."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job_options(job_images: Path, tmp_path: Path) -> list[str]:
    """Options of a job on them; the last is the file that it writes, tmp_path/labels.fkdl."""
    make_teacher(tmp_path / "weights.safetensors")
    return run_options(job_images, tmp_path / "weights.safetensors", tmp_path / "labels.fkdl")
