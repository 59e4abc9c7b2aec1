"""A libjpeg-turbo that is not the version of its header: our Huffman decoder must stay out of it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build/dev/libjpeg"
MASTER = re.compile(r"(struct jpeg_decomp_master \{.*?)(\n  JDIMENSION first_iMCU_col;)", re.S)


def headers(folder: Path, change: str) -> Path:
    """Copies of the bundled library's headers, with the internal one of another version."""
    folder.mkdir()
    for header in (*LIBRARY.glob("source/src/*.h"), LIBRARY / "build/jconfig.h"):
        text = header.read_text()
        if header.name == "jpegint.h" and change == "columns moved":
            text, count = MASTER.subn(r"\1\n  JDIMENSION unknown;\2", text)
            assert count == 1
        (folder / header.name).write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.exists(), reason="no bundled libjpeg-turbo was built here")
@pytest.mark.parametrize(("change", "verdict"), [("none", "fit"), ("columns moved", "differ")])
def test_a_header_of_another_version(tmp_path: Path, change: str, verdict: str) -> None:
    program = tmp_path / "program"
    command = ["c++", "-std=c++17", "-Icsrc", f"-I{headers(tmp_path / 'headers', change)}"]
    command += ["tests/native/jpeg_internals.cpp", "csrc/image/jpeg_internals.cpp"]
    subprocess.run([*command, LIBRARY / "build/libjpeg.a", "-o", program], cwd=ROOT, check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == f"{verdict}\n"
