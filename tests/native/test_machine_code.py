"""The reader of machine code behind bench/kernel_report.py, and the gates of the kernels."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
spec = importlib.util.spec_from_file_location("sass", BENCH / "sass.py")
sass = importlib.util.module_from_spec(spec)
sys.modules["sass"] = sass
spec.loader.exec_module(sass)

CONVERTED_BESIDE_ITS_LOAD = """
        /*0010*/              @!P0 LDG.E.64.CONSTANT R4, desc[UR6][R20.64] ;
        /*0020*/                   I2F.U8 R42, R5 ;
        /*0030*/              @!P1 LDG.E.64.CONSTANT R4, desc[UR6][R26.64] ;
        /*0040*/                   I2F.U8 R43, R4 ;
"""
ALL_AT_ONCE = """
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R20.64] ;
        /*0020*/                   IADD3 R26, P1, R26, R30, RZ ;
        /*0030*/                   LDG.E R8, desc[UR6][R26.64+0x4] ;
        /*0040*/                   STG.E.128 desc[UR6][R24.64], R4 ;
        /*0050*/                   LDG.E R9, desc[UR6][R8.64] ;
"""
HOISTED = """
        /*0010*/                   LDS R3, [UR4+0x208] ;
        /*0020*/              @!P0 LDS R4, [UR4+0x20c] ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0040*/                   LDS R5, [UR4] ;
"""


@pytest.mark.parametrize(
    ("text", "loads"), [(CONVERTED_BESIDE_ITS_LOAD, [1, 1]), (ALL_AT_ONCE, [2, 1]), (HOISTED, [])]
)
def test_loads_that_are_under_way_together(text: str, loads: list[int]) -> None:
    assert sass.loads_together(sass.instructions(text)) == loads


def test_shared_memory_that_is_read_too_early() -> None:
    assert sass.unguarded_early_reads(sass.instructions(HOISTED)) == 1
    assert sass.unguarded_early_reads(sass.instructions(HOISTED.replace("BAR.SYNC", "WARPSYNC"))) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_kernels_pass_the_gates() -> None:
    report = [sys.executable, BENCH / "kernel_report.py", "--archs", "90"]
    done = subprocess.run(report, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 gates failed" in done.stdout
