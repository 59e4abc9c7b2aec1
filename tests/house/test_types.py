"""The package is typed: its stubs are up to date, and mypy accepts the public names and the README's loop."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fkdx

ROOT = Path(__file__).resolve().parents[2]


def test_the_stub_of_the_extension_is_what_is_built() -> None:
    """`make docs` writes it. An extension without CUDA takes the stubs of its CUDA functions on trust."""
    committed = (ROOT / "fkdx/_C.pyi").read_text()
    assert runpy.run_path(str(ROOT / "tools/stub.py"))["generate"](committed) == committed


def test_the_stub_of_the_package_has_the_public_names() -> None:
    text = (ROOT / "fkdx/__init__.pyi").read_text()
    assert sorted(re.findall(r"import \w+ as (\w+)", text)) == sorted(fkdx.__all__)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mypy_accepts_the_public_names_and_the_examples(tmp_path: Path) -> None:
    """pyproject.toml says what it checks. It finds a wrong type in a user's program: names are not `Any`."""
    loop = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for number, block in enumerate(loop):
        (tmp_path / f"readme_{number}.py").write_text(block)
    (tmp_path / "wrong.py").write_text("import fkdx\n\nfkdx.decode_crops(b'', [], [], size='large')\n")
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    shown = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout
    programs = sorted(str(path) for path in tmp_path.glob("*.py"))
    shown = subprocess.run([*mypy, *programs], cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in shown.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, shown.stdout
    assert 'has incompatible type "str"; expected "int"' in errors[0]
