"""`pip install .` in an isolated environment: no torch, no nvcc, and the result works from anywhere."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from fkdx import _C

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_wheel_installs_without_torch_and_nvcc(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in tracked.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FKDX_")} | {"FKDX_CUDA": "0"}
    subprocess.run([python, "-m", "pip", "install", "-q", str(source)], check=True, env=environment)
    code = (
        "import fkdx, fkdx._C, importlib.util, pathlib; from importlib import metadata;"
        "assert fkdx._C.build_info()['cuda_targets'] == '';"
        "assert importlib.util.find_spec('torch') is None;"
        "assert metadata.version('fkdx') == fkdx.__version__;"
        "print(fkdx.__version__)"
    )
    for command in ([python, "-c", code], [tmp_path / "venv/bin/fkdx", "doctor"]):
        shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
    assert "missing" not in shown.stdout
    recipes = list((ROOT / "fkdx/recipes").glob("*.yaml"))
    installed = next((tmp_path / "venv/lib").glob("python3*/site-packages/fkdx/recipes"))
    assert len(list(installed.glob("*.yaml"))) == len(recipes)


@pytest.mark.skipif(sys.platform != "linux", reason="ldd")
def test_extension_links_neither_torch_nor_a_cuda_library_nor_a_second_libjpeg() -> None:
    linked = subprocess.run(["ldd", _C.__file__], capture_output=True, text=True, check=True).stdout
    assert ("libjpeg" in linked) != _C.build_info()["jpeg_bundled"]
    assert not any(name in linked for name in ("libtorch", "libc10", "libcudart", "libcuda.so"))
