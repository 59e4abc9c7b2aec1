"""Crops are Pillow's, bit for bit: every kernel, every kind of JPEG, every region."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from images import JPEG_KINDS, OWN_RULE, encode, photo, random_boxes, with_size
from PIL import Image

import fkdx
from fkdx import _C, reference
from fkdx.image import decode_crops, image_size, installed_rule, resize_crops, validation_crop
from fkdx.image.crops import RESAMPLES

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pillow_crop(image: Image.Image, box: np.ndarray, flip: bool, size: int, interpolation: str) -> np.ndarray:
    top, left, height, width = (int(v) for v in box)
    out = image.crop((left, top, left + width, top + height)).resize((size, size), FILTERS[interpolation])
    return np.asarray(out.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else out)


def decode_whole(data: bytes) -> np.ndarray:
    """A full decode by the linked libjpeg-turbo: the judge of every region."""
    return _C.CropDecoder().decode_box(data, 0, 0, *image_size(data), True, True)


# ---- resize -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", FILTERS)
def test_twin_is_pillow(rng: np.random.Generator, interpolation: str) -> None:
    for _ in range(60):
        height, width, rows, columns = (int(n) for n in rng.integers(1, 120, 4))
        image = photo(rng, height, width)
        expected = Image.fromarray(image).resize((columns, rows), FILTERS[interpolation])
        np.testing.assert_array_equal(
            reference.image.resize(image, (rows, columns), interpolation, OWN_RULE), np.asarray(expected)
        )


def test_the_two_rules_differ_where_the_height_shrinks_more(rng: np.random.Generator) -> None:
    image = photo(rng, 200, 90)
    wide = photo(rng, 90, 200)
    rules = [reference.image.resize(image, (64, 64), resample=rule) for rule in ("pillow12", "pillow13")]
    assert (rules[0] != rules[1]).any()
    rules = [reference.image.resize(wide, (64, 64), resample=rule) for rule in ("pillow12", "pillow13")]
    np.testing.assert_array_equal(*rules)


def test_the_rule_of_the_installed_pillow(rng: np.random.Generator) -> None:
    """A box whose height shrinks by far more than its width, where the orders differ."""
    image = photo(rng, 400, 70)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    crops = {
        rule: resize_crops(image, [(0, 0, 400, 70)], [False], 64, resample=rule)[0] for rule in RESAMPLES
    }
    assert not np.array_equal(crops["pillow12"], crops["pillow13"])
    assert np.array_equal(crops[installed_rule()], expected)


@pytest.mark.parametrize("resample", ["pillow12", "pillow13"])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_resize_equals_twin(rng: np.random.Generator, cpu: str, interpolation: str, resample: str) -> None:
    for _ in range(12):
        height, width = (int(n) for n in rng.integers(1, rng.choice([8, 150, 400]), 2))
        image = photo(rng, height, width)
        boxes = random_boxes(rng, height, width, 3)
        flips = rng.integers(0, 2, 3).astype(bool)
        size = int(rng.integers(1, 130))
        out = resize_crops(image, boxes, flips, size, interpolation, resample)
        for pixels, box, flip in zip(out, boxes, flips):
            np.testing.assert_array_equal(
                pixels, reference.image.cut_crop(image, box, flip, size, interpolation, resample)
            )


@pytest.mark.parametrize("shape", [(3000, 40), (40, 3000), (1, 2000), (2000, 1), (1, 1), (900, 7)])
def test_resize_extreme_shapes(rng: np.random.Generator, cpu: str, shape: tuple[int, int]) -> None:
    image = photo(rng, *shape)
    for size in (1, 5, 224):
        out = resize_crops(image, [(0, 0, *shape)], [True], size, "bicubic", OWN_RULE)[0]
        expected = pillow_crop(Image.fromarray(image), (0, 0, *shape), True, size, "bicubic")
        np.testing.assert_array_equal(out, expected)


def test_same_size_is_a_copy(rng: np.random.Generator, cpu: str) -> None:
    image = photo(rng, 50, 60)
    out = resize_crops(image, [(5, 7, 32, 32)] * 2, [False, True], 32)
    np.testing.assert_array_equal(out[0], image[5:37, 7:39])
    np.testing.assert_array_equal(out[1], image[5:37, 7:39][:, ::-1])


# ---- decoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_whole_image_is_pillows(rng: np.random.Generator, kind: str) -> None:
    for height, width in [(61, 83), (1, 1), (2, 9), (17, 1)]:
        data = encode(rng, kind, height, width)
        assert image_size(data) == (height, width)
        np.testing.assert_array_equal(
            decode_whole(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        )


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_region_equals_whole(rng: np.random.Generator, kind: str) -> None:
    decoder = _C.CropDecoder()
    for _ in range(8):
        height, width = (int(n) for n in rng.integers(1, 140, 2))
        data = encode(rng, kind, height, width)
        whole = decode_whole(data)
        for top, left, rows, columns in random_boxes(rng, height, width, 12):
            np.testing.assert_array_equal(
                decoder.decode_box(data, top, left, rows, columns, False, False),
                whole[top : top + rows, left : left + columns],
            )


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_crops_are_pillows(rng: np.random.Generator, kind: str, interpolation: str) -> None:
    height, width = (int(n) for n in rng.integers(20, 200, 2))
    data = encode(rng, kind, height, width)
    image = Image.fromarray(decode_whole(data))
    boxes = random_boxes(rng, height, width, 5)
    flips = rng.integers(0, 2, 5).astype(bool)
    size = int(rng.integers(1, 100))
    out = decode_crops(data, boxes, flips, size, interpolation, OWN_RULE)
    for pixels, box, flip in zip(out, boxes, flips):
        np.testing.assert_array_equal(pixels, pillow_crop(image, box, flip, size, interpolation))


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_other_formats_go_through_pillow(rng: np.random.Generator, tmp_path: Path, form: str) -> None:
    path = tmp_path / "disguised.JPEG"
    Image.fromarray(photo(rng, 40, 50)).save(path, form)
    image = Image.open(path).convert("RGB")
    assert image_size(path) == (40, 50)
    out = decode_crops(path, [(3, 4, 30, 40)], [True], 24)
    np.testing.assert_array_equal(out[0], pillow_crop(image, (3, 4, 30, 40), True, 24, "bilinear"))


def test_exif_orientation_is_ignored(rng: np.random.Generator) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(photo(rng, 30, 50)).save(stream, "JPEG", exif=exif)
    assert image_size(stream.getvalue()) == (30, 50)


def test_no_crops(rng: np.random.Generator) -> None:
    data = encode(rng, "4:2:0", 20, 20)
    assert decode_crops(data, np.zeros((0, 4), int), np.zeros(0, bool), 8).shape == (0, 8, 8, 3)


def test_threads_do_not_share(rng: np.random.Generator) -> None:
    data = [encode(rng, "4:2:0", 90, 120) for _ in range(4)]
    boxes, flips = [(1, 2, 80, 100), (30, 40, 20, 30)], [False, True]
    expected = [decode_crops(d, boxes, flips, 48) for d in data]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(offset, offset + 100):
            if not np.array_equal(decode_crops(data[i % 4], boxes, flips, 48), expected[i % 4]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- validation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", FILTERS)
def test_validation_crop_is_torchvisions(rng: np.random.Generator, cpu: str, interpolation: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    for _ in range(25):
        height, width, size = (int(n) for n in rng.integers(1, 160, 3))
        ratio = float(rng.choice([0.5, 0.875, 0.95, 1.0, 1.3]))
        resized = int(size / ratio)
        if resized < 1:
            continue
        data = encode(rng, "4:4:4", height, width)
        pipeline = transforms.Compose([transforms.Resize(resized, mode), transforms.CenterCrop(size)])
        whole = decode_whole(data)
        out = validation_crop(data, size, ratio, interpolation, OWN_RULE)
        np.testing.assert_array_equal(out, np.asarray(pipeline(Image.fromarray(whole))))
        np.testing.assert_array_equal(
            out, reference.image.validation_crop(whole, size, ratio, interpolation, OWN_RULE)
        )


def test_validation_crop_of_a_png(rng: np.random.Generator) -> None:
    image = photo(rng, 50, 70)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    np.testing.assert_array_equal(
        validation_crop(stream.getvalue(), 32, 0.8), reference.image.validation_crop(image, 32, 0.8)
    )


# ---- bad input --------------------------------------------------------------------------------------------


BOX = [(0, 0, 16, 16)]


def bad_files(rng: np.random.Generator) -> dict[str, tuple[bytes, str]]:
    good = encode(rng, "4:2:0", 64, 64)
    progressive = encode(rng, "progressive", 64, 64)
    last_scan = progressive.rindex(b"\xff\xda")
    scans = progressive[:-2] + progressive[last_scan:-2] * 200 + b"\xff\xd9"
    entropy = good.index(b"\xff\xda") + 40
    return {
        "empty": (b"", "empty"),
        "text": (b"not an image at all", "expected an image"),
        "header only": (good[:20], "premature"),
        "no pixels": (good[: good.index(b"\xff\xda")], "premature"),
        "truncated": (good[:entropy], "premature"),
        "zeros inside": (good[:entropy] + b"\xff\xd9" + good[entropy:], "corrupt|premature"),
        "65500 x 65500": (with_size(good, 65500, 65500), "pixels"),
        "65500 x 65500 progressive": (with_size(progressive, 65500, 65500), "pixels"),
        "memory": (with_size(progressive, 13000, 13000), "256 MiB"),
        "scans": (scans, "progression|scans"),
        "no rows": (with_size(good, 0, 64), "empty|dimension|supported"),
    }


@pytest.mark.parametrize("name", list(bad_files(np.random.default_rng(0))))
def test_bad_files(rng: np.random.Generator, tmp_path: Path, name: str) -> None:
    data, reason = bad_files(rng)[name]
    with pytest.raises(fkdx.ImageError, match=f"(?i){reason}"):
        decode_crops(data, [(40, 40, 16, 16)], [False], 8)
    path = tmp_path / "bad.JPEG"
    path.write_bytes(data)
    with pytest.raises(fkdx.ImageError, match=r"bad\.JPEG"):
        decode_crops(path, [(40, 40, 16, 16)], [False], 8)
    with pytest.raises(fkdx.ImageError, match=r"bad\.JPEG"):
        validation_crop(path, 32)


def test_too_many_scans_even_with_warnings(rng: np.random.Generator) -> None:
    with pytest.raises(fkdx.ImageError, match="more than 100 scans"):
        decode_crops(bad_files(rng)["scans"][0], BOX, [False], 8, allow_warnings=True)


def test_warnings_can_be_allowed(rng: np.random.Generator) -> None:
    good = encode(rng, "4:2:0", 64, 64)
    cut = good[: (good.index(b"\xff\xda") + len(good)) // 2]
    out = decode_crops(cut, [(0, 0, 64, 64)], [False], 64, allow_warnings=True)
    expected = decode_crops(good, [(0, 0, 64, 64)], [False], 64)
    np.testing.assert_array_equal(out[0, :8], expected[0, :8])
    with pytest.raises(fkdx.ImageError, match="Premature end"):
        decode_crops(cut, [(0, 0, 64, 64)], [False], 64)


def test_a_truncation_behind_the_region_goes_unseen(rng: np.random.Generator) -> None:
    good = encode(rng, "4:4:4", 160, 64)
    cut = good[: (good.index(b"\xff\xda") + len(good)) // 2]
    np.testing.assert_array_equal(decode_crops(cut, BOX, [False], 16), decode_crops(good, BOX, [False], 16))


@pytest.mark.parametrize("kind", ["4:4:4", "restarts"])
def test_damage_is_judged_as_libjpeg_turbo_does(rng: np.random.Generator, kind: str) -> None:
    """The Huffman decoder of our own and libjpeg-turbo's refuse the same files, or give the same pixels."""
    options = {"subsampling": 0, "quality": 90} if kind == "4:4:4" else {"restart_marker_blocks": 2}
    sound = io.BytesIO()
    Image.fromarray(photo(rng, 48, 64)).save(sound, "jpeg", **options)
    decoder, refused = _C.CropDecoder(), 0
    for _ in range(1500):
        data = bytearray(sound.getvalue())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data) - 4))
            data[at : at + int(rng.integers(0, 3))] = rng.choice([b"", b"\xff", b"\x00", rng.bytes(2)])
        data = bytes(data[: rng.integers(len(data))]) if rng.random() < 0.1 else bytes(data)
        outcomes = []
        for plain in (False, True):
            try:
                height, width = image_size(data)
                outcomes.append(decoder.decode_box(data, 0, 0, height, width, False, plain).tobytes())
            except _C.ImageError:
                outcomes.append(b"")
        assert outcomes[0] == outcomes[1]
        refused += not outcomes[0]
    assert 0 < refused < 1500


