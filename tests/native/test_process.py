"""The extension in a process that may have few threads, and in one that ends while threads work."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FEW = """
import resource, sys, numpy
from pathlib import Path
from fkdx import _C

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20  # the stack of a thread takes 8 MB of it
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""

DAEMONS = """
import sys, threading, time
import numpy as np
from fkdx import _C, LabelFile, LabelWriter, decode_crops

boxes, flips = np.array([[0, 0, 40, 50]] * 8, np.int32), np.zeros(8, bool)
with LabelWriter("labels.fkdl", num_classes=9, k=2, crops=8) as writer:
    writer.add("0.jpg", boxes, flips, np.tile([1, 2], (8, 1)), np.full((8, 2), 0.3, np.float32), (40, 50))
labels, images, crops = LabelFile("labels.fkdl"), np.zeros(50, int), np.tile(np.arange(8), (50, 1))

def walk():
    _C.FolderWalk(".", 2).wait(1)

works = [lambda: decode_crops("0.jpg", boxes, flips, 64), lambda: labels.gather(images, crops), walk]
count = [0] * len(works)

def work(number):
    while True:
        works[number]()
        count[number] += 1

for number in range(len(works)):
    threading.Thread(target=work, args=(number,), daemon=True).start()
while min(count) < 5:
    time.sleep(0.01)
print("ends")
"""


def run(code: str, folder: Path, *words: str) -> str:
    """What the code prints, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", code, *words]  # of file systems without flock
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three images, one of them in a folder."""
    (tmp_path / "a").mkdir()
    for name in ("0.jpg", "1.jpg", "a/2.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("megabytes", [1, 60])
def test_folders_are_listed_by_the_threads_that_can_be_had(images: Path, megabytes: int) -> None:
    """Sixty-four were asked for; without any there is an error, with some the list and the sizes."""
    code = FEW + (
        "try:\n"
        "    walk = _C.FolderWalk('.', 64)\n"
        "    while not walk.wait(0.1): pass\n"
        "    keys = walk.keys()\n"
        "    print(len(keys), min(_C.file_sizes('.', keys, 0, 3, 64)) > 0)\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    refused = "the system does not let this process start a thread; raise its limits\n"
    assert run(code, images, str(megabytes)) == (refused if megabytes == 1 else "3 True\n")


def test_a_pool_says_that_it_cannot_have_its_threads(tmp_path: Path) -> None:
    code = FEW + "try: _C.Pool(64)\nexcept RuntimeError as error: print(error)\n"
    expected = "the system does not let this process start 64 threads; use fewer: threads=1\n"
    assert run(code, tmp_path, "60") == expected


def test_daemon_threads_may_work_when_the_interpreter_ends(images: Path) -> None:
    """They aborted the program: Python 3.11 to 3.13 unwind them out of C++."""
    assert run(DAEMONS, images) == "ends\n"
