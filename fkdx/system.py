"""What systems do differently: cores, worker processes; threads at the end of a program."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


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


def called(call: Callable[..., Result], *args: Any) -> Future[Result]:
    """What the call returns or raises."""
    future: Future[Result] = Future()
    try:
        future.set_result(call(*args))
    except Exception as error:
        future.set_exception(error)
    return future


def submit(threads: ThreadPoolExecutor, call: Callable[..., Result], *args: Any) -> Future[Result]:
    """The call in one of the threads, or at once where they take nothing more: executors close as soon as the
    main thread has ended, though others may go on for hours."""
    try:
        return threads.submit(call, *args)
    except RuntimeError:
        return called(call, *args)


def rest_at_exit() -> None:
    """Never returns to a daemon thread that the end of the program has overtaken: it sleeps until the process
    is gone, as it would in C++ (csrc/bindings/unlocked.h). An error would be printed."""
    if threading.current_thread().daemon and not threading.main_thread().is_alive():
        threading.Event().wait()
