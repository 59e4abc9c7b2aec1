"""Reads NVIDIA machine code as cuobjdump prints it, from top to bottom, without following branches."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?)\s*;", re.MULTILINE)
_WORDS = {"64": 2, "128": 4}  # registers of a wide access


@dataclass(frozen=True)
class Instruction:
    guard: str  # "@P0", "@!P0" or ""
    name: str  # "LDG.E.128"
    operands: tuple[str, ...]

    def is_a(self, name: str, *parts: str) -> bool:
        """Whether it is LDG, and all of its `parts` (E, 128) are there."""
        words = self.name.split(".")
        return words[0] == name and set(parts) <= set(words)

    @property
    def words(self) -> int:
        return next((_WORDS[part] for part in self.name.split(".") if part in _WORDS), 1)

    @property
    def stores(self) -> bool:
        return self.name.startswith(("ST", "RED", "ATOM"))

    def written(self) -> set[int]:
        """The registers that it writes."""
        if self.stores or not self.operands or not self.operands[0].startswith("R"):
            return set()
        return _registers(self.operands[0], self.words if self.name.startswith("LD") else 1)

    def read(self) -> set[int]:
        """The registers that it reads; of an address both halves."""
        found = set()
        for operand in self.operands if self.stores else self.operands[1:]:
            wide = 2 if ".64" in operand else self.words if self.stores and "[" not in operand else 1
            found |= _registers(operand, wide)
        return found


def _registers(operand: str, count: int) -> set[int]:
    first = (int(number) for number in re.findall(r"\bR(\d+)\b", operand))
    return {register + i for register in first for i in range(count)}


def instructions(text: str) -> Iterator[Instruction]:
    for guard, name, operands in _LINE.findall(text):
        yield Instruction(guard.strip(), name, tuple(part.strip() for part in operands.split(",")))


def loads_together(code: Iterable[Instruction]) -> list[int]:
    """How many loads from global memory start before one of them is used, then before the next, ..."""
    waiting, together, groups = set(), 0, []
    for at in code:
        if at.read() & waiting:
            groups.append(together)
            waiting, together = set(), 0
        if at.is_a("LDG"):
            waiting |= at.written()
            together += 1
        elif not at.guard:
            waiting -= at.written()
    return [*groups, together] if together else groups


def unguarded_early_reads(code: Iterable[Instruction]) -> int:
    """Reads of shared memory that no predicate guards before the block's first barrier, when other warps may
    be writing; 0 without a barrier."""
    early = 0
    for at in code:
        if at.is_a("BAR"):
            return early
        early += at.is_a("LDS") and not at.guard
    return 0
