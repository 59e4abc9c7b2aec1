"""Label files under faults: cut, flipped, killed, on a full disk, forged. `make faults` runs them in full."""

import errno
import os
import random
import resource
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from disks import check_nothing_is_left
from label_draws import write_labels

from fkdx import _C, FormatError
from fkdx.labels import LabelFile, LabelWriter, layout, shard_path, write_manifest

FULL = os.environ.get("FKDX_FAULTS") == "full"
KILLS = int(os.environ.get("FKDX_KILLS", "200" if FULL else "15"))
LEFT = (".tmp", ".owner")  # by a process that was killed; the latter on file systems without flock


def small_file(path: Path, rng, **options) -> bytes:
    """A file with every part, of 64 KiB at full size and of 2 KiB otherwise."""
    sizes = {"images": 40, "crops": 45} if FULL else {"images": 3, "crops": 7}
    write_labels(path, rng, **sizes, extra=True, classes=[f"class {i}" for i in range(100)], **options)
    return path.read_bytes()


def read_everything(path: Path, io: str) -> None:
    labels = LabelFile(path, io)
    assert len(labels.keys[:]) == len(labels)
    labels.gather(np.arange(len(labels)), np.tile(np.arange(labels.crops), (len(labels), 1)))
    assert int(labels.crop_counts.sum()) == labels.crops * len(labels)


@pytest.mark.parametrize("io", ["mmap", "pread", "preload"])
def test_cut_at_every_offset(tmp_path: Path, rng, io: str) -> None:
    path = tmp_path / "labels.fkdl"
    whole = small_file(path, rng)
    read_everything(path, io)
    for size in reversed(range(len(whole))):
        os.truncate(path, size)
        with pytest.raises(FormatError, match=r"labels\.fkdl"):
            LabelFile(path, io)


