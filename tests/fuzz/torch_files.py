"""The random part of fuzz_torch_file.py for the trust suite: torch_files.py SEED FIRST SECONDS."""

import random
import sys
from functools import cache

from fuzz_torch_file import CORPUS, mutate, try_input, watch
from trust.inputs import try_inputs


@cache
def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def attempt(random: random.Random) -> None:
    try_input(mutate(random.choice(corpus()), random, corpus()))


if __name__ == "__main__":
    sys.addaudithook(watch)
    corpus()
    try_inputs(attempt)
