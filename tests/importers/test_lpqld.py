"""LPQLD label folders, made here as their generator makes them, and packed."""

import json
from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from PIL import Image, ImageDraw

from fkdx import FormatError
from fkdx.image.augment import augmented
from fkdx.image.steps import decode
from fkdx.importers import Settings, open_foreign
from fkdx.importers.images import Images
from fkdx.importers.job import TooManyUnreadable, pack
from fkdx.importers.lpqld import INDEX_FILE
from fkdx.labels import LabelFile
from fkdx.labels.boxes import boxes_from_half_ratios
from fkdx.labels.distributions import probabilities

torch = pytest.importorskip("torch")

CLASSES, K, BATCH, SIDE = 40, 6, 8, 224
# "n-1" sorts before "n" as a folder's path but behind it as a class: the two orders of images differ.
KEYS = [f"{name}/{number}.png" for name in ("n", "n-1", "o") for number in range(7)]
PER_EPOCH = len(KEYS) // BATCH  # the generator drops an incomplete last batch


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Images:
    return Images(draw_black(tmp_path / "images", KEYS, rng))


def generate(
    rng: np.random.Generator,
    images: Images,
    folder: Path,
    epochs: tuple[int, ...] = (PER_EPOCH, PER_EPOCH, 1),
    mix: str = "cutmix",
    k: int | None = K,
    cutout: bool = False,
) -> dict[str, list[dict]]:
    """A label folder with as many batches in each epoch; returns the crops of each image."""
    folder.mkdir()
    found: dict[str, list[dict]] = {key: [] for key in images.keys}
    index: dict[str, list[int]] = {}
    for batches in epochs:
        order = rng.permutation(len(KEYS))
        for first in range(0, batches * BATCH, BATCH):
            chosen = order[first : first + BATCH]
            rows, parts = make_batch(
                rng, images, [images.samples[number] for number in chosen], mix, k, cutout
            )
            torch.save(parts, folder / f"batch_{len(index)}.tar")
            index[str(len(index))] = torch.tensor(chosen).tolist()
            for row in rows:
                found[row["key"]].append(row)
    (folder / INDEX_FILE).write_text(json.dumps(index))
    return found


def make_batch(rng, images: Images, keys: list[str], mix: str, k: int | None, cutout: bool):
    rows, coords = [], []
    for key in keys:
        height, width = images.size(key)
        top, left = int(rng.integers(height)), int(rng.integers(width))
        box = [top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))]
        coords.append(torch.FloatTensor((top / height, left / width, box[2] / height, box[3] / width)))
        rows.append({"key": key, "box": box, "flip": bool(rng.random() < 0.5) and not cutout})
    output = torch.from_numpy(rng.normal(0, 3, (len(keys), CLASSES)).astype(np.float32))
    labels = [output.half()]
    if k:
        top = torch.topk(output, k, dim=1)
        labels = [top.values.half(), top.indices.short()]
    for row, *values in zip(rows, *labels):
        row["logits"], row["ids"] = values[0].numpy(), values[-1].numpy()
    partners = lam = box = None
    if mix != "none":
        partners, lam = torch.randperm(len(keys)).to(torch.uint8), float(rng.random())
    if mix == "cutmix":
        (top, left), (bottom, right) = np.sort(rng.integers(0, SIDE, (2, 2)), axis=0)
        bottom, right = bottom + 1, right + 1
        box = [torch.tensor(edge, dtype=torch.uint8) for edge in (top, left, bottom, right)]
        mix_box = [int(edge) for edge in (top, left, bottom - top, right - left)]
    for row, partner in zip(rows, partners if partners is not None else []):
        other = rows[int(partner)]
        row |= {"partner": other["key"], "partner_box": other["box"], "partner_flip": other["flip"]}
        row |= {"lambda": np.float32(lam if mix == "mixup" else 1)}
        row |= {"mix_box": mix_box if mix == "cutmix" else [0, 0, 0, 0]}
    second = torch.tensor([row["flip"] for row in rows])
    if cutout:
        second = torch.stack([draw_cutout(rng) for _ in rows])
        for row, numbers in zip(rows, second):
            row["cutout"] = numbers
    return rows, [torch.stack(coords).half(), second, partners, lam, box, *labels]


def draw_cutout(rng) -> torch.Tensor:
    y, x = rng.integers(0, SIDE, 2)
    return torch.FloatTensor([y / SIDE, x / SIDE, 0.5, 0.5, *rng.integers(0, 256, 3)])


