"""What is left on a disk that was full."""

import fcntl
import os
from pathlib import Path

from fkdx.files.lock import WITHOUT_FLOCK


def check_nothing_is_left(folder: Path) -> None:
    """Without flock an empty temporary file stays, as it may be another process's by now."""
    stays = () if has_flock(folder) else (".tmp",)
    assert [path for path in folder.iterdir() if path.suffix not in stays or path.stat().st_size] == []


def has_flock(folder: Path) -> bool:
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        return error.errno not in WITHOUT_FLOCK
    finally:
        os.close(file)
    return True
