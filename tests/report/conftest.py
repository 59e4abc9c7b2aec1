"""A label file with its images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkdx.labels import LabelWriter

CLASSES = ["ant", "bee", "<b>cat"]
HOSTILE = 'ant/<img src=x onerror="document.title=1">&\'.jpg'


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> tuple[Path, Path]:
    """(label file, folder of its images): 9 images of three classes, one of them with a hostile name."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(5)
    keys = sorted([HOSTILE, *(f"{CLASSES[i % 3]}/{i}.jpg" for i in range(8))], key=str.encode)
    with LabelWriter(
        root / "labels.fkdl",
        num_classes=3,
        k=2,
        crops=6,
        classes=CLASSES,
        provenance={"teacher": "<i>me</i>"},
    ) as writer:
        for key in keys:
            path = root / "images" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (120, 160, 3), np.uint8)).save(path, "jpeg")
            boxes = np.stack(
                [
                    rng.integers(0, 60, 6),
                    rng.integers(0, 80, 6),
                    rng.integers(8, 60, 6),
                    rng.integers(8, 80, 6),
                ],
                1,
            )
            top = rng.uniform(0.4, 0.9, 6).astype(np.float32)
            ids = np.argsort(rng.random((6, 3)), axis=1)[:, :2]
            writer.add(key, boxes, rng.random(6) < 0.5, ids, np.stack([top, 0.9 * (1 - top)], 1), (120, 160))
    return root / "labels.fkdl", root / "images"
