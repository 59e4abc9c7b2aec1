"""Python programs that start at once: forked from a process that has loaded torch and fkdx.

Such a program is given, prints and returns what `python WORDS` would. Python programs that it starts itself,
as torchrun does, are forked from it in turn.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["fkdx.train.loop", "fkdx.generate.program", "torch.distributed.launcher.api"])


class Program:
    """`python WORDS` in a folder, used as a subprocess.Popen whose output goes to pipes."""

    def __init__(
        self, words: Sequence[str], folder: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.words, self.outputs = list(words), tempfile.TemporaryDirectory()
        given = self.words, folder or Path.cwd(), env or dict(os.environ), self.outputs.name
        self.process = SERVER.Process(target=begin, args=given)
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.output("out"), self.output("err")

    def output(self, name: str) -> str:
        path = Path(self.outputs.name, name)
        return path.read_text() if path.exists() else ""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:  # as when a test fails
        self.kill()


def run(
    words: Sequence[str],
    folder: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess:
    """`python WORDS`, waited for. Raises subprocess.TimeoutExpired."""
    program = Program(words, folder, env)
    try:
        out, errors = program.communicate(timeout)
    finally:
        program.kill()
    return subprocess.CompletedProcess(program.words, program.returncode, out, errors)


# ---- in the new process ---------------------------------------------------------------------------------


def begin(words: list[str], folder: Path, env: dict[str, str], outputs: str) -> None:
    """Be that program, with its output in the files `out` and `err`."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    become(words, folder, env)


def become(words: list[str], folder: str | Path | None, env: dict[str, str] | None) -> None:
    """Be `python WORDS` to the end."""
    if folder is not None:
        os.chdir(folder)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
    gc.freeze()  # what the server had loaded
    forget_signals()
    multiprocessing.set_start_method(None, force=True)  # that of the server is another one
    subprocess.Popen = subprocess_handler.Popen = Forking
    status = status_of(words)
    threading._shutdown()  # waits for threads, as Python does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def forget_signals() -> None:
    """The handlers of a fresh process, in place of those of the one that was forked."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def status_of(words: list[str]) -> int:
    """Run them; the status that Python would end with."""
    try:
        run_words(words)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_words(words: list[str]) -> None:
    words = words[words[0] == "-u" :]
    if given := os.environ.get("PYTHONPATH"):
        sys.path[:0] = given.split(":")
    if words[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


class Forking(subprocess.Popen):
    """Starts Python programs by a fork, and others as ever."""

    def _execute_child(self, args: Sequence[str], *more) -> None:
        before, folder, env, shell, session = more[1], more[4], more[5], more[8], more[20]
        stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = pipes = more[9:15]
        alone = threading.current_thread() is threading.main_thread()  # another thread's fork hangs
        if before or shell or not alone or args[0] != sys.executable:
            super()._execute_child(args, *more)
            return
        sys.stdout.flush()  # else the new process writes it too
        self.pid = os.fork()
        if self.pid == 0:
            if session:
                os.setsid()
            for fd in {to_stdin, from_stdout, from_stderr} - {-1}:
                os.close(fd)
            for number, fd in enumerate((stdin, stdout, stderr)):
                if fd != -1:
                    os.dup2(fd, number)
            become(list(args[1:]), folder, env)
        self._child_created = True
        self._close_pipe_fds(*pipes)
