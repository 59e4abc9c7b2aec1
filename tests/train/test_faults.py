"""Runs that are killed, whatever they are doing, end as the run that nobody kills."""

import os
import shutil
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from forked import SERVER
from toy import same_end, steps_of

from fkdx.models.weights import read_weights

pytestmark = pytest.mark.slow


def process_main(arguments: list[str]) -> None:
    import torch

    from fkdx.train.loop import main

    torch.set_num_threads(1)
    sys.exit(main(arguments))


def start(arguments: list[str]) -> BaseProcess:
    process = SERVER.Process(target=process_main, args=(arguments,))
    process.start()
    return process


def finish(arguments: list[str]) -> None:
    process = start(arguments)
    process.join()
    assert process.exitcode == 0


def test_killed_runs_end_as_the_whole_one(
    soft: list[str], tmp_path: Path, rng: np.random.Generator, record_property
) -> None:
    """FKDX_KILLS of them; what bears a checkpoint's name loads after each."""
    kills, run, whole = int(os.environ.get("FKDX_KILLS", "2")), tmp_path / "run", tmp_path / "whole"
    arguments = [
        *soft,
        "--save-every",
        "1",
        "--eval-every",
        "1",
        "--save-minutes",
        "0",
        "--optimizer",
        "adamw",
    ]
    arguments += ["--lr", "1e-3"]
    finish(arguments)
    steps = len(steps_of(run))
    run.rename(whole)
    for _ in range(kills):
        process, last = start(arguments), int(rng.integers(steps))
        while process.is_alive() and not (run.exists() and count_steps(run) >= last):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        check_what_is_left(run)
        finish(arguments)
        assert same_end(run, whole)
        assert (run / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
        shutil.rmtree(run)
    record_property("count", kills)


def count_steps(run: Path) -> int:
    """Those that the log tells of; a line may be half written."""
    log = run / "log.jsonl"
    return log.read_text().count('"kind": "step"') if log.exists() else 0


def check_what_is_left(run: Path) -> None:
    """Every weights file is whole; checkpoints are read by the run that goes on."""
    for path in run.glob("*.safetensors"):
        assert read_weights(path)
