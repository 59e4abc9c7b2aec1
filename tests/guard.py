"""Fails a test that leaves the process changed: its threads, children, environment and torch's switches.

Random generators are left out: tests seed what they need. What is made once for a whole module or session is
there before a test begins, and so is none of its doing.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PATIENCE = 60.0  # seconds that threads and children may take to end, on a busy machine
# Made once a process, on first use, by multiprocessing, torch.compile, tqdm, locks, Playwright and pytest.
LASTING_CHILDREN = (b"resource_tracker", b"forkserver", b"compile_worker")
LASTING_THREADS = ("tqdm_monitor", "fkdx-heartbeat", "asyncio_")
# By torch.compile, and the last by importing cv2.
LASTING_NAMES = ("PYTEST_CURRENT_TEST", "_TORCHINDUCTOR", "TORCHINDUCTOR_CACHE_DIR", "LD_LIBRARY_PATH")
SWITCHES = {
    "default dtype": torch.get_default_dtype,
    "threads": torch.get_num_threads,
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic algorithms only warn": torch.is_deterministic_algorithms_warn_only_enabled,
    "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "precision of float32 products": torch.get_float32_matmul_precision,
    "grad mode": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
}


def pytest_collection_finish() -> None:
    """Objects that are there by now, most of them torch's, are no garbage: looking takes 0.2 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    before = state()
    yield
    end = time.monotonic() + PATIENCE
    while (left := changes(before, state())) and time.monotonic() < end:
        gc.collect()  # a loader that is no longer used closes its threads
        time.sleep(0.02)
    assert not left, "; ".join(left)


def state() -> dict[str, dict]:
    """All that is guarded, by kind and name."""
    return {
        "thread": python_threads() | native_threads(),
        "child process": children(),
        "environment": {n: text for n, text in os.environ.items() if not n.startswith(LASTING_NAMES)},
        "torch": {name: look() for name, look in SWITCHES.items()},
        "working directory": {".": os.getcwd()},
    }


def changes(before: dict[str, dict], after: dict[str, dict]) -> list[str]:
    """What came, and of environment and torch also what went or changed, one text a change."""
    texts = []
    for kind, now in after.items():
        was = before[kind]
        for name in now.keys() | was.keys():
            gone = kind in ("thread", "child process") and name not in now
            if not gone and now.get(name) != was.get(name):
                texts.append(f"left {kind} {name}: {was.get(name)!r} became {now.get(name)!r}")
    return sorted(texts)


def python_threads() -> dict[str, str]:
    """Without those of the pool in which torch.compile builds kernels, made once a process."""
    threads = {f"{thread.ident}": thread for thread in threading.enumerate()}
    lasting = compilers()
    return {
        number: thread.name
        for number, thread in threads.items()
        if not thread.name.startswith(LASTING_THREADS) and thread not in lasting
    }


def compilers() -> set[threading.Thread]:
    module = sys.modules.get("torch._inductor.async_compile")
    if module is None or not module.AsyncCompile.pool.cache_info().currsize:
        return set()
    return set(module.AsyncCompile.pool()._threads)


def native_threads() -> dict[str, str]:
    """The image pools' threads, which Python does not list; torch keeps its own for ever."""
    names = {task.name: text(task / "comm") for task in tasks()}
    ours = {number: name for number, name in names.items() if name.startswith("fkdx")}
    # From Python 3.14 on the system knows the names of Python's threads too.
    return {f"native {n}": name for n, name in ours.items() if not name.startswith(LASTING_THREADS)}


def children() -> dict[str, str]:
    """Children of this process by number, ended ones that nobody waited for too."""
    listed = [text(task / "children") for task in tasks()]
    lines = {number: command(number) for number in " ".join(listed).split()}
    passing = {number: line for number, line in lines.items() if not any(n in line for n in LASTING_CHILDREN)}
    return {number: line.decode() for number, line in passing.items()}


def tasks() -> list[Path]:
    """This process's threads; macOS does not list them."""
    return list(Path("/proc/self/task").iterdir()) if sys.platform == "linux" else []


def command(number: str) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # a thread that has just ended
        return ""
