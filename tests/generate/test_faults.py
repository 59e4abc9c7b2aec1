"""Jobs of several processes, killed and begun again: the bytes are those of one process left in peace.

A handful of kills by default; FKDX_FAULTS=full kills a hundred plain jobs and twenty of every other sort.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from forked import SERVER
from generating import TEACHER, make_data, make_teacher, run_options

from fkdx import cli
from fkdx.files import Lock
from fkdx.generate.loop import Labelling
from fkdx.labels import LabelFile
from fkdx.labels.parts import Parts

pytestmark = pytest.mark.slow
FULL = os.environ.get("FKDX_FAULTS") == "full"
PLAIN, OTHERS = (100, 20) if FULL else (4, 2)  # kills
if kills := os.environ.get("FKDX_KILLS"):  # of each sort
    PLAIN = OTHERS = int(kills)
MIXED = ["--mixup", "0.8", "--cutmix", "1"]
CHANGED = ["--augment", "rand_augment", "color_jitter=0.2", "erase"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("material")
    (root / "data").mkdir()
    make_data(root / "data", images=6)
    (root / "data" / "ant" / "0.JPEG").write_bytes(b"no image")
    make_teacher(root / "weights.safetensors")
    make_teacher(root / "others.safetensors", seed=3)
    return root


@pytest.fixture
def options(material: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "out").mkdir()
    return run_options(material / "data", material / "weights.safetensors", tmp_path / "out" / "labels.fkdl")


def process_main(
    options: list[str],
    rank: int,
    file_bytes: int | None = None,
    prepare: Callable[[list[str]], None] | None = None,
) -> None:
    """One process of a job; on a disk that has room for files of `file_bytes` only."""
    import torch

    torch.set_num_threads(1)
    if prepare is not None:
        prepare(options)
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    os.environ["RANK"] = str(rank)
    with open(log(options), "a", buffering=1) as sys.stderr:
        sys.exit(cli.run("generate", options))


def log(options: list[str]) -> Path:
    """Where the errors of all processes go."""
    return beside(options, "errors.log")


def beside(options: list[str], name: str) -> Path:
    """A file outside of the job's folder."""
    return Path(options[-1]).parents[1] / name


def start(options: list[str], world: int, *more: object) -> list[BaseProcess]:
    """Processes as torchrun would start them."""
    given = [(options, rank, *more) for rank in range(world)]
    processes = [SERVER.Process(target=process_main, args=args, daemon=True) for args in given]
    for process in processes:
        process.start()
    return processes


def finish(options: list[str], world: int) -> dict[str, bytes]:
    """Run to the end; returns the label files by name, which are removed for the next run."""
    processes = start(options, world)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world, log(options).read_text()
    folder = Path(options[-1]).parent
    files = {path.name: path.read_bytes() for path in folder.glob("*.fkdl")}
    left = {path.name for path in folder.iterdir() if path.suffix != ".owner"}  # of one that was killed
    assert left == {*files, Path(options[-1]).name + ".report.json"}
    shutil.rmtree(folder)
    folder.mkdir()
    return files


@pytest.mark.parametrize("more", [[], MIXED], ids=["plain", "mixed"])
def test_bytes_do_not_depend_on_processes(options: list[str], more: list[str]) -> None:
    options = [*more, *options]
    alone = finish(options, 1)
    for world in (2, 3):
        assert finish(options, world) == alone


@pytest.fixture
def job(request: pytest.FixtureRequest, options: list[str], material: Path, tmp_path: Path) -> list[str]:
    """Options of a job of the sort that the test asks for."""
    if request.param == "other teachers, old crops":
        old = tmp_path / "old.fkdl"
        assert cli.run("generate", [*MIXED, *CHANGED, *options[:-1], str(old)]) == 0
        return ["--crops-from", str(old), *options]
    teacher = ["--teacher", TEACHER, "--checkpoint", str(material / "others.safetensors"), "--store", "both"]
    return {
        "plain": options,
        "mixed": [*MIXED, *options],
        "augmented": [*CHANGED, *options],
        "two teachers, three files": [*teacher, *options],
    }[request.param]


