"""Copies of the sources, to plant bugs in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trust.part import Bug

ROOT = Path(__file__).resolve().parents[2]
MADE = ("build", "dist", "runs")  # folders that are not sources


class PlantingError(RuntimeError):
    """The bug cannot be planted: the sources have changed, or do not build with it."""


@contextmanager
def planted(bug: Bug, tree: Path, build: bool = True, source: Path = ROOT) -> Iterator[Path]:
    """`tree`, a copy of the `source` tree, with a bug in it; its extension is built again if need be."""
    copy_sources(source, tree)
    path, marked = tree / bug.file, tree / "has a bug built in"
    text = path.read_text()
    if text.count(bug.old) != 1:
        raise PlantingError(f"{bug.name}: {text.count(bug.old)} places in {bug.file}, expected 1")
    path.write_text(text.replace(bug.old, bug.new))
    try:
        if build and (bug.native or marked.exists()):
            marked.touch()
            build_extension(tree)
            if not bug.native:
                marked.unlink()
        yield tree
    finally:
        path.write_text(text)


def copy_sources(source: Path, tree: Path) -> None:
    """Only what differs is written, so that a build has little to do."""
    tops = [top for top in source.iterdir() if top.name not in MADE and not top.name.startswith(".")]
    for path in (path for top in tops for path in (top, *top.rglob("*")) if path.is_file()):
        target = tree / path.relative_to(source)
        built = path.suffix == ".so" and target.exists()  # from the same sources
        if "__pycache__" in path.parts or built:
            continue
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def build_extension(tree: Path) -> None:
    """Into the tree's own fkdx, without CUDA, and only what has changed."""
    environment = {
        **os.environ,
        "FKDX_CUDA": "0",
        "FKDX_BUILD_DIR": str(tree / "build"),
        "FKDX_WERROR": "0",
        "FKDX_LIBJPEG": "system",
    }
    environment |= {"CCACHE_BASEDIR": str(tree), "CCACHE_NOHASHDIR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # of cmake and ninja
    if shutil.which("ccache"):
        environment |= {f"CMAKE_{language}_COMPILER_LAUNCHER": "ccache" for language in ("C", "CXX")}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlantingError(f"the extension does not build: {done.stdout[-1500:]}{done.stderr[-1500:]}")