def check(labels: LabelFile, found: dict[str, list[dict]], kind: str = "topk_logits") -> None:
    assert (labels.kind, labels.num_classes) == (kind, CLASSES)
    for key, rows in found.items():
        if not rows:
            continue
        image = labels[key]
        assert image.boxes.tolist() == [row["box"] for row in rows]
        assert image.flips.tolist() == [row["flip"] for row in rows]
        np.testing.assert_array_equal(image.values, [row["logits"] for row in rows])
        if kind.startswith("topk"):
            assert image.ids.tolist() == [row["ids"].tolist() for row in rows]
        if labels.mix_size:
            mixes = image.mixes
            assert mixes.partners == [row["partner"] for row in rows]
            assert mixes.boxes.tolist() == [row["partner_box"] for row in rows]
            assert mixes.flips.tolist() == [row["partner_flip"] for row in rows]
            assert mixes.lambdas.tolist() == [row["lambda"] for row in rows]
            assert mixes.mix_boxes.tolist() == [row["mix_box"] for row in rows]


def packed(tmp_path: Path, found: dict[str, list[dict]], **settings) -> LabelFile:
    source = open_foreign(tmp_path / "labels", Settings(**settings))
    assert source.name == "lpqld"
    without = sum(not rows for rows in found.values())
    pack(source, tmp_path / "out.fkdl", allow_missing=without)
    return LabelFile(tmp_path / "out.fkdl")


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "none"])
def test_a_pruned_and_quantised_set(rng, tmp_path: Path, images: Images, mix: str) -> None:
    found = generate(rng, images, tmp_path / "labels", mix=mix)
    check(packed(tmp_path, found, images=images, num_classes=CLASSES, mix_size=SIDE), found)


@pytest.mark.parametrize("temperature", [1, 20])
def test_mr_is_the_softmax_over_the_kept(rng, tmp_path: Path, images: Images, temperature: int) -> None:
    found = generate(rng, images, tmp_path / "labels")
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES, label_type="MR-6")
    assert labels.header["provenance"]["tail"] == "renormalise"
    key = max(found, key=lambda key: len(found[key]))
    logits = labels[key].values.astype(np.float64) / temperature
    got = probabilities(labels.kind, logits, labels[key].tails / temperature)
    np.testing.assert_allclose(got, torch.softmax(torch.from_numpy(logits), 1), rtol=1e-12)


def test_all_classes_kept(rng, tmp_path: Path, images: Images) -> None:
    found = generate(rng, images, tmp_path / "labels", k=CLASSES)
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES)
    check(labels, found)
    assert all(np.isneginf(image.tails).all() for image in labels)


def test_a_set_without_ids_holds_all_logits(rng, tmp_path: Path, images: Images) -> None:
    found = generate(rng, images, tmp_path / "labels", k=None)
    check(packed(tmp_path, found, images=images), found, "dense_logits")


def test_ms_needs_probabilities(rng, tmp_path: Path, images: Images) -> None:
    found = generate(rng, images, tmp_path / "labels")
    settings = Settings(images=images, num_classes=CLASSES, label_type="MS-6")
    with pytest.raises(FormatError, match="share of the other classes is not in logits"):
        open_foreign(tmp_path / "labels", settings)
    for path in (tmp_path / "labels").glob("*.tar"):
        parts = torch.load(path)
        parts[5] = torch.softmax(parts[5].float(), 1).half() * 0.5
        torch.save(parts, path)
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES, label_type="MS-6")
    assert (labels.kind, labels.header["provenance"]["tail"]) == ("topk", "uniform")


@pytest.mark.parametrize("epochs", [(1,), (2, 2), (2, 1, 2, 2), (2, 2, 1), (1, 2)])
def test_the_cut_epoch_is_found(rng, tmp_path: Path, images: Images, epochs: tuple[int, ...]) -> None:
    found = generate(rng, images, tmp_path / "labels", epochs)
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES)
    check(labels, found)
    assert labels.header["provenance"]["source"]["epochs"] == len(epochs)


def test_cutout_is_painted_again(rng, tmp_path: Path, images: Images) -> None:
    found = generate(rng, images, tmp_path / "labels", mix="none", cutout=True)
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES)
    check(labels, found)
    crop = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for key, rows in found.items():
        for steps, row in zip(decode(labels[key].extra) if rows else [], rows):
            np.testing.assert_array_equal(augmented(crop, steps), paint(crop, row["cutout"]))


