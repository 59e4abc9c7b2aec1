"""What of a JPEG is refused, what is counted, and what a file that lacks a table gives."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import JPEG_KINDS, cut_short, encode, random_boxes
from PIL import Image

import fkdx
from fkdx import _C, CropLoader, ImageError
from fkdx.image import decode_crops, harmless_warnings, image_size, validation_crop
from fkdx.loader.verify_images import verify_images

SOF, DHT, EOI, SOS, DQT, APP0 = b"\xff\xc0", b"\xff\xc4", b"\xff\xd9", b"\xff\xda", b"\xff\xdb", b"\xff\xe0"


def segments(data: bytes) -> list[bytes]:
    """The file cut before each of its markers; a scan's data stay with its header."""
    starts, at = [0], 2
    while at < len(data):
        starts.append(at)
        if data[at : at + 2] == EOI:
            break
        scan = data[at : at + 2] == SOS
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        while scan and not (data[at] == 0xFF and data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7):
            at += 1
    return [data[a:b] for a, b in zip(starts, [*starts[1:], None])]


def without(data: bytes, marker: bytes) -> bytes:
    return b"".join(part for part in segments(data) if part[:2] != marker)


def byte_before(data: bytes, marker: bytes, which: int = 0, count: int = 1) -> bytes:
    parts = segments(data)
    places = [i for i, part in enumerate(parts) if part[:2] == marker]
    return b"".join([*parts[: places[which]], count * b"\x37", *parts[places[which] :]])


def patched(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def decoded(data: bytes, **rules: bool) -> np.ndarray:
    """All pixels, by the fast path."""
    return _C.CropDecoder().decode_box(
        data, 0, 0, *image_size(data), rules.pop("allow_warnings", False), False, **rules
    )


def judged(data: bytes, **rules: bool) -> list[str | bytes]:
    """What the fast path and libjpeg-turbo alone make of a file, error or pixels."""
    outcomes: list[str | bytes] = []
    for plain in (False, True):
        try:
            box = 0, 0, *image_size(data)
            lax, whole = rules.get("allow_warnings", False), rules.get("whole_file", False)
            outcomes.append(_C.CropDecoder().decode_box(data, *box, lax, plain, whole).tobytes())
        except fkdx.ImageError as error:
            outcomes.append(str(error))
    return outcomes


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ---- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [0x00, 0x10, 0x01, 0x11])
@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "gray"])
def test_a_table_without_a_code(rng: np.random.Generator, kind: str, table: int) -> None:
    """Sixteen zero counts leave no code to read: libjpeg-turbo judges, with warnings allowed as without."""
    empty = DHT + b"\0\x13" + bytes([table]) + bytes(16)
    parts = segments(encode(rng, kind, 40, 48))
    at = next(i for i, part in enumerate(parts) if part[:2] == SOS)
    data = b"".join([*parts[:at], empty, *parts[at:]])
    for rules in ({}, {"allow_warnings": True}):
        fast, plain = judged(data, **rules)
        assert fast == plain
        assert isinstance(fast, bytes) or "Huffman code" in fast or "remature" in fast
    if kind == "gray" and table & 1:  # a table that nobody uses
        np.testing.assert_array_equal(decoded(data), pillow(data))


def test_a_missing_table_is_not_taken_from_the_image_before(rng: np.random.Generator) -> None:
    before, data = encode(rng, "optimized", 30, 30), encode(rng, "4:2:0", 40, 48)
    decoder, box = _C.CropDecoder(), (0, 0, 40, 48, False)
    for plain in (False, True):
        decoder.decode_box(before, 0, 0, 30, 30, False, plain)
        with pytest.raises(fkdx.ImageError, match="Quantization table 0x00 was not defined"):
            decoder.decode_box(without(data, DQT), *box, plain)
        decoder.decode_box(before, 0, 0, 30, 30, False, plain)
        standard = decoder.decode_box(without(data, DHT), *box, plain)  # as frames of Motion JPEG
        np.testing.assert_array_equal(standard, pillow(data))


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4"])
def test_one_table_for_all_components(rng: np.random.Generator, kind: str) -> None:
    """Every component names table 0, where the encoder had two: judged as libjpeg-turbo does."""
    data = encode(rng, kind, 40, 48)
    sos = data.index(SOS)
    for component in (1, 2):
        data = patched(data, sos + 6 + 2 * component, 0)
    fast, plain = judged(data)
    assert fast == plain


