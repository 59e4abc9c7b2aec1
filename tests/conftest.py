"""What all tests share: the gpu mark, CPU variants, and fresh random numbers that can be replayed."""

import os
import signal
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from fkdx import _C  # brings no threads of its own

pytest_plugins = ["guard", "browsing"]

# Before torch is imported: sums come out the same in this process and in those that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# Where tests take more threads, those that wait leave their cores to other tests.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# torch looks only once whether cuBLAS repeats itself, at the first test that multiplies on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# A suite in the background ignores SIGINT, and the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that none runs alone at the end; gpu tests are skipped without a GPU, which
    FKDX_REQUIRE_CUDA=1 forbids, and linux tests elsewhere.
    """
    items.sort(key=patience, reverse=True)
    for item in items:
        if item.get_closest_marker("linux") and sys.platform != "linux":
            item.add_marker(pytest.mark.skip(reason="asks Linux's /proc"))
    if os.environ.get("FKDX_REQUIRE_CUDA") == "1" or _gpu_present():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


def patience(item: pytest.Item) -> float:
    """The time that a test asks for itself; 0 for most."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark and mark.args else 0.0


def _gpu_present() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A run with --deterministic changes torch for the whole process; the next test shall not see that."""
    yield
    if torch := sys.modules.get("torch"):
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.backends.cudnn.benchmark = False


@pytest.fixture
def curves_drawn() -> None:
    """For tests of runs that need their curves.png."""


@pytest.fixture(autouse=True)
def blank_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves.png takes longer than most runs of tests: elsewhere it is an empty file."""
    journal = sys.modules.get("fkdx.train.journal")
    if journal and "curves_drawn" not in request.fixturenames:
        monkeypatch.setattr(journal, "draw_curves", lambda path, *_: path.touch())


@pytest.fixture(params=_C.supported_cpus())
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each CPU variant in turn."""
    _C.force_cpu(request.param)
    yield request.param
    _C.force_cpu("")


@pytest.fixture(scope="session")
def run_seed() -> int:
    """Differs from run to run; set FKDX_TEST_SEED to replay a failure."""
    return int(os.environ.get("FKDX_TEST_SEED", str(int.from_bytes(os.urandom(3), "little"))))


@pytest.fixture
def rng(run_seed: int, request: pytest.FixtureRequest) -> np.random.Generator:
    print(f"FKDX_TEST_SEED={run_seed}")  # pytest shows it when the test fails
    return np.random.default_rng([run_seed, zlib.crc32(request.node.nodeid.encode())])
