"""A disk that fills up at any byte: an error with the room that is left, no file; a second try works."""

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import check_nothing_is_left
from images import draw_black
from label_draws import write_labels

from fkdx.files import lock, write_whole
from fkdx.labels import LabelFile
from fkdx.labels.parts import write_json
from fkdx.stores import open_store, write_store_index
from fkdx.train import checkpoint

FULL = os.environ.get("FKDX_FAULTS") == "full"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """`-o /dev/null` as root would take the device away from everybody."""
    os.mkfifo(tmp_path / "pipe")
    for target, what in ((tmp_path / "pipe", "a device or a pipe"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=f"write: got {what}, expected the name of a file, {target}"):
            write_whole(target, b"x")
    assert (tmp_path / "pipe").is_fifo()


def bare_file(folder: Path) -> Path:
    write_whole(folder / "x", bytes(range(256)) * 9)
    return folder / "x"


def json_file(folder: Path) -> Path:
    write_json(folder / "x.json", list(range(400)))
    return folder / "x.json"


def labels(folder: Path) -> Path:
    write_labels(folder / "x.fkdl", np.random.default_rng(1))
    return folder / "x.fkdl"


def index(folder: Path) -> Path:
    write_store_index(open_store(folder.parent / "images"), str(folder / "x.fkdi"))
    return folder / "x.fkdi"


def whole_checkpoint(folder: Path) -> Path:
    checkpoint.save(folder / "last.pt", {"position": {}, "w": torch.zeros(500)})
    return folder / "last.pt"


def weights(folder: Path) -> Path:
    model = torch.nn.Linear(20, 20)
    torch.nn.init.ones_(model.weight), torch.nn.init.ones_(model.bias)
    checkpoint.save_weights(folder / "best.safetensors", model)
    return folder / "best.safetensors"


WRITERS = [bare_file, json_file, labels, index, whole_checkpoint, weights]


@pytest.fixture(params=["flock", "owner files"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file system with flock, where this one has it, and of one without."""

    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(lock, "_said", True)
    if request.param == "owner files":
        monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize("write", WRITERS, ids=lambda writer: writer.__name__)
def test_full_disk(write: Callable[[Path], Path], tmp_path: Path, rng, record_property) -> None:
    draw_black(tmp_path / "images", [f"{c}/{i}.jpg" for c in "ab" for i in range(3)], rng)
    (tmp_path / "whole").mkdir()
    expected = write(tmp_path / "whole").read_bytes()
    (tmp_path / "full").mkdir()
    rooms = range(0, len(expected), 16 if FULL else len(expected) // 7)
    record_property("count", len(rooms))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            for room in rooms:
                check_refusal(write, tmp_path / "full", room)
            code = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert write(tmp_path / "full").read_bytes() == expected


def check_refusal(write: Callable[[Path], Path], folder: Path, room: int) -> None:
    """Files of this process may not grow beyond `room` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match=r"bytes are free|No space|File too large"):
        write(folder)
    check_nothing_is_left(folder)


@pytest.mark.parametrize("network", [False, True])
def test_macos_empties_the_memory_of_the_disk(tmp_path: Path, monkeypatch, network: bool) -> None:
    """Its fsync does not; file systems that cannot are asked for what they can."""
    did: list[str] = []

    def fcntl_of_macos(file: int, operation: int) -> None:
        did.append(f"fcntl {operation}")
        if network:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", fcntl_of_macos)
    monkeypatch.setattr(os, "fsync", lambda file: did.append("fsync"))
    write_whole(tmp_path / "x", b"content")
    assert did == (["fcntl 51", "fsync"] if network else ["fcntl 51"]) * 2


@pytest.mark.linux
def test_a_file_is_on_the_disk_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its name may survive a loss of power that its content does not."""
    did: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: did.append(os.readlink(f"/proc/self/fd/{file}")) or fsync(file)
    )
    monkeypatch.setattr(os, "replace", lambda old, new: did.append("replace") or replace(old, new))
    write_whole(tmp_path / "x", b"content")
    write_labels(tmp_path / "x.fkdl", np.random.default_rng(1))
    names = [Path(what).name for what in did]
    assert names[:3] == ["x.tmp", "replace", tmp_path.name]
    assert names[3:] == ["x.fkdl.tmp", "x.fkdl.tmp", "replace", tmp_path.name]
    LabelFile(tmp_path / "x.fkdl").verify()
