"""A run that is cut off anywhere goes on as if nothing had happened, bit for bit; checkpoints are whole."""

import os
import signal
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from forked import Program
from toy import COMMON, draw_images, environment, log_of, same_end, steps_of, write_labels

from fkdx.files import Lock, write_whole
from fkdx.train import checkpoint
from fkdx.train.loop import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, run_seed) -> list[str]:
    """12 steps in three passes, with drop-outs, mixing, an average of the weights and AdamW's memory."""
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(run_seed)
    draw_images(folder / "data" / "train", 12, rng)
    draw_images(folder / "data" / "val", 2, rng)
    write_labels(folder / "labels.fkdl", folder / "data" / "train", rng)
    data = ["--data", str(folder / "data"), "--labels", str(folder / "labels.fkdl"), "--epochs", "4"]
    more = ["--optimizer", "adamw", "--ema", "0.9", "--student-args", "{drop_path_rate: 0.3, drop_rate: 0.2}"]
    more += ["--mixup", "0.2", "--cutmix", "1.0", "--selfmix", "1.0", "--mixup-prob", "0.8"]
    return [*COMMON, *data, *more, "--seed", str(run_seed)]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert main([*arguments, "--output", str(run)]) == 0
    return run


def test_two_runs_are_equal_bit_for_bit(arguments, whole, tmp_path):
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert same_end(tmp_path, whole)


def test_a_run_cut_off_at_any_step_ends_as_the_whole_one(arguments, whole, tmp_path, rng, record_property):
    """FKDX_CUTS runs, each interrupted at two random steps."""
    runs = int(os.environ.get("FKDX_CUTS", "3"))
    record_property("count", 2 * runs)
    for number in range(runs):
        run = [*arguments, "--output", str(tmp_path / str(number))]
        for step in sorted(rng.choice(np.arange(1, 12), size=2, replace=False)):
            assert main([*run, "--max-steps", str(step), "--eval-every", "1"]) == 0
        assert main(run) == 0
        assert same_end(tmp_path / str(number), whole), f"cut before step {step}"


def test_any_seed_will_do(arguments, tmp_path):
    """Larger ones than torch takes, and negative ones."""
    for seed in (2**63 + 5, -1):
        assert (
            main([*arguments, "--seed", str(seed), "--max-steps", "1", "--output", str(tmp_path / str(seed))])
            == 0
        )


def test_a_finished_run_stays_as_it_is(arguments, whole, tmp_path):
    before = (whole / "last.pt").read_bytes()
    assert main([*arguments, "--output", str(whole)]) == 0
    assert (whole / "last.pt").read_bytes() == before


HELD = """
import sys, time
from pathlib import Path
from fkdx.__main__ import main
from fkdx.train import loop

waits, signalled = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
step = loop.train_step

def held(run, *more):
    if run.position.total == 1:
        waits.touch()
        while not signalled.exists():
            time.sleep(0.01)
    return step(run, *more)

loop.train_step = held
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_to_go_on_from(arguments, whole, tmp_path, number):
    """One in the second step."""
    run, waits, signalled = tmp_path / "run", tmp_path / "waits", tmp_path / "signalled"
    (tmp_path / "held.py").write_text(HELD)
    words = [str(tmp_path / "held.py"), str(waits), str(signalled), *arguments, "--output", str(run)]
    process = Program(words, env=environment())
    while not waits.exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    signalled.touch()
    assert process.wait(200) == 128 + number
    assert log_of(run)[-1]["text"] == f"stopped by {number.name}"
    assert len(steps_of(run)) == 2
    assert main([*arguments, "--output", str(run)]) == 0
    assert same_end(run, whole)


def test_a_run_that_goes_on_in_another_folder_has_its_best_there(arguments, whole, tmp_path):
    state = torch.load(whole / "last.pt", weights_only=True)
    state["position"] |= {"number": 2, "best": 100.0}  # before the last pass
    torch.save(state, tmp_path / "from.pt")
    run = [*arguments, "--output", str(tmp_path / "run"), "--resume", str(tmp_path / "from.pt")]
    assert main(run) == 0
    assert (tmp_path / "run" / "best.safetensors").exists()
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert last["position"]["best"] == log_of(tmp_path / "run")[-1]["top1"]


def test_other_labels_under_the_same_name_are_refused(arguments, tmp_path, capsys, rng):
    labels = Path(arguments[arguments.index("--labels") + 1])
    images = labels.parent / "data" / "train"
    run = [*arguments, "--output", str(tmp_path / "run")]
    assert main([*run, "--max-steps", "1"]) == 0
    for teacher in ("another", "toy"):
        write_labels(tmp_path / f"{teacher}.fkdl", images, rng, teacher=teacher)
        assert main([*run, "--labels", str(tmp_path / f"{teacher}.fkdl")]) == 1
        assert "other labels" in capsys.readouterr().err


def test_a_run_that_is_killed_before_best_is_named_names_it_when_it_goes_on(
    arguments, whole, tmp_path, monkeypatch
):
    """Wherever in between: `last.pt` tells of a best score only when best.pt is that score's."""
    run = [*arguments, "--output", str(tmp_path), "--save-every", "1"]
    for step in ("save_weights", "save", "give_name"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, step, lambda *_: sys.exit("killed"))
            with pytest.raises(SystemExit):
                main(run)
        assert not (tmp_path / "last.pt").exists()
    assert main(run) == 0
    best = max(line["top1"] for line in log_of(tmp_path) if line["kind"] == "evaluation")
    state = torch.load(tmp_path / "best.pt", weights_only=True)
    assert state["position"]["best"] == best
    assert same_end(tmp_path, whole)


