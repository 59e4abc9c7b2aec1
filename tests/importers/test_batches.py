"""SRe2L, LPLD, G-VBSM and EDC label folders, made here as their generators make them, and packed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from images import OWN_RULE, draw_black
from PIL import Image, ImageDraw

from fkdx import CropLoader, FormatError
from fkdx.image.augment import augmented
from fkdx.image.steps import decode
from fkdx.importers import Settings, job, open_foreign
from fkdx.importers.images import Images
from fkdx.importers.job import TooManyUnreadable, pack
from fkdx.labels import LabelFile

torch = pytest.importorskip("torch")
F = pytest.importorskip("torchvision.transforms.functional")
from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD, prepare  # noqa: E402

CLASSES, EPOCHS, BATCH, SIDE = 6, 5, 8, 32
# "n-1" sorts before "n" as a folder's path but behind it as a class: the two orders of images differ.
KEYS = [f"{name}/{number}.png" for name in ("n", "n-1", "o") for number in range(7)]


@dataclass
class Row:
    """What the teacher saw and said of one crop."""

    box: tuple
    flip: bool
    logits: np.ndarray
    partner: str | None = None
    partner_box: tuple = (0, 0, 0, 0)
    partner_flip: bool = False
    operation: int = 0
    lam: float = 0.0
    mix_box: tuple = (0, 0, 0, 0)


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Images:
    return Images(draw_black(tmp_path / "images", KEYS, rng))


def square(images: Images) -> Images:
    for key in images.keys:
        Image.new("RGB", (50, 50)).save(images.root / key)
    return images


def write_batches(
    rng: np.random.Generator,
    images: Images,
    folder: Path,
    orders: list[list[int]],
    mix: str = "both",
    more_parts: int = 0,
    dtype: torch.dtype = torch.float16,
) -> dict[str, list[Row]]:
    """Batches for the images in the given order of numbers; returns what each image's labels must be."""
    expected: dict[str, list[Row]] = {key: [] for key in images.keys}
    for epoch, order in enumerate(orders):
        path = folder / f"epoch_{epoch}"
        path.mkdir(parents=True)
        for number, first in enumerate(range(0, len(order), BATCH)):
            chosen = order[first : first + BATCH]
            rows, parts = make_batch(rng, images, [images.samples[index] for index in chosen], mix, dtype)
            parts += [torch.tensor(chosen), torch.randperm(4)][:more_parts]
            torch.save(parts, path / f"batch_{number}.tar")
            for index, row in zip(chosen, rows):
                expected[images.samples[index]].append(row)
    return expected


def make_batch(
    rng: np.random.Generator, images: Images, keys: list[str], mix: str, dtype: torch.dtype
) -> tuple[list[Row], list]:
    rows, coords = [], []
    for key in keys:
        height, width = images.size(key)
        top, left = int(rng.integers(height)), int(rng.integers(width))
        box = (top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1)))
        coords.append((top / height, left / width, box[2] / height, box[3] / width))
        rows.append(Row(box, bool(rng.random() < 0.5), rng.normal(size=CLASSES).astype(np.float16)))
    if mix == "both":
        mix = str(rng.choice(["mixup", "cutmix", "none"]))
    partners = lam = box = None
    if mix != "none":
        partners, lam = torch.randperm(len(rows)), float(rng.random())
    if mix == "cutmix":
        edges = np.sort(rng.integers(0, SIDE + 1, (2, 2)), axis=0)
        box = [np.int64(edge) for edge in (edges[0, 0], edges[0, 1], edges[1, 0], edges[1, 1])]
    for row, partner in zip(rows, partners if partners is not None else []):
        area = box and (edges[1] - edges[0]).prod()
        if box and not area:
            continue
        other = rows[partner]
        row.partner, row.partner_box, row.partner_flip = keys[partner], other.box, other.flip
        row.operation, row.lam = (2, 1.0) if box else (1, lam)
        row.mix_box = (*edges[0], *(edges[1] - edges[0])) if box else (0, 0, 0, 0)
    parts = [
        torch.tensor(coords, dtype=torch.float32),
        torch.tensor([row.flip for row in rows]),
        partners,
        lam,
        box,
        torch.from_numpy(np.stack([row.logits for row in rows])).to(dtype),
    ]
    return rows, parts


