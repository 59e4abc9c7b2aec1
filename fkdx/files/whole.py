"""Files that are whole or absent: written under a temporary name, flushed to the disk, then renamed."""

import fcntl
import os
import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fkdx.files.lock import Lock


class AtomicFile:
    """A file with a temporary name beside its target until `commit` puts it in place.

    Even if the process is killed, the power fails or the disk is full, the target is either what it was
    before or complete.

    Raises FileExistsError if the target exists (unless `overwrite`), FileNotFoundError if its folder does
    not, OSError if it is there and no file, and BlockingIOError if another process writes it.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            what = "a folder" if self.path.is_dir() else "a device or a pipe"
            raise OSError(f"write: got {what}, expected the name of a file, {self.path}")
        if self.path.exists() and not overwrite:
            raise FileExistsError(
                f"write: {self.path} exists; remove it, or ask to overwrite it (--overwrite)"
            )
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"write: no such folder, {self.path.parent}")
        self.temporary = self.path.with_name(self.path.name + ".tmp")
        self._file, self._lock = self._open_locked()
        owned = self._file, self._lock, self.temporary, os.getpid()
        self._forgotten = weakref.finalize(self, _drop, *owned)  # a writer that nobody has closed
        os.ftruncate(self._file, 0)

    def _open_locked(self) -> tuple[int, Lock]:
        """The temporary file under a lock that dies with the process, so that leftovers are taken over."""
        while True:
            file = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                lock = Lock(self.temporary, file)
            except BaseException as error:
                os.close(file)
                if isinstance(error, BlockingIOError):
                    by = "by another process, or by a writer that is still open"
                    raise BlockingIOError(f"write: {self.path} is being written {by}") from None
                raise
            try:
                # The former owner may have renamed the file between our two calls: then this is its result.
                if os.path.samestat(os.fstat(file), os.stat(self.temporary)):
                    return file, lock
            except FileNotFoundError:
                pass
            lock.release()
            os.close(file)

    def write(self, data: bytes) -> None:
        """Appends. If the disk is full, raises OSError with the space that is left."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._file, view) :]
            except OSError as error:
                free = shutil.disk_usage(self.temporary.parent).free
                text = f"{error.strerror}; {free} bytes are free"
                raise OSError(error.errno, text, str(self.temporary)) from None

    def sync(self) -> None:
        """Waits until all that was written is on the disk."""
        _flush(self.temporary)

    def commit(self) -> None:
        """Puts the file in place, permanently."""
        self.sync()
        os.replace(self.temporary, self.path)
        self._close()
        _flush(self.path.parent)

    def abort(self) -> None:
        """Removes the temporary file; does nothing after `commit`."""
        if self._file >= 0:
            self.temporary.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        self._forgotten.detach()
        self._lock.release()
        os.close(self._file)
        self._file = -1


def _drop(file: int, lock: Lock, temporary: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked child leaves its parent's file alone
        temporary.unlink(missing_ok=True)
    lock.release()
    os.close(file)


def check_replaceable(path: str | os.PathLike, beginning: bytes, what: str) -> None:
    """FileExistsError where a file is there that does not begin as those do that are replaced unasked: it is
    another one, perhaps labels that took a week."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(len(beginning))
        if begins and begins != beginning:
            raise FileExistsError(f"write: got a file that is no {what}; remove it or choose another, {path}")


def write_whole(path: str | os.PathLike, content: bytes | Callable[[Path], object]) -> None:
    """Make or replace the file at `path`, which is whole or what it was before, whatever happens.

    `content` is its bytes, or a function that fills the temporary file whose path it is given. Raises OSError
    with the space that is left if that fails, BlockingIOError if another process writes the file.
    """
    path = Path(path)
    file = AtomicFile(path, overwrite=True)
    try:
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file.temporary)
        file.commit()
    except (OSError, RuntimeError) as error:  # torch raises the latter if the disk is full
        if isinstance(content, bytes):
            raise
        raise unwritable(path, error) from error
    finally:
        file.abort()


def unwritable(path: Path, error: Exception) -> OSError:
    """What to raise if writing `path` failed."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    free = shutil.disk_usage(path.parent).free
    return OSError(f"cannot write ({reason}), {free} bytes are free there, {path}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def _fsync(file: int) -> None:
    """Also empties the memory of the disk itself, which fsync(2) leaves alone on macOS."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        with suppress(OSError):  # a network file system may have none
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)
