"""Ctrl-C while a verb runs."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LOOK_AGAIN = 0.05  # seconds


@contextmanager
def held_while_importing() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, but in the middle of an import only once that is done.

    Modules in C and C++ import others, and make an ImportError of an exception there (numpy's) or abort the
    program (torch 2.14: `_c10d_init`, `_dist_autograd_init`).
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if is_importing(frame):
            threading.Timer(LOOK_AGAIN, signal.pthread_kill, (threading.main_thread().ident, number)).start()
        else:
            signal.default_int_handler(number, frame)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, nor another's
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a verb's frame, or one that it returns to, is Python's import of a module."""
    while frame and frame.f_globals.get("__name__") != "fkdx.cli":
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def end_at_the_next_interrupt() -> None:
    """Whoever presses Ctrl-C again while a stopped program ends wants it gone, not a traceback. What has a
    final name is whole at every moment."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
