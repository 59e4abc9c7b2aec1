"""The processes of one run: how they meet, agree to stop, and fail together with one message."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from uuid import uuid4

import torch
import torch.distributed as dist

from fkdx.errors import error_text
from fkdx.models.machine import pick_device

CHECK_SECONDS = 2.0  # how often processes ask each other whether one of them got a signal


class World:
    """This process among those that torchrun started; alone without torchrun.

    Attributes: rank, size, main (rank 0: the one that writes).
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.main = self.rank == 0
        self._store = None
        if self.size > 1:
            store, _, _ = next(dist.rendezvous("env://", self.rank, self.size))
            self._store = store_of_attempt(store, self.rank, self.size)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=self._store, rank=self.rank, world_size=self.size)

    def device(self, name: str) -> torch.device:
        """The device of this process, see `pick_device`; a GPU becomes torch's current one."""
        device = pick_device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return device

    def sum(self, values: list[float]) -> list[float]:
        """Sums over all processes, exact for integers below 2^53."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: list[float]) -> list[float]:
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: list[float], operation: dist.ReduceOp) -> list[float]:
        if self.size == 1:
            return values
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together, operation)
        return together.tolist()

    def gather(self, texts: list[str]) -> list[str]:
        """The texts of all processes, one process after the other."""
        if self.size == 1:
            return texts
        parts: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, texts)
        return [text for part in parts for text in part]

    def join(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (n, ...) of all processes, one process after the other; n may differ."""
        if self.size == 1:
            return rows
        counts = [0] * self.size
        dist.all_gather_object(counts, len(rows))
        parts = []
        for rank, count in enumerate(counts):
            part = rows.contiguous() if rank == self.rank else rows.new_empty((count, *rows.shape[1:]))
            dist.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts)

    def wait(self) -> None:
        """Until every process is here."""
        self.sum([0.0])

    def fail(self, error: BaseException) -> int:
        """Say why the run ends, only on the first process that fails; returns the exit status.

        Errors that the user can fix are one line; anything else comes with its traceback.
        """
        if self._store is not None and self._store.add("failed", 1) > 1:
            return 1  # another process failed first; what reached this one is the echo
        if isinstance(error, RuntimeError) and "/gloo/" in str(error):
            reason = str(error).partition("] ")[2].partition(". ")[0]
            error = OSError(f"another process is gone ({reason}); fix its error and run again to go on")
        if not isinstance(error, (ValueError, OSError, IndexError, FloatingPointError)):
            traceback.print_exception(error)
        rank = f" (rank {self.rank})" if self.size > 1 else ""
        print(f"fkdx train{rank}: {error_text(error, 'train')}", file=sys.stderr, flush=True)
        return 1

    def say(self, text: str) -> None:
        """Print a line on the main process; a run goes on if nobody reads its output any more."""
        if not self.main:
            return
        try:
            print(text, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def store_of_attempt(store: dist.Store, rank: int, size: int, seconds: float = 300) -> dist.Store:
    """The part of torchrun's store that only the processes of this attempt use.

    torchrun keeps one store for all attempts of a run (`--max-restarts`), so keys of dead processes are still
    in it, and its count of restarts may differ between machines. Hence each process draws a name, and rank 0
    answers every name that it finds with its own, which becomes the attempt's. A dead process never confirms.

    Raises TimeoutError if some process has not come after `seconds`.
    """
    name = uuid4().hex
    store.set(f"name/{rank}", name)
    if rank:
        attempt = store.get(f"attempt/{name}").decode()
        store.set(f"{attempt}/here/{rank}", "")
        return dist.PrefixStore(attempt, store)
    absent, deadline = set(range(1, size)), time.monotonic() + seconds
    while absent:
        for other in filter(lambda other: store.check([f"name/{other}"]), absent):
            store.set(f"attempt/{store.get(f'name/{other}').decode()}", name)
        absent = {other for other in absent if not store.check([f"{name}/here/{other}"])}
        if absent and time.monotonic() > deadline:
            raise TimeoutError(f"train: rank {min(absent)} of {size} did not start within {seconds:.0f} s")
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


class Interrupted(Exception):
    """The run is to stop: every process raises this at the same point."""


class Stop:
    """Signals ask for an end; every process agrees on the step after which it comes.

    They are SIGTERM, SIGINT, SIGUSR1 (a batch system's warning), and SIGHUP unless `nohup` ignores it.

    The agreement is one tiny all-reduce between the hosts every CHECK_SECONDS, so no step waits for a GPU.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.signal = 0
        self._old: dict[int, Callable | int | None] = {}
        self._interval = 1
        self._steps = 0
        self._checked_at = time.monotonic()

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number

    def check(self) -> None:
        """Call at every step boundary. Raises Interrupted on all processes if any of them got a signal."""
        if self.world.size == 1:
            return self.agree(self.signal)
        self._steps += 1
        if self._steps < self._interval:
            return
        seconds = (time.monotonic() - self._checked_at) / self._steps
        number, slowest = self.world.max([self.signal, seconds])
        self._interval = max(1, int(CHECK_SECONDS / max(slowest, 1e-4)))
        self._steps, self._checked_at = 0, time.monotonic()
        self.agree(int(number))

    def agree(self, number: int) -> None:
        """All processes know the number of the signal that one of them got (0: none did)."""
        if number:
            self.signal = number
            raise Interrupted
