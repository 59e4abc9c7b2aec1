"""The toy data set, made once for all tests that train on it and leave it as it is."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from toy import COMMON, make_toy, write_embeddings, write_labels


@pytest.fixture(scope="session")
def toy(tmp_path_factory, run_seed) -> Path:
    """A folder with data/train, data/val and labels.fkdl."""
    folder = tmp_path_factory.mktemp("toy")
    make_toy(folder, run_seed)
    return folder


@pytest.fixture(scope="session")
def toy_data(toy) -> list[str]:
    """Arguments of a run that name its images and labels."""
    return ["--data", str(toy / "data"), "--labels", str(toy / "labels.fkdl"), "--epochs", "4"]


@pytest.fixture
def soft(toy_data, tmp_path) -> list[str]:
    """Arguments of a run from labels into an empty folder, tmp_path/run."""
    return [*COMMON, "--output", str(tmp_path / "run"), *toy_data]


@pytest.fixture(scope="session")
def embeddings(toy, tmp_path_factory) -> Path:
    """A label file of the toy images with two embeddings a crop."""
    path = tmp_path_factory.mktemp("embeddings") / "labels.fkdl"
    write_embeddings(path, toy / "data" / "train")
    return path


@pytest.fixture(scope="session")
def logits(toy, tmp_path_factory, run_seed) -> Path:
    """A label file of the toy images with outputs of no class: dense_logits, 12 of them."""
    path = tmp_path_factory.mktemp("logits") / "labels.fkdl"
    write_labels(path, toy / "data" / "train", np.random.default_rng(run_seed), "dense_logits", 12)
    return path


@pytest.fixture(scope="session")
def class_logits(toy, tmp_path_factory, run_seed) -> dict[str, Path]:
    """Label files of the toy images with logits of the four classes: dense_logits and topk_logits."""
    folder, rng = tmp_path_factory.mktemp("class_logits"), np.random.default_rng(run_seed)
    paths = {kind: folder / f"{kind}.fkdl" for kind in ("dense_logits", "topk_logits")}
    for kind, path in paths.items():
        write_labels(path, toy / "data" / "train", rng, kind)
    return paths


@pytest.fixture(scope="session")
def teachers(tmp_path_factory) -> Path:
    """A folder with weights of a test_resnet and a test_vit for the toy's four classes.

    They are random but always the same: of some such teachers there is next to nothing to learn.
    """
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for name in ("test_resnet", "test_vit"):
        save_file(timm.create_model(name, num_classes=4).state_dict(), folder / f"{name}.safetensors")
    return folder