def check(labels: LabelFile, expected: dict[str, list[Row]]) -> None:
    assert (labels.kind, labels.num_classes) == ("dense_logits", CLASSES)
    for key, rows in expected.items():
        if not rows:
            continue
        found = labels[key]
        assert found.boxes.tolist() == [list(row.box) for row in rows]
        assert found.flips.tolist() == [row.flip for row in rows]
        np.testing.assert_array_equal(found.values, [row.logits for row in rows])
        if labels.mix_size:
            mixes = found.mixes
            assert mixes.partners == [row.partner for row in rows]
            assert mixes.boxes.tolist() == [list(row.partner_box) for row in rows]
            assert mixes.flips.tolist() == [row.partner_flip for row in rows]
            assert mixes.operations.tolist() == [row.operation for row in rows]
            np.testing.assert_array_equal(mixes.lambdas, np.float32([row.lam for row in rows]))
            assert mixes.mix_boxes.tolist() == [list(row.mix_box) for row in rows]


def live_orders(seed: int = 42) -> list[list[int]]:
    """The orders in which a live data loader visits the images, epoch by epoch, as the generator's did."""
    generator = torch.Generator().manual_seed(seed)
    sampler = torch.utils.data.RandomSampler(range(len(KEYS)), generator=generator)
    loader = torch.utils.data.DataLoader(range(len(KEYS)), batch_size=BATCH, sampler=sampler)
    return [[int(index) for batch in loader for index in batch] for _ in range(EPOCHS)]


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "none", "both"])
def test_sre2l_replays_the_sampler(
    rng: np.random.Generator, tmp_path: Path, images: Images, mix: str
) -> None:
    expected = write_batches(rng, images, tmp_path / "labels", live_orders(), mix)
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    assert (source.name, source.layout.crops) == ("sre2l", EPOCHS)
    pack(source, tmp_path / "out.fkdl", images_a_part=4)
    check(LabelFile(tmp_path / "out.fkdl"), expected)


