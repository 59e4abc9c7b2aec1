"""Files that are whole or absent, and locks that die with their process."""

from fkdx.files.lock import Lock, is_held
from fkdx.files.whole import AtomicFile, unwritable, write_whole

__all__ = ["AtomicFile", "Lock", "is_held", "unwritable", "write_whole"]
