"""The reader of torch files: what torch.save writes comes back; all else is refused and nothing runs."""

import collections
import io
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from fkdx import FormatError
from fkdx.importers import plain_pickle
from fkdx.importers.torch_file import parse_torch_file, read_torch_file

torch = pytest.importorskip("torch")


def saved(value: object, **how: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def equal(read: object, written: object) -> bool:
    if isinstance(written, torch.Tensor):
        written = written.numpy()
    if isinstance(written, np.ndarray):
        return isinstance(read, np.ndarray) and read.dtype == written.dtype and np.array_equal(read, written)
    if isinstance(written, (list, tuple)):
        return type(read) is type(written) and len(read) == len(written) and all(map(equal, read, written))
    return read == written


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_torch_saves(rng: np.random.Generator, protocol: int, zipped: bool) -> None:
    shared = torch.arange(6)
    value = [
        torch.rand(4, 5).t(),
        shared,
        shared[2:4],
        torch.rand(3) < 0.5,
        torch.rand(2, 8).half(),
        torch.tensor([], dtype=torch.float64),
        [np.int64(3), np.float32(0.5), np.bool_(True)],
        rng.random((200, 4)).astype(np.float32),
        np.asfortranarray(rng.random((3, 4))),
        rng.random(7) < 0.5,
        np.zeros((2, 0), np.int32),
        {"params": [(1, -2, 3, 4), None, True], 7: (10**10, -1, 0.25, "é")},
        collections.OrderedDict(a=1),
        b"bytes",
    ]
    data = saved(value, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert equal(parse_torch_file(data, "file"), value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_bfloat16_becomes_float32(zipped: bool) -> None:
    values = torch.randn(4, 6).bfloat16()
    values[0, :3] = torch.tensor([torch.inf, -0.0, 1e-40])
    value = [values, values.t(), torch.zeros(0).bfloat16()]
    data = saved(value, _use_new_zipfile_serialization=zipped)
    assert equal(parse_torch_file(data, "file"), [one.float() for one in value])


def test_what_lay_on_a_gpu_is_read() -> None:
    values = torch.randn(3, 4)
    data = saved(values, _use_new_zipfile_serialization=False)
    there = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1")
    assert there != data
    assert equal(parse_torch_file(there, "file"), values)


def test_numpy_1_names_are_known(rng: np.random.Generator) -> None:
    values = rng.random((5, 3))
    for protocol in (2, 4):
        data = pickle.dumps([values, np.int64(4)], protocol)
        # protocol 4 counts the letters of a name
        other = data.replace(b"\x8c\x16numpy._core", b"\x8c\x15numpy._core").replace(
            b"numpy._core", b"numpy.core"
        )
        assert equal(plain_pickle.loads(other, "file")[0], [values, 4])


# ---- hostile pickles: each would do something if it were executed, or eat memory or stack ---------------

MARKER = "fkdx_was_run"


class Runs:
    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def hostile_pickles(side: str) -> dict[str, bytes]:
    """Programs that would create the file `side`, or exhaust memory or the stack."""
    import os

    command = f"touch {side}"
    array = pickle.dumps(np.zeros(3), 2)
    return {
        "reduce os.system": pickle.dumps(Runs(os.system, command), 2),
        "reduce eval": pickle.dumps(Runs(eval, f"open({side!r}, 'w')"), 2),
        "stack global": pickle.dumps(Runs(os.system, command), 4),
        "protocol 0": pickle.dumps(Runs(os.system, command), 0),
        "protocol 1": pickle.dumps([1], 1),
        "protocol 5": pickle.dumps([1], 5),
        "inst": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "inst with text": b"\x80\x02(" + text(command) + b"ios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\n" + text(command) + b"o.",
        "newobj": b"\x80\x02cos\nsystem\n" + text(command) + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cos\nsystem\n" + text(command) + b"\x85}\x92.",
        "build on a global": b"\x80\x02cnumpy\nndarray\n}" + text("__setstate__") + b"cos\nsystem\nsb.",
        "build on a list": b"\x80\x02]}b.",
        "build on a dict": b"\x80\x02}" + text(command) + b"b.",
        "extension registry 1": b"\x80\x02\x82\x01.",
        "extension registry 2": b"\x80\x02\x83\x01\x00.",
        "extension registry 4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persistent id in text": b"\x80\x02Pevil\n.",
        "persistent id of a string": b"\x80\x02" + text("storage") + b"Q.",
        "persistent id of another kind": b"\x80\x02(" + text("module") + b"K\x01K\x01K\x01K\x01tQ.",
        "persistent storage class": b"\x80\x02("
        + text("storage")
        + b"cos\nsystem\n"
        + text("0")
        + b"NK\x01tQ.",
        "known module, other name": b"\x80\x02cnumpy\nload\n" + text(side) + b"\x85R.",
        "dotted name": b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.",
        "global with a newline trick": b"\x80\x02cnumpy\nndarray\nos\nsystem\n.",
        "builtins getattr": b"\x80\x02c__builtin__\ngetattr\n.",
        "builtins bytes of a size": b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        "_codecs.encode other codec": b"\x80\x02c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.",
        "encode of a list": b"\x80\x02c_codecs\nencode\n]" + text("latin1") + b"\x86R.",
        "object dtype": b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x85R.",
        "void dtype": b"\x80\x02cnumpy\ndtype\n" + text("V99999999") + b"\x85R.",
        "dtype from a list": b"\x80\x02cnumpy\ndtype\n]\x85R.",
        "call of ndarray": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ft\x85R.",
        "call with a list": b"\x80\x02c_codecs\nencode\n]R.",
        "torch load": b"\x80\x02ctorch\nload\n" + text(side) + b"\x85R.",
        "torch storage bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n" + text("x") + b"\x85R.",
        "second half of an array twice": array[:-1] + b"Nb.",
        "array larger than its bytes": array.replace(b"K\x03\x85", b"K\x04\x85", 1),
        "truth value of 2": pickle.dumps(np.array([2], np.uint8).view(np.bool_), 4),
        "memo that is absent": b"\x80\x02h\x05.",
        "long memo that is absent": b"\x80\x02j\xff\xff\xff\xff.",
        "empty": b"",
        "stop alone": b"\x80\x02.",
        "two values": b"\x80\x02NN.",
        "no stop": b"\x80\x02N",
        "text longer than the data": b"\x80\x02X\xff\xff\xff\xffab.",
        "bytes longer than the data": b"\x80\x03B\xff\xff\xff\xffab.",
        "long bytes": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        "bytearray": b"\x80\x04\x96" + b"\xff" * 8 + b".",
        "integer of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "integer of 255 bytes": b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".",
        "integer as text": b"\x80\x02I1" + b"0" * 100 + b"\n.",
        "tuple of nothing": b"\x80\x02\x87.",
        "pop": b"\x80\x02NN0.",
        "pop mark": b"\x80\x02N(1.",
        "dup": b"\x80\x02]2.",
        "set": b"\x80\x04\x8f.",
        "frozen set": b"\x80\x04(\x91.",
        "append to a tuple": b"\x80\x02)Na.",
        "append to an array": array[:-1] + b"Na.",
        "set item of a list": b"\x80\x02]NNs.",
        "a list as key": b"\x80\x02}]Ns.",
        "a deep tuple as key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
        "odd items": b"\x80\x02}(Nu.",
        "mark without end": b"\x80\x02(((.",
        "no mark": b"\x80\x02Nt.",
        "a mark": b"\x80\x02(.",
        "a mark in a tuple": b"\x80\x02(\x85.",
        "a global": b"\x80\x02cnumpy\nndarray\n.",
        "a dtype": b"\x80\x02cnumpy\ndtype\n" + text("f4") + b"\x85R.",
        "an array without its numbers": array[: array.index(b"R")] + b"R.",
        "not a pickle": b"hello",
        "name without end": b"\x80\x02c" + b"a" * 10_000 + b".",
        "name not ascii": b"\x80\x02c\xff\xff\nx\n.",
        "text not utf-8": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
        "too many operations": b"\x80\x02" + b"N" * (plain_pickle.MAX_OPERATIONS + 10) + b".",
    }


NAMES = sorted(hostile_pickles("side"))
READERS = {
    "bare": lambda program: plain_pickle.loads(program, "evil.tar"),
    "zip": lambda program: parse_torch_file(zip_of({"a/data.pkl": program}), "evil.tar"),
    "legacy": lambda program: parse_torch_file(legacy_of(program), "evil.tar"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", READERS)
def test_hostile_pickles_are_refused(name: str, container: str, tmp_path: Path) -> None:
    side = tmp_path / MARKER
    program = hostile_pickles(str(side))[name]
    loaded = set(sys.modules)
    with pytest.raises(FormatError, match=r"evil\.tar"):
        READERS[container](program)
    assert not side.exists()
    assert set(sys.modules) == loaded


def legacy_of(program: bytes) -> bytes:
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, program, pickle.dumps([], 2)])


def zip_of(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_the_refused_global_is_named() -> None:
    with pytest.raises(FormatError, match=r"os.system|posix.system"):
        plain_pickle.loads(b"\x80\x02cos\nsystem\n.", "evil.tar")


def test_deep_nesting_and_shared_lists_do_no_harm() -> None:
    """A billion laughs is small while nobody walks it, and a deep list is no deep recursion."""
    laughs = b"\x80\x02]" + b"q\x00]h\x00ah\x00a" * 40 + b"."
    with pytest.raises(FormatError):
        plain_pickle.loads(laughs, "evil.tar")
    value, _ = plain_pickle.loads(b"\x80\x02N" + b"\x85" * 1_000_000 + b".", "deep")
    assert type(value) is tuple


# ---- hostile containers ---------------------------------------------------------------------------------

GOOD = pickle.dumps([1, 2], 2)


def hostile_zips() -> dict[str, bytes]:
    good = zip_of({"a/data.pkl": GOOD, "a/version": b"3\n"})
    crc = struct.pack("<I", zlib.crc32(GOOD))
    size = struct.pack("<II", len(GOOD), len(GOOD))
    return {
        "compressed": zip_of({"a/data.pkl": GOOD + b" " * 10_000_000}, zipfile.ZIP_DEFLATED),
        "lzma": zip_of({"a/data.pkl": GOOD}, zipfile.ZIP_LZMA),
        "duplicate name": duplicate_names(),
        "parent folder": zip_of({"a/data.pkl": GOOD, "a/../../x": b""}),
        "absolute": zip_of({"a/data.pkl": GOOD, "/etc/passwd": b""}),
        "backslash": zip_of({"a/data.pkl": GOOD, "a\\..\\x": b""}),
        "too many entries": zip_of({"a/data.pkl": GOOD, **{f"a/data/{n}": b"" for n in range(4096)}}),
        "no pickle": zip_of({"a/version": b"3\n"}),
        "big-endian": zip_of({"a/data.pkl": GOOD, "a/byteorder": b"big"}),
        "bytes after the pickle": zip_of({"a/data.pkl": GOOD + GOOD}),
        "bytes after the zip": good + b"x",
        "bytes before the zip": b"PK" + good,
        "comment": good[:-2] + b"\1\0x",
        "wrong crc": good.replace(crc, b"\0\0\0\0"),
        "wrong central crc": (b"\0\0\0\0").join(good.rsplit(crc, 1)),
        "wrong central size": struct.pack("<II", 1, 1).join(good.rsplit(size, 1)),
        "packed smaller": struct.pack("<II", 1, len(GOOD)).join(good.rsplit(size, 1)),
        "huge size": struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF).join(good.rsplit(size, 1)),
        "other local name": good.replace(b"a/version", b"b/version", 1),
        "overlap": overlapping(),
        "local zip64 lie": good.replace(b"PK\5\6", b"PK\6\6", 1),
        "encrypted": good.replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"),
        "a real tar": b"\0" * 257 + b"ustar" + b"\0" * 1000,
        "text": b"hello world",
        "empty": b"",
    }


def duplicate_names() -> bytes:
    return zip_of({"a/data.pkl": GOOD, "a/data.pkk": pickle.dumps([3], 2)}).replace(b"data.pkk", b"data.pkl")


def overlapping() -> bytes:
    """Two central entries that name the same local one."""
    good = zip_of({"a/data.pkl": GOOD})
    start = good.index(b"PK\1\2")
    end = good.index(b"PK\5\6")
    entry = good[start:end]
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), start, 0)
    return good[:start] + entry + entry + last