@pytest.mark.parametrize(
    "box", [(-1, 0, 8, 8), (0, -1, 8, 8), (57, 0, 8, 8), (0, 57, 8, 8), (0, 0, 0, 8), (2**31 - 1, 0, 9, 9)]
)
def test_boxes_outside_the_image(rng: np.random.Generator, box: tuple[int, ...]) -> None:
    with pytest.raises(
        fkdx.ImageError, match=r"box 1, got .* expected inside the image of 64 rows and 64 columns"
    ):
        decode_crops(encode(rng, "4:2:0", 64, 64), [BOX[0], box], [False, False], 8)
    with pytest.raises(fkdx.ImageError, match="box 0"):
        resize_crops(photo(rng, 64, 64), [box], [False], 8)


def test_two_components_are_refused(rng: np.random.Generator) -> None:
    data = bytearray(encode(rng, "gray", 32, 32))
    data[data.index(b"\xff\xc0") + 9] = 2
    with pytest.raises(fkdx.ImageError):
        decode_crops(bytes(data), BOX, [False], 8)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"boxes": [(0, 0, 8)]}, "boxes"),
        ({"boxes": [(0.5, 0, 8, 8)]}, "boxes"),
        ({"boxes": [(0, 0, 8, 2**40)]}, "32-bit"),
        ({"flips": [True, False]}, "flips"),
        ({"flips": [0.3]}, "flips, got float64"),
        ({"flips": [2]}, "flips, got int64"),
        ({"flips": ["False"]}, "flips, got <U5"),
        ({"size": 0}, "size"),
        ({"size": 10**6}, "size"),
        ({"size": (8, 8)}, r"size, got \(8, 8\), expected a whole number"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"resample": "pillow14"}, "resample"),
    ],
)
def test_bad_arguments(rng: np.random.Generator, change: dict, text: str) -> None:
    arguments = {"boxes": BOX, "flips": [False], "size": 8} | change
    with pytest.raises(ValueError, match=f"decode_crops: .*{text}"):
        decode_crops(encode(rng, "4:2:0", 32, 32), **arguments)
    with pytest.raises(ValueError, match=f"resize_crops: .*{text}"):
        resize_crops(photo(rng, 32, 32), **arguments)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), 33.0])
def test_bad_crop_ratio(rng: np.random.Generator, ratio: float) -> None:
    with pytest.raises(ValueError, match="crop_ratio"):
        validation_crop(encode(rng, "4:2:0", 32, 32), 32, ratio)


def test_bad_pixels() -> None:
    arrays = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)
    for image in (*arrays, None, [[0]], Image.new("L", (8, 8))):
        with pytest.raises(ValueError, match="resize_crops: image"):
            resize_crops(image, BOX, [False], 8)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.JPEG", tmp_path):
        with pytest.raises(OSError, match=os.path.basename(path)):
            decode_crops(path, BOX, [False], 8)


@pytest.mark.linux
def test_errors_leak_nothing(rng: np.random.Generator) -> None:
    good = encode(rng, "4:2:0", 64, 64)
    cut = good[:-300]

    def resident() -> int:
        """Bytes, without those of files and libraries, which the system takes and gives as it likes."""
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def work(count: int) -> None:
        for i in range(count):
            try:
                decode_crops(cut if i % 2 else good, [(0, 0, 64, 64)], [False], 32)
            except fkdx.ImageError:
                assert i % 2

    work(500)
    before = resident()
    work(6000)
    assert resident() - before < 2 << 20
