"""macOS on arm64, as far as Linux can tell: what it does differently, and an extension compiled for it."""

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fkdx.loader.pool import default_threads
from fkdx.stores.folder import listing_threads
from fkdx.system import available_cores, start_method

NATIVE = Path(__file__).parent
# Of Mach-O, from <mach-o/loader.h> and <mach-o/nlist.h>.
MAGIC, ARM64, SYMBOL_TABLE, EXTERNAL, DEFINED, AT_RUN_TIME = 0xFEEDFACF, 0x0100000C, 2, 0x01, 0x0E, (0, 0xFE)


def test_cores_where_a_process_is_bound_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert default_threads() == 3
    assert listing_threads() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)  # the system does not say
    assert available_cores() == 1


def test_workers_are_forked_only_where_libraries_survive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert start_method() == "spawn"
    monkeypatch.setattr(sys, "platform", "linux")
    assert start_method() == "fork"


@pytest.mark.slow
def test_all_that_is_asked_of_the_system_is_there(tmp_path: Path) -> None:
    """mypy knows the names of `os`, `signal` ... of each system."""
    lacking = [missing_names(platform, tmp_path) for platform in ("linux", "darwin")]
    assert lacking[0] == lacking[1]
    (tmp_path / "linux_alone.py").write_text("import os\nos.posix_fadvise(0, 0, 0, 0)\n")
    assert missing_names("darwin", tmp_path) - lacking[1]


def missing_names(platform: str, folder: Path) -> set[str]:
    """Uses of what a module does not have; of programs in the folder too."""
    mypy = [sys.executable, "-m", "mypy", "--platform", platform, "--config-file=", "--follow-imports=skip"]
    where = ["--cache-dir", str(folder / platform), "fkdx", *map(str, folder.glob("*.py"))]
    command = [*mypy, "--ignore-missing-imports", *where]
    shown = subprocess.run(command, cwd=NATIVE.parents[1], capture_output=True, text=True).stdout
    return {line for line in shown.splitlines() if "Module has no attribute" in line}


def zig() -> str | None:
    """The program, or the one in the package `ziglang`."""
    package = importlib.util.find_spec("ziglang")
    beside = package and Path(package.origin).with_name("zig")
    return shutil.which("zig") or (str(beside) if beside and beside.exists() else None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_extension_compiles_and_links(tmp_path: Path) -> None:
    """Without a warning, with libjpeg-turbo's NEON code; `make macos` forbids the skip."""
    if not zig():
        assert os.environ.get("FKDX_REQUIRE_ZIG") != "1", "no zig; install it with: pip install ziglang"
        pytest.skip("no zig (pip install ziglang)")
    done = subprocess.run(["sh", NATIVE / "macos.sh", zig(), tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "warning:" not in done.stdout + done.stderr
    assert "#define WITH_SIMD 1" in (tmp_path / "build/libjpeg/build/jconfig.h").read_text()
    offered, asked = symbols((tmp_path / "_C.so").read_bytes())
    assert "_PyInit__C" in offered
    assert not [name for name in offered if "jpeg" in name]
    assert asked["_pread"] == 1  # of libSystem
    of_python = {name for name, library in asked.items() if library in AT_RUN_TIME}
    assert of_python
    assert [name for name in of_python if not name.startswith(("_Py", "__Py"))] == []


def symbols(file: bytes) -> tuple[set[str], dict[str, int]]:
    """Of a Mach-O library: the names that it offers, and those that it asks for, each with the number of the
    library that the linker found it in."""
    magic, machine, _, _, commands, _, _, _ = struct.unpack_from("<8I", file)
    assert (magic, machine) == (MAGIC, ARM64)
    offered, asked, at = set(), {}, 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", file, at)
        if command == SYMBOL_TABLE:
            first, count, names, _ = struct.unpack_from("<4I", file, at + 8)
            for name, kind, _, facts, _ in struct.iter_unpack("<I2BHQ", file[first : first + 16 * count]):
                text = file[names + name : file.index(b"\0", names + name)].decode()
                if kind & EXTERNAL and kind & DEFINED:
                    offered.add(text)
                elif kind & EXTERNAL:
                    asked[text] = facts >> 8
        at += size
    return offered, asked
