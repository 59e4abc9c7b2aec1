"""The life of a loader: broken off, forked, interrupted, run for ever: no hang, no leak, no early reuse."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from guard import PATIENCE
from loading import evict, make_loader
from PIL import Image

from fkdx import CropLoader, ValidationLoader


def facts() -> tuple[set[str], int]:
    """This process's threads, and how many files are open."""
    return set(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def nothing_is_left(before: tuple[set[str], int]) -> bool:
    """A thread that has been joined stays in the list of the kernel for a moment, in that of before too."""
    end = time.monotonic() + PATIENCE
    while (left := left_since(before)) and time.monotonic() < end:
        time.sleep(0.01)
    return not left


def left_since(before: tuple[set[str], int]) -> bool:
    threads, files = facts()
    return bool(threads - before[0]) or files > before[1]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
@pytest.mark.parametrize("packed", [False, True])
def test_images_that_no_cache_holds(root: Path, tmp_path: Path, packed: bool) -> None:
    files = sorted(root.rglob("*.jpg"))
    if packed:
        with tarfile.open(tmp_path / "images.tar", "w") as tar:
            for path in files:
                tar.add(path, str(path.relative_to(root)))
        root, files = tmp_path / "images.tar", [tmp_path / "images.tar"]
    loader = make_loader(root)
    with pytest.warns(UserWarning, match="skipped"):
        warm = [batch.images.clone() for batch in loader]
    loader.set_epoch(0)
    evict(files)
    for batch, images in zip(loader, warm, strict=True):
        assert torch.equal(batch.images, images)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
def test_a_thread_waits_for_few_images_of_a_cold_disk(tmp_path: Path, rng: np.random.Generator) -> None:
    """Where the file system has a disk. It waited for all of them if they were not asked for in advance."""
    (tmp_path / "a").mkdir()
    files = [tmp_path / f"a/{i}.jpg" for i in range(40)]
    for path in files:  # which take longer to decode than any disk takes to read them
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).resize((2000, 2000)).save(path)

    def cold_images() -> int:
        evict(files)
        loader = make_loader(tmp_path, threads=1)
        assert len(list(loader)) == len(loader)
        return loader.pool.stages()["cold"]

    assert any(cold_images() < len(files) / 2 for _ in range(3))  # or the disk was busy for a moment


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
def test_images_that_vanish_before_they_are_read(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "images")
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    loader = make_loader(tmp_path / "images")
    evict(files)
    gone = [path for path in files if path.stem in ("1", "2", "20", "33")]
    for path in gone:
        path.unlink()
    with pytest.warns(UserWarning, match="skipped"):
        assert len(list(loader)) == len(loader)
    assert set(loader.skipped) == {f"{path.parent.name}/{path.name}" for path in gone} | {"b/7.jpg"}


def resident_bytes() -> int:
    """Without those of files and libraries, which the system takes and gives as it likes."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.linux
@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_broken_off_passes_leave_nothing(root: Path) -> None:
    next(iter(make_loader(root)))
    gc.collect()  # loaders of other tests
    before = facts()
    for i in range(100):
        loader = make_loader(root, threads=1 + i % 4)
        for step, _ in enumerate(loader):
            if step == i % 3:
                break
    del loader
    assert nothing_is_left(before)
    for _ in range(20):
        with suppress(ValueError):
            list(make_loader(root, on_error="raise"))
    assert nothing_is_left(before)
    loader = make_loader(root)
    for _ in range(200):
        next(iter(loader))
    loader.close()
    loader.close()
    assert nothing_is_left(before)
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


@pytest.mark.linux
@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_memory_stays_flat(root: Path) -> None:
    """100 passes over a tiny set with a corrupt file."""
    loader = make_loader(root)
    for _ in range(20):
        for _ in loader:
            pass
    before, images = resident_bytes(), loader.pool.stages()["images"]
    for _ in range(100):
        for _ in loader:
            pass
    assert loader.pool.stages()["images"] - images >= 100 * 40
    assert resident_bytes() - before < 4 << 20
    assert len(loader.skipped) == 1


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_exceptions_of_the_caller(root: Path) -> None:
    loader = make_loader(root)
    first = next(iter(loader)).images.clone()
    for _ in range(50):
        with pytest.raises(ZeroDivisionError):
            _fail_on_the_first(loader)
    assert torch.equal(next(iter(loader)).images, first)


def _fail_on_the_first(loader: CropLoader) -> None:
    for _ in loader:
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_several_loaders_at_once(root: Path) -> None:
    alone = [[batch.images.clone() for batch in make_loader(root, seed=seed)] for seed in range(4)]
    together = zip(*[make_loader(root, seed=seed) for seed in range(4)])
    for step, batches in enumerate(together):
        for seed, batch in enumerate(batches):
            assert torch.equal(batch.images, alone[seed][step])


def script_of(root: Path, body: str) -> list[str]:
    head = f"""
