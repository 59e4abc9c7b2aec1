"""The `fkdx` command: each verb is the `main(argv)` of one module."""

import os
import select
import sys
import warnings
from importlib import import_module

import fkdx
from fkdx._version import __version__
from fkdx.cli.interrupt import end_at_the_next_interrupt, held_while_importing
from fkdx.cli.verbs import VERBS, usage
from fkdx.errors import error_text

# package: the extra of pyproject.toml that brings it; "train" brings all others
EXTRAS = {
    "cv2": "demo",
    **dict.fromkeys(("altair", "vl_convert", "jinja2", "starlette", "uvicorn"), "report"),
}


# How often a thread of torch's OpenMP team looks whether there is work before it sleeps: about 0.1 ms. The
# runtime's own 300000 looks keep cores busy that other threads wait for: beside one busy process, training on
# two cores ran at a fifteenth of its speed.
SPIN_COUNT = 5000


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        return show(usage())
    if argv[0] in ("-V", "--version"):
        return show(__version__)
    verb, *rest = argv
    if verb not in VERBS:
        print(f"fkdx: unknown verb, got '{verb}', expected one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return run(verb, rest)


def show(text: str) -> int:
    """Print a text; one line on stderr where that fails."""
    open_closed_streams()
    try:
        print(text, flush=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            return 141
        print(f"fkdx: {error_text(error, 'fkdx')}", file=sys.stderr)
        return 1
    return 0


def run(verb: str, argv: list[str]) -> int:
    """Run a verb; an error that the user can fix becomes one line on stderr and exit status 1."""
    open_closed_streams()
    warnings.formatwarning = lambda message, *_, **__: f"fkdx {verb}: {error_text(message, verb)}\n"
    let_idle_threads_sleep()
    try:
        check_names(argv)
        try:
            with held_while_importing():
                if verb not in ("doctor", "completion"):  # doctor reports a missing extension itself
                    _ = fkdx._C
                status = import_module(VERBS[verb][0]).main(argv) or 0
        finally:
            if sys.stdout:
                sys.stdout.flush()
        if status > 128:  # the verb was stopped by a signal
            end_at_the_next_interrupt()
        return status
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).split(".")[0]
        extra = EXTRAS.get(package, "train")
        print(f"fkdx {verb}: needs {package}; run: pip install 'fkdx[{extra}]'", file=sys.stderr)
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            return 141  # the status that a shell gives to a program ended by SIGPIPE
        print(f"fkdx {verb}: {on_one_line(error_text(error, verb), argv)}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        end_at_the_next_interrupt()
        print(f"fkdx {verb}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    return 1


def on_one_line(text: str, argv: list[str]) -> str:
    """The text with the line breaks of names that the user gave written as `\\n`."""
    for word in argv:
        text = text.replace(word, word.replace("\n", "\\n"))
    return text


def let_idle_threads_sleep() -> None:
    """In this process and its children, unless the user chose: OpenMP reads it once, when torch loads."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def open_closed_streams() -> None:
    """Let standard streams that the caller closed lead nowhere, so that no file gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # what Python makes of a stream that was closed when it began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def check_names(argv: list[str]) -> None:
    """ValueError for an argument that is not valid UTF-8, which all names have to be."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            got = os.fsencode(word)
            raise ValueError(
                f"argument, got {got!r}, expected UTF-8; rename the file, or set LC_ALL=C.UTF-8"
            ) from None


def reader_left() -> bool:
    """Whether the program that reads our output (such as `head`) has ended; the rest is then dropped."""
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), select.POLLOUT)  # macOS reports nothing to those who ask for nothing
    if all(event == select.POLLOUT for _, event in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
