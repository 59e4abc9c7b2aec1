"""What the compiler made of the CUDA kernels: registers, spills, 16-byte accesses, local memory.

    python bench/kernel_report.py [--archs 75,80,90] [--json FILE]

Compiles csrc/{loss,batch}/*.cu for every architecture that nvcc offers, prints one line a kernel and
architecture, and fails if a kernel spills on sm_80, 90, 100 or 120. Where cuobjdump is found (CUDA's or
Triton's), it also counts 128-bit loads and stores (LDG.128, STG.128) and accesses to local memory (LDL,
STL). Needs nvcc, no GPU.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for room in ("loss", "batch") for p in (ROOT / "csrc" / room).glob("*.cu"))
MUST_NOT_SPILL = {80, 90, 100, 120}
COLUMNS = ("arch", "kernel", "registers", "spill", "shared", "ldg128", "stg128", "local")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archs", help="comma separated, such as 80,90 (default: all from 75 up)")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args(argv)
    archs = [int(a) for a in args.archs.split(",")] if args.archs else offered_archs()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in tqdm(archs, desc="compiling", unit="arch", disable=None):
            for source in SOURCES:
                rows += kernels(source, arch, Path(folder) / f"{source.stem}.o")
    print("  ".join(COLUMNS))
    for row in rows:
        print("  ".join(str(row[column]) for column in COLUMNS))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    spilled = [row for row in rows if row["spill"] and row["arch"] in MUST_NOT_SPILL]
    count = sum(bool(row["spill"]) for row in rows)
    print(f"{len(rows)} kernels, {count} spill, {len(spilled)} where they must not")
    return bool(spilled)


def offered_archs() -> list[int]:
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    return [int(a) for a in re.findall(r"compute_(\d+)", listed) if int(a) >= 75]


def kernels(source: Path, arch: int, output: Path) -> list[dict]:
    """One row a kernel of a source, from ptxas's report and the disassembly."""
    command = ["nvcc", "-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", f"-arch=sm_{arch}", "-Xptxas", "-v", "-c"]
    done = subprocess.run(
        [*command, str(source), "-o", str(output)], check=True, capture_output=True, text=True
    )
    accesses = disassembled(output)
    rows = []
    for part in done.stderr.split("Compiling entry function '")[1:]:
        name = part[: part.index("'")]
        shared = re.search(r"(\d+) bytes smem", part)
        row = {
            "arch": arch,
            "kernel": readable(name),
            "registers": int(re.search(r"Used (\d+) registers", part)[1]),
            "spill": sum(int(n) for n in re.findall(r"(\d+) bytes spill", part)),
            "shared": int(shared[1]) if shared else 0,
        }
        rows.append(row | accesses.get(name, {"ldg128": "?", "stg128": "?", "local": "?"}))
    return rows


def disassembled(output: Path) -> dict[str, dict[str, int]]:
    tool = cuobjdump()
    if tool is None:
        return {}
    sass = subprocess.run([tool, "-sass", str(output)], check=True, capture_output=True, text=True).stdout
    counts = {}
    for part in sass.split("Function : ")[1:]:
        counts[part.split(None, 1)[0]] = {
            "ldg128": len(re.findall(r"\bLDG\.E\.128", part)),
            "stg128": len(re.findall(r"\bSTG\.E(?:\.\w+)*\.128|\bSTG\.E\.128", part)),
            "local": len(re.findall(r"\b(?:LDL|STL)\b", part)),
        }
    return counts


def cuobjdump() -> str | None:
    if found := shutil.which("cuobjdump"):
        return found
    spec = importlib.util.find_spec("triton")
    beside = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if spec else None
    return str(beside) if beside and beside.exists() else None


def readable(name: str) -> str:
    done = subprocess.run(["c++filt", name], capture_output=True, text=True)
    plain = done.stdout.strip() or name
    return re.sub(r"fkdx::|void |\(.*\)$|Device", "", plain).replace(", ", ",")


if __name__ == "__main__":
    sys.exit(main())