@pytest.mark.parametrize(
    ("job", "kills"),
    [
        ("plain", PLAIN),
        ("mixed", OTHERS),
        ("augmented", OTHERS),
        ("two teachers, three files", OTHERS),
        ("other teachers, old crops", OTHERS),
    ],
    indirect=["job"],
)
def test_killed_jobs_end_with_the_same_bytes(
    job: list[str], kills: int, rng: np.random.Generator, record_property
) -> None:
    record_property("count", kills)
    started = time.monotonic()
    expected = finish(job, 1)
    usual = time.monotonic() - started
    for _ in range(kills):
        processes = start(job, int(rng.integers(1, 4)))
        time.sleep(rng.uniform(0, usual))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        check_what_is_left(Path(job[-1]))
        assert finish(job, int(rng.integers(1, 4))) == expected


def check_what_is_left(output: Path) -> None:
    """Whatever has its final name is complete."""
    for path in output.parent.rglob("*.fkdl"):
        LabelFile(path).verify()
    for path in output.parent.rglob("[!.]*.json"):
        json.loads(path.read_text())


def test_a_dead_process_leaves_its_work_to_the_others(options: list[str], rng: np.random.Generator) -> None:
    expected = finish(options, 1)
    processes = start(options, 3)
    time.sleep(rng.uniform(0.5, 2))
    processes[1].kill()
    for process in processes:
        process.join()
    assert processes[0].exitcode == 0
    assert {Path(options[-1]).name: Path(options[-1]).read_bytes()} == expected


def wait_with_the_lock(options: list[str]) -> None:
    """A process that holds its job's lock says so, and goes on when it may."""
    lock = Parts.lock

    def waiting(job: Parts) -> Lock:
        held = lock(job)
        beside(options, "held").touch()
        while not beside(options, "may go on").exists():
            time.sleep(0.01)
        return held

    Parts.lock = waiting


def test_second_run_of_a_job_is_refused(options: list[str]) -> None:
    first = start(options, 1, None, wait_with_the_lock)[0]
    while not beside(options, "held").exists():
        time.sleep(0.01)
    second = start(options, 1)[0]
    second.join()
    assert second.exitcode == 1
    beside(options, "may go on").touch()
    first.join()
    assert first.exitcode == 0
    assert f"running already, held by process {first.pid} on" in log(options).read_text()


def test_a_full_disk_is_one_line_and_no_file(options: list[str]) -> None:
    whole = finish(options, 1)
    (size,) = map(len, whole.values())
    for room in (300, 1000, 3000, size - 1):  # of which the log takes a line
        log(options).unlink(missing_ok=True)
        process = start(options, 1, room)[0]
        process.join()
        assert process.exitcode == 1
        lines = log(options).read_text().splitlines()
        assert len(lines) == 1
        told = r"^fkdx generate: .*File too large; \d+ bytes are free: '/.*\.tmp'$"
        assert re.search(told, lines[0]), lines[0]
        assert not Path(options[-1]).exists()
        assert not [path for path in Path(options[-1]).parent.rglob("*") if ".tmp" in path.name]
        check_what_is_left(Path(options[-1]))
    assert finish(options, 1) == whole


def wait_for_a_signal(options: list[str]) -> None:
    """Once a shard is done, however late the signal comes."""
    label = Labelling._label

    def labelled(self: Labelling, *given: object) -> object:
        while done_shards(options):
            time.sleep(0.01)
        return label(self, *given)

    Labelling._label = labelled


def done_shards(options: list[str]) -> list[Path]:
    return list(Path(options[-1] + ".parts").glob("0000*.json"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_stop_cleanly(options: list[str], number: int, capsys) -> None:
    expected = finish(options, 1)
    process = start(options, 1, None, wait_for_a_signal)[0]
    while not done_shards(options):
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    assert "repeat the command" in log(options).read_text()
    assert not list(Path(options[-1] + ".parts").rglob("*.tmp"))
    assert cli.run("generate", ["--status", "--output", options[-1]]) == 0
    told = capsys.readouterr().out
    assert "of 19 shards done, 0 being done, 1 images failed" in told
    assert "ant/0.JPEG" in told
    assert finish(options, 2) == expected


def test_torchrun(options: list[str]) -> None:
    expected = finish(options, 1)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "fkdx", "generate"]
    subprocess.run([*launch, *options], check=True, timeout=200)
    # Only the command line that the header tells differs, so what counts is compared image by image.
    Path(options[-1] + ".1").write_bytes(*expected.values())
    for image, other in zip(LabelFile(options[-1]), LabelFile(options[-1] + ".1"), strict=True):
        assert image.key == other.key
        np.testing.assert_array_equal(image.boxes, other.boxes)
        np.testing.assert_array_equal(image.values, other.values)
