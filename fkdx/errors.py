"""How fkdx words an error: "function: what, got X, expected Y, path"."""

import operator
from os import PathLike
from typing import NoReturn


def refuse(
    where: str,
    what: str,
    got: object,
    expected: object,
    path: str | PathLike | None = None,
    *,
    error: type[Exception] = ValueError,
) -> NoReturn:
    """Raises `error` with all that a reader of the message needs.

    Args:
        where: the public function or class that was called.
        what: the argument, or the part of the file, that is wrong.
        got, expected: its value, and in words what would have been accepted.
        path: the file it was read from, if there is one.
    """
    at = "" if path is None else f", {path}"
    raise error(f"{where}: {what}, got {got}, expected {expected}{at}")


def expect(
    where: str, ok: bool, what: str, got: object, expected: object, path: str | PathLike | None = None
) -> None:
    """Raises ValueError as `refuse` words it, unless `ok`."""
    if not ok:
        refuse(where, what, got, expected, path)


def whole(where: str, what: str, number: int) -> int:
    """The number as Python's own, which has any size. Raises ValueError as `refuse` words it for others."""
    try:
        return operator.index(number)
    except TypeError:
        refuse(where, what, repr(number), "a whole number")


def error_text(error: BaseException, verb: str) -> str:
    """The message for a user of `fkdx VERB`: without the verb once more, or a number for the cause."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename!r}"
    return text.removeprefix(f"{verb}: ")
