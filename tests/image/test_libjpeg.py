"""The libjpeg-turbo inside the extension: which one it is, and how far its pixels are from Pillow's."""

import ctypes
import io
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import JPEG_KINDS, encode
from PIL import Image, features

from fkdx import _C
from fkdx.commands import doctor
from fkdx.image import image_size

ROOT = Path(__file__).resolve().parents[2]
CMAKE = ROOT / "cmake"
INFO = _C.build_info()
sources = pytest.mark.skipif(not CMAKE.exists(), reason="an installed fkdx, without its sources")
bundled = pytest.mark.skipif(not INFO["jpeg_bundled"], reason="built with the system's libjpeg-turbo")


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_a_full_decode_is_pillows(rng: np.random.Generator, kind: str) -> None:
    """Pillow may bring another libjpeg-turbo: the difference is said, and expected to be none."""
    worst = 0
    for _ in range(4):
        data = encode(rng, kind, *rng.integers(9, 120, 2).tolist())
        box = 0, 0, *image_size(data), False
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        for plain in (False, True):
            ours = _C.CropDecoder().decode_box(data, *box, plain)
            worst = max(worst, int(np.abs(ours - pixels).max()))
    both = f"libjpeg-turbo {INFO['jpeg']} here, {features.version('libjpeg_turbo')} in Pillow"
    assert worst == 0, f"{kind}: pixels differ by up to {worst} of 255; {both}"


@bundled
def test_the_bundled_library_shows_no_symbols() -> None:
    """So that neither this extension nor another one, such as Pillow's, calls the other's libjpeg."""
    library = ctypes.CDLL(_C.__file__)
    assert not hasattr(library, "jpeg_std_error")
    assert not hasattr(library, "jpeg_read_header")


@bundled
@sources
def test_the_bundled_library_is_a_pinned_one() -> None:
    assert f"set(libjpeg_sums_{INFO['jpeg']}\n" in (CMAKE / "libjpeg_source.cmake").read_text()
    assert INFO["jpeg_huffman"]  # its internals are known


def test_doctor_shows_the_library() -> None:
    shown = dict(doctor.report())["libjpeg-turbo"]
    assert shown.startswith(INFO["jpeg"])
    assert ("bundled" in shown) == INFO["jpeg_bundled"]
    assert "SIMD" in shown
    assert "Huffman" in shown


def find_source(**environment: str) -> subprocess.CompletedProcess:
    cmake = Path(sys.executable).with_name("cmake")
    command = [cmake, "-P", CMAKE / "libjpeg_source.cmake"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@sources
def test_another_archive_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "libjpeg turbo.tar.gz"
    for content in (None, b"another archive"):
        if content:
            wrong.write_bytes(content)
        done = find_source(FKDX_LIBJPEG_SOURCE=str(wrong))
        assert done.returncode != 0
        assert f"FKDX_LIBJPEG_SOURCE: got {wrong}, expected libjpeg-turbo-" in " ".join(done.stderr.split())


TRIAL = """
cmake_minimum_required(VERSION 3.22)
project(trial LANGUAGES CXX)
set(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH OFF)
set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH OFF)
include(cmake/libjpeg.cmake)
"""
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # where nobody answers


def configure(folder: Path, archive: bool, *options: str) -> tuple[int, str]:
    """Status and words of a build of libjpeg-turbo alone: no network, no nasm, no library of the system."""
    shutil.copytree(CMAKE, folder / "cmake")
    (folder / "third_party").mkdir()
    if archive:
        for path in (ROOT / "third_party").glob("*.tar.gz"):
            shutil.copy(path, folder / "third_party")
    (folder / "CMakeLists.txt").write_text(TRIAL)
    command = [Path(sys.executable).with_name("cmake"), "-S", folder, "-B", folder / "build", *options]
    done = subprocess.run(command, env=os.environ | NO_NETWORK, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@bundled
@sources
def test_no_nasm_says_what_to_install(tmp_path: Path) -> None:
    if not list((ROOT / "third_party").glob("*.tar.gz")):
        pytest.skip("built from an archive that lies elsewhere")
    status, said = configure(tmp_path, True)
    assert status == 0, said
    assert ("apt-get install nasm" in said) == (platform.machine() == "x86_64")
    assert f"libjpeg-turbo: {INFO['jpeg']}, compiled in" in said


@pytest.mark.slow  # waits for the network
@sources
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("bundled", "could not be downloaded; give its path as FKDX_LIBJPEG_SOURCE, from https://github.com"),
        (
            "auto",
            "tar.gz, could not be downloaded (FKDX_LIBJPEG_SOURCE=PATH gives it), and the headers of the",
        ),
        (
            "system",
            "and the headers of the system's library are missing: apt-get install libjpeg62-turbo-dev",
        ),
    ],
)
def test_no_network_and_no_library_say_what_to_do(tmp_path: Path, option: str, expected: str) -> None:
    status, said = configure(tmp_path, False, f"-DFKDX_LIBJPEG={option}")
    assert status != 0
    assert expected in said


@sources
def test_another_word_for_the_library_is_refused(tmp_path: Path) -> None:
    status, said = configure(tmp_path, False, "-DFKDX_LIBJPEG=bundle")
    assert status != 0
    assert "FKDX_LIBJPEG: got bundle, expected auto, bundled or system" in said


@sources
def test_no_compiler_says_what_to_install(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("cmake"), "-S", ROOT, "-B", tmp_path]
    done = subprocess.run(command, env=os.environ | {"CXX": "/absent/c++"}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "fkdx needs a C++17 compiler: apt-get install g++" in " ".join(done.stderr.split())


def test_samples_of_twelve_bits_are_refused(rng: np.random.Generator) -> None:
    data = encode(rng, "4:2:0", 24, 24)
    at = data.index(b"\xff\xc0")
    with pytest.raises(ValueError, match=r"jpeg: (bits of a sample, got 12, expected 8|.*precision 12)"):
        _C.CropDecoder().read_size(data[: at + 4] + b"\x0c" + data[at + 5 :])