def test_the_largest_cutmix_edge_is_the_size(
    rng: np.random.Generator, tmp_path: Path, images: Images
) -> None:
    write_batches(rng, images, tmp_path / "labels", live_orders(), "cutmix")
    boxes = [torch.load(path, weights_only=False)[4] for path in (tmp_path / "labels").rglob("batch_*.tar")]
    boxes = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    largest = max(max(box) for box in boxes if box[0] < box[2] and box[1] < box[3])  # empty ones mix nothing
    found = open_foreign(tmp_path / "labels", Settings(images=images))
    assert found.layout.mix_size == largest
    told = f"crops of {largest} pixels were mixed, as the largest CutMix edge says (--mix-size)"
    assert found.notes[0] == told
    doubt = "only one box reaches that far: if the crops were larger, give --mix-size"
    assert (doubt in found.notes) == (sum(max(box) == largest for box in boxes) == 1)
    (note,) = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=largest + 1)).notes
    assert f"beyond {largest} pixels, but --mix-size is {largest + 1}" in note
    with pytest.raises(FormatError, match="--mix-size"):
        open_foreign(tmp_path / "labels", Settings(images=images, mix_size=largest - 1))


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_student_sees_what_the_generator_showed(
    rng: np.random.Generator, tmp_path: Path, images: Images, mix: str
) -> None:
    for key in images.keys:
        noise = rng.integers(0, 256, (*images.size(key), 3), np.uint8)
        Image.fromarray(noise).save(images.root / key)
    orders = live_orders()
    write_batches(rng, images, tmp_path / "labels", orders, mix)
    pack(open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE)), tmp_path / "out.fkdl")
    loader = CropLoader(
        images.root, tmp_path / "out.fkdl", len(KEYS) * EPOCHS, EPOCHS, SIDE, resample=OWN_RULE
    )
    (batch,) = list(loader)
    shown = {
        (key, int(epoch)): pixels
        for key, epoch, pixels in zip(batch.keys, batch.crops, prepare(batch.images, mix=batch.mix))
    }
    for epoch, order in enumerate(orders):
        for number, first in enumerate(range(0, len(order), BATCH)):
            keys = [images.samples[index] for index in order[first : first + BATCH]]
            expected = generators_input(images, keys, tmp_path / f"labels/epoch_{epoch}/batch_{number}.tar")
            for key, pixels in zip(keys, expected):
                torch.testing.assert_close(shown[key, epoch], pixels, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_fadrm_and_cv_dd(rng: np.random.Generator, tmp_path: Path, images: Images, mix: str) -> None:
    """They write SRe2L's layout with the mean of several teachers, each run on both halves of a batch.

    CutMix changes the batch in place before that; Mixup makes a new one, which their teachers never see.
    """
    for key in images.keys:
        noise = rng.integers(0, 256, (*images.size(key), 3), np.uint8)
        Image.fromarray(noise).save(images.root / key)
    orders = live_orders()
    write_batches(rng, images, tmp_path / "labels", orders, mix, dtype=torch.float32)
    teachers = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, CLASSES)) for _ in "ab"]
    for epoch, order in enumerate(orders):
        for number, first in enumerate(range(0, len(order), BATCH)):
            path = tmp_path / f"labels/epoch_{epoch}/batch_{number}.tar"
            keys = [images.samples[index] for index in order[first : first + BATCH]]
            parts = torch.load(path, weights_only=False)
            seen = generators_input(images, keys, path) if mix == "cutmix" else crops_of(images, keys, parts)
            halves = seen.tensor_split([len(seen) // 2])
            with torch.no_grad():
                outputs = [torch.cat([teacher(half) for half in halves]) * 0.5 for teacher in teachers]
            parts[5] = torch.stack(outputs).sum(0)
            torch.save(parts, path)
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    assert source.name == "sre2l"
    pack(source, tmp_path / "out.fkdl", value_type="float32")
    loader = CropLoader(
        images.root, tmp_path / "out.fkdl", len(KEYS) * EPOCHS, EPOCHS, SIDE, resample=OWN_RULE
    )
    (batch,) = list(loader)
    shown = prepare(batch.images, mix=batch.mix if mix == "cutmix" else None)
    with torch.no_grad():
        expected = sum(teacher(shown) for teacher in teachers) / 2
    torch.testing.assert_close(batch.target, expected, rtol=0, atol=1e-4)


def generators_input(images: Images, keys: list[str], path: Path) -> torch.Tensor:
    """What the teacher saw, made as SRe2L makes it: crops normalised first and mixed then."""
    parts = torch.load(path, weights_only=False)
    _, _, partners, lam, box, _ = parts
    x = crops_of(images, keys, parts)
    if box is None:
        return lam * x + (1 - lam) * x[partners]
    mixed = x.clone()
    mixed[:, :, box[0] : box[2], box[1] : box[3]] = x[partners][:, :, box[0] : box[2], box[1] : box[3]]
    return mixed


def crops_of(images: Images, keys: list[str], parts: list) -> torch.Tensor:
    """The crops of a batch before they are mixed."""
    crops = []
    for key, (top, left, height, width), flip in zip(keys, parts[0].tolist(), parts[1]):
        image = Image.open(images.root / key)
        region = top * image.height, left * image.width, height * image.height, width * image.width
        crop = F.resized_crop(image, *region, [SIDE, SIDE])
        crop = F.to_tensor(F.hflip(crop) if flip else crop)
        crops.append(F.normalize(crop, IMAGENET_MEAN, IMAGENET_STD))
    return torch.stack(crops)


@pytest.mark.parametrize("start", ["fork", "spawn"])  # spawn: on macOS
def test_mixed_labels_are_packed_in_parts(rng, tmp_path, images: Images, monkeypatch, start: str) -> None:
    monkeypatch.setattr(job, "start_method", lambda: start)
    write_batches(rng, images, tmp_path / "labels", live_orders())
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    pack(source, tmp_path / "whole.fkdl")
    for workers in (1, 3):
        pack(source, tmp_path / f"{workers}.fkdl", images_a_part=4, workers=workers)
        assert (tmp_path / f"{workers}.fkdl").read_bytes() == (tmp_path / "whole.fkdl").read_bytes()


def test_an_interrupted_packing_of_mixed_labels_goes_on(rng, tmp_path: Path, images: Images, monkeypatch):
    write_batches(rng, images, tmp_path / "labels", live_orders())
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    pack(source, tmp_path / "whole.fkdl")
    begun, read = [], type(source).read

    def stopping(self, numbers: range):
        begun.append(numbers.start)
        if numbers.start == 8 and begun.count(8) == 1:
            raise KeyboardInterrupt
        return read(self, numbers)

    monkeypatch.setattr(type(source), "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "out.fkdl", images_a_part=4)
    begun_before = len(begun)
    pack(source, tmp_path / "out.fkdl", images_a_part=4)
    assert [start for start in begun[begun_before:] if start] == [8, 12, 16, 20]
    assert (tmp_path / "out.fkdl").read_bytes() == (tmp_path / "whole.fkdl").read_bytes()


def test_the_sampler_draws_two_permutations_an_epoch() -> None:
    generator = torch.Generator().manual_seed(42)
    drawn = [torch.randperm(len(KEYS), generator=generator).tolist() for _ in range(2 * EPOCHS)]
    assert drawn[::2] == live_orders()


def test_float32_logits_stay_exact(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    expected = write_batches(rng, images, tmp_path / "labels", live_orders(7), dtype=torch.float32)
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE, seed=7))
    pack(source, tmp_path / "out.fkdl", value_type="float32")
    check(LabelFile(tmp_path / "out.fkdl"), expected)


def test_lpld_with_a_partial_last_epoch(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    orders = [rng.permutation(len(KEYS)).tolist() for _ in range(3)]
    whole = len(KEYS) // BATCH * BATCH
    stored = [
        orders[0][:whole],
        orders[1][:whole],
        orders[2][:BATCH],
    ]  # the last batch of an epoch is dropped
    expected = write_batches(rng, images, tmp_path / "labels", stored)
    order_file = tmp_path / "labels" / "sampler_indices_epoch.json"
    order_file.write_text(json.dumps({str(epoch): order for epoch, order in enumerate(orders)}))
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    assert (source.name, source.layout.crops) == ("lpld", None)
    never = sum(not rows for rows in expected.values())
    if never:
        with pytest.raises(TooManyUnreadable, match="no labels of this image"):
            pack(source, tmp_path / "out.fkdl")
    pack(source, tmp_path / "out.fkdl", allow_missing=never)
    check(LabelFile(tmp_path / "out.fkdl"), expected)


def test_cutouts_of_lpld_are_painted_again(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    """The ImageNet-21K variant: centre, height, width and colour of a rectangle in place of flips."""
    order = rng.permutation(len(KEYS)).tolist()
    write_batches(rng, images, tmp_path / "labels", [order], mix="none")
    (tmp_path / "labels" / "sampler_indices_epoch.json").write_text(json.dumps({"0": order}))
    drawn = {}
    for number, path in enumerate(sorted((tmp_path / "labels" / "epoch_0").iterdir())):
        parts = torch.load(path, weights_only=False)
        rows = [[*rng.integers(0, SIDE, 2) / SIDE, 0.5, 0.5, *rng.integers(0, 256, 3)] for _ in parts[0]]
        parts[1] = torch.tensor(np.array(rows), dtype=torch.float32)
        torch.save(parts, path)
        drawn |= dict(zip(order[number * BATCH :], rows))
    settings = Settings(images=images, mix_size=SIDE)
    pack(open_foreign(tmp_path / "labels", settings), tmp_path / "out.fkdl")
    labels = LabelFile(tmp_path / "out.fkdl")
    assert labels.extra_operations == ["erase"]
    crop = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for index, (y, x, height, width, *colour) in drawn.items():
        image = labels[images.samples[index]]
        assert not image.flips.any()
        top, left = round(y * SIDE) - round(height * SIDE) // 2, round(x * SIDE) - round(width * SIDE) // 2
        edges = [left, top, left + round(width * SIDE) // 2 * 2, top + round(height * SIDE) // 2 * 2]
        painted = Image.fromarray(crop)
        fill = tuple(int(part) for part in colour)
        ImageDraw.Draw(painted).rectangle(np.clip(edges, 0, SIDE).tolist(), fill=fill)
        np.testing.assert_array_equal(augmented(crop, decode(image.extra)[0]), painted)


@pytest.mark.parametrize("more_parts", [1, 2], ids=["G-VBSM", "EDC"])
def test_stored_indices(rng: np.random.Generator, tmp_path: Path, images: Images, more_parts: int) -> None:
    orders = [rng.permutation(len(KEYS)).tolist() for _ in range(EPOCHS)]
    images = square(images) if more_parts == 2 else images
    expected = write_batches(rng, images, tmp_path / "labels", orders, more_parts=more_parts)
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    assert source.name == "g-vbsm"
    pack(source, tmp_path / "out.fkdl")
    check(LabelFile(tmp_path / "out.fkdl"), expected)


# ---- refused ------------------------------------------------------------------------------------------


def test_edc_of_other_than_square_images(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    Image.new("RGB", (50, 51)).save(square(images).root / KEYS[3])
    orders = [rng.permutation(len(KEYS)).tolist()]
    write_batches(rng, images, tmp_path / "labels", orders, mix="none", more_parts=2)
    source = open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))
    with pytest.raises(TooManyUnreadable, match="square"):
        pack(source, tmp_path / "out.fkdl")


def test_the_images_must_be_those_of_the_labels(
    rng: np.random.Generator, tmp_path: Path, images: Images
) -> None:
    write_batches(rng, images, tmp_path / "labels", live_orders())
    with pytest.raises(FormatError, match="--images"):
        open_foreign(tmp_path / "labels", Settings())
    (images.root / KEYS[0]).unlink()
    with pytest.raises(FormatError, match="one an image"):
        open_foreign(tmp_path / "labels", Settings(images=Images(images.root), mix_size=SIDE))


def test_a_gap_in_the_files(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    write_batches(rng, images, tmp_path / "labels", live_orders())
    (tmp_path / "labels" / "epoch_2" / "batch_1.tar").unlink()
    with pytest.raises(FormatError, match="all numbers"):
        open_foreign(tmp_path / "labels", Settings(images=images, mix_size=SIDE))


def good_parts() -> list:
    return [
        torch.full((4, 4), 0.5),
        torch.zeros(4, dtype=torch.bool),
        torch.arange(4),
        0.5,
        [1, 2, 3, 4],
        torch.zeros(4, CLASSES),
    ]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, torch.zeros(4, 3), "coords"),
        (0, torch.zeros(4, 4, dtype=torch.float16), "float32"),
        (1, torch.zeros(4, 7), "cutout"),
        (1, torch.zeros(3, dtype=torch.bool), "flips"),
        (2, torch.arange(4) + 1, "outside the batch"),
        (2, torch.arange(3), "partners"),
        (3, None, "lambda"),
        (3, 1.5, "lambda"),
        (3, float("nan"), "lambda"),
        (4, [1, 2, 3], "box"),
        (4, [3, 2, 1, 4], "top <= bottom"),
        (4, [1, 2, 3, SIDE + 1], "--mix-size"),
        (4, [1, 2, 3, 4.0], "box"),
        (5, torch.zeros(4, dtype=torch.float32), "logits"),
        (5, torch.zeros(4, CLASSES, dtype=torch.int64), "logits"),
        (5, None, "logits"),
    ],
)
def test_wrong_parts(tmp_path: Path, images: Images, part: int, value: object, message: str) -> None:
    parts = good_parts()
    parts[part] = value
    (tmp_path / "epoch_0").mkdir()
    torch.save(parts, tmp_path / "epoch_0" / "batch_0.tar")
    with pytest.raises(FormatError, match=message):
        open_foreign(tmp_path, Settings(images=images, mix_size=SIDE), "sre2l")


@pytest.mark.parametrize(
    "order",
    [
        *("[1, 2", '{"0": [0, 0]}', '{"0": "a"}', '{"1": []}', '{"0": [99]}', "3"),
        *('{"0": [0.5, 1, 2, 3]}', '{"0": ["0", "1", "2", "3"]}'),
    ],
)
def test_wrong_orders_of_lpld(tmp_path: Path, images: Images, order: str) -> None:
    (tmp_path / "epoch_0").mkdir()
    torch.save(good_parts(), tmp_path / "epoch_0" / "batch_0.tar")
    (tmp_path / "sampler_indices_epoch.json").write_text(order)
    with pytest.raises(FormatError, match="epoch"):
        open_foreign(tmp_path, Settings(images=images, mix_size=SIDE))


@pytest.mark.parametrize("told", [{"num_classes": CLASSES + 1}, {"classes": tuple("abcde")}], ids=str)
def test_other_numbers_of_classes_than_the_files_hold(
    rng, tmp_path: Path, images: Images, told: dict
) -> None:
    write_batches(rng, images, tmp_path / "labels", live_orders())
    option = "--num-classes" if "num_classes" in told else "--classes"
    with pytest.raises(
        FormatError, match=rf"classes, got \d of {option}, expected the {CLASSES} of the files"
    ):
        open_foreign(tmp_path / "labels", Settings(images=images, **told))


def test_formats_are_not_mistaken_for_another(
    rng: np.random.Generator, tmp_path: Path, images: Images
) -> None:
    orders = [rng.permutation(len(KEYS)).tolist()]
    write_batches(rng, images, tmp_path / "six", orders)
    write_batches(rng, images, tmp_path / "seven", orders, more_parts=1)
    with pytest.raises(FormatError, match="sre2l"):
        open_foreign(tmp_path / "six", Settings(images=images, mix_size=SIDE), "g-vbsm")
    with pytest.raises(FormatError, match="g-vbsm"):
        open_foreign(tmp_path / "seven", Settings(images=images, mix_size=SIDE), "sre2l")
