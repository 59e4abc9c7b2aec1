"""Owner files: who holds what, on file systems without locks.

An owner file is JSON: its owner in words, a token of its own, and by what the owner's process is known. Its
time of change is the heartbeat. It is stale when its process on this machine is dead, or when the heartbeat
of one on another machine, or that this one hides, is `STALE` seconds old by the file server's clock; a
process that stands still for longer may lose its lock.
"""

import json
import os
import shutil
import subprocess
import threading
import uuid
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")  # what Linux says of itself and of processes
BEAT, STALE = 10.0, 60.0  # seconds between heartbeats, and until an owner counts as dead

_held: dict[str, "OwnerFile"] = {}  # by token, in this process
_beating: threading.Thread | None = None
_guard = threading.Lock()


class OwnerFile:
    """The owner file beside `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".owner")
        self._token = uuid.uuid4().hex

    def acquire(self, owner: str) -> None:
        """Own the path. Raises BlockingIOError, naming the owner, if another process that lives does."""
        facts = {"owner": owner, "token": self._token, **_process(os.getpid())}
        while not self._create(json.dumps(facts)):
            if self.is_alive():
                other = self._read().get("owner", "another process")
                raise BlockingIOError(f"held by {other}, {self.path}")
            self._remove_stale()
        _keep_beating(self)

    def release(self) -> None:
        """Give it up; does nothing once it was lost."""
        with _guard:
            _held.pop(self._token, None)
            if self._read().get("token") == self._token:
                self.path.unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Whether there is an owner that is not known to be dead."""
        facts = self._read()
        here = {name: facts.get(name) for name in ("machine", "pid", "started")}
        if here["machine"] and here["machine"] == _machine() and here["pid"] is not None:
            with suppress(PermissionError):  # hidden
                return _process(here["pid"]) == here
        try:
            return self._age() < STALE
        except FileNotFoundError:
            return False

    def beat(self) -> None:
        """Say that the owner lives, unless another has taken over."""
        if self._read().get("token") == self._token:
            os.utime(self.path)

    def _create(self, text: str) -> bool:
        """Make the file; False if it is there. OSError, and no file, if the disk is full."""
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(file, "w") as out:
                out.write(text)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            raise OSError(error.errno, f"{error.strerror}; {free} bytes are free", str(self.path)) from None
        return True

    def _read(self) -> dict:
        """What it says; nothing if it is gone, or half written."""
        try:
            facts = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def _age(self) -> float:
        """Seconds since the last heartbeat, by the clock of the file server."""
        probe = self.path.with_name(f"{self.path.name}.{self._token}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """Move the file aside, which only one process can, and give it back if it is a new one after all."""
        stale, aside = self._read(), self.path.with_name(f"{self.path.name}.{self._token}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        try:
            if json.loads(aside.read_text() or "{}").get("token") != stale.get("token"):
                os.link(aside, self.path)
        except (ValueError, FileExistsError):
            pass
        finally:
            aside.unlink(missing_ok=True)


def _machine() -> str:
    """Names this boot of this machine and its table of processes; "" where the system says neither."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:  # macOS, or Linux without /proc
        return _output_of("sysctl", "-n", "kern.bootsessionuuid")


def _process(pid: int) -> dict:
    """By what a process is known: its number may be given out again, but not with the same start."""
    return {"machine": _machine(), "pid": pid, "started": _start(pid)}


def _start(pid: int) -> str | None:
    """When a process started; None if there is none. PermissionError if /proc hides those of other users
    (`hidepid`)."""
    if not PROC.is_dir():
        return _output_of("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        with suppress(ProcessLookupError):
            os.kill(pid, 0)  # sends nothing
        return None


def _output_of(*command: str) -> str:
    """What a program of the system prints, in English and UTC; "" if there is no such program."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout.strip()


def _keep_beating(owner: OwnerFile) -> None:
    global _beating
    with _guard:
        _held[owner._token] = owner
        if _beating is None:
            _beating = threading.Thread(target=_beat, name="fkdx-heartbeat", daemon=True)
            _beating.start()


def _beat() -> None:
    while True:
        _pause.wait(BEAT)
        with _guard:
            for owner in _held.values():
                with suppress(OSError):  # the next one may get through
                    owner.beat()


def _forget() -> None:
    """A forked child owns nothing and has no thread."""
    global _beating, _guard
    _held.clear()
    _beating, _guard = None, threading.Lock()


_pause = threading.Event()  # never set
os.register_at_fork(after_in_child=_forget)