def paint(crop: np.ndarray, cutout: torch.Tensor) -> np.ndarray:
    """As the generator paints: Pillow's rectangle includes its second corner."""
    y, x = (int(number) for number in np.rint(cutout[:2].numpy() * SIDE))
    edges = [
        np.clip(x - 56, 0, SIDE),
        np.clip(y - 56, 0, SIDE),
        np.clip(x + 56, 0, SIDE),
        np.clip(y + 56, 0, SIDE),
    ]
    image = Image.fromarray(crop)
    ImageDraw.Draw(image).rectangle([int(edge) for edge in edges], fill=tuple(int(c) for c in cutout[4:]))
    return np.asarray(image)


@pytest.mark.parametrize("size", [1, 2, 224, 500, 1000, 2047])
def test_half_ratios_name_every_pixel(size: int) -> None:
    edges = np.arange(size + 1)
    ratios = torch.tensor([edge / size for edge in edges.tolist()]).half().numpy()
    boxes = boxes_from_half_ratios(np.stack([ratios] * 4, axis=1), size, size)
    np.testing.assert_array_equal(boxes, np.stack([edges] * 4, axis=1))


# ---- refused ------------------------------------------------------------------------------------------


def test_half_ratios_that_name_no_pixel_or_several(rng, tmp_path: Path, images: Images) -> None:
    with pytest.raises(ValueError, match="several pixels of an image of 3000 x 100"):
        boxes_from_half_ratios([[0.9, 0, 0.05, 1]], 3000, 100)
    with pytest.raises(ValueError, match="no pixel of an image of 10 x 10"):
        boxes_from_half_ratios([[0.55, 0, 0.1, 1]], 10, 10)
    generate(rng, images, tmp_path / "labels", epochs=(3,) * 8)  # one box in 20 fits the larger image
    Image.new("RGB", (4000, 3000)).save(images.root / KEYS[0])
    images = Images(images.root)
    with pytest.raises(TooManyUnreadable, match="pixel"):
        pack(
            open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES)),
            tmp_path / "out.fkdl",
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_type": "MRS-6"}, "smallest logit of each crop, which LPQLD's writer never saves"),
        ({"label_type": "renorm"}, "one of MR, MS"),
        ({"label_type": "MR-5"}, "MR-6, as the files hold"),
        ({"num_classes": 3}, "give the number of the teacher's classes with --num-classes"),
        ({"num_classes": 40_000}, "at most 32,768"),
        ({"mix_size": 100}, "inside 100 pixels"),
        ({"mix_size": 256}, "--mix-size of at most 255"),
        ({"images": None}, "give the folder with --images"),
    ],
)
def test_wrong_settings(rng, tmp_path: Path, images: Images, settings: dict, message: str) -> None:
    generate(rng, images, tmp_path / "labels", epochs=(2,) * 6)
    with pytest.raises(FormatError, match=message):
        open_foreign(tmp_path / "labels", Settings(**{"images": images, "num_classes": CLASSES, **settings}))


def test_a_label_type_of_all_logits(rng, tmp_path: Path, images: Images) -> None:
    generate(rng, images, tmp_path / "labels", k=None)
    with pytest.raises(FormatError, match="none: these files hold all logits"):
        open_foreign(tmp_path / "labels", Settings(images=images, label_type="MR"))


RAND_AUGMENT = [[torch.zeros(BATCH), torch.zeros(BATCH), torch.zeros(BATCH).half()]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.insert(2, RAND_AUGMENT), "RandAugment came before the crop"),
        (
            lambda parts: parts.__setitem__(slice(2, 7), [RAND_AUGMENT, *parts[2:6]]),
            "RandAugment came before",
        ),
        (lambda parts: parts[6].__setitem__((0, 0), -5), "ids above 32,767 do not fit into the int16"),
        (lambda parts: parts.__setitem__(6, parts[6][:, :3]), "class ids"),
        (lambda parts: parts.__setitem__(6, parts[6][:3]), "ids, got 3 rows"),
        (lambda parts: parts.__setitem__(6, parts[6].float()), "class ids"),
        (lambda parts: parts.__setitem__(0, parts[0].double()), "float16"),
        (lambda parts: parts.__setitem__(0, parts[0][:, :3]), "coords"),
        (lambda parts: parts.__setitem__(1, torch.zeros(BATCH, 7)), "cut out and mixed"),
        (lambda parts: parts.__setitem__(1, torch.zeros(BATCH, 6)), "cutout"),
        (
            lambda parts: parts.__setitem__(2, torch.full((BATCH,), BATCH, dtype=torch.uint8)),
            "outside the batch",
        ),
        (lambda parts: parts.__setitem__(4, parts[4][:3]), "box"),
        (lambda parts: parts.__setitem__(5, None), "logits"),
        (lambda parts: parts.append(None), "RandAugment"),
        (lambda parts: parts.__delitem__(slice(3, 7)), "6 to 8 parts"),
    ],
)
def test_wrong_parts(rng, tmp_path: Path, images: Images, change, message: str) -> None:
    generate(rng, images, tmp_path / "labels")
    path = tmp_path / "labels" / "batch_0.tar"
    parts = torch.load(path)
    change(parts)
    torch.save(parts, path)
    with pytest.raises(FormatError, match=message):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))


