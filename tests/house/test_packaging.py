"""A source archive, installed in an isolated environment: no torch, no nvcc, and it works from anywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fkdx import _C

ROOT = Path(__file__).resolve().parents[2]
LICENSES = {path.name for path in (ROOT / "licenses").iterdir()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive: of the tracked files alone, and libjpeg-turbo's archive where one is here."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    archives = [str(path.relative_to(ROOT)) for path in (ROOT / "third_party").glob("*.tar.gz")]
    for name in [*tracked.decode().split("\0"), *archives]:
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "setup.py", "-q", "sdist"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if "could not be downloaded" in done.stderr:
        pytest.skip("the source of libjpeg-turbo cannot be had here")
    assert done.returncode == 0, done.stderr
    return next((source / "dist").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_source_archive_installs_without_torch_and_nvcc(tmp_path: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any("third_party/libjpeg-turbo-" in name for name in names)
    assert any(name.endswith("licenses/libjpeg-turbo.md") for name in names)
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FKDX_", "PYTHONPATH"))}
    environment |= {"FKDX_CUDA": "0", "FKDX_LIBJPEG": "bundled"}
    quick = {"FKDX_BUILD_TYPE": "None", "PIP_NO_COMPILE": "1"}  # machine code and bytecode matter elsewhere
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", str(sdist)]
    subprocess.run(install, check=True, env=environment | quick)
    code = (
        "import fkdx, fkdx._C, importlib.util, pathlib; from importlib import metadata;"
        "assert fkdx._C.build_info()['cuda_targets'] == '';"
        "assert fkdx._C.build_info()['jpeg_bundled'];"
        "assert importlib.util.find_spec('torch') is None;"
        "assert metadata.version('fkdx') == fkdx.__version__;"
        "print(fkdx.__version__)"
    )
    for command in ([python, "-c", code], [tmp_path / "venv/bin/fkdx", "doctor"]):
        shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert shown.returncode == 0, shown.stderr
    assert "missing" not in shown.stdout
    recipes = list((ROOT / "fkdx/recipes").glob("*.yaml"))
    installed = next((tmp_path / "venv/lib").glob("python3*/site-packages/fkdx/recipes"))
    assert len(list(installed.glob("*.yaml"))) == len(recipes)
    facts = next((tmp_path / "venv/lib").glob("python3*/site-packages/fkdx-*.dist-info"))
    assert {path.name for path in (facts / "licenses/licenses").iterdir()} == LICENSES
    listed = (facts / "sboms/fkdx.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(listed) is None
    assert {part["name"] for part in json.loads(listed)["components"]} == {"pybind11", "libjpeg-turbo"}


@pytest.mark.skipif(sys.platform != "linux", reason="ldd")
def test_extension_links_neither_torch_nor_a_cuda_library_nor_a_second_libjpeg() -> None:
    linked = subprocess.run(["ldd", _C.__file__], capture_output=True, text=True, check=True).stdout
    assert ("libjpeg" in linked) != _C.build_info()["jpeg_bundled"]
    assert not any(name in linked for name in ("libtorch", "libc10", "libcudart", "libcuda.so"))


def test_an_old_python_is_refused_with_what_to_install(tmp_path: Path) -> None:
    """By pip, by CMake, and by the set-up of a checkout, which asks Python itself."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.11"
    assert "find_package(Python 3.11 REQUIRED" in (ROOT / "CMakeLists.txt").read_text()
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")  # what it says of sys.version_info < (3, 11)
    old.chmod(0o755)
    for tool in ("sh", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = ["sh", "tools/setup.sh", old, tmp_path / "venv"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    expected = "setup: missing Python 3.11 or newer; install it with: sudo apt-get install python3\n"
    assert done.stderr == expected
    assert not (tmp_path / "venv").exists()


def test_actions_of_workflows_are_pinned_by_commit() -> None:
    """Where a release is built; each with the release that the commit is."""
    steps = re.findall(r"uses: (.*)", (ROOT / ".github/workflows/release.yml").read_text())
    assert len(steps) >= 5
    assert [step for step in steps if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", step)] == []
