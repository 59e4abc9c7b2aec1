"""One lock for all programs, with flock and on file systems without it; files are whole or absent."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from fkdx.files import AtomicFile, Lock, is_held, lock, owner

NAMES = ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP")


@pytest.fixture(params=[None, *NAMES])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """One with flock (None), or one that answers with an error of this name."""
    monkeypatch.setattr(lock, "_said", True)
    if request.param:
        without_flock(monkeypatch, request.param)
    return request.param


def without_flock(monkeypatch: pytest.MonkeyPatch, name: str = "ENOSYS") -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", flock)


def holder(path: Path, file_system: str | None) -> subprocess.Popen:
    """Another process that holds the lock."""
    program = (
        "import errno, fcntl, sys, time\nfrom fkdx.files import Lock\nname = sys.argv[2]\n"
        "def flock(file, operation):\n    raise OSError(getattr(errno, name), 'none')\n"
        "if name != 'None': fcntl.flock = flock\n"
        "held = Lock(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(path), str(file_system)],
        stdout=subprocess.PIPE,
        text=True,
        env=with_paths(),
    )
    assert process.stdout.readline() == "held\n"
    return process


def with_paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_only_one_process_holds_it_until_it_dies(tmp_path: Path, file_system: str | None) -> None:
    path = tmp_path / "job.lock"
    process = holder(path, file_system)
    assert is_held(path)
    with pytest.raises(BlockingIOError, match=f"held by process {process.pid} on .*, {path}"):
        Lock(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not is_held(path)
    with Lock(path):
        assert is_held(path)
        with pytest.raises(BlockingIOError, match=f"held by process {os.getpid()}"):
            Lock(path)
    assert not is_held(path)
    assert [file.name for file in tmp_path.iterdir()] == ["job.lock"]


def test_who_looks_for_a_moment_is_not_in_the_way(tmp_path: Path, monkeypatch) -> None:
    with (tmp_path / "x").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        Lock(tmp_path / "x").release()


def test_a_dead_process_is_told_from_one_with_its_number(tmp_path: Path, monkeypatch) -> None:
    without_flock(monkeypatch)
    path = tmp_path / "x"
    facts = {"token": "t", "machine": owner._machine(), "pid": os.getpid(), "started": "1"}
    (tmp_path / "x.owner").write_text(str(facts).replace("'", '"'))
    assert not owner.OwnerFile(path).is_alive()
    Lock(path).release()


@pytest.fixture
def without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, whose `sysctl` knows the boot; `ps` is the same."""
    monkeypatch.setattr(owner, "PROC", tmp_path / "proc")
    sysctl = tmp_path / "bin/sysctl"
    sysctl.parent.mkdir()
    sysctl.write_text('#!/bin/sh\n[ "$*" = "-n kern.bootsessionuuid" ] && echo 66B7-F00D\n')
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sysctl.parent}:{os.environ['PATH']}")


def test_processes_are_known_without_proc(without_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "100"])
    known = owner._process(process.pid)
    assert known["machine"] == "66B7-F00D"
    assert known["started"].endswith(time.strftime("%Y", time.gmtime()))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert owner._process(process.pid) == known
    process.kill()
    process.wait()
    assert owner._process(process.pid) == {**known, "started": None}


def test_an_owner_without_proc_and_flock(tmp_path: Path, without_proc: None, monkeypatch) -> None:
    without_flock(monkeypatch)
    process = subprocess.Popen(["sleep", "100"])
    facts = {"owner": "process 3", "token": "t", **owner._process(process.pid)}
    (tmp_path / "x.owner").write_text(json.dumps(facts))
    with pytest.raises(BlockingIOError, match="held by process 3"):
        Lock(tmp_path / "x")
    process.kill()
    process.wait()
    with Lock(tmp_path / "x"):
        assert json.loads((tmp_path / "x.owner").read_text())["pid"] == os.getpid()


