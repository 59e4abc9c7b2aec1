"""What the globals in soft-label pickles mean, in plain numpy. Nothing is looked up or imported by name."""

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

_NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1, numpy 2
_DTYPE_NAMES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_DTYPES = {name: np.dtype("<" + name) for name in _DTYPE_NAMES}
BFLOAT16 = np.dtype([("upper half of a float32", "<u2")])  # numpy has no such number
STORAGES = {
    "torch.FloatStorage": _DTYPES["f4"],
    "torch.HalfStorage": _DTYPES["f2"],
    "torch.BFloat16Storage": BFLOAT16,
    "torch.DoubleStorage": _DTYPES["f8"],
    "torch.LongStorage": _DTYPES["i8"],
    "torch.IntStorage": _DTYPES["i4"],
    "torch.ShortStorage": _DTYPES["i2"],
    "torch.CharStorage": _DTYPES["i1"],
    "torch.ByteStorage": _DTYPES["u1"],
    "torch.BoolStorage": _DTYPES["b1"],
}


class Refused(Exception):
    """A pickle asks for something that soft labels do not need; the text says what."""


def refuse(what: str, got: str, expected: str) -> NoReturn:
    raise Refused(f"{what}, got {got}, expected {expected}")


class Global(str):
    """A global's dotted name on the stack: a word, never the thing it names."""


class Unfilled:
    """An array between its `_reconstruct` and its BUILD."""

    array: np.ndarray | None = None

    def fill(self, state: Any) -> np.ndarray:
        version, shape, dtype, fortran, data = state
        if version != 1:
            refuse("array", "an unknown version", "version 1")
        self.array = _array(_sizes(shape), dtype, data, "F" if fortran is True else "C")
        return self.array


def check_dtype_state(state: Any) -> None:
    """The second half of a pickled dtype: (3, byte order, subarray, names, fields, size, alignment,
    flags).
    """
    if type(state) is not tuple or state[:1] != (3,) or state[1] not in ("<", "|", "="):
        refuse("dtype", "an unknown state", "little-endian numbers")
    if state[2:] != (None, None, None, -1, -1, 0):
        refuse("dtype", "fields", "plain numbers")


def check_booleans(values: np.ndarray) -> np.ndarray:
    """The same array; ValueError for a bool array with bytes other than 0 and 1."""
    if values.dtype == np.bool_ and values.size and values.view(np.uint8).max() > 1:
        raise ValueError("a truth value that is neither 0 nor 1")
    return values


def known_global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        refuse("global", f"a {type(name).__name__}", "text")
    dotted = f"{module}.{name}"
    if dotted not in CALLS and dotted not in STORAGES and dotted != "numpy.ndarray":
        refuse_global(dotted)
    return Global(dotted)


def refuse_global(name: str) -> NoReturn:
    expected = "only what plain arrays need; loaded with pickle, this file could run code"
    refuse("global", repr(str(name))[:120], expected)


def _sizes(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        refuse("array", "a shape of unknown form", "a short tuple of sizes")
    return shape


def _array(shape: tuple[int, ...], dtype: Any, data: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, np.dtype) or type(data) is not bytes:
        refuse("array", f"a {type(dtype).__name__} of {type(data).__name__}", "numbers as bytes")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != len(data):
        refuse("array", f"{len(data)} bytes", "as many as its shape says")
    return check_booleans(np.frombuffer(data, dtype)).reshape(shape, order=order)


def _encode(text: Any, codec: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or codec not in ("latin1", "latin-1"):
        refuse("_codecs.encode", "an unknown use", "bytes kept as latin-1 text")
    return text.encode("latin1")


def _dtype(name: Any, align: Any = False, copy: Any = True) -> np.dtype:
    if type(name) is not str or name not in _DTYPES:
        got = repr(name)[:40] if type(name) is str else f"a {type(name).__name__}"
        refuse("dtype", got, f"one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Unfilled:
    if type(kind) is not Global or kind != "numpy.ndarray" or shape != (0,) or code != b"b":
        refuse("_reconstruct", "an unknown use", "an empty numpy.ndarray")
    return Unfilled()


def _scalar(dtype: Any, data: Any) -> int | float | bool:
    return _array((1,), dtype, data)[0].item()


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None
) -> np.ndarray:
    shape, strides = _sizes(shape), _sizes(strides)
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or type(offset) is not int or offset < 0:
        refuse("tensor", f"a {type(storage).__name__}", "a storage and an offset")
    count, last = 1, offset
    for size, stride in zip(shape, strides):
        count *= size
        last += (size - 1) * stride
    # `count` too: with strides of 0 a few bytes could pass for terabytes.
    if len(shape) != len(strides) or count > storage.size or (count and last >= storage.size):
        refuse("tensor", "more elements than its storage has", f"a view of {storage.size}")
    if count == 0:
        return np.empty(shape, storage.dtype)
    steps = [stride * storage.itemsize for stride in strides]
    return np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, steps)


CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",  # how protocol 2 writes b""
    "numpy.dtype": _dtype,
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    **{f"{core}._reconstruct": _reconstruct for core in _NUMPY_CORES},
    **{f"{core}.scalar": _scalar for core in _NUMPY_CORES},
}
