"""Loops on the CPU run on torch's own threads: no others are made, callers do not disturb each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from draw_tensors import random_labels, random_logits

from fkdx import SparseTarget, loss_and_grad, soft_cross_entropy
from fkdx.batch import prepare

ROWS, CLASSES = 300, 1000


@pytest.fixture(autouse=True)
def threads():
    """Three threads for all, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def draw(rng: np.random.Generator) -> tuple[torch.Tensor, SparseTarget, torch.Tensor]:
    target = SparseTarget.from_topk(*random_labels(rng, ROWS, CLASSES, 5), CLASSES)
    images = torch.from_numpy(rng.integers(0, 256, (9, 20, 30, 3), np.uint8))
    return random_logits(rng, ROWS, CLASSES), target, images


def answers(logits: torch.Tensor, target: SparseTarget, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return *loss_and_grad(logits, target), prepare(images)


def same(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    """Compared by numpy: torch's own threads do not survive a fork."""
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, other, strict=True))


def run(script: str) -> str:
    """What a process of its own prints, that nothing has run in before."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


TEAM = """
import os, sys
import numpy as np
import torch
sys.path[:0] = ["tests", "tests/native"]
from test_parallel import answers, draw

batch = draw(np.random.default_rng({seed}))
torch.set_num_threads(3)
def threads():
    return len(os.listdir("/proc/self/task"))
counts = [threads()]
for _ in range(200):
    answers(*batch)
counts.append(threads() - counts[0])
torch.rand(1_000_000).exp()
counts.append(threads() - counts[0])
print(counts[1:])
"""


def test_the_team_is_the_one_of_torch(rng):
    assert run(TEAM.format(seed=rng.integers(1 << 30))) == "[2, 2]\n"


def test_callers_at_the_same_time(rng):
    batches = [draw(rng) for _ in range(4)]
    torch.set_num_threads(1)
    expected = [answers(*batch) for batch in batches]

    def repeat(i: int) -> bool:
        torch.set_num_threads(3)
        return all(same(answers(*batches[i]), expected[i]) for _ in range(100))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(repeat, range(4)))


def test_the_first_wrong_row_is_named_and_the_threads_live_on(rng):
    ids, values = random_labels(rng, ROWS, CLASSES, 5)
    logits = random_logits(rng, ROWS, CLASSES)
    good = SparseTarget.from_topk(ids, values, CLASSES)
    expected = loss_and_grad(logits, good)
    for _ in range(50):
        wrong = np.sort(rng.choice(ROWS, 20, replace=False))
        spoilt = ids.copy()
        spoilt[wrong, 0] = CLASSES
        with pytest.raises(IndexError, match=rf"class id in row {wrong[0]},"):
            soft_cross_entropy(logits, SparseTarget.from_topk(spoilt, values, CLASSES))
        assert same(loss_and_grad(logits, good), expected)


FORK = """
import os, sys, threading
import numpy as np
import torch
sys.path[:0] = ["tests", "tests/native"]
from test_parallel import answers, draw, same

batch = draw(np.random.default_rng({seed}))
torch.set_num_threads(3)
expected = answers(*batch) if {before} else None
stop = threading.Event()
def work():
    while not stop.is_set():
        answers(*batch)
busy = threading.Thread(target=work)
if {busy}:
    busy.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        good = expected is None or same(answers(*batch), expected)
        grandchild = os.fork()
        good = same(answers(*batch), answers(*batch)) and good
        if grandchild:
            good = os.waitpid(grandchild, 0)[1] == 0 and good
        os._exit(0 if good and len(os.listdir("/proc/self/task")) == 1 else 7)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
if {busy}:
    busy.join()
print(set(codes), expected is None or same(answers(*batch), expected))
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_fork(rng, before, busy):
    """Children and grandchildren of a process whose threads sleep or work; they work alone."""
    assert run(FORK.format(seed=rng.integers(1 << 30), before=before, busy=busy)) == "{0} True\n"