import os, sys, threading, time
from fkdx import CropLoader, ValidationLoader
ROOT = {str(root)!r}
def make(**options):
    return CropLoader(ROOT, None, 8, 2, **{{"size": 16, "threads": 2, "on_error": "skip"}} | options)
"""
    return [sys.executable, "-W", "ignore", "-c", head + body]


def run(root: Path, body: str) -> subprocess.CompletedProcess:
    return subprocess.run(script_of(root, body), capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "error"),
    [("", 0, ""), ("sys.exit(3)", 3, ""), ("os._exit(4)", 4, ""), ("raise ValueError('mine')", 1, "mine")],
)
def test_exit_in_the_middle_of_a_pass(root: Path, end: str, code: int, error: str) -> None:
    begin = "loaders = make(size=512, prefetch=4), ValidationLoader(ROOT, 4, 256, on_error='skip')\n"
    for_both = "passes = [iter(loader) for loader in loaders]; [next(one) for one in passes]\n"
    done = run(root, f"{begin}{for_both}print('bye', flush=True)\n{end}")
    assert (done.returncode, done.stdout) == (code, "bye\n")
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(("Traceback", "  File"))] == (
        [f"ValueError: {error}"] if error else []
    )


AFTER_MAIN = """
def count():
    threading.main_thread().join()
    loaders = make(), ValidationLoader(ROOT, 4, 16, on_error="skip")
    print(*[sum(len(batch.keys) for batch in loader) for loader in loaders])
threading.Thread(target=count).start()
"""


@pytest.mark.slow
def test_a_thread_that_goes_on_after_the_main_thread(root: Path, tmp_path: Path) -> None:
    """Executors of Python take nothing more by then."""
    images = shutil.copytree(root, tmp_path / "images")
    Image.new("RGB", (50, 40)).save(images / "a" / "0.jpg", "PNG")
    done = run(images, AFTER_MAIN)
    assert (done.stdout, done.stderr, done.returncode) == ("80 39\n", "", 0)


AT_REST = """
import atexit, sys, threading, time

def names(frame):
    return [frame.f_code.co_name, *names(frame.f_back)] if frame else []

def wait_for_rest():
    begun, resting = time.monotonic(), 0
    while resting < 2 and time.monotonic() < begun + 60:
        time.sleep(0.01)
        resting = sum("rest_at_exit" in names(frame) for frame in sys._current_frames().values())
    print(resting)

atexit.register(wait_for_rest)  # before all others, so that it is called after them
"""
DAEMONS = """
seen = [0, 0]
def work(number, loader):
    while True:
        for batch in loader:
            seen[number] += 1
loaders = make(), ValidationLoader(ROOT, 4, 16, on_error="skip")
for one in enumerate(loaders):
    threading.Thread(target=work, args=one, daemon=True).start()
