"""Whatever Pillow's plugins raise about a damaged file is an ImageError that names it."""

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from images import photo
from PIL import Image
from trust.inputs import damage

from fkdx import CropLoader, ImageError, decode_crops, image_size
from fkdx.image import validation_crop

RAISED = [
    RuntimeError,
    NotImplementedError,
    struct.error,
    IndexError,
    KeyError,
    MemoryError,
    ZeroDivisionError,
]


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("when", ["open", "convert"])
def test_what_plugins_raise(error: type, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise error("odd")

    (tmp_path / "a").mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20)).save(tmp_path / f"a/{i}.{'jpg' if i else 'png'}")
    monkeypatch.setattr(*((Image, "open") if when == "open" else (Image.Image, "convert")), fail)
    reads = [lambda p: decode_crops(p, [[0, 0, 9, 9]], [0], 8), lambda p: validation_crop(p, 8)]
    for read in [*reads, image_size] if when == "open" else reads:
        with pytest.raises(ImageError, match=r"corrupt file: .*odd.*a/0\.png"):
            read(tmp_path / "a/0.png")
    loader = CropLoader(tmp_path, None, 2, 1, 8, on_error="skip")
    with pytest.warns(UserWarning, match="skipped a/0.png"):
        assert len(list(loader)) == 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says more about TIFF
@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "DDS", "TGA", "PCX"])
def test_damaged_files(form: str, run_seed: int, tmp_path: Path) -> None:
    """Of the formats that Pillow opens, under the name .jpg."""
    file = io.BytesIO()
    try:
        Image.fromarray(photo(np.random.default_rng(run_seed), 20, 24)).save(file, form)
    except KeyError:
        pytest.skip(f"this Pillow has no {form}")
    chance, path, said = random.Random(run_seed), tmp_path / "x.jpg", []
    for _ in range(60):
        path.write_bytes(damage(file.getvalue(), chance, [file.getvalue()]))
        try:
            height, width = image_size(path)
            if height * width < 100_000:
                decode_crops(path, [[0, 0, height, width]], [False], 8)
        except ImageError as error:
            said.append(str(error))
    assert said
    assert all(str(path) in text for text in said)