@pytest.mark.parametrize("name", sorted(hostile_zips()))
def test_hostile_containers_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"evil\.tar"):
        parse_torch_file(hostile_zips()[name], "evil.tar")


def test_every_truncation_is_refused(rng: np.random.Generator) -> None:
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        data = saved([rng.random((3, 4)).astype(np.float32), torch.arange(3)], **how)
        for length in range(len(data)):
            with pytest.raises(FormatError):
                parse_torch_file(data[:length], "short.tar")


def test_every_flipped_bit_is_refused_or_harmless(rng: np.random.Generator) -> None:
    """The checksum covers every byte of the pickle and of the storages."""
    value = [rng.random((2, 2)).astype(np.float32), torch.arange(3)]
    data = saved(value)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        try:
            read = parse_torch_file(bytes(flipped), "flipped.tar")
        except FormatError:
            continue
        assert equal(read, value)


def test_tensors_stay_inside_their_storage() -> None:
    good = saved(torch.arange(4))
    for change in ((b"K\x04\x85", b"K\x05\x85"), (b"K\x01\x85", b"K\x02\x85")):
        with zipfile.ZipFile(io.BytesIO(good)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(*change)
        with pytest.raises(FormatError):
            parse_torch_file(zip_of(entries), "evil.tar")


def test_the_fuzz_corpus(run_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run of the fuzzer; see tests/fuzz/fuzz_torch_file.py for a long one."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "fuzz"))
    import fuzz_torch_file

    for path in fuzz_torch_file.CORPUS.iterdir():
        fuzz_torch_file.try_input(path.read_bytes())
    assert fuzz_torch_file.run_random(2.0, run_seed) > 100


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        read_torch_file(tmp_path / "absent.tar")
