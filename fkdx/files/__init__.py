"""Files that are whole or absent, and locks that die with their process."""

from fkdx.files.lock import Lock, is_held
from fkdx.files.whole import AtomicFile, check_replaceable, unwritable, write_whole

__all__ = ["AtomicFile", "Lock", "check_replaceable", "is_held", "unwritable", "write_whole"]
