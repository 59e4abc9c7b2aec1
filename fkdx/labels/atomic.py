"""Files that are complete or absent."""

import fcntl
import os
import shutil
from pathlib import Path


class AtomicFile:
    """A file with a temporary name beside its target until `commit` puts it in place.

    Even if the process is killed, the power fails or the disk is full, the target is either what it was
    before or complete.

    Raises FileExistsError if the target exists (unless `overwrite`), BlockingIOError if another process
    writes it.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(self.path.name + ".tmp")
        if self.path.exists() and not overwrite:
            raise FileExistsError(
                f"write: {self.path} exists; remove it, or ask to overwrite it (--overwrite)"
            )
        self._file = self._open_locked()
        os.ftruncate(self._file, 0)

    def _open_locked(self) -> int:
        """Opens the temporary file with a lock that ends with the process, so that leftovers can be
        reused."""
        while True:
            file = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The previous owner may have renamed the file between our two calls; then this is its result.
                if os.path.samestat(os.fstat(file), os.stat(self.temporary)):
                    return file
            except BlockingIOError:
                os.close(file)
                raise BlockingIOError(f"write: {self.path} is being written by another process") from None
            except FileNotFoundError:
                pass
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
        """Waits until everything written is on the disk."""
        os.fsync(self._file)

    def commit(self) -> None:
        """Puts the file in place, permanently."""
        self.sync()
        os.rename(self.temporary, self.path)
        self._close()
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Removes the temporary file; does nothing after `commit`."""
        if self._file >= 0:
            self.temporary.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1
