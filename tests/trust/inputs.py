"""The main of programs that try inputs: PROGRAM SEED FIRST SECONDS, which ends with a line of JSON.

Every input follows from the seed and its number alone, so `PROGRAM SEED NUMBER 0` tries one again.
"""

import json
import random
import sys
import time
import traceback
from collections.abc import Callable

MOST_FAILURES = 5


def try_inputs(attempt: Callable[[random.Random], None]) -> None:
    """`attempt` makes one input and tries it; whatever it raises is a failure."""
    seed, first, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    number, failures, end = first, [], time.monotonic() + seconds
    while True:
        if number % 500 == 0:
            print(f"at input {number}", flush=True)
        try:
            attempt(random.Random(f"{seed} {number}"))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}"[:300]
            failures.append(f"{sys.argv[0]} {seed} {number}: {text}, {where.filename}:{where.lineno}")
        number += 1
        if time.monotonic() >= end or len(failures) == MOST_FAILURES:
            break
    print(json.dumps({"count": number - first, "failures": failures}))
    sys.exit(bool(failures))


def damage(data: bytes, random: random.Random, others: list[bytes]) -> bytes:
    """Cut, or one to four changes: bits, zeros, a number at its limit, a piece lost, doubled, of another."""
    out = bytearray(data)
    if random.random() < 0.1:
        return bytes(out[: random.randrange(len(out) + 1)])
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(out) + 1), random.choice((1, 2, 4, 8, 16, 64, 512))
        change = random.randrange(7)
        if change == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif change == 1:
            out[at : at + length] = bytes(min(length, len(out) - at))
        elif change == 2:
            width = random.choice((1, 2, 4, 8))
            limit = random.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, len(out)))
            number = (limit % 2 ** (8 * width)).to_bytes(width, random.choice(("little", "big")))
            out[at : at + width] = number[: len(out) - at]
        elif change == 3:
            del out[at : at + length]
        elif change == 4:
            out[at:at] = out[at : at + length]
        elif change == 5:
            out[at : at + length] = random.randbytes(length)
        else:
            other = random.choice(others)
            start = random.randrange(len(other) + 1)
            out[at : at + length] = other[start : start + length]
    return bytes(out)