@pytest.mark.parametrize("encoding", ["plain", "compact"])
def test_every_bit_flipped(tmp_path: Path, rng, encoding: str) -> None:
    path = tmp_path / "labels.fkdl"
    whole = small_file(path, rng, encoding=encoding)
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * len(whole)):
            byte = whole[bit // 8]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)
            with pytest.raises(FormatError):
                read_everything(path, "mmap")
            os.pwrite(file.fileno(), bytes([byte]), bit // 8)
    read_everything(path, "mmap")


def test_random_damage(tmp_path: Path, rng) -> None:
    path = tmp_path / "labels.fkdl"
    whole = small_file(path, rng)
    for _ in range(20_000 if FULL else 300):
        damaged = bytearray(whole)
        start = int(rng.integers(len(whole)))
        size = int(rng.integers(1, 600))
        source = int(rng.integers(len(whole)))
        patches = (bytes(size), rng.bytes(size), whole[source : source + size])
        patch = patches[rng.integers(3)][: len(whole) - start]
        damaged[start : start + len(patch)] = patch
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            read_everything(path, "pread")


def test_added_bytes(tmp_path: Path, rng) -> None:
    path = tmp_path / "labels.fkdl"
    whole = small_file(path, rng)
    for tail in (b"\0", bytes(64), b"PK\5\6" + bytes(18), whole, rng.bytes(1000)):
        for data in (whole + tail, tail + whole):
            path.write_bytes(data)
            with pytest.raises(FormatError):
                read_everything(path, "mmap")


def test_cut_while_open(tmp_path: Path, rng) -> None:
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng, images=500)
    labels = LabelFile(path, io="pread")
    loaded = LabelFile(path, io="preload")
    labels.gather([0], [[0]])
    os.truncate(path, 64)
    with pytest.raises(FormatError, match="cut while open"):
        labels.gather(np.arange(500), np.zeros((500, 1), int))
    loaded.gather(np.arange(500), np.zeros((500, 1), int))


# ---- forged files: wrong, but with all checksums right ---------------------------------------------------


def sealed(data: bytes, **changes: int) -> bytes:
    """The file with fields of preamble and footer changed and their CRCs made right."""
    names = "magic major minor required optional kind encoding value_type zero C K crops mix_size id zero2"
    top = dict(zip(names.split(), layout.PREAMBLE.unpack(data[: layout.PREAMBLE.size])))
    names = "header header_bytes index images keys keys_bytes c1 c2 c3 zero3 digest end_id length"
    end = dict(zip(names.split(), layout.FOOTER.unpack(data[-128:-8])))
    for name, value in changes.items():
        (top if name in top else end)[name] = value
    preamble, footer = layout.PREAMBLE.pack(*top.values()), layout.FOOTER.pack(*end.values())
    return b"".join((preamble, crc(preamble), data[64:-128], footer, crc(footer), layout.END_MAGIC))


def crc(data: bytes) -> bytes:
    return _C.crc32c(data).to_bytes(4, "little")


BIG = (2**31, 2**32, 2**48, 2**63, 2**64 - 1, 2**64 - 64, 2**64 - 128)
FORGERIES = [
    *({"magic": magic} for magic in (b"\x89FKDX\n\x1a\0", b"PK\3\4\0\0\0\0")),
    *({"major": x} for x in (0, 2, 256)),
    *({"required": x} for x in (8, 2**31, 1, 2)),
    *({"kind": x} for x in (1, 2, 3, 4, 6, 255)),
    *({"encoding": x} for x in (2, 255)),
    *({"value_type": x} for x in (0, 3, 4, 255)),
    *({"zero": 1}, {"zero2": 1}, {"zero3": 1}),
    *({"C": x} for x in (0, 4, 2**24 + 1, 2**32 - 1)),
    *({"K": x} for x in (0, 101, 4097, 2**32 - 1)),
    *({"crops": x} for x in (65_536, 2**32 - 1)),
    *({"mix_size": x} for x in (1, 65_536)),
    *({"id": bytes(16)}, {"end_id": bytes(16)}),
    *({name: x} for name in ("header", "header_bytes", "index", "images", "keys", "keys_bytes", "length")
      for x in (0, 1, 63, 64, 65, *BIG)),
    {"images": 2**61, "index": 0},
    {"images": (2**64 - 1) // 24 + 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", FORGERIES, ids=str)
def test_forged_numbers(tmp_path: Path, rng, changes: dict) -> None:
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng)
    whole = path.read_bytes()
    assert sealed(whole) == whole
    path.write_bytes(sealed(whole, **changes))
    with pytest.raises(FormatError, match=r"labels\.fkdl"):
        read_everything(path, "mmap")


def test_a_gap_behind_the_blocks(tmp_path: Path, rng) -> None:
    """64 bytes that belong to no block, with all places and checksums right."""
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng)
    whole = path.read_bytes()
    header, _, index, _, keys, *_ = layout.FOOTER.unpack(whole[-128:-8])
    longer = whole[:header] + bytes(64) + whole[header:]
    places = {"header": header + 64, "index": index + 64, "keys": keys + 64, "length": len(longer)}
    path.write_bytes(sealed(longer, **places))
    labels = LabelFile(path)
    assert len(labels) == 5
    with pytest.raises(FormatError, match="end of the blocks"):
        labels.verify()


def forge_block(data: bytes, change) -> bytes:
    """The file with its first index entry or block changed by `change(entry, block)` and sealed again."""
    index = struct.unpack("<Q", data[-112:-104])[0]
    entry, identity = bytearray(data[index : index + 24]), data[40:56]
    offset, crops, *_ = struct.unpack("<QIHHII", entry)
    block = bytearray(data[offset : offset + layout.align64(crops * 28 + (crops + 7) // 8)])
    keys = struct.unpack("<Q", data[-96:-88])[0]
    images = struct.unpack("<Q", data[-104:-96])[0]
    length = struct.unpack("<I", data[keys + 4 : keys + 8])[0]
    key = data[keys + 4 * images + 4 :][:length]
    change(entry, block)
    entry[20:] = crc(identity + entry[:20] + key + block)
    out = bytearray(data)
    out[offset : offset + len(block)] = block
    out[index : index + 24] = entry
    return sealed(bytes(out), c2=_C.crc32c(bytes(out[index:keys])))


def put(target: str, at: int, form: str, value: float):
    def change(entry: bytearray, block: bytearray) -> None:
        struct.pack_into(form, entry if target == "entry" else block, at, value)

    return change


FORGED_BLOCKS = {
    "offset before the blocks": put("entry", 0, "<Q", 0),
    "offset not aligned": put("entry", 0, "<Q", 65),
    "offset outside": put("entry", 0, "<Q", 2**64 - 64),
    "crops": put("entry", 8, "<I", 2**32 - 1),
    "other number of crops": put("entry", 8, "<I", 6),
    "height 0": put("entry", 12, "<H", 0),
    "image smaller than its boxes": put("entry", 14, "<H", 1),
    "extra bytes": put("entry", 16, "<I", 2**32 - 1),
    "box": put("block", 0, "<H", 65_535),
    "empty box": put("block", 4, "<H", 0),
    "id": put("block", 8, "<H", 100),
    "last id": put("block", 16, "<H", 65_535),
    "NaN": put("block", 18, "<e", float("nan")),
    "last value": put("block", 26, "<e", float("inf")),
    "negative": put("block", 18, "<e", -0.5),
    "above 1": put("block", 18, "<e", 1.5),
}


@pytest.mark.parametrize("name", FORGED_BLOCKS)
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_forged_blocks(tmp_path: Path, rng, cpu: str, name: str, io: str) -> None:
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng)
    whole = path.read_bytes()
    assert forge_block(whole, lambda entry, block: None) == whole
    path.write_bytes(forge_block(whole, FORGED_BLOCKS[name]))
    labels = LabelFile(path, io)
    key = labels.keys[0]
    for read in (lambda: labels[0], lambda: labels.gather([0], [[0]])):
        with pytest.raises(FormatError, match=key):
            read()
    labels.gather([1], [[0]])
    with pytest.raises(FormatError):
        labels.verify()


@pytest.mark.parametrize(
    "key", ["../a", "/a", "a\\b", "a\0b", "a//b", "b/..", "C:b", "\udc80", "\udced\udca0\udc80x"]
)
def test_forged_keys(tmp_path: Path, key: str) -> None:
    path = tmp_path / "labels.fkdl"
    forged = key.encode(errors="surrogateescape")
    with LabelWriter(path, "hard", num_classes=2) as writer:
        writer.add("x" * len(forged), [[0, 0, 1, 1]], [False], [1], image_size=(1, 1))
    whole = path.read_bytes()
    header, _, index, _, keys, *_ = layout.FOOTER.unpack(whole[-128:-8])
    entry = whole[index : index + 20]
    data = bytearray(whole)
    data[keys + 8 : keys + 8 + len(forged)] = forged
    data[index + 20 : index + 24] = crc(whole[40:56] + entry + forged + whole[64:header])
    parts = {"c2": _C.crc32c(bytes(data[index:keys])), "c3": _C.crc32c(bytes(data[keys:-128]))}
    path.write_bytes(sealed(bytes(data), **parts))
    for read in (lambda labels: labels[0], lambda labels: labels.keys[0], lambda labels: labels.find("x")):
        with pytest.raises(FormatError, match="clean relative path"):
            read(LabelFile(path))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("classes", 5, "classes in the header, got 5, expected a list of names"),
        ("classes", ["ant", 1], "expected a list of names"),
        ("classes", ["ant"], "classes in the header, got 1 names, expected 2"),
        ("dataset", [1], r"dataset in the header, got \[1\], expected an object"),
        ("extra", 3, "extra in the header"),
        ("provenance", "resnet50", "provenance in the header"),
        ("repairs", None, "repairs in the header"),
        ("standardised", [1], "standardised in the header"),
    ],
)
def test_headers_of_another_form(tmp_path: Path, name: str, value: object, text: str) -> None:
    path = tmp_path / "labels.fkdl"
    with LabelWriter(path, "hard", num_classes=2) as writer:
        writer.add("ant/1.jpg", [[0, 0, 1, 1]], [False], [1], image_size=(1, 1))
        writer._header[name] = value
    with pytest.raises(FormatError, match=rf"{text}.*labels\.fkdl"):
        LabelFile(path)


# ---- writing ---------------------------------------------------------------------------------------------


def write_shards(folder: Path, seed: int, shards: int = 6, pause: float = 0) -> None:
    """Writes a set of shards as generators and importers do: what is complete is left alone."""
    for number in range(shards):
        path = shard_path(folder, number)
        if path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        with LabelWriter(path, num_classes=50, k=3, crops=4) as writer:
            for image in range(8):
                ids = rng.permuted(np.tile(np.arange(50), (4, 1)), axis=1)[:, :3]
                values = rng.dirichlet(np.ones(4), 4)[:, :3]
                key = f"{number}/{image}.jpg"
                writer.add(key, np.tile([0, 0, 5, 5], (4, 1)), np.zeros(4, bool), ids, values, (9, 9))
                time.sleep(pause)
    write_manifest(folder, [shard_path(folder, number) for number in range(shards)])


def in_child(work) -> int:
    """Starts a fork that runs `work` and exits with 0, or with 1 where it raises."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def test_killed_while_writing(tmp_path: Path, run_seed: int, record_property) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    write_shards(whole, run_seed)
    chance = random.Random(run_seed)
    kills = finished = 0
    while kills < KILLS:
        child = in_child(lambda: write_shards(resumed, run_seed, pause=0.0005))
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        kills += killed
        for path in resumed.glob("*.fkdl"):
            LabelFile(path).verify()  # whatever has its final name is whole
        if (resumed / "manifest.json").exists():
            finished += 1
            assert [path.read_bytes() for path in sorted(resumed.glob("*.fkdl"))] == [
                path.read_bytes() for path in sorted(whole.glob("*.fkdl"))
            ]
            for path in resumed.iterdir():
                path.unlink()
    record_property("count", kills)
    write_shards(resumed, run_seed)
    assert {p.name: p.read_bytes() for p in resumed.iterdir() if p.suffix not in LEFT} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def test_full_disk(tmp_path: Path, record_property) -> None:
    write_shards(tmp_path, 0, shards=1)
    need = shard_path(tmp_path, 0).stat().st_size

    def write_within(limit: int, folder: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(OSError, match="bytes are free") as caught:
            write_shards(folder, 0, shards=1)
        assert caught.value.errno == errno.EFBIG
        check_nothing_is_left(folder)

    rooms = range(0, need, 16 if FULL else 300)
    record_property("count", len(rooms))
    for limit in rooms:
        folder = tmp_path / str(limit)
        folder.mkdir()
        child = in_child(lambda limit=limit, folder=folder: write_within(limit, folder))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fkdl")
    with pytest.raises(FormatError, match="expected a regular file"):
        LabelFile(tmp_path / "pipe.fkdl")


# ---- shards ----------------------------------------------------------------------------------------------


def test_shards_are_one_set(tmp_path: Path) -> None:
    write_shards(tmp_path, 0)
    for path in (tmp_path, tmp_path / "manifest.json"):
        labels = LabelFile(path)
        assert len(labels) == 48
        assert [labels.find(key) for key in labels.keys] == list(range(48))
        assert labels.crop_counts.tolist() == [4] * 48
        labels.verify()
    boxes, *_ = labels.gather([0, 47, 8], [[0], [3], [1]])
    assert boxes.shape == (3, 1, 4)
    one = LabelFile(shard_path(tmp_path, 5))
    np.testing.assert_array_equal(labels[40].values, one[0].values)
    assert labels[40].key == one.keys[0] == "5/0.jpg"


def test_shards_of_other_classes_are_refused(tmp_path: Path) -> None:
    for number, classes in enumerate((["ant", "bee"], ["bee", "ant"])):
        with LabelWriter(shard_path(tmp_path, number), "hard", num_classes=2, classes=classes) as writer:
            writer.add(f"{number}.jpg", [[0, 0, 1, 1]], [False], [1], image_size=(1, 1))
    shards = [shard_path(tmp_path, number) for number in range(2)]
    text = r"classes in the header, got others than in .*00000\.fkdl, expected the same, .*00001\.fkdl"
    with pytest.raises(FormatError, match=text):
        write_manifest(tmp_path, shards)
    with pytest.MonkeyPatch.context() as patch:  # a set of an earlier version
        patch.setattr("fkdx.labels.shards.check_same_labels", lambda files: None)
        write_manifest(tmp_path, shards)
    with pytest.raises(FormatError, match=text):
        LabelFile(tmp_path).verify()


def test_an_image_in_two_shards_is_found(tmp_path: Path) -> None:
    write_shards(tmp_path, 0)
    shard_path(tmp_path, 5).write_bytes(shard_path(tmp_path, 1).read_bytes())
    write_manifest(tmp_path, [shard_path(tmp_path, number) for number in range(6)])
    with pytest.raises(FormatError, match=r"image '1/0\.jpg', got crops of it in two shards.*00005\.fkdl"):
        LabelFile(tmp_path).verify()


def test_broken_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        LabelFile(tmp_path)
    write_shards(tmp_path, 0)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    for old, new in [('"version": 1', '"version": 2'), ("00003.fkdl", "00002.fkdl"), ("00003.fkdl", "../x"),
                     ('"images": 8', '"images": 9'), ('"seal": "', '"seal": "0'), ("{", "[")]:  # fmt: skip
        manifest.write_text(text.replace(old, new, 1))
        with pytest.raises(FormatError, match="LabelFile"):
            LabelFile(tmp_path)
    write_manifest(tmp_path, [shard_path(tmp_path, number) for number in range(6)], "AB" * 48)
    sized = manifest.read_text()
    for old, new in [("ABABAB", "ABBBAB"), ('"sizes_crc"', '"crc"'), (f'"{"AB" * 48}"', "[1]")]:
        manifest.write_text(sized.replace(old, new, 1))
        with pytest.raises(FormatError, match="LabelFile: manifest"):
            LabelFile(tmp_path)
    manifest.write_text("[1, 2]")
    with pytest.raises(FormatError, match="manifest: this is none, or it was changed"):
        LabelFile(manifest)
    manifest.write_text(text)
    shard_path(tmp_path, 2).unlink()
    with pytest.raises(OSError, match=r"00002\.fkdl"):
        LabelFile(tmp_path)
    write_shards(tmp_path, 1)  # fills the gap with other labels
    with pytest.raises(ValueError, match="expected a file in"):
        write_manifest(tmp_path / "x", [shard_path(tmp_path, 0)])
    with pytest.raises(ValueError, match=r"00000\.fkdl, expected a file in .*, each once"):
        write_manifest(tmp_path, [shard_path(tmp_path, number) for number in (0, 1, 0)])


def test_shards_of_other_kinds_are_refused(tmp_path: Path, rng) -> None:
    write_labels(shard_path(tmp_path, 0), rng)
    write_labels(shard_path(tmp_path, 1), rng, kind="hard")
    with pytest.raises(FormatError, match="another kind"):
        write_manifest(tmp_path, [shard_path(tmp_path, i) for i in range(2)])
    write_labels(shard_path(tmp_path, 2), rng, mix_size=8)
    with pytest.raises(FormatError, match="another kind"):
        write_manifest(tmp_path, [shard_path(tmp_path, i) for i in (0, 2)])
