"""Every bad file of a folder is found, whatever its name says, and no good one is."""

import io
from pathlib import Path

import numpy as np
import PIL
import pytest
from images import encode, other_jfif, unfinished
from PIL import Image

from fkdx import _C, ImageError, cli
from fkdx.image import crops
from fkdx.loader.verify_images import verify_images


def encoded(rng: np.random.Generator, form: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = rng.integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("threads", [1, 3])
def test_finds_the_bad_files(tmp_path: Path, rng: np.random.Generator, threads: int) -> None:
    good = [
        encoded(rng, "JPEG"),
        encoded(rng, "JPEG", "L"),
        encoded(rng, "JPEG", "CMYK"),
        encoded(rng, "PNG"),
    ]
    whole = good[0]
    bad = [b"", b"text", whole[:-200], whole[: len(whole) // 2], encoded(rng, "PNG")[:-200]]
    expected = []
    (tmp_path / "a").mkdir()
    for i in rng.permutation(300):
        content = bad[i % len(bad)] if i % 10 == 0 else good[i % len(good)]
        (tmp_path / "a" / f"{i:03}.JPEG").write_bytes(content)
        expected += [f"a/{i:03}.JPEG"] if i % 10 == 0 else []
    found = list(verify_images(tmp_path, threads))
    assert [image.key for image in found] == sorted(expected)
    assert all(str(tmp_path / image.key) in image.reason for image in found)


def test_warnings_can_be_allowed(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(rng, "JPEG")[:-200])
    assert len(list(verify_images(tmp_path))) == 1
    assert list(verify_images(tmp_path, allow_warnings=True)) == []


def test_command(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(rng, "JPEG"))
    assert cli.main(["verify", "--images", str(tmp_path)]) == 0
    assert "no unreadable images" in capsys.readouterr().out
    (tmp_path / "b.jpg").write_bytes(b"")
    assert cli.main(["verify", "--images", str(tmp_path), "--threads", "1"]) == 1
    shown = capsys.readouterr().out
    assert str(tmp_path / "b.jpg") in shown
    assert "1 unreadable image" in shown


def test_what_decodes_otherwise_than_in_pillow(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Here another decoder is played by one that shifts a file's pixels, and by one that refuses it."""
    names = [f"{i}.jpg" for i in range(5)]
    for i, name in enumerate(names):
        data = encode(rng, "progressive" if i % 2 else "4:2:0", 40, 60)
        (tmp_path / name).write_bytes(other_jfif(data) if i == 4 else data)
    Image.new("RGB", (9, 9)).save(tmp_path / "5.png")
    assert list(verify_images(tmp_path, compare=True)) == []
    own, shifted, refused = crops._pillow_pixels, (tmp_path / names[1]).read_bytes(), names[3]

    def pixels(data: bytes) -> np.ndarray:
        if data == (tmp_path / refused).read_bytes():
            raise ImageError("image: JPEG data, got a corrupt file: no")
        return own(data) ^ np.uint8(data == shifted)

    monkeypatch.setattr(crops, "_pillow_pixels", pixels)
    assert [(image.key, image.differs) for image in verify_images(tmp_path, compare=True)] == [
        (names[1], True),
        (names[3], True),
    ]
    assert list(verify_images(tmp_path)) == []
    assert cli.main(["verify", "--images", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"differ from those of Pillow {PIL.__version__} by up to 1 of 255, {tmp_path / names[1]}" in shown
    assert (
        "no unreadable images\n2 with other pixels than Pillow's; what decodes here: libjpeg-turbo" in shown
    )
    assert cli.main(["verify", "--images", str(tmp_path), "--fast"]) == 0
    assert "Pillow" not in capsys.readouterr().out


def test_an_unfinished_progressive_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """Readable; whether its pixels are Pillow's depends on the versions, and what is said follows them."""
    path = tmp_path / "x.jpg"
    path.write_bytes(unfinished(encode(rng, "progressive", 64, 80)))
    ours = _C.CropDecoder().decode_box(path.read_bytes(), 0, 0, 64, 80, False, False)
    same = np.array_equal(ours, np.asarray(Image.open(path).convert("RGB")))
    found = list(verify_images(tmp_path, compare=True))
    assert [(image.key, image.differs) for image in found] == ([] if same else [("x.jpg", True)])


def test_command_with_nothing_to_verify(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["verify"]) == 1
    assert "nothing to verify" in capsys.readouterr().err
