"""What is reported of a run: loss, speed, time spent waiting for data, and a loss that is not finite."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from fkdx.train.distributed import World
from fkdx.train.journal import Journal


class Watch:
    """Collects the losses of steps and reports them from time to time; only a report waits for the device.

    `healthy` is False while the last loss on any process was not finite: then nothing is to be saved.
    """

    def __init__(self, journal: Journal, world: World, limit: int) -> None:
        self.journal, self.world, self.limit = journal, world, limit
        self.healthy = True
        self._bad_in_a_row = 0
        self._suspects: list[str] = []  # images of the first step of the row that is not finite
        self._bar: tqdm | None = None
        self._clear()

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._keys: list[list[str]] = []
        self._waited, self._since = 0.0, time.perf_counter()

    @contextmanager
    def one_pass(self, text: str, steps: int, done: int) -> Iterator[None]:
        """Show the progress of one pass, `done` of its `steps` behind it."""
        hidden = None if self.world.main else True  # None: hidden without a terminal
        with tqdm(
            total=steps, initial=done, desc=text, unit="step", disable=hidden, leave=False
        ) as self._bar:
            self._clear()
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around everything that waits for data."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def saw(self, losses: Tensor, keys: list[str]) -> None:
        """The losses (B,) of one step's crops, on whatever device, and their images' keys in order."""
        self._losses.append(losses)
        self._keys.append(keys)
        self._bar.update()

    def report(self, step: int, **more: float) -> None:
        """Write one line on the steps since the last report; every process calls this at the same step.

        Raises FloatingPointError on every process once `limit` steps in a row were not finite, with the
        images of the first of them.
        """
        if not self._losses:
            return
        steps, crops = len(self._losses), len(self._losses[0])
        losses = torch.stack(self._losses).double().cpu()
        bad = self.world.max((~losses.isfinite().all(dim=1)).double().tolist())
        good = losses[[not b for b in bad]]
        seconds = time.perf_counter() - self._since
        total, count, waited = self.world.sum([good.sum().item(), good.numel(), self._waited / seconds])
        values = {
            "loss": total / count if count else None,
            "crops_per_second": round(steps * crops * self.world.size / seconds, 1),
            "data_wait": round(waited / self.world.size, 4),
        }
        device = self._losses[0].device
        if device.type == "cuda":
            values["memory"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)  # GB
        if any(bad):
            values["not_finite"] = int(sum(bad))
        self.journal.write("step", step, **values, **more)
        self._bar.set_postfix(
            loss=values["loss"], crops_s=values["crops_per_second"], wait=values["data_wait"]
        )
        self._judge(losses, bad, step)
        self._clear()

    def _judge(self, losses: Tensor, bad: list[float], step: int) -> None:
        for number, is_bad in enumerate(bad):
            if not is_bad:
                self._bad_in_a_row = 0
                continue
            if self._bad_in_a_row == 0:
                rows = (~losses[number].isfinite()).nonzero().flatten().tolist()
                self._suspects = sorted({self._keys[number][row] for row in rows})
            self._bad_in_a_row += 1
            if self._bad_in_a_row == self.limit:
                first = step - len(bad) + number + 2 - self.limit
                keys = sorted(set(self.world.gather(self._suspects)))
                named = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
                raise FloatingPointError(
                    f"train: loss not finite {self.limit} steps in a row, first in step {first} for {named}; "
                    "begin another run with a lower --lr or --clip-grad, maybe from these weights: "
                    "--output NEW --init OUTPUT/last.pt"
                )
        self.healthy = self._bad_in_a_row == 0

    def check_end(self) -> None:
        """FloatingPointError if the run ended on a loss that is not finite: its weights are not saved."""
        if not self.healthy:
            named = ", ".join(self._suspects[:8])
            raise FloatingPointError(
                f"train: the last loss is not finite, nothing was saved since it began with {named}"
            )
