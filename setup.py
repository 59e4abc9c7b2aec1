"""Build the extension `fkdx._C` with CMake. All metadata is in pyproject.toml.

Environment:
    FKDX_CUDA        auto (default: on if nvcc is found) | 1 | 0
    FKDX_CUDA_ARCHS  all (default) | native | a list such as "80;90"
    FKDX_LIBJPEG     auto (default: bundled where its source can be had) | bundled | system
    FKDX_LIBJPEG_SOURCE  path of libjpeg-turbo's source archive, instead of a download
    FKDX_WERROR      1 turns compiler warnings into errors
    FKDX_SANITIZE    for example "address,undefined" or "thread"
    FKDX_BUILD_DIR   a folder to keep, for incremental builds (default: a fresh temporary one)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure and build the whole CMake project; it has one extension.

    `components` then lists the foreign code in it, one a line.
    """

    components: str | None = None

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        kept = os.environ.get("FKDX_BUILD_DIR")
        with nullcontext(kept) if kept else tempfile.TemporaryDirectory() as build_dir:
            configure = [
                "cmake",
                f"-S{ROOT}",
                f"-B{build_dir}",
                "-GNinja",
                f"-DCMAKE_BUILD_TYPE={os.environ.get('FKDX_BUILD_TYPE', 'Release')}",
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DFKDX_VERSION={self.distribution.get_version()}",
                f"-DFKDX_OUTPUT={target}",
            ]
            for option in ("CUDA", "CUDA_ARCHS", "LIBJPEG", "WERROR", "SANITIZE"):
                if value := os.environ.get(f"FKDX_{option}"):
                    configure.append(f"-DFKDX_{option}={value}")
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", build_dir], check=True)
            self.components = (Path(build_dir) / "components.txt").read_text()
        if not self.inplace and not os.environ.get("FKDX_SANITIZE"):
            # Started in this folder, `python -m` and `torchrun -m` find the sources before an installed fkdx.
            shutil.copy2(target, ROOT / "fkdx")


class WheelWithComponents(bdist_wheel):
    """A wheel that lists the foreign code compiled into it: CycloneDX, where PEP 770 puts it."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: object) -> None:
        super().write_wheelfile(wheelfile_base, *arguments)
        components = self.get_finalized_command("build_ext").components
        if components is None:  # an editable installation writes its facts before it builds
            return
        folder = Path(wheelfile_base) / "sboms"
        folder.mkdir()
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": component("fkdx", self.distribution.get_version(), "Apache-2.0")},
            "components": [component(*line.split("|")) for line in components.splitlines()],
        }
        (folder / "fkdx.cdx.json").write_text(json.dumps(document, indent=2) + "\n")


def component(name: str, version: str, license: str, purl: str = "") -> dict:
    known = {"type": "library", "name": name, "version": version, "licenses": [{"expression": license}]}
    return known | ({"purl": purl} if purl else {})


class SdistWithLibjpeg(sdist):
    """An archive that builds from itself alone: with libjpeg-turbo's source in third_party/."""

    def run(self) -> None:
        subprocess.run(["cmake", "-P", "cmake/libjpeg_source.cmake"], cwd=ROOT, check=True)
        super().run()


setup(
    ext_modules=[Extension("fkdx._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": WheelWithComponents, "sdist": SdistWithLibjpeg},
)
