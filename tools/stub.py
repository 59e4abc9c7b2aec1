#!/usr/bin/env python3
"""Write fkdx/_C.pyi, the types of the extension, from the extension that is built: `python tools/stub.py`

An extension without CUDA has fewer functions; their stubs are kept as the file has them.
"""

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parents[1] / "fkdx/_C.pyi"
HEAD = '"""Types of the extension; written by tools/stub.py."""\n'
ONLY_WITH_CUDA = {
    "cuda_check",
    "cuda_device_count",
    "loss_cuda",
    "prepare_cuda",
    "topk_cuda",
    "max_topk",
    "max_topk_classes",
}


def generate(committed: str) -> str:
    """The text of the stub; `committed` is what the file holds now."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "fkdx._C", "-o", folder]
        subprocess.run(command, check=True, capture_output=True)
        made = definitions(simplified((Path(folder) / "fkdx/_C.pyi").read_text()))
    old = definitions(committed)
    made |= {name: old[name] for name in ONLY_WITH_CUDA - made.keys() if name in old}
    body = "\n".join(text for _, _, text in sorted(made.values(), key=lambda found: found[:2]))
    return formatted("\n".join([HEAD, *imports(body), body]))


def simplified(text: str) -> str:
    """With int and float for what pybind11 3 spells out, and bytes where C++ takes any string of bytes."""
    text = re.sub(r"typing\.Supports(Int|Float) \| typing\.SupportsIndex", lambda m: m[1].lower(), text)
    text = re.sub(r"(def (?:decode_\w+|read_size)\(self, (?:arg0|data): )str", r"\1bytes", text)
    text = text.replace("is_jpeg(arg0: str", "is_jpeg(arg0: bytes")
    text = re.sub(r"\b(extra|block|entries): str", r"\1: bytes", text)
    return re.sub(r"(: \w+) = None", r"\1 | None = None", text)


def definitions(text: str) -> dict[str, tuple[int, str, str]]:
    """Rank, name and source by name: classes in their order, then functions, then constants, each by name."""
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.ClassDef):
            found[node.name] = (0, "", source)
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = (1, node.name, source)
        elif isinstance(node, ast.AnnAssign) and node.target.id != "__all__":
            found[node.target.id] = (2, node.target.id, source)
    return found


def imports(text: str) -> list[str]:
    modules = ("collections.abc", "numpy", "numpy.typing", "typing", "typing_extensions")
    return [f"import {module}" for module in modules if f"{module}." in text]


def formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    STUB.write_text(generate(STUB.read_text() if STUB.exists() else ""))
