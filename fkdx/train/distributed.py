"""The processes of one run: how they meet, agree to stop, and fail together with the cause said once."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

import torch
import torch.distributed as dist

from fkdx.errors import error_text
from fkdx.models.machine import pick_device

CHECK_SECONDS = 2.0  # how often processes ask each other whether one was told to stop


class World:
    """This process among the others that torchrun started; alone where it did not.

    Attributes: rank, size, local_rank (of this machine's processes), main (rank 0: the one that writes).
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.main = self.rank == 0
        self._store = None
        if self.size > 1:
            self._store, _, _ = next(dist.rendezvous("env://", self.rank, self.size))
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

    def wait(self) -> None:
        """Until every process is here."""
        self.sum([0.0])

    def fail(self, error: BaseException) -> int:
        """Say why the run ends, on the process that met the cause first only; returns the exit status.

        Errors that the user can mend are one line; anything else comes with its traceback.
        """
        if self._store is not None and self._store.add("failed", 1) > 1:
            return 1  # another process failed first; what reached this one is the echo
        if isinstance(error, RuntimeError) and "/gloo/" in str(error):
            reason = str(error).partition("] ")[2].partition(". ")[0]
            error = OSError(f"another process is gone ({reason}); mend what ended it and run again to go on")
        if not isinstance(error, (ValueError, OSError, IndexError, FloatingPointError)):
            traceback.print_exception(error)
        rank = f" (rank {self.rank})" if self.size > 1 else ""
        print(f"fkdx train{rank}: {error_text(error, 'train')}", file=sys.stderr, flush=True)
        return 1

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class Interrupted(Exception):
    """The run was told to stop: every process raises this at the same point."""


class Stop:
    """SIGTERM and SIGINT ask for an end; every process agrees on the step after which it comes.

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
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number

    def check(self) -> None:
        """Call at every step boundary. Raises Interrupted on all processes if any was told to stop."""
        if self.world.size == 1:
            return self.agree(self.signal)
        self._steps += 1
        if self._steps < self._interval:
            return
        seconds = (time.monotonic() - self._checked_at) / self._steps
        told, slowest = self.world.max([self.signal, seconds])
        self._interval = max(1, int(CHECK_SECONDS / max(slowest, 1e-4)))
        self._steps, self._checked_at = 0, time.monotonic()
        self.agree(int(told))

    def agree(self, told: int) -> None:
        """All processes know that one got the signal `told` (0: none did)."""
        if told:
            self.signal = told
            raise Interrupted