def test_what_is_done_again_is_logged_once(arguments, whole, tmp_path):
    """Cut off after the last step of a pass, which was evaluated, and by a full disk within a line."""
    run = [*arguments, "--output", str(tmp_path)]
    for step in ("3", "6"):
        assert main([*run, "--max-steps", step]) == 0
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"kind": "st')
    assert main(run) == 0
    assert same_end(tmp_path, whole)
    assert (tmp_path / "summary.csv").read_text() == (whole / "summary.csv").read_text()


def test_two_runs_do_not_share_a_folder(arguments, tmp_path, capsys):
    assert main([*arguments, "--output", str(tmp_path), "--max-steps", "1"]) == 0
    with (tmp_path / "log.jsonl").open() as log, Lock(tmp_path / "log.jsonl", log.fileno()):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert main([*arguments, "--output", str(tmp_path), "--max-steps", "2"]) == 1
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert f"another run writes there, expected another --output, {tmp_path}" in capsys.readouterr().err


# ---- files ----------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"cannot write \(disk full\), \d+ bytes are free there, .*last.pt"):
        write_whole(path, write)
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]
    assert path.read_text() == "old"


def test_a_full_disk_is_named(tmp_path):
    """By torch and by safetensors; files of this process may not grow beyond 100 kB."""
    (tmp_path / "program.py").write_text(
        "import resource, sys, torch\nfrom pathlib import Path\nfrom fkdx.train import checkpoint\n"
        "folder = Path(sys.argv[1])\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for save in (lambda: checkpoint.save(folder / 'last.pt', {'w': torch.zeros(200_000)}),\n"
        "             lambda: checkpoint.save_weights(folder / 'last.pt', torch.nn.Linear(500, 500))):\n"
        "    try:\n        save()\n    except OSError as error:\n        print(error)\n"
    )
    (tmp_path / "full").mkdir()
    done = forked.run([str(tmp_path / "program.py"), str(tmp_path / "full")], env=environment())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("bytes are free there" in line and line.endswith("last.pt") for line in lines)
    assert not list((tmp_path / "full").iterdir())


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    """Kill a process that saves and saves, again and again: what bears the name always loads."""
    (tmp_path / "program.py").write_text(
        "import sys, torch\nfrom pathlib import Path\nfrom fkdx.train import checkpoint\n"
        "state = {'position': {}, 'w': torch.zeros(200_000)}\nprint('go', flush=True)\n"
        "while True:\n    checkpoint.save(Path(sys.argv[1]), state)\n"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "last.pt"
    for delay in (0.02, 0.05, 0.11):
        process = Program([str(tmp_path / "program.py"), str(path)], env=environment())
        while not process.output("out"):
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.wait()
        if path.exists():
            assert checkpoint.load(path)["w"].sum() == 0
    checkpoint.save(path, {"position": {}})
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]
