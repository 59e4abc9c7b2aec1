"""Throws damaged and invented files at the reader of torch files.

    python tests/fuzz/fuzz_torch_file.py 600      # seconds

With `atheris` installed the search follows coverage; without it, random mutations of the corpus are tried. An
input is bad if reading it does anything but return plain data or raise FormatError: another error, an import,
a call into the system, more than a second.
"""

import io
import random
import sys
import tempfile
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path

from fkdx import FormatError

try:
    import atheris
except ImportError:
    atheris = None
with atheris.instrument_imports(include=["fkdx.importers"]) if atheris else nullcontext():
    from fkdx.importers import plain_pickle
    from fkdx.importers.torch_file import parse_torch_file

CORPUS = Path(__file__).with_name("corpus") / "torch_file"
HARMLESS = ("object.", "gc.", "sys._getframe", "array.", "builtins.id", "code.")
LONGEST = 1.0  # seconds of the processor

_watching = False


def watch(event: str, arguments: tuple) -> None:
    """An audit hook: nothing may be opened, imported, compiled or run while a file is parsed."""
    if _watching and not event.startswith(HARMLESS):
        raise AssertionError(f"reading caused {event} {arguments}")


def try_input(data: bytes) -> None:
    """Reads `data` as a file, as a bare pickle, and as the pickle of a zip file with two storages."""
    for read in (
        lambda: parse_torch_file(data, "fuzzed"),
        lambda: plain_pickle.loads(data, "fuzzed"),
        lambda: parse_torch_file(_wrapped(data), "fuzzed"),
    ):
        start = time.thread_time()
        plain_pickle.check_plain(_watched(read))
        assert time.thread_time() - start < LONGEST, "reading took too long"


def _watched(read) -> object:
    global _watching
    _watching = True
    try:
        return read()
    except FormatError:
        return None
    finally:
        _watching = False


def _wrapped(program: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", program), ("data/0", bytes(64)), ("data/1", b"\1\0\1\0")):
            archive.writestr(zipfile.ZipInfo(f"a/{name}"), data)
    return file.getvalue()


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to eight small changes: bytes set, removed, repeated, or taken from another file."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, length = rng.randrange(len(out) + 1), rng.randint(1, 16)
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        change = rng.randrange(5)
        if change == 0 and at < len(out):
            out[at] = rng.randrange(256)
        elif change == 1:
            del out[at : at + length]
        elif change == 2:
            out[at:at] = out[at : at + length]
        elif change == 3:
            out[at:at] = other[start : start + length]
        else:
            out[at : at + length] = other[start : start + length]
    return bytes(out)


def run_random(seconds: float, seed: int) -> int:
    """Tries mutations for a while; returns how many."""
    rng, tried = random.Random(seed), 0
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        data = mutate(rng.choice(corpus), rng, corpus)
        try:
            try_input(data)
        except BaseException:
            print(f"seed {seed}, input {tried}: {data!r}", file=sys.stderr)
            raise
        tried += 1
    return tried


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    sys.addaudithook(watch)
    if atheris is None:
        seed = random.randrange(2**32)
        print(f"{run_random(seconds, seed)} inputs tried, none bad (seed {seed}, without atheris)")
        return
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", found, str(CORPUS)], try_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
