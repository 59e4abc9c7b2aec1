"""Label files: what is written is read back, for every kind and encoding."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fkdx.labels import LabelFile, LabelWriter

C, K, M = 100, 5, 7


def draw_crops(rng: np.random.Generator, height: int, width: int, crops: int = M) -> dict:
    heights, widths = rng.integers(1, height + 1, crops), rng.integers(1, width + 1, crops)
    tops, lefts = rng.integers(0, height - heights + 1), rng.integers(0, width - widths + 1)
    values = -np.sort(-rng.dirichlet(np.full(K + 1, 0.5), crops)[:, :K], axis=1)
    return {
        "boxes": np.stack([tops, lefts, heights, widths], axis=1),
        "flips": rng.random(crops) < 0.5,
        "ids": rng.permuted(np.tile(np.arange(C), (crops, 1)), axis=1)[:, :K],
        "values": values.astype(np.float32),
    }


@pytest.mark.parametrize(
    ("encoding", "value_type", "error"),
    [
        ("plain", "float32", 0),
        ("plain", "float16", 5e-4),
        ("compact", "float16", 5e-4),
        ("compact", "log8", 0.024),
    ],
)
def test_round_trip(tmp_path: Path, rng, encoding: str, value_type: str, error: float) -> None:
    path = tmp_path / "labels.fkdl"
    written = {f"n{i}/{i}.JPEG": draw_crops(rng, 375, 500) for i in rng.permutation(20)}
    with LabelWriter(path, num_classes=C, k=K, crops=M, encoding=encoding, value_type=value_type) as writer:
        for key, crops in written.items():
            writer.add(key, **crops, image_size=(375, 500))
    labels = LabelFile(path)
    assert list(labels.keys) == sorted(written)
    for i, key in enumerate(labels.keys):
        assert labels.find(key) == i
        got, want = labels[key], written[key]
        assert got.key == key
        assert got.image_size == (375, 500)
        for name in ("boxes", "flips", "ids"):
            np.testing.assert_array_equal(getattr(got, name), want[name])
        np.testing.assert_allclose(got.values, want["values"], rtol=error, atol=2.1e-6 if error else 0)
    images, crops = rng.integers(0, 20, 6), rng.integers(0, M, (6, 3))
    boxes, flips, ids, values = pickle.loads(pickle.dumps(labels)).gather(images, crops)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(boxes[i], labels[image].boxes[crops[i]])
        np.testing.assert_array_equal(flips[i], labels[image].flips[crops[i]])
        np.testing.assert_array_equal(ids[i], labels[image].ids[crops[i]])
        np.testing.assert_array_equal(values[i], labels[image].values[crops[i]].astype(np.float32))