def hidden(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> dict:
    """By what another user's process is known, of which /proc says nothing from now on (`hidepid`)."""
    facts = {"owner": "process 1", "token": "t", **owner._process(1)}
    read = Path.read_text

    def read_text(path: Path, *rest: object) -> str:
        if path == Path("/proc/1/stat"):
            raise error
        return read(path, *rest)

    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(os, "kill", kill)
    return facts


def unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    """An owner where neither /proc nor a program says which machine this is."""
    monkeypatch.setattr(owner, "PROC", tmp_path)
    monkeypatch.setenv("PATH", "")
    return {"owner": "process 1", "token": "t", **owner._process(2**22 + 1)}


@pytest.mark.skipif(not Path("/proc/1/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("why", [PermissionError, FileNotFoundError, "no /proc"])
def test_a_heartbeat_counts_where_processes_are_hidden(tmp_path: Path, monkeypatch, why) -> None:
    without_flock(monkeypatch)
    theirs = tmp_path / "x.owner"
    facts = unknown(monkeypatch, tmp_path) if why == "no /proc" else hidden(monkeypatch, why)
    theirs.write_text(json.dumps(facts))
    with pytest.raises(BlockingIOError, match="held by process 1"):
        Lock(tmp_path / "x")
    old = time.time() - owner.STALE - 5
    os.utime(theirs, (old, old))
    Lock(tmp_path / "x").release()


def test_another_machine_counts_as_dead_without_a_heartbeat(tmp_path: Path, monkeypatch) -> None:
    without_flock(monkeypatch)
    path, theirs = tmp_path / "x", tmp_path / "x.owner"
    theirs.write_text('{"owner": "process 3 on far", "token": "t", "machine": "far", "pid": 3}')
    with pytest.raises(BlockingIOError, match="held by process 3 on far"):
        Lock(path)
    old = time.time() - owner.STALE - 5
    os.utime(theirs, (old, old))
    held = Lock(path)
    assert '"token": "t"' not in theirs.read_text()
    held.release()
    assert not theirs.exists()


def test_the_owner_beats_and_does_not_touch_what_it_lost(tmp_path: Path, monkeypatch) -> None:
    without_flock(monkeypatch)
    monkeypatch.setattr(owner, "_keep_beating", lambda _: None)  # here it beats when told to
    held = Lock(tmp_path / "x")
    theirs = tmp_path / "x.owner"
    os.utime(theirs, (1, 1))
    held._owner.beat()
    assert theirs.stat().st_mtime > 1
    theirs.write_text('{"token": "another"}')
    os.utime(theirs, (1, 1))
    held._owner.beat()
    assert theirs.stat().st_mtime == 1
    held.release()
    assert theirs.exists()


def test_it_says_so_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_said", False)
    without_flock(monkeypatch, "ENOLCK")
    with pytest.warns(UserWarning, match=r"has no flock \(ENOLCK\)"):
        Lock(tmp_path / "x").release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Lock(tmp_path / "y").release()


def test_other_errors_are_errors(tmp_path: Path, monkeypatch) -> None:
    without_flock(monkeypatch, "EIO")
    with pytest.raises(OSError, match="Input/output error"):
        Lock(tmp_path / "x")


def test_one_writer_at_a_time(tmp_path: Path, file_system: str | None) -> None:
    path = tmp_path / "file"
    first = AtomicFile(path)
    first.write(b"one")
    with pytest.raises(BlockingIOError, match="is being written by another process, or by a writer that"):
        AtomicFile(path)
    first.commit()
    second = AtomicFile(path, overwrite=True)
    second.write(b"two")
    second.abort()
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_nobody_finishes_is_given_up(tmp_path: Path, file_system: str | None) -> None:
    path = tmp_path / "file"
    first = AtomicFile(path)
    first.write(b"one")
    del first
    assert list(tmp_path.iterdir()) == []
    AtomicFile(path).commit()
    code = "import sys\nfrom fkdx.files import AtomicFile\nfile = AtomicFile(sys.argv[1], overwrite=True)"
    subprocess.run([sys.executable, "-c", code, path], check=True, env=with_paths())
    assert list(tmp_path.iterdir()) == [path]


def test_a_forked_child_leaves_the_file_alone(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "file")
    if (child := os.fork()) == 0:
        del file
        os._exit(0)
    os.waitpid(child, 0)
    file.write(b"whole")
    file.commit()
    assert (tmp_path / "file").read_bytes() == b"whole"
