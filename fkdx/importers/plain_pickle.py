"""A pickle reader that runs nothing. It reads numbers, text, containers, numpy arrays and torch tensors only.

Pickle is a small stack language whose programs may call any function. Soft-label files use a few dozen of its
operations and a handful of globals, all of which only mean "here is an array". This interpreter knows those
and builds plain data itself. It imports nothing and calls nothing by name; it refuses any other operation or
global and names it.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.importers.known_globals import (
    CALLS,
    STORAGES,
    Global,
    Refused,
    Unfilled,
    check_dtype_state,
    known_global,
    refuse,
    refuse_global,
)

MAX_OPERATIONS = 4_000_000  # bounds memory: one operation makes at most one small object
MAX_INTEGER_BYTES = 16

# A persistent id's (name of the storage, dtype, number of elements) -> the elements
Storages = Callable[[str, np.dtype, int], np.ndarray]

_U8, _U16, _U32, _U64 = (struct.Struct("<" + code) for code in "BHLQ")
_I32, _F64 = struct.Struct("<l"), struct.Struct(">d")
_NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}
_STOP, _BINPUT = ord("."), ord("q")
_MARK = object()
_LEAVES = frozenset((type(None), bool, int, float, str, bytes, np.ndarray))


def _no_storages(name: str, dtype: np.dtype, count: int) -> np.ndarray:
    raise ValueError("a tensor outside a torch file")


def loads(data: bytes, path: str, storages: Storages = _no_storages, start: int = 0) -> tuple[Any, int]:
    """Reads one pickle (protocols 2 to 4) from `data[start:]`.

    Returns (value, first byte after the pickle). The value is made of None, bool, int, float, str, bytes,
    tuple, list, dict and numpy arrays; torch tensors are numpy arrays too. Raises FormatError with the
    path for everything else: another operation or global, a truncated pickle, an array that contradicts
    its bytes, more than 4 million operations.
    """
    machine = _Machine(data, start, storages)
    try:
        return machine.run(), machine.at
    except Refused as refusal:
        raise FormatError(f"plain_pickle: {refusal}, {path}") from None
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        got = f"malformed or truncated data at byte {machine.at} ({str(error)[:200]})"
        raise FormatError(f"plain_pickle: pickle, got {got}, expected a whole pickle, {path}") from None


def check_plain(value: Any) -> None:
    """Refuses a value that holds something unfinished: a mark, a global, an array without its numbers."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) in _LEAVES:
            continue
        if type(value) not in (tuple, list, dict):
            refuse("value", f"a {type(value).__name__}", "plain data")
        if id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if type(value) is dict else value


