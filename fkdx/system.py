"""What Linux and macOS do differently: cores, worker processes."""

import os
import sys


def available_cores() -> int:
    """The number of cores that this process may use. Linux can bind it to some of them, macOS cannot."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_method() -> str:
    """How worker processes start, for `multiprocessing`.

    A fork is the cheapest way, and pickles nothing, but libraries of macOS do not survive it.
    """
    return "spawn" if sys.platform == "darwin" else "fork"
