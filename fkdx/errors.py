"""What errors say to people."""


def error_text(error: BaseException, verb: str) -> str:
    """The message for a user of `fkdx VERB`: without the verb once more, or a number for the cause."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename!r}"
    return text.removeprefix(f"{verb}: ")
