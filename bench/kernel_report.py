"""What the compiler made of the CUDA kernels: registers, spills, 16-byte accesses, waits for memory.

    python bench/kernel_report.py [--archs 75,80,90] [--json FILE]

Compiles csrc/{loss,batch}/*.cu for every architecture that nvcc offers and prints one line a kernel and
architecture. Where cuobjdump is found (CUDA's or Triton's), it also reads the machine code (bench/sass.py):
128-bit loads and stores (LDG.128, STG.128), accesses to local memory (LDL, STL), and `loads`, the loads that
are under way together: 14+13+2 means 14 loads until the first is waited for, then 13, then 2.

Fails on sm_80 and sm_90 (the others are only reported) if

* a kernel spills (on sm_100 and sm_120: more than the 24 bytes of the longest 16-bit rows);
* a kernel that keeps rows in registers uses a load before all loads of the row have started, or waits for
  memory more often than row, labels and the labels' logits demand;
* `prepare` waits more than once, or more than twice where it mixes: for the box, then for both images;
* a warp reads shared memory before the first barrier, and no predicate says that it may (racecheck would
  report it).

Needs nvcc, no GPU.
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

import sass
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for room in ("loss", "batch") for p in (ROOT / "csrc" / room).glob("*.cu"))
GATED = {80, 90}
MOST_SPILLED = {80: 0, 90: 0, 100: 24, 120: 24}  # bytes stored and loaded
COLUMNS = ("arch", "kernel", "registers", "spill", "shared", "ldg128", "stg128", "local", "loads")


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
        print("  ".join(shown(row.get(column, "?")) for column in COLUMNS))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    failed = [(row, fault) for row in rows for fault in faults(row)]
    for row, fault in failed:
        print(f"FAILED {row['arch']} {row['kernel']}: {fault}")
    print(f"{len(rows)} kernels, {sum(bool(row['spill']) for row in rows)} spill, {len(failed)} gates failed")
    return bool(failed)


def shown(value: object) -> str:
    """A cell of the table; of many waits the first few."""
    if not isinstance(value, list):
        return str(value)
    return "+".join(map(str, value[:4])) + ("+..." if len(value) > 4 else "")


def faults(row: dict) -> list[str]:
    """What must not be, of one line of the report."""
    most = MOST_SPILLED.get(row["arch"], row["spill"])
    found = [f"{row['spill']} bytes spilled"] if row["spill"] > most else []
    if row["arch"] not in GATED or "loads" not in row:  # the latter without cuobjdump
        return found
    name, _, arguments = row["kernel"].partition("<")
    sizes = [int(n) for n in re.findall(r"\b\d+\b", arguments)]
    first, waits = row["loads"][0], len(row["loads"])
    if row["early_lds"]:
        found.append(f"{row['early_lds']} unguarded reads of shared memory before the first barrier")
    if name in ("row_kernel", "topk_kernel") and first < sizes[1]:
        found.append(f"{first} loads under way together, expected the row's {sizes[1]}")
    if name == "row_kernel" and waits > 3:
        found.append(f"{waits} waits for memory, expected 3: row, labels, the labels' logits")
    if name == "prepare_kernel" and sizes[0] > 1:  # single bytes are for images that lie askew
        most = 2 if arguments.endswith("true>") else 1
        if waits > most:
            found.append(f"{waits} waits for memory, expected {most}")
    return found


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
        rows.append(row | accesses.get(name, {}))
    return rows


def disassembled(output: Path) -> dict[str, dict]:
    tool = cuobjdump()
    if tool is None:
        return {}
    text = subprocess.run([tool, "-sass", str(output)], check=True, capture_output=True, text=True).stdout
    found = {}
    for part in text.split("Function : ")[1:]:
        code = list(sass.instructions(part))
        found[part.split(None, 1)[0]] = {
            "ldg128": sum(at.is_a("LDG", "128") for at in code),
            "stg128": sum(at.is_a("STG", "128") for at in code),
            "local": sum(at.is_a("LDL") or at.is_a("STL") for at in code),
            "loads": sass.loads_together(code),
            "early_lds": sass.unguarded_early_reads(code),
        }
    return found


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
