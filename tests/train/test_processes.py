"""Two processes: the same run as one, errors said once, signals obeyed, no one left waiting."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch
from forked import Program
from torch.distributed import TCPStore
from toy import (
    CLASSES,
    COMMON,
    environment,
    log_of,
    same_end,
    steps_of,
    torchrun,
    torchrun_words,
    write_labels,
)

from fkdx.labels import fingerprint
from fkdx.train.loop import main

pytestmark = pytest.mark.slow
SECONDS = 240  # who waits for a lost process waits for half an hour


def test_two_processes_do_what_one_does(toy_data, tmp_path):
    """Same global batches, a model without batch statistics: the same losses, accuracy and nearly weights."""
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = [*COMMON, *toy_data, "--ema", "0.9", "--optimizer", "adamw", "--lr", "1e-3"]
    assert main([*arguments, "--output", str(one)]) == 0
    words = [sys.executable, *torchrun_words(2, "-m", "fkdx.train"), *arguments, "--output", str(two)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment())
    assert done.returncode == 0, done.stderr
    assert len(steps_of(one)) == 12
    for a, b in zip(steps_of(one), steps_of(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
    images = [line["images"] for line in log_of(two) if line["kind"] == "evaluation"]
    assert images == [20, 20, 20]
    assert done.stdout.count("epoch 4: top-1") == 1


def test_two_processes_accumulate_to_what_one_does_at_once(toy_data, tmp_path):
    """Parts of each process's rows, gradients averaged over both and clipped: those of the whole batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = [*COMMON, *toy_data, "--clip-grad", "0.5", "--max-steps", "8"]
    assert main([*arguments, "--output", str(one)]) == 0
    done = torchrun(2, [*arguments, "--accumulate", "4", "--output", str(two)])
    assert done.returncode == 0, done.stderr
    for a, b in zip(steps_of(one), steps_of(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


@pytest.mark.slow
def test_two_processes_compile_their_students(toy_data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = [*COMMON, *toy_data, "--max-steps", "4"]
    assert main([*arguments, "--output", str(one)]) == 0
    done = torchrun(2, [*arguments, "--compile", "--accumulate", "2", "--output", str(two)], timeout=280)
    assert done.returncode == 0, done.stderr
    for a, b in zip(steps_of(one), steps_of(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_two_processes_go_on_where_one_was_cut_off(toy_data, tmp_path):
    arguments = [*COMMON, *toy_data, "--output", str(tmp_path / "run")]
    whole = [*COMMON, *toy_data, "--output", str(tmp_path / "whole")]
    assert main([*arguments, "--max-steps", "4"]) == 0
    done = torchrun(2, arguments)
    assert done.returncode == 0, done.stderr
    assert main(whole) == 0
    for a, b in zip(steps_of(tmp_path / "run"), steps_of(tmp_path / "whole"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ["--batch-size", "6"],
            "batch_size, got 6, expected a multiple of crops_per_image x processes (2 x 2)",
        ),
        (["--labels", "/nowhere.fkdl"], "/nowhere.fkdl"),
        # What only the main process meets:
        (["--output", "/proc/run"], "/proc/run"),
        (["--labels", "TMP/other.fkdl"], "not those that were labelled"),
    ],
)
def test_bad_input_ends_both_with_one_line(toy, toy_data, tmp_path, rng, change, words):
    images = toy / "data" / "train"
    others = fingerprint((path.relative_to(images).as_posix(), 0) for path in images.rglob("*.jpg"))
    write_labels(tmp_path / "other.fkdl", images, rng, dataset=others)
    change = [word.replace("TMP", str(tmp_path)) for word in change]
    done = torchrun(2, [*COMMON, *toy_data, "--output", str(tmp_path / "run"), *change])
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("fkdx train")]
    assert len(said) == 1
    assert words in said[0]
    assert not (tmp_path / "run" / "last.pt").exists()


def test_an_error_of_one_process_ends_both(toy_data, tmp_path):
    """Process 1 alone meets a file that is no image; process 0 waits for it and must not wait for ever."""
    images = Path(toy_data[1]) / "train"
    copy = tmp_path / "data" / "train"
    for file in images.rglob("*.jpg"):
        (copy / file.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / file.parent.name / file.name).write_bytes(file.read_bytes())
    (copy / "red" / "3.jpg").write_bytes(b"not an image")
    run = tmp_path / "run"
    done = torchrun(2, [*COMMON, *toy_data, "--data", str(tmp_path / "data"), "--output", str(run)])
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("fkdx train")]
    assert len(said) == 1
    assert "red/3.jpg" in said[0]


def start(processes: int, arguments: list[str], *more: str) -> Program:
    return Program(torchrun_words(processes, *more, "-m", "fkdx.train", *arguments), env=environment())


def wait_for_step(process: Program | subprocess.Popen, run: Path, step: int) -> None:
    """Until the log tells of this step."""
    log = run / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < step:
        time.sleep(0.1)
        assert process.poll() is None


def workers_of(process: Program) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.parametrize("who", ["worker", "torchrun"])
def test_a_signal_stops_both_with_a_checkpoint(toy_data, tmp_path, who):
    run = tmp_path / "run"
    arguments = [*COMMON, *toy_data, "--epochs", "4000", "--output", str(run)]
    process = start(2, arguments)
    wait_for_step(process, run, 5)
    os.kill(workers_of(process)[1] if who == "worker" else process.pid, signal.SIGTERM)
    said = process.communicate(timeout=SECONDS)[1]
    assert said.count("fkdx train: stopped by SIGTERM; the same command goes on from here") == 1
    assert "forcefully exiting" not in said  # as torchrun ends those that take too long
    assert process.returncode != 0
    assert log_of(run)[-1]["text"] == "stopped by SIGTERM"
    position = torch.load(run / "last.pt", weights_only=True)["position"]
    assert position["total"] == log_of(run)[-1]["step"] >= 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other(toy_data, tmp_path, rank):
    run = tmp_path / "run"
    process = start(2, [*COMMON, *toy_data, "--epochs", "4000", "--output", str(run)])
    wait_for_step(process, run, 3)
    workers = workers_of(process)
    os.kill(workers[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("fkdx train")]
    assert len(said) <= 1
    assert all(f"(rank {1 - rank}): another process is gone" in line for line in said)
    assert "GLHF" not in errors  # the traceback of gloo's own words
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


RESTARTED = ["--epochs", "12", "--optimizer", "adamw", "--lr", "1e-3"]
MORTAL = """
import os, random, signal, sys, threading
from pathlib import Path
from fkdx.__main__ import main
from fkdx.train import loop

died, who = Path(sys.argv.pop(1)), sys.argv.pop(1)
step = loop.train_step

def die():
    family = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
    others = [int(child) for child in family if int(child) != os.getpid()]
    for process in [*(others if who == "node" else []), os.getpid()]:
        os.kill(process, signal.SIGKILL)

def mortal(run, *more):
    if run.position.total == 8 and who in (os.environ["RANK"], "node") and not died.exists():
        died.touch()
        threading.Timer(random.uniform(0, 0.1), die).start()
    return step(run, *more)

loop.train_step = mortal
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.fixture
def mortal(tmp_path) -> str:
    """A program that trains and, the first time, is killed at some moment after step 8 of 36, or kills all of
    its machine."""
    (tmp_path / "mortal.py").write_text(MORTAL)
    return str(tmp_path / "mortal.py")


@pytest.fixture(scope="module")
def whole(toy_data, tmp_path_factory) -> Path:
    """The run of two processes that no one kills."""
    run = tmp_path_factory.mktemp("whole")
    done = torchrun(2, [*COMMON, *toy_data, *RESTARTED, "--output", str(run)], timeout=290)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("rank", [0, 1, "node"])
def test_a_killed_run_restarts_by_itself_and_ends_the_same(toy_data, whole, mortal, tmp_path, rank):
    """One process is killed, or all of this machine's."""
    run, died = tmp_path / "run", tmp_path / "died"
    arguments = [mortal, str(died), str(rank), *COMMON, *toy_data, *RESTARTED, "--output", str(run)]
    done = forked.run(torchrun_words(2, "--max-restarts=3", *arguments), env=environment(), timeout=280)
    assert done.returncode == 0, done.stderr
    assert died.exists()
    assert same_end(run, whole)
    for name in ("last.safetensors", "best.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("agent", [0, 1])
def test_two_agents_restart_a_killed_process_and_end_the_same(toy_data, whole, mortal, tmp_path, agent):
    """Two torchrun programs, as on two machines; a process of one of them is killed."""
    run, died = tmp_path / "run", tmp_path / "died"
    meeting = TCPStore("localhost", 0, is_master=True)
    words = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv-backend=c10d"]
    words += [f"--rdzv-endpoint=localhost:{meeting.port}", "--rdzv-conf=is_host=false", "--rdzv-id=run"]
    words += ["--max-restarts=3", mortal, str(died), str(agent)]
    words += [*COMMON, *toy_data, *RESTARTED, "--output", str(run)]
    agents = [Program(words, env=environment()) for _ in range(2)]
    errors = [process.communicate(timeout=280)[1] for process in agents]
    assert [process.returncode for process in agents] == [0, 0], errors
    assert died.exists()
    assert same_end(run, whole)
    assert (run / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


MEETING = """
import sys
from datetime import timedelta
from torch.distributed import TCPStore
from fkdx.train.distributed import store_of_attempt
port, rank = map(int, sys.argv[1:])
store = TCPStore("localhost", port, is_master=False, timeout=timedelta(seconds=60))
own = store_of_attempt(store, rank, 3)
print(own.add("failed", 1), flush=True)
store.wait(["end"])
"""


def test_every_attempt_counts_for_itself(tmp_path):
    """Three attempts over one store: the second is of a process that died, and never meets."""
    store = TCPStore("localhost", 0, is_master=True)
    (tmp_path / "meeting.py").write_text(MEETING)

    def join(rank: int) -> Program:
        return Program([str(tmp_path / "meeting.py"), str(store.port), str(rank)], env=environment())

    for _ in range(2):
        dead = join(2)
        while not store.check(["name/2"]):
            time.sleep(0.05)
        dead.kill()
        dead.communicate()
        attempt = [join(rank) for rank in (0, 1, 2)]
        while not all(process.output("out") for process in attempt):
            time.sleep(0.05)
        store.set("end", "")
        counts = sorted(process.communicate(timeout=100)[0].strip() for process in attempt)
        assert counts == ["1", "2", "3"]
        store.delete_key("end")


COLLECTIVES = """
from fkdx.train.distributed import World
world = World()
mine = [["a", "b"], [], ["c"]][world.rank]
assert world.gather(mine) == ["a", "b", "c"]
assert world.gather([]) == []
assert world.sum([len(mine)]) == [3]
assert world.max([float(len(mine)), -float(world.rank)]) == [2, 0]
world.wait()
world.leave()
"""


def test_collectives_with_uneven_and_empty_shares(tmp_path):
    (tmp_path / "collectives.py").write_text(COLLECTIVES)
    done = torchrun(3, [], program=[str(tmp_path / "collectives.py")])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("images", [1, 2])
def test_fewer_validation_images_than_processes(toy_data, tmp_path, images):
    val = tmp_path / "val"
    for name in CLASSES[:images]:
        (val / name).mkdir(parents=True)
        (val / name / "0.jpg").symlink_to(Path(toy_data[1]) / "val" / name / "0.jpg")
    run = tmp_path / "run"
    done = torchrun(3, [*COMMON, *toy_data, "--batch-size", "24", "--val", str(val), "--output", str(run)])
    assert done.returncode == 0, done.stderr
    evaluations = [line for line in log_of(run) if line["kind"] == "evaluation"]
    assert [line["images"] for line in evaluations] == [images] * 3


def test_parameters_without_a_gradient_are_named(toy_data, tmp_path, monkeypatch):
    (tmp_path / "idle.py").write_text(
        "import timm, torch\n\ndef model(num_classes):\n"
        "    model = timm.create_model('test_resnet', num_classes=num_classes)\n"
        "    model.spare = torch.nn.Linear(2, 3)\n    return model\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    student = ["--student", "idle:model", "--max-steps", "3", "--output", str(tmp_path / "run")]
    done = torchrun(2, [*COMMON, *toy_data, *student])
    said = [line for line in done.stderr.splitlines() if line.startswith("fkdx train")]
    assert len(said) == 1
    assert "2 parameters get no gradient (spare.weight, spare.bias)" in said[0]
    done = torchrun(2, [*COMMON, *toy_data, *student, "--freeze", "[spare.*]"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", [">&-", "| true"])
def test_a_closed_output_does_not_end_a_run(toy_data, tmp_path, how):
    words = [sys.executable, "-m", "fkdx", "train", *COMMON, *toy_data, "--output", str(tmp_path / "run")]
    command = f"set -o pipefail; {shlex.join(words)} {how}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert log_of(tmp_path / "run")[-1]["kind"] == "evaluation"


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGHUP", "nohup"])
def test_signals_of_batch_systems_and_terminals(toy_data, tmp_path, name):
    """They end a run with a checkpoint, but for SIGHUP under nohup, which changes nothing."""
    if name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        pytest.skip("the tests themselves run under nohup, and programs inherit what is ignored")
    run = tmp_path / "run"
    words = ["-m", "fkdx.train", *COMMON, *toy_data, "--epochs", "4000", "--output", str(run)]
    if name == "nohup":
        words, to = (
            ["nohup", sys.executable, *words],
            {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE},
        )
        process = subprocess.Popen(words, env=environment(), text=True, **to)
    else:
        process = Program(words, env=environment())
    wait_for_step(process, run, 2)
    process.send_signal(signal.SIGHUP if name == "nohup" else signal.Signals[name])
    if name == "nohup":
        steps = len(steps_of(run))
        wait_for_step(process, run, steps + 3)
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=100)[1]
    assert f"stopped by {'SIGTERM' if name == 'nohup' else name}" in said
    assert (run / "last.pt").exists()