class _Machine:
    def __init__(self, data: bytes, at: int, storages: Storages) -> None:
        self.data, self.at, self.storages = data, at, storages
        self.stack: list[Any] = []
        self.push = self.stack.append
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        self.protocol()
        operations, data = _OPERATIONS, self.data
        for _ in range(MAX_OPERATIONS):
            code = data[self.at]
            self.at += 1
            if code == _BINPUT:  # a third of all operations
                self.memo[data[self.at]] = self.stack[-1]
                self.at += 1
                continue
            if code == _STOP:
                (value,) = self.stack
                check_plain(value)
                return value
            operation = operations.get(code)
            if operation is None:
                refuse("operation", _NAMES.get(code, f"byte {code}"), "one that plain arrays need")
            operation(self)
        refuse("operations", f"more than {MAX_OPERATIONS}", "a label file")

    # ---- reading arguments -------------------------------------------------------------------------------

    def byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise ValueError("the data end inside an argument")
        self.at += count
        return taken

    def text(self, count: int) -> str:
        return self.take(count).decode()

    def integer(self) -> int:
        count = self.byte()
        if count > MAX_INTEGER_BYTES:
            refuse("integer", f"{count} bytes", f"at most {MAX_INTEGER_BYTES}")
        return int.from_bytes(self.take(count), "little", signed=True)

    def line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 256)
        line = self.data[self.at : end].decode("ascii")
        self.at = end + 1
        return line

    def protocol(self) -> None:
        first = self.take(2)
        if first not in (b"\x80\2", b"\x80\3", b"\x80\4"):
            refuse("first bytes", repr(first), "those of protocol 2, 3 or 4")

    # ---- the stack and the memo --------------------------------------------------------------------------

    def pop_to_mark(self) -> list[Any]:
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark on the stack")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def push_tuple(self, count: int) -> None:
        values = tuple(self.stack[-count:])
        if len(values) != count:
            raise ValueError("too few values on the stack")
        self.stack[-count:] = [values]

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            refuse("append", f"a {type(target).__name__}", "a list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            refuse("set items", f"a {type(target).__name__}", "a dict and pairs")
        for key, value in zip(values[::2], values[1::2]):
            if type(key) not in (str, int):
                refuse("dict key", f"a {type(key).__name__}", "text or a whole number")
            target[key] = value

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        value = self.memo[key]
        self.push(value.array if type(value) is Unfilled and value.array is not None else value)

    # ---- globals, arrays, tensors ------------------------------------------------------------------------

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(known_global(module, name))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            refuse("call", f"a {type(function).__name__}", "a known global and a tuple")
        if function not in CALLS:
            refuse_global(function)
        self.push(CALLS[function](*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            check_dtype_state(state)
        elif type(target) is Unfilled and target.array is None:
            self.stack[-1] = target.fill(state)
        else:
            refuse("BUILD", f"a {type(target).__name__}", "an array or its dtype")

    def persistent(self) -> None:
        """("storage", type, name, device, number of elements), before torch 1.6 also None: the whole
        storage.
        """
        identity = self.stack.pop()
        if type(identity) is not tuple or identity[:1] != ("storage",) or identity[5:] not in ((), (None,)):
            refuse("persistent id", f"a {type(identity).__name__}", "a whole torch storage")
        _, kind, name, _, count = identity[:5]
        if type(kind) is not Global or type(name) is not str or type(count) is not int:
            refuse("persistent id", "an unknown description", "a storage's type, name and number of elements")
        if kind not in STORAGES:
            refuse_global(kind)
        self.push(self.storages(name, STORAGES[kind], count))


_BY_NAME: dict[str, Callable[[_Machine], Any]] = {
    "FRAME": lambda m: m.number(_U64),
    "MARK": lambda m: m.push(_MARK),
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "BININT": lambda m: m.push(m.number(_I32)),
    "BININT1": lambda m: m.push(m.byte()),
    "BININT2": lambda m: m.push(m.number(_U16)),
    "LONG1": lambda m: m.push(m.integer()),
    "BINFLOAT": lambda m: m.push(m.number(_F64)),
    "BINUNICODE": lambda m: m.push(m.text(m.number(_U32))),
    "SHORT_BINUNICODE": lambda m: m.push(m.text(m.byte())),
    "BINBYTES": lambda m: m.push(m.take(m.number(_U32))),
    "SHORT_BINBYTES": lambda m: m.push(m.take(m.byte())),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "EMPTY_LIST": lambda m: m.push([]),
    "EMPTY_DICT": lambda m: m.push({}),
    "TUPLE": lambda m: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m: m.push_tuple(1),
    "TUPLE2": lambda m: m.push_tuple(2),
    "TUPLE3": lambda m: m.push_tuple(3),
    "APPEND": lambda m: m.extend([m.stack.pop()]),
    "APPENDS": lambda m: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m: m.set_items(m.pop_to_mark()),
    "LONG_BINPUT": lambda m: m.remember(m.number(_U32)),
    "MEMOIZE": lambda m: m.remember(len(m.memo)),
    "BINGET": lambda m: m.recall(m.byte()),
    "LONG_BINGET": lambda m: m.recall(m.number(_U32)),
    "GLOBAL": lambda m: m.push(known_global(m.line(), m.line())),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
_OPERATIONS = {ord(operation.code): _BY_NAME[operation.name] for operation in pickletools.opcodes
               if operation.name in _BY_NAME}  # fmt: skip