@pytest.mark.parametrize("interval", [1, 2, 100])
def test_more_data_than_the_restart_interval_says(rng: np.random.Generator, interval: int) -> None:
    """Once kilobytes left over before a restart were written beyond the buffer."""
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)).save(stream, "JPEG", quality=95)
    data = stream.getvalue()
    at = data.index(SOS)
    fast, plain = judged(data[:at] + b"\xff\xdd\0\4" + interval.to_bytes(2, "big") + data[at:])
    assert fast == plain
    assert "extraneous bytes" in fast


@pytest.mark.parametrize("whole_file", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_filling_before_markers(rng: np.random.Generator, count: int, whole_file: bool) -> None:
    """Any number of 0xFF may stand before a marker; at the end of a file they are none."""
    data = encode(rng, "restarts", 64, 48)
    filled = data.replace(b"\xff\xd1", b"\xff" * count + b"\xff\xd1").replace(EOI, b"\xff" * count + EOI)
    np.testing.assert_array_equal(decoded(filled, whole_file=whole_file), pillow(data))
    fast, plain = judged(data[:-2] + b"\xff" * count, whole_file=whole_file)
    assert fast == plain


def test_filling_before_an_escaped_zero(rng: np.random.Generator) -> None:
    """FF FF 00 is no data and no marker; libjpeg-turbo has its own way with it, and Pillow's is the same."""
    for _ in range(20):
        data = encode(rng, "4:4:4", 100, 100)
        places = [i for i in range(data.index(SOS) + 14, len(data) - 2) if data[i : i + 2] == b"\xff\0"]
        if not places:  # codes without a byte of ones
            continue
        at = int(rng.choice(places))
        fast, plain = judged(data[:at] + b"\xff" + data[at:])
        assert fast == plain


# ---- warnings ---------------------------------------------------------------------------------------------

HARMLESS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "end of the spectrum 0": ("4:2:0", lambda d: patched(d, (s := d.index(SOS)) + 6 + 2 * d[s + 4], 0)),
    "JFIF 2.01": ("4:2:0", lambda d: patched(d, d.index(b"JFIF\0") + 5, 2)),
    "a byte before the tables": ("4:2:0", lambda d: byte_before(d, DQT)),
    "a byte before the codes": ("4:2:0", lambda d: byte_before(d, DHT, 1)),
    "a byte before the frame": ("4:2:0", lambda d: byte_before(d, SOF)),
    "a byte before the scan": ("gray", lambda d: byte_before(d, SOS)),
    "a byte before a later scan": ("progressive", lambda d: byte_before(d, SOS, 2)),
    "Adobe transform 5": (
        "4:4:4",
        lambda d: d[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x05" + without(d, APP0)[2:],
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_warnings_that_change_no_pixel_are_counted(rng: np.random.Generator, name: str) -> None:
    kind, change = HARMLESS[name]
    sound = encode(rng, kind, 64, 48)
    data = change(sound)
    assert data != sound
    for rules in ({}, {"allow_warnings": True}, {"whole_file": True}):
        np.testing.assert_array_equal(decoded(data, **rules), pillow(data))
        crops = decode_crops(data, [(8, 8, 32, 32)], [False], 32, **rules)
        np.testing.assert_array_equal(crops[0], pillow(data)[8:40, 8:40])
        assert harmless_warnings() == 1
        validation_crop(data, 32, **rules)
        assert harmless_warnings() == 1
    decode_crops(sound, [(8, 8, 32, 32)], [False], 32)
    assert harmless_warnings() == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "4:2:2", "gray", "restarts"])
def test_bytes_before_the_end_of_the_image(rng: np.random.Generator, kind: str) -> None:
    """Behind the last pixel they are seen by nobody but who reads the whole file, and harm nothing there."""
    data = byte_before(encode(rng, kind, 100, 72), EOI, 0, 12)
    whole, decoder = pillow(data), _C.CropDecoder()
    for top, left, rows, columns in [(0, 0, 100, 72), *random_boxes(rng, 100, 72, 40).tolist()]:
        for whole_file in (False, True):
            np.testing.assert_array_equal(
                decoder.decode_box(data, top, left, rows, columns, False, False, whole_file),
                whole[top : top + rows, left : left + columns],
            )
            assert decoder.harmless_warnings == whole_file


def test_loaders_take_and_count_them(rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    data = encode(rng, "4:2:0", 64, 48)
    for i in range(4):
        odd = HARMLESS["JFIF 2.01"][1](data)
        (tmp_path / "a" / f"{i}.jpg").write_bytes(odd if i else data)
    loader = CropLoader(tmp_path, None, 2, 1, size=16)
    assert len(list(loader)) == 2
    assert loader.pool.stages()["warned"] == 3
    assert list(verify_images(tmp_path)) == []


DAMAGED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "bytes before a restart marker": ("restarts", lambda d: byte_before_restart(d)),
    "bytes behind a scan": ("progressive", lambda d: byte_before(d, DHT, 4, 12)),
    "a restart marker too few": ("restarts", lambda d: d.replace(b"\xff\xd1", b"", 1)),
    "the end in the middle": ("4:4:4", lambda d: d[: len(d) * 3 // 4] + EOI),
}


def byte_before_restart(data: bytes) -> bytes:
    at = data.index(b"\xff\xd1")
    return data[:at] + b"12345678" + data[at:]


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_unless_allowed(rng: np.random.Generator, name: str) -> None:
    kind, change = DAMAGED[name]
    data = change(encode(rng, kind, 64, 48))
    for rules in ({}, {"whole_file": True}):
        with pytest.raises(fkdx.ImageError, match=r"(?i)corrupt|premature"):
            decoded(data, **rules)
    assert decoded(data, allow_warnings=True).shape == (64, 48, 3)


# ---- whole files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_a_cut_file_is_refused_whatever_the_box(rng: np.random.Generator, kind: str) -> None:
    data = encode(rng, kind, 120, 40)
    decoder = _C.CropDecoder()
    whole = decoded(data)
    for plain in (False, True):
        top = decoder.decode_box(data, 0, 0, 8, 8, False, plain, whole_file=True)
        np.testing.assert_array_equal(top, whole[:8, :8])
    end = data.rindex(EOI) + 1
    start = data.index(SOS)
    seen = 0
    for cut in {*rng.integers(start, end, 30).tolist(), end, end - 1}:
        for plain in (False, True):
            with pytest.raises(fkdx.ImageError, match=r"(?i)premature"):
                decoder.decode_box(data[:cut], 0, 0, 8, 8, False, plain, whole_file=True)
        try:
            decoder.decode_box(data[:cut], 0, 0, 8, 8, False, False)
        except fkdx.ImageError:
            seen += 1
    assert seen < 30 or "progressive" in kind  # why the rule is needed


def test_damage_behind_the_box(rng: np.random.Generator) -> None:
    """The whole file is judged as a full decode judges it, damage by damage."""
    sound = encode(rng, "restarts", 96, 64)
    start = sound.index(SOS)
    decoder, refused = _C.CropDecoder(), 0
    for _ in range(600):
        data = bytearray(sound)
        for _ in range(rng.integers(1, 3)):
            at = int(rng.integers(start, len(data)))
            data[at : at + int(rng.integers(0, 3))] = rng.choice([b"", b"\xff", b"\x00", rng.bytes(2)])
        verdicts = []
        for box, plain in (((0, 0, 8, 8), False), ((90, 60, 6, 4), False), ((0, 0, 96, 64), True)):
            try:
                decoder.decode_box(bytes(data), *box, False, plain, whole_file=True)
                verdicts.append(True)
            except fkdx.ImageError:
                verdicts.append(False)
        assert len(set(verdicts)) == 1
        refused += not verdicts[0]
    assert 0 < refused < 600


def test_crops_of_a_cut_file(rng: np.random.Generator) -> None:
    """The rows above the cut are right and given, unless the whole file is asked for."""
    data = cut_short(encode(rng, "4:2:0", 64, 48))
    top, bottom = [(0, 0, 16, 48)], [(40, 0, 24, 48)]
    for allowed in (False, True):
        assert decode_crops(data, top, [False], 8, allow_warnings=allowed).shape == (1, 8, 8, 3)
    with pytest.raises(ImageError, match=r"[Pp]remature end"):
        decode_crops(data, top, [False], 8, whole_file=True)
    with pytest.raises(ImageError, match=r"[Pp]remature end"):
        decode_crops(data, bottom, [False], 8)
    for box in (top, bottom):
        decode_crops(data, box, [False], 8, allow_warnings=True, whole_file=True)


def test_verify_images_finds_files_cut_at_the_very_end(rng: np.random.Generator, tmp_path: Path) -> None:
    for i, cut in enumerate([0, 1, 2, 3, 10]):
        data = encode(rng, "4:2:0", 64, 48)
        (tmp_path / f"{i}.jpg").write_bytes(data[: len(data) - cut])
    assert [image.key for image in verify_images(tmp_path)] == [f"{i}.jpg" for i in range(1, 5)]
    assert list(verify_images(tmp_path, allow_warnings=True)) == []
