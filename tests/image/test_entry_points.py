"""Entry points into the Huffman stream: right ones change no pixel, bad ones are noticed."""

import re

import numpy as np
import pytest
from images import JPEG_KINDS, encode, random_boxes, sealed, write_entry_points

from fkdx import _C, reference
from fkdx.image import image_size

PLAIN = [kind for kind in JPEG_KINDS if "progressive" not in kind]
CRC, IMAGE_CRC, SIZE, STEP, ORDERS = 0, 4, 8, 12, 14  # places in coded entry points


@pytest.fixture(scope="module")
def decoder() -> _C.CropDecoder:
    return _C.CropDecoder()


def decoded(decoder: _C.CropDecoder, data: bytes, box: np.ndarray, entries: bytes = b"") -> np.ndarray:
    return decoder.decode_box(data, *box.tolist(), False, False, entries=entries)


def patched(entries: bytes, at: int, value: bytes) -> bytes:
    return sealed(entries[:at] + value + entries[at + len(value) :])


def check_all(decoder: _C.CropDecoder, data: bytes, entries: bytes, use: str, boxes: np.ndarray) -> None:
    """That boxes are right, and what became of the points: "none" too where a box needs nearly all data."""
    whole = decoded(decoder, data, np.array([0, 0, *image_size(data)]))
    for box in boxes:
        top, left, height, width = box
        part = decoded(decoder, data, box, entries)
        assert decoder.entry_use in (use, "none" if height * width > 64 else use)
        np.testing.assert_array_equal(part, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("kind", PLAIN)
def test_any_box_of_any_kind(rng: np.random.Generator, decoder: _C.CropDecoder, kind: str) -> None:
    for _ in range(3):
        height, width = (int(side) for side in rng.integers(1, 200, 2))
        data = encode(rng, kind, height, width)
        entries = decoder.make_entry_points(data, rng.choice([0.03, 0.2, 9]), int(rng.integers(1, 5)))
        boxes = random_boxes(rng, height, width, 12)
        for part, box in zip((decoded(decoder, data, box, entries) for box in boxes), boxes):
            assert decoder.entry_use in ("used", "none")
            np.testing.assert_array_equal(part, decoded(decoder, data, box))


@pytest.mark.parametrize("kind", PLAIN)
def test_a_corner(rng: np.random.Generator, decoder: _C.CropDecoder, kind: str) -> None:
    data = encode(rng, kind, 150, 200)
    entries = decoder.make_entry_points(data, 0.1)
    check_all(decoder, data, entries, "used", np.array([[142, 192, 8, 8], [60, 100, 8, 8], [149, 0, 1, 1]]))


@pytest.mark.parametrize("kind", [kind for kind in JPEG_KINDS if "progressive" in kind])
def test_progressive_files_have_none(rng: np.random.Generator, decoder: _C.CropDecoder, kind: str) -> None:
    assert decoder.make_entry_points(encode(rng, kind, 60, 80), 9) == b""


@pytest.mark.parametrize("kind", PLAIN)
def test_twin(rng: np.random.Generator, decoder: _C.CropDecoder, kind: str) -> None:
    check_twin(decoder, encode(rng, kind, *(int(side) for side in rng.integers(20, 70, 2))))


def test_twin_where_a_restart_follows_ff(rng: np.random.Generator, decoder: _C.CropDecoder) -> None:
    """The last byte of an interval is 0xFF, and only some of its bits are code."""
    while not re.search(rb"\xff\0\xff[\xd0-\xd7]", data := encode(rng, "restarts", 40, 60)):
        pass
    check_twin(decoder, data)


def check_twin(decoder: _C.CropDecoder, data: bytes) -> None:
    _, columns, states = reference.stores.huffman_states(data)
    for step in (1, 2, 3):
        points = reference.stores.read_entry_points(decoder.make_entry_points(data, 9, step), data)
        assert [unit for unit, *_ in points] == [
            unit for unit in range(1, len(states)) if unit % columns % min(step, columns) == 0
        ]
        assert [tuple(state) for _, *state in points] == [states[unit] for unit, *_ in points]


def test_the_share_is_kept(rng: np.random.Generator, decoder: _C.CropDecoder) -> None:
    data = encode(rng, "4:4:4", 300, 400)
    sizes = [len(decoder.make_entry_points(data, share)) for share in (0.0001, 0.005, 0.015, 0.05)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    for size, share in zip(sizes[1:], (0.005, 0.015, 0.05)):
        assert 0 < size <= share * len(data)


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "restarts", "gray"])
def test_points_of_other_bytes_are_noticed(
    rng: np.random.Generator, decoder: _C.CropDecoder, kind: str
) -> None:
    data, other = encode(rng, kind, 90, 120), encode(rng, kind, 90, 120)
    entries = decoder.make_entry_points(data, 9)
    boxes = np.array([[60, 90, 8, 8], [30, 110, 4, 4]])
    check_all(decoder, other, entries, "misfit", boxes)
    flipped = bytearray(data)
    flipped[-20] ^= 1  # the same length
    with_warnings = decoder.decode_box(bytes(flipped), 40, 50, 8, 8, True, False, entries=entries)
    assert decoder.entry_use == "misfit"
    np.testing.assert_array_equal(with_warnings, decoded(decoder, data, np.array([40, 50, 8, 8])))
    check_all(decoder, data + b"more", entries, "misfit", boxes)
    for cut in rng.integers(1, len(entries), 20):
        check_all(decoder, data, entries[:cut], "misfit", boxes[:1])
        check_all(decoder, data, sealed(entries[:cut].ljust(4)), "misfit", boxes[:1])
    for at in rng.integers(0, len(entries), 20):
        changed = entries[:at] + bytes([entries[at] ^ 1 << rng.integers(8)]) + entries[at + 1 :]
        check_all(decoder, data, changed, "misfit", boxes[:1])


