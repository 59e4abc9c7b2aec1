"""ImageNet's classes under their other names: by synset, as its folders are called, or by words, as models
and data sets often have them."""

import importlib.util
import os
import re
from collections.abc import Sequence
from functools import cache

SYNSET = re.compile(r"n\d{8}\b")
_ENOUGH = 0.9  # of the words of a list in ImageNet's order must be its own; some lists spell a few otherwise


def synsets_of(names: Sequence[str]) -> list[str]:
    """Each name's synset where it has one, else the name itself.

    A name that begins with its synset ("n01440764 tench") needs no list. Words need timm's, where timm is
    installed: 1,000 names in ImageNet's own order go by their places, others by their words, as WordNet has
    them ("tench, Tinca tinca"), unless two synsets share these.
    """
    if len(names) == 1000 and (ordered := _ordered()) and not SYNSET.match(names[0]):
        words, own = map(_first_word, names), (_first_word(lemma) for _, lemma in ordered)
        if sum(one == other for one, other in zip(words, own)) >= _ENOUGH * len(names):
            return [synset for synset, _ in ordered]
    return [_synset_of(name) for name in names]


def with_words(names: Sequence[str]) -> list[str]:
    """Bare synsets with the first of their words behind them ("n01440764 tench"), for people; other names as
    they are, and all of them where timm is not installed."""
    if not any(SYNSET.fullmatch(name) for name in names):
        return list(names)
    words = dict(_table("imagenet_synset_to_lemma.txt"))
    return [f"{name} {words[name].split(',')[0]}" if name in words else name for name in names]


def _synset_of(name: str) -> str:
    found = SYNSET.match(name)
    return found.group() if found else _by_words().get(name.lower(), name)


def _first_word(name: str) -> str:
    return name.split(",")[0].strip().lower()


@cache
def _by_words() -> dict[str, str]:
    synsets: dict[str, str] = {}
    shared = set()
    for synset, lemma in _table("imagenet_synset_to_lemma.txt"):
        if synsets.setdefault(lemma.lower(), synset) != synset:
            shared.add(lemma.lower())
    return {lemma: synset for lemma, synset in synsets.items() if lemma not in shared}


@cache
def _ordered() -> list[tuple[str, str]]:
    """The synsets of ImageNet-1k in order, with their words; empty without timm."""
    lemmas = dict(_table("imagenet_synset_to_lemma.txt"))
    return [(synset, lemmas.get(synset, "")) for synset, _ in _table("imagenet_synsets.txt")]


def _table(name: str) -> list[tuple[str, str]]:
    """The lines of one of timm's tables, in two at the tab; timm itself is not imported."""
    timm = importlib.util.find_spec("timm")
    if timm is None or not timm.origin:
        return []
    path = os.path.join(os.path.dirname(timm.origin), "data", "_info", name)
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as lines:
        parts = (line.rstrip("\n").partition("\t") for line in lines)
        return [(first, rest.strip()) for first, _, rest in parts]
