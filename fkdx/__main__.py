"""The program `fkdx`, and `python -m fkdx`.

Ctrl-C ends it with one sentence from here on, while the rest of it is imported too; a verb that runs has its
own sentence.
"""

import _signal as signal  # all of it that is needed here, without an import of enum
import os
import sys


def end_at_once(number: int, frame: object) -> None:
    """Say one sentence and exit; a signal handler."""
    if sys.stderr:  # None: the caller closed it, and another file may have its number
        os.write(2, b"fkdx: stopped\n")
    os._exit(128 + number)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
    signal.signal(signal.SIGINT, end_at_once)

from fkdx import cli  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run a verb with these arguments (default: those of the program); returns the exit status."""
    ours = signal.getsignal(signal.SIGINT) is end_at_once
    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return cli.main(argv)
        finally:  # also where argparse ends the program
            if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, end_at_once)
    except KeyboardInterrupt:  # just before the verb began, or just after it
        end_at_once(signal.SIGINT, None)
        raise


if __name__ == "__main__":
    sys.exit(main())