while min(seen) < 5:
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_daemon_threads_rest_when_the_program_ends(root: Path) -> None:
    """Each printed an error of concurrent.futures or of a closed pool."""
    command = script_of(root, DAEMONS)
    command[-1] = AT_REST + command[-1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_a_loader_that_is_closed_while_it_is_used(root: Path) -> None:
    """No batch has pixels that no thread has written."""
    for make in (make_loader, lambda root: ValidationLoader(root, 4, 64, threads=2, on_error="skip")):
        expected = [batch.images for batch in make(root)]
        loader = make(root)
        batches = iter(loader)
        found = [next(batches).images]
        loader.close()
        with pytest.raises(RuntimeError, match="closed"):
            found += [batch.images for batch in batches]
        assert len(found) < len(expected)
        for images, wanted in zip(found, expected):
            assert torch.equal(images, wanted)


FORK = """
loader = make()
batches = iter(loader)
next(batches)
child = os.fork()
if child == 0:
    try:
        next(batches)
    except RuntimeError as error:
        print(error, flush=True)
    try:
        next(iter(loader))
    except RuntimeError as error:
        print(error, flush=True)
    try:
        loader.pool.stages()   # a thread of the parent may have held its lock when it was forked
    except RuntimeError as error:
        print(error, flush=True)
    print(len(list(make())), flush=True)   # a loader of its own works
    del batches, loader
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(len(list(batches)), len(list(loader)), flush=True)
"""


@pytest.mark.slow
def test_fork(root: Path) -> None:
    done = run(root, FORK)
    *refused, own, code, left = done.stdout.splitlines()
    assert len(refused) == 3
    assert all("used after fork" in line for line in refused)
    assert (own, code, left) == ("10", "7", "9 10")
    assert (done.returncode, done.stderr) == (0, "")


WORKERS = """
import torch
from torch.utils.data import DataLoader, Dataset
from fkdx import decode_crops
class Crops(Dataset):
    def __init__(self, loader):
        self.loader, self.files = loader, [loader.pool.store.place(i)[0] for i in range(8, 20)]
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return decode_crops(self.files[i], [[0, 0, 40, 50]], [False], 16)
class Loaders(Crops):
    def __getitem__(self, i): return next(iter(self.loader))
if __name__ == "__main__":
    loader = make()
    next(iter(loader))                          # this process has threads and decoders already
    alone = [Crops(loader)[i] for i in range(12)]
    for method in ("fork", "forkserver"):
        data = Crops(loader if method == "fork" else make())
        data.loader = data.loader if method == "fork" else None
        batches = DataLoader(data, None, num_workers=2, multiprocessing_context=method)
        print(all((a == b).all() for a, b in zip(alone, batches)), flush=True)
    try:
        list(DataLoader(Loaders(loader), None, num_workers=1, multiprocessing_context="fork"))
    except RuntimeError as error:
        print("used after fork" in str(error), flush=True)
    print(len(list(loader)), flush=True)
"""


@pytest.mark.slow
def test_workers_of_a_data_loader(root: Path, tmp_path: Path) -> None:
    """They decode as the main process does; a loader of ours that they inherit is refused, not waited for."""
    script = tmp_path / "workers.py"
    script.write_text(script_of(root, WORKERS)[-1])
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["True", "True", "True", "10"], done.stderr
    assert done.returncode == 0


@pytest.mark.slow
def test_keyboard_interrupt(root: Path, rng: np.random.Generator) -> None:
    script = (
        "loader = make(size=1024, prefetch=3)\nprint('go', flush=True)\nwhile True:\n  for _ in loader: pass"
    )
    for _ in range(3):
        done = _interrupted(root, script, rng.uniform(0, 0.5))
        assert "KeyboardInterrupt" in done.errors
        assert done.code in (-signal.SIGINT, 130)


def _interrupted(root: Path, body: str, delay: float) -> SimpleNamespace:
    command = script_of(root, body)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(delay)
        signals = 0
        try:
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                signals += 1
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)  # 0.3 s on an idle machine
            errors = process.stderr.read()
        finally:
            process.kill()  # else leaving the block would wait for ever
        assert signals == 1 or "Exception ignored" in errors  # Python drops one that strikes in a finalizer
        return SimpleNamespace(errors=errors, code=process.returncode)
