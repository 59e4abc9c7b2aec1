"""The log of a run: log.jsonl, summary.csv, classes.csv, curves.png, and TensorBoard or W&B on request."""

import csv
import hashlib
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fkdx.files import Lock, unwritable, write_whole
from fkdx.train.curves import draw_curves
from fkdx.train.recipe import Recipe


class Journal:
    """Lines of a run, written by the main process only.

    log.jsonl holds one object a line: {"kind": "step" | "evaluation" | "event", "step": ..., "time": ...}.
    Lines that a resumed run will write again are dropped: those later than `step`, and if it resumes within a
    pass (`midway`), the evaluation at `step`.

    Raises BlockingIOError where another run writes into the folder.
    """

    def __init__(self, recipe: Recipe, step: int, midway: bool, main: bool) -> None:
        self.recipe = recipe
        self.folder = Path(recipe.output)
        self.main = main
        self._boards: list[Any] = []
        if not main:
            return
        self._log = (self.folder / "log.jsonl").open("a", buffering=1)
        try:
            self._lock = Lock(self.folder / "log.jsonl", self._log.fileno())
        except BlockingIOError:  # two runs would tear each other's checkpoints
            raise BlockingIOError(
                f"train: another run writes there, expected another --output, {self.folder}"
            ) from None
        self._log.truncate(self._end_of(step, midway))
        if recipe.tensorboard:
            self._boards.append(_tensorboard(self.folder / "tensorboard", step))
        if recipe.wandb:
            self._boards.append(_wandb(recipe.wandb, self.folder))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._whole_lines()]

    def _whole_lines(self) -> list[str]:
        """Without a last one that a full disk or a power cut tore off."""
        text = (self.folder / "log.jsonl").read_text()
        return text[: text.rfind("\n") + 1].splitlines(keepends=True)

    def _end_of(self, step: int, midway: bool) -> int:
        """How many bytes of the log a run that goes on at `step` keeps."""
        kept = 0
        for text in self._whole_lines() if step else ():
            line = json.loads(text)
            if line["step"] > step or (midway and line["step"] == step and line["kind"] == "evaluation"):
                break
            kept += len(text)
        return kept

    def write(self, kind: str, step: int, **values: Any) -> None:
        if not self.main:
            return
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        try:
            self._log.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.folder / "log.jsonl", error) from error
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, (int, float))}
        for board in self._boards:
            board(numbers, step)
        if kind == "evaluation":
            write_whole(self.folder / "summary.csv", lambda path: _table(path, self.lines()))

    def write_classes(self, names: list[str], counts: np.ndarray) -> None:
        """classes.csv: images and top-1 in percent of every class that has images, of the last evaluation.

        Args:
            names: of the C classes.
            counts: (C, 2): images of each class, and those of them whose first guess is right.
        """
        if not self.main:
            return

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(("class", "images", "top1"))
                table.writerows(
                    (name, images, 100 * right / images)
                    for name, (images, right) in zip(names, counts.tolist(), strict=True)
                    if images
                )

        write_whole(self.folder / "classes.csv", write)

    def close(self) -> None:
        """Draw the whole run."""
        if not self.main:
            return
        self._lock.release()
        self._log.close()
        lines = self.lines()
        if find_spec("matplotlib") and any(line["kind"] == "step" for line in lines):
            write_whole(self.folder / "curves.png", lambda path: draw_curves(path, lines, self.recipe))


def _table(path: Path, lines: list[dict[str, Any]]) -> None:
    """timm's summary: of each evaluation, with the mean of the losses logged since the last and the rate."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("epoch", "train_loss", "eval_top1", "eval_top5", "lr"))
        losses, rate = [], None
        for line in lines:
            if line["kind"] == "step":
                losses += [line["loss"]] if line["loss"] is not None else []
                rate = line.get("lr", rate)
            elif line["kind"] == "evaluation":
                mean = sum(losses) / len(losses) if losses else None
                table.writerow((line["epoch"], mean, line["top1"], line["top5"], rate))
                losses = []


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard: not installed; pip install tensorboard, or leave out --tensorboard"
        ) from error
    writer = SummaryWriter(folder, purge_step=step + 1)

    def write(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write


def _wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("wandb: not installed; pip install wandb, or leave out --wandb") from error
    place = folder.resolve()
    own = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    run = wandb.init(project=project, dir=folder, id=own, name=place.name, resume="allow")
    return lambda numbers, step: run.log(numbers, step=step)
