"""One exclusive lock for all programs: on one machine or many, gone when its process is gone.

It is an flock(2) lock, which the kernel drops when its process dies, however it dies. Some file systems have
none (Lustre mounted without `-o flock`, NFS without lockd). There an owner file beside the locked file takes
its place: made exclusively, touched every few seconds while its owner lives, taken over when it is stale.
"""

import errno
import fcntl
import os
import socket
import time
import warnings
import weakref
from pathlib import Path

from fkdx.files.owner import OwnerFile

WITHOUT_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # the last two differ on macOS
_MOMENT = 0.01  # seconds
_said = False


class Lock:
    """An exclusive lock on the file at `path`, for as long as this process lives, or until released.

    `file` is the open file to lock, which must stay open as long as the lock; by default the lock opens
    `path` and writes into it who holds it. Raises BlockingIOError, naming the owner where it is known, if
    another process holds it.

        with Lock(Path("job.lock")):
            ...
    """

    def __init__(self, path: str | os.PathLike, file: int | None = None) -> None:
        self.path = Path(path)
        own = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) if file is None else None
        try:
            self._owner = _lock(file if own is None else own, self.path, named=own is not None)
        except BaseException:
            if own is not None:
                os.close(own)
            raise
        self.release = weakref.finalize(self, _release, own, self._owner, os.getpid())

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_held(path: str | os.PathLike) -> bool:
    """Whether a living process holds the lock on the file at `path`."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in WITHOUT_FLOCK:
                raise
            return OwnerFile(Path(path)).is_alive()
    return False


def _lock(file: int, path: Path, named: bool) -> OwnerFile | None:
    """Lock an open file; returns the owner file if the file system has no locks. `named` files hold their
    owner's name."""
    me = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        _flock(file)
    except BlockingIOError:
        owner = (os.pread(file, 1000, 0).decode(errors="replace") if named else "") or "another process"
        raise BlockingIOError(f"held by {owner}, {path}") from None
    except OSError as error:
        if error.errno not in WITHOUT_FLOCK:
            raise
        _say_once(path, error)
        owner = OwnerFile(path)
        owner.acquire(me)
        return owner
    if named:
        os.ftruncate(file, 0)
        os.pwrite(file, me.encode(), 0)
    return None


def _flock(file: int) -> None:
    """Once more where it is held: `is_held` holds what it looks at for a moment."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_MOMENT)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(file: int | None, owner: OwnerFile | None, pid: int) -> None:
    if owner is not None and os.getpid() == pid:  # a forked child leaves its parent's lock alone
        owner.release()
    if file is not None:
        os.close(file)


def _say_once(path: Path, error: OSError) -> None:
    global _said
    if not _said:
        _said = True
        warnings.warn(
            f"lock: the file system of {path.parent} has no flock ({errno.errorcode[error.errno]}); files "
            "*.owner take its place. After a crash on another machine they block for up to a minute",
            stacklevel=4,
        )