def test_points_that_lie_are_noticed(rng: np.random.Generator, decoder: _C.CropDecoder) -> None:
    """All checksums are right, but a point is out of order, beyond the end, has a predictor out of range or
    is another state than the decoder's: the state at the next point tells."""
    data = encode(rng, "4:4:4", 32, 64)
    box = np.array([[12, 20, 8, 8]])  # units 1 ... 3 of rows 1 and 2
    check_all(decoder, data, write_entry_points(data), "used", box)
    for change in (
        {(10, 0): 1},  # of the points that are used
        {(10, 1): 1},
        {(10, 3): -2},
        {(12, 2): 1},
        {(10, 0): -4000},  # out of order
        {(10, 0): 8 * len(data)},  # beyond the end
        {(31, 0): 8 * len(data)},  # the same of a point that is not used
        {(30, 0): 1 << 28},
        {(10, 1): 40000},  # out of range
        {(31, 2): -40000},
    ):
        check_all(decoder, data, write_entry_points(data, change), "misfit", box)
    right = write_entry_points(data)
    for at, value in (
        (STEP, b"\0\0"),  # no step
        (STEP, b"\2\0"),  # another number of points
        (STEP, b"\xff\xff"),
        (ORDERS, b"\x19"),
        (ORDERS + 1, b"\xff"),
        (len(right) - 1, bytes([right[-1] | 1])),
    ):
        check_all(decoder, data, patched(right, at, value), "misfit", box)
    check_all(decoder, data, sealed(right + b"\0"), "misfit", box)


def test_missing_restart_markers(rng: np.random.Generator, decoder: _C.CropDecoder) -> None:
    """Points made for a sound file, sealed for one whose markers are gone: judged as without points."""
    data = encode(rng, "restarts", 64, 96)
    entries = decoder.make_entry_points(data, 9)
    scan = data.index(b"\xff\xda")
    first = next(at for at in range(scan, len(data)) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7)
    bare = data[:first] + b"\x12\x34" + data[first + 2 :]
    assert decoder.make_entry_points(bare, 9) == b""
    forged = patched(entries, IMAGE_CRC, _C.crc32c(bare).to_bytes(4, "little"))
    box = 0, 40, 10, 20  # behind the first marker
    outcomes = []
    for points in (b"", forged):
        try:
            outcomes.append(decoder.decode_box(bare, *box, True, False, entries=points).tobytes())
        except _C.ImageError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert decoder.entry_use == "misfit"


def test_the_whole_file_is_read_where_that_is_asked_for(
    rng: np.random.Generator, decoder: _C.CropDecoder
) -> None:
    data = encode(rng, "4:2:0", 90, 120)
    entries = decoder.make_entry_points(data, 9)
    decoder.decode_box(data, 40, 40, 20, 20, False, False, True, entries)
    assert decoder.entry_use == "none"
