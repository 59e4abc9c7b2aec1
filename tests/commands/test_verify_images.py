"""Every bad file of a folder is found, whatever its name says, and no good one is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkdx import cli
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


def test_command_with_nothing_to_verify(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["verify"]) == 1
    assert "nothing to verify" in capsys.readouterr().err