def test_cutout_between_pixels(rng, tmp_path: Path, images: Images) -> None:
    generate(rng, images, tmp_path / "labels", mix="none", cutout=True)
    with pytest.raises(FormatError, match="whole pixels of 100"):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES, mix_size=100))


def test_more_rows_than_8_bits_count(rng, tmp_path: Path) -> None:
    images = Images(draw_black(tmp_path / "many", [f"a/{number}.png" for number in range(300)], rng))
    _, parts = make_batch(rng, images, images.samples[:256], "mixup", K, False)
    parts = [torch.cat([part, part[:44]]) if isinstance(part, torch.Tensor) else part for part in parts]
    (tmp_path / "labels").mkdir()
    torch.save(parts, tmp_path / "labels" / "batch_0.tar")
    (tmp_path / "labels" / INDEX_FILE).write_text(json.dumps({"0": list(range(300))}))
    with pytest.raises(FormatError, match="at most 256 rows"):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))


def first_twice(index: dict) -> None:
    index["1"][0] = index["0"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_twice, "one twice in an epoch"),
        (lambda index: index["1"].__setitem__(0, index["1"][1]), "one twice in an epoch"),
        (lambda index: index["0"].__setitem__(0, 99), "outside the folder"),
        (lambda index: index["0"].__setitem__(0, 1.5), "lists of numbers"),
        (lambda index: index["0"].__setitem__(0, "a"), "lists of numbers"),
        (lambda index: index.pop("4"), "for each of batches 0 ... 4"),
        (lambda index: index.update({"5": []}), "batch 5, which has no file"),
    ],
)
def test_wrong_indices(rng, tmp_path: Path, images: Images, change, message: str) -> None:
    generate(rng, images, tmp_path / "labels")
    path = tmp_path / "labels" / INDEX_FILE
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(FormatError, match=message):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))


def test_fewer_names_than_rows(rng, tmp_path: Path, images: Images) -> None:
    generate(rng, images, tmp_path / "labels", epochs=(1,))
    (tmp_path / "labels" / INDEX_FILE).write_text('{"0": [0, 1, 2]}')
    with pytest.raises(FormatError, match="rows, got 8, expected 3"):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))


def test_epochs_with_a_smaller_last_batch(rng, tmp_path: Path, images: Images) -> None:
    """Sets that were not pruned keep it."""
    found = generate(rng, images, tmp_path / "labels", epochs=(3, 3))
    labels = packed(tmp_path, found, images=images, num_classes=CLASSES)
    check(labels, found)
    assert labels.crops == 2


@pytest.mark.parametrize("text", ["[1, 2", "3", "[]"])
def test_an_index_of_another_form(rng, tmp_path: Path, images: Images, text: str) -> None:
    generate(rng, images, tmp_path / "labels")
    (tmp_path / "labels" / INDEX_FILE).write_text(text)
    with pytest.raises(FormatError, match=r"for each of batches 0 \.\.\. 4"):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))


def test_batches_without_their_index(rng, tmp_path: Path, images: Images) -> None:
    generate(rng, images, tmp_path / "labels")
    (tmp_path / "labels" / INDEX_FILE).unlink()
    with pytest.raises(FormatError, match="index, got none, expected the file that names the images"):
        open_foreign(tmp_path / "labels", Settings(images=images, num_classes=CLASSES))
    (tmp_path / "labels").rename(tmp_path / "epoch_0")
    with pytest.raises(FormatError, match="give the folder above"):
        open_foreign(tmp_path / "epoch_0", Settings(images=images, num_classes=CLASSES))
