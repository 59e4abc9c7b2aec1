"""The `fkdx` command: each verb is the `main(argv)` of one module."""

import os
import select
import signal
import sys
import threading
import warnings
from importlib import import_module

import fkdx
from fkdx._version import __version__
from fkdx.errors import error_text

# verb: (module, what it does)
VERBS = {
    "generate": ("fkdx.generate", "label crops of every image with a teacher and write a label file"),
    "pack": ("fkdx.commands.pack", "pack existing soft labels (FKD, SRe2L, TinyViT, ...) into a label file"),
    "info": ("fkdx.commands.info", "show what a label file holds"),
    "verify": ("fkdx.commands.verify", "check a label file, alone or against its images and its teacher"),
    "slice": ("fkdx.commands.slice", "take a part of a label file: fewer crops, a smaller K, some classes"),
    "merge": ("fkdx.commands.merge", "average the labels of several teachers over the same crops"),
    "calibrate": ("fkdx.commands.calibrate", "drop useless crops, give weak ones their class (FerKD)"),
    "concat": ("fkdx.commands.concat", "join label files of different images"),
    "convert": ("fkdx.commands.convert", "store a label file in another encoding"),
    "compare": ("fkdx.commands.compare", "compare two teachers' labels of the same crops"),
    "report": ("fkdx.commands.report", "write a page for a browser about labels or runs"),
    "serve": ("fkdx.commands.serve", "show the page of a label file from a local server"),
    "export": ("fkdx.commands.export", "write a label file as FKD's folder of one file per image"),
    "index": ("fkdx.commands.index", "write down where every image of a store lies, for a quick start"),
    "repack": ("fkdx.commands.repack", "copy images, byte for byte, into tar shards with their index"),
    "train": ("fkdx.train", "train a student from a label file"),
    "evaluate": ("fkdx.commands.evaluate", "measure a model's features: k-NN and a linear probe"),
    "demo": ("fkdx.commands.demo", "draw a data set and run every step on it"),
    "bench": ("fkdx.commands.bench", "measure how fast this machine loads batches, and where the time goes"),
    "doctor": ("fkdx.commands.doctor", "show what was built and what this machine offers"),
}

# package: the extra of pyproject.toml that brings it; "train" brings all others
EXTRAS = {
    "cv2": "demo",
    **dict.fromkeys(("altair", "vl_convert", "jinja2", "starlette", "uvicorn"), "report"),
}


# How often a thread of torch's OpenMP team looks whether there is work before it sleeps: about 0.1 ms. The
# runtime's own 300000 looks keep cores busy that other threads wait for: beside one busy process, training on
# two cores ran at a fifteenth of its speed.
SPIN_COUNT = 5000


def usage() -> str:
    lines = [
        f"fkdx {__version__}: fast knowledge distillation from stored crops",
        "",
        "usage: fkdx VERB [...]",
        "",
    ]
    lines += [f"  {verb:<10} {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([*lines, "", "`fkdx VERB --help` explains a verb."])


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        print(f"fkdx: unknown verb, got '{verb}', expected one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return run(verb, rest)


def run(verb: str, argv: list[str]) -> int:
    """Run a verb; an error that the user can fix becomes one line on stderr and exit status 1."""
    open_closed_streams()
    warnings.formatwarning = lambda message, *_, **__: f"fkdx {verb}: {message}\n"
    let_idle_threads_sleep()
    try:
        check_names(argv)
        if verb != "doctor":  # doctor reports a missing extension itself
            _ = fkdx._C
        status = import_module(VERBS[verb][0]).main(argv) or 0
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
        print(f"fkdx {verb}: {error_text(error, verb)}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        end_at_the_next_interrupt()
        print(f"fkdx {verb}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    return 1


def end_at_the_next_interrupt() -> None:
    """Whoever presses Ctrl-C again while a stopped program ends wants it gone, not a traceback. What has a
    final name is whole at every moment."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


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
    pipe.register(sys.stdout.fileno(), 0)  # errors are always reported
    if not pipe.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


if __name__ == "__main__":
    sys.exit(main())
