"""The demo's drawn data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from fkdx.image import scenes


def test_same_seed_same_pixels(run_seed: int) -> None:
    first, second = (scenes.draw_scene(3, np.random.default_rng(run_seed)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (scenes.HEIGHT, scenes.WIDTH, 3)
    assert first.dtype == np.uint8


@pytest.mark.parametrize("cls", range(len(scenes.CLASSES)))
def test_every_class_leaves_its_shape(cls: int) -> None:
    mask = np.zeros((100, 100), np.uint8)
    scenes._fill_shape(mask, scenes.CLASSES[cls], np.array([50.0, 50.0]), 30, angle=0.3)
    assert 300 < np.count_nonzero(mask) < 100 * 100 / 2


def test_folder_holds_every_class_in_turn(tmp_path: Path) -> None:
    scenes.draw_folder(tmp_path / "train", images=20, seed=1)
    counts = {d.name: len(list(d.glob("*.jpg"))) for d in (tmp_path / "train").iterdir()}
    assert set(counts) == set(scenes.CLASSES)
    assert sum(counts.values()) == 20
    assert max(counts.values()) - min(counts.values()) <= 1
    with Image.open(next((tmp_path / "train").rglob("*.jpg"))) as image:
        assert image.size == (scenes.WIDTH, scenes.HEIGHT)


def test_unwritable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes.cv2, "imwrite", lambda *_: False)
    with pytest.raises(OSError, match="draw_folder: cannot write, "):
        scenes.draw_folder(tmp_path / "train", images=1, seed=1)
