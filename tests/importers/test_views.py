"""TinyViT, dataset reinforcement, ReLabel, TokenLabeling: made here from their layouts and packed."""

from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from PIL import Image

from fkdx import FormatError
from fkdx.image.augment import OPERATIONS, augmented
from fkdx.image.steps import FORM, PAIRED, decode, decode_pairs
from fkdx.importers import Settings, open_foreign
from fkdx.importers.images import Images
from fkdx.importers.job import TooManyUnreadable, pack
from fkdx.importers.label_maps import pool_regions
from fkdx.importers.reinforcement import _steps
from fkdx.importers.tinyvit import replay_view
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import LabelFile

torch = pytest.importorskip("torch")

CLASSES, K = 20, 3
KEYS = [f"{name}/{number}.png" for name in ("n", "n-1", "o") for number in range(3)]


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Images:
    return Images(draw_black(tmp_path / "images", KEYS, rng))


def random_labels(rng: np.random.Generator, count: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    ids = np.argsort(rng.random((count, CLASSES)), axis=1)[:, :K]
    values = -np.sort(-rng.dirichlet(np.ones(CLASSES), count), axis=1)[:, :K]
    return ids, values.astype(dtype)


# ---- TinyViT ------------------------------------------------------------------------------------------


class Drawn:
    """The part of module `random` that TinyViT draws from a seed's PCG64 instead."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(seed)).random

    def uniform(self, low: float, high: float) -> float:
        return self.random() * (high - low) + low

    def randint(self, low: int, high: int) -> int:
        return min(int(self.random() * (high - low + 1)) + low, high)


def test_tinyvit_views_are_those_of_the_transform(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm's transform, which TinyViT's is a copy of, drawing from the same numbers."""
    transforms = pytest.importorskip("timm.data.transforms")
    for _ in range(2000):
        height, width = np.exp(rng.uniform(0, np.log(700), 2)).astype(int).tolist()
        scale = tuple(np.sort(rng.uniform(0.05, 1.0, 2)).tolist())
        seed = int(rng.integers(2**31))
        drawn = Drawn(seed)
        monkeypatch.setattr(transforms, "random", drawn)
        image = Image.new("1", (width, height))
        crop = transforms.RandomResizedCropAndInterpolation(32, scale=scale, interpolation="bicubic")
        expected = tuple(crop.get_params(image, crop.scale, crop.ratio)), drawn.random() < 0.5
        assert replay_view(seed, (height, width), scale, crop.ratio) == expected


def write_tinyvit(rng: np.random.Generator, folder: Path, names: list[str], epochs: int, ranks: int) -> dict:
    """{image number: [(seed, ids, values) of each epoch]}"""
    record = np.dtype([("seed", "<i4"), ("ids", "<i2", K), ("values", "<f2", K)])
    expected: dict[int, list] = {image: [] for image in range(len(names))}
    for epoch in range(epochs):
        path = folder / f"logits_top{K}_epoch{epoch}"
        path.mkdir(parents=True)
        order = rng.permutation(len(names))
        padded = np.resize(order, -(-len(order) // ranks) * ranks)  # as a distributed sampler pads
        for rank in range(ranks):
            images = padded[rank::ranks]
            rows = np.zeros(len(images), record)
            rows["seed"] = rng.integers(0, 2**31, len(images))
            rows["ids"], rows["values"] = random_labels(rng, len(images), np.float16)
            (path / f"rank{rank}-keys.txt").write_text("".join(f"{names[image]}\n" for image in images))
            (path / f"rank{rank}-values.bin").write_bytes(rows.tobytes())
            for image, row in zip(images.tolist(), rows):
                if len(expected[image]) == epoch:
                    expected[image].append(row)
    return expected


@pytest.mark.parametrize("named", [True, False], ids=["names", "numbers"])
def test_tinyvit(rng: np.random.Generator, tmp_path: Path, images: Images, named: bool) -> None:
    samples = images.samples
    if named:
        for place, key in enumerate(samples):
            (images.root / key).rename((images.root / key).with_stem(f"image{place}"))
        images = Images(images.root)
        samples = [f"{key.rpartition('/')[0]}/image{place}.png" for place, key in enumerate(samples)]
    names = [Path(key).stem if named else str(place) for place, key in enumerate(samples)]
    expected = write_tinyvit(rng, tmp_path / "labels", names, epochs=12, ranks=2)
    settings = Settings(CLASSES, images=images, lost_operations="none", scale=(0.2, 0.9))
    source = open_foreign(tmp_path / "labels", settings)
    assert (source.name, source.layout.k, source.layout.crops) == ("tinyvit", K, 12)
    pack(source, tmp_path / "out.fkdl", images_a_part=2, workers=2)
    labels = LabelFile(tmp_path / "out.fkdl")
    for place, key in enumerate(samples):
        found, rows = labels[key], expected[place]
        views = [replay_view(int(row["seed"]), found.image_size, (0.2, 0.9), (3 / 4, 4 / 3)) for row in rows]
        assert found.boxes.tolist() == [list(box) for box, _ in views]
        assert found.flips.tolist() == [flip for _, flip in views]
        np.testing.assert_array_equal(found.ids, [row["ids"] for row in rows])
        np.testing.assert_array_equal(found.values, [row["values"] for row in rows])


def test_tinyvit_is_refused(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    folder = tmp_path / "labels"
    write_tinyvit(rng, folder, [str(place) for place in range(len(KEYS))], epochs=1, ranks=1)
    with pytest.raises(FormatError, match="--lost-operations"):
        open_foreign(folder, Settings(CLASSES, images=images))
    with pytest.raises(FormatError, match="--images"):
        open_foreign(folder, Settings(CLASSES, lost_operations="none"))
    settings = Settings(CLASSES, images=images, lost_operations="accept")
    keys = folder / f"logits_top{K}_epoch0" / "rank0-keys.txt"
    values = keys.with_name("rank0-values.bin")
    whole = values.read_bytes()
    values.write_bytes(whole[:-1])
    with pytest.raises(FormatError, match="size"):
        open_foreign(folder, settings)
    values.write_bytes(whole)
    text = keys.read_text()
    keys.write_text(text.replace(text.split("\n")[0], "99", 1))
    with pytest.raises(FormatError, match="key"):
        open_foreign(folder, settings)
    keys.write_text(text.replace(text.split("\n")[0], "name", 1))
    with pytest.raises(FormatError, match="every name once"):
        open_foreign(folder, settings)
    keys.write_text(text)
    (folder / f"logits_top{K + 1}_epoch1").mkdir()
    with pytest.raises(FormatError, match="one K"):
        open_foreign(folder, settings)


# ---- dataset reinforcement ----------------------------------------------------------------------------

CROPS = 6


def write_reinforcement(
    rng: np.random.Generator, folder: Path, images: Images, operations: list[str]
) -> dict[str, list[dict]]:
    folder.mkdir()
    config = {
        "num_samples": CROPS,
        "topk": K,
        "image_augmentation": {name: {"p": 0.5} for name in operations},
    }
    config["image_augmentation"]["random_resized_crop"]["size"] = 224
    config["image_augmentation"]["to_tensor"] = {}
    torch.save({"reinforce": config, "name": "run"}, folder / "config.pth.tar", pickle_protocol=4)
    expected = {}
    for place, key in enumerate(images.samples):
        views, samples = [], []
        for _ in range(CROPS):
            view, params = random_view(rng, images, key, operations)
            ids, values = random_labels(rng, 1, np.float64)
            shuffled = rng.permutation(K)
            prob = (values[0, shuffled].tolist(), ids[0, shuffled].tolist())
            samples.append({"params": params, "prob": prob})
            views.append({**view, "ids": ids[0], "values": values[0].astype(np.float32)})
        torch.save((place, samples), folder / f"{place}.pth.tar", pickle_protocol=4)
        expected[key] = views
    return expected


def random_view(
    rng: np.random.Generator, images: Images, key: str, operations: list[str]
) -> tuple[dict, list]:
    def box(name: str) -> tuple[int, ...]:
        height, width = images.size(name)
        top, left = rng.integers(0, (height, width))
        edges = (top, left, rng.integers(1, height - top + 1), rng.integers(1, width - left + 1))
        return tuple(int(edge) for edge in edges)

    kinds = {"rand_augment": [(3, 0.5), (1, 2.0)], "random_erase": (1, 2, 3, 4)}
    mixed = "mixup" in operations or "cutmix" in operations
    mixup = float(rng.random()) if "mixup" in operations and rng.random() < 0.6 else None
    edges = np.sort(rng.integers(0, 225, (2, 2)), axis=0)
    cutmix = [0.3, *edges.ravel()] if "cutmix" in operations and rng.random() < 0.6 else None
    partner = int(rng.integers(len(images.samples))) if mixup is not None or cutmix is not None else None
    names = [key, images.samples[partner]] if partner is not None else [key]
    drawn = {
        "random_resized_crop": [box(name) for name in names],
        "random_horizontal_flip": [bool(rng.random() < 0.5) for _ in names],
        **{name: [kinds[name] if rng.random() < 0.5 else None for _ in names] for name in kinds},
    }
    entries = [drawn[name] if partner is not None else drawn[name][0] for name in drawn if name in operations]
    entries += [
        {"mixup": mixup, "cutmix": cutmix}[name] for name in ("mixup", "cutmix") if name in operations
    ]
    return {**drawn, "partner": partner, "mixup": mixup, "cutmix": cutmix}, [partner, *entries][not mixed :]


ALL = ["random_resized_crop", "random_horizontal_flip", "rand_augment", "random_erase", "mixup", "cutmix"]


@pytest.mark.parametrize("operations", [ALL[:2], ALL[:4], ALL[:2] + ALL[4:], ALL[:2] + ALL[5:], ALL])
def test_reinforcement(
    rng: np.random.Generator, tmp_path: Path, images: Images, operations: list[str]
) -> None:
    expected = write_reinforcement(rng, tmp_path / "labels", images, operations)
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    assert source.name == "reinforcement"
    pack(source, tmp_path / "out.fkdl", value_type="float32")
    labels = LabelFile(tmp_path / "out.fkdl")
    kept = [name for name in ("rand_augment", "random_erase") if name in operations]
    steps = bool(kept) and not labels.mix_size
    assert labels.extra_operations == (list(OPERATIONS) if kept else [])
    assert labels.extra_form == ((PAIRED if labels.mix_size else FORM) if kept else None)
    for key, views in expected.items():
        found = labels[key]
        assert found.boxes.tolist() == [list(view["random_resized_crop"][0]) for view in views]
        assert found.flips.tolist() == [view["random_horizontal_flip"][0] for view in views]
        np.testing.assert_array_equal(found.ids, [view["ids"] for view in views])
        np.testing.assert_array_equal(found.values, [view["values"] for view in views])
        if steps:
            for view, told in zip(views, decode(found.extra)):
                assert told == expected_steps(view)
        elif kept:
            for view, told in zip(views, decode_pairs(found.extra)):
                expect = [
                    expected_steps(view),
                    expected_steps(view, 1) if view["partner"] is not None else [],
                ]
                assert list(told) == expect
        if labels.mix_size:
            check_mixes(found.mixes, views, images)


def expected_steps(view: dict, which: int = 0) -> list:
    """What `random_view` draws: TranslateX by 0, ShearX by 2, erasing of (1, 2, 3, 4) in 224 pixels."""
    steps = [["translate", 0, 0], ["shear", 2.0, 0]] if view["rand_augment"][which] else []
    return steps + ([["erase", *(n / 224 for n in (1, 2, 3, 4))]] if view["random_erase"][which] else [])


def test_rand_augment_becomes_steps_of_the_same_pixels(rng: np.random.Generator) -> None:
    """Against torchvision's own operations; erasing against a slice."""
    transforms = pytest.importorskip("torchvision.transforms")
    names = (
        "Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness Posterize"
    )
    names = [*names.split(), "Solarize", "AutoContrast", "Equalize"]
    crop = rng.integers(0, 256, (96, 96, 3)).astype(np.uint8)
    for number, name in enumerate(names):
        for magnitude in (0.0, 0.3, -0.3, 4.0, 43.5, -17.9):
            if name in ("Brightness", "Color", "Contrast", "Sharpness") and abs(magnitude) > 1:
                continue
            if name in ("Posterize", "Solarize") and magnitude < 1:
                continue
            magnitude = min(magnitude, 8.0) if name == "Posterize" else magnitude
            wanted = transforms.autoaugment._apply_op(
                Image.fromarray(crop), name, magnitude, transforms.InterpolationMode.NEAREST, None
            )
            steps = _steps({"rand_augment": ([(number, magnitude)], None)}, 96)
            np.testing.assert_array_equal(augmented(crop, steps), np.asarray(wanted), f"{name} {magnitude}")
    for top, left, height, width in rng.integers(0, 48, (50, 4)).tolist():
        erased = crop.copy()
        erased[top : top + height, left : left + width] = 0
        steps = _steps({"random_erase": ((top, left, height, width), None)}, 96)
        np.testing.assert_array_equal(augmented(crop, steps), erased)
    assert _steps({"random_erase": ((-1, 0, 0, 0), None), "rand_augment": (None, None)}, 96) == []


def check_mixes(mixes, views: list[dict], images: Images) -> None:
    for row, view in enumerate(views):
        cutmix = np.array((view["cutmix"] or [0] * 5)[1:]).reshape(2, 2)
        pasted = (cutmix[1] > cutmix[0]).all()
        assert mixes.operations[row] == (view["mixup"] is not None) + 2 * pasted
        if not mixes.operations[row]:
            assert mixes.partners[row] is None
            continue
        assert mixes.partners[row] == images.samples[view["partner"]]
        assert mixes.boxes[row].tolist() == list(view["random_resized_crop"][1])
        assert mixes.flips[row] == view["random_horizontal_flip"][1]
        assert mixes.lambdas[row] == np.float32(1.0 if view["mixup"] is None else view["mixup"])
        if pasted:
            assert mixes.mix_boxes[row].tolist() == [*cutmix[0], *(cutmix[1] - cutmix[0])]


def test_the_size_of_mixed_crops_is_found_checked_and_said(
    tmp_path: Path, images: Images, rng: np.random.Generator
) -> None:
    write_reinforcement(rng, tmp_path / "labels", images, [*ALL[:2], "cutmix"])
    folder = tmp_path / "labels"
    boxes = [
        view["params"][-1]
        for number in range(len(images.samples))
        for view in read_torch_file(folder / f"{number}.pth.tar")[1]
    ]
    largest = max(edge for box in boxes if box for edge in box[3:])
    config = read_torch_file(folder / "config.pth.tar")

    def opened(told: int | None, **settings: object) -> tuple[int, list[str]]:
        config["reinforce"]["image_augmentation"]["random_resized_crop"] = {"size": told} if told else {}
        torch.save(config, folder / "config.pth.tar")
        source = open_foreign(folder, Settings(CLASSES, images=images, **settings))
        return source.layout.mix_size, list(source.notes)

    assert opened(None) == (
        largest,
        [f"crops of {largest} pixels were mixed, as the largest CutMix edge says (--mix-size)"],
    )
    assert opened(largest) == (largest, [])
    size, notes = opened(largest, mix_size=512)
    assert size == 512
    assert "no CutMix box reaches beyond" in notes[0]
    with pytest.raises(
        FormatError, match=f"CutMix box, got one that reaches to {largest}, expected boxes inside 64"
    ):
        opened(64)


def test_reinforcement_by_name_of_operation(tmp_path: Path, images: Images, rng: np.random.Generator) -> None:
    """What its generator writes with `compress: false`."""
    write_reinforcement(rng, tmp_path / "labels", images, ALL[:2])
    params = {"random_resized_crop": ((0, 1, 2, 3), None), "random_horizontal_flip": (True, None)}
    sample = {"params": params, "prob": ([0.2, 0.3, 0.1], [4, 5, 6])}
    torch.save((0, [sample] * CROPS), tmp_path / "labels" / "0.pth.tar")
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    found = source.read_image(images.keys.index(images.samples[0]))
    assert (found.boxes[0].tolist(), found.flips[0], found.ids[0].tolist()) == ([0, 1, 2, 3], True, [5, 4, 6])


def test_reinforcement_by_name_of_operation_and_mixed(tmp_path: Path, images: Images, rng) -> None:
    write_reinforcement(rng, tmp_path / "labels", images, [*ALL[:2], *ALL[4:]])
    pairs = {"random_resized_crop": ((0, 1, 2, 3), (1, 0, 4, 5)), "random_horizontal_flip": (True, False)}
    mixed = {**pairs, "id2": 2, "mixup": 0.25, "cutmix": [0.3, 10, 20, 30, 50]}
    plain = {**pairs, "id2": None, "mixup": None, "cutmix": None}
    samples = [{"params": one, "prob": ([0.2, 0.3, 0.1], [4, 5, 6])} for one in (mixed, plain)]
    torch.save((0, (samples * CROPS)[:CROPS]), tmp_path / "labels" / "0.pth.tar")
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    found = source.read_image(images.keys.index(images.samples[0]))
    assert found.mixes.partners[:2] == [images.samples[2], None]
    assert found.mixes.operations[:2].tolist() == [3, 0]
    assert found.mixes.boxes[0].tolist() == [1, 0, 4, 5]
    assert found.mixes.mix_boxes[0].tolist() == [10, 20, 20, 30]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda samples: (1, samples),
        lambda samples: [0, samples],
        lambda samples: (0, samples[:-1]),
        lambda samples: (0, [{**sample, "params": sample["params"][:-1]} for sample in samples]),
        lambda samples: (0, [{**sample, "prob": sample["prob"][:1]} for sample in samples]),
        lambda samples: (0, [{**sample, "prob": ([0.1], [1])} for sample in samples]),
        lambda samples: (0, [{**sample, "prob": (sample["prob"][0], [0.5] * K)} for sample in samples]),
        lambda samples: (0, [{"params": sample["params"]} for sample in samples]),
        lambda samples: (0, [None] * CROPS),
        lambda samples: (0, [{**sample, "params": [(0, 0, 9999, 1), False]} for sample in samples]),
    ],
)
def test_reinforcement_of_another_form(
    rng: np.random.Generator, tmp_path: Path, images: Images, spoil
) -> None:
    write_reinforcement(rng, tmp_path / "labels", images, ALL[:2])
    path = tmp_path / "labels" / "0.pth.tar"
    torch.save(spoil(torch.load(path, weights_only=False)[1]), path)
    with pytest.raises(TooManyUnreadable, match="got 1 images"):
        pack(open_foreign(tmp_path / "labels", Settings(CLASSES, images=images)), tmp_path / "out.fkdl")


def test_reinforcement_settings_are_refused(tmp_path: Path, images: Images, rng: np.random.Generator) -> None:
    write_reinforcement(rng, tmp_path / "labels", images, [*ALL[:2], "random_crop"])
    with pytest.raises(FormatError, match="random_crop"):
        open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    torch.save({"other": 1}, tmp_path / "labels" / "config.pth.tar")
    with pytest.raises(FormatError, match="image_augmentation"):
        open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    with pytest.raises(FormatError, match="--images"):
        open_foreign(tmp_path / "labels", Settings(CLASSES))


# ---- label maps ---------------------------------------------------------------------------------------


def random_map(rng: np.random.Generator, side: int, classes: int = CLASSES) -> np.ndarray:
    ids = np.argsort(rng.random((classes, side, side)), axis=0)[:5]
    return np.stack([-np.sort(-rng.normal(5, 3, (5, side, side)), axis=0), ids])


def upstream_labels(label_map: np.ndarray, coords: np.ndarray, axes: str) -> np.ndarray:
    """Class probabilities of crops (top, left, height, width as parts) by torchvision, dense, in float32."""
    ops = pytest.importorskip("torchvision.ops")
    logits, ids = torch.from_numpy(np.ascontiguousarray(label_map)).float()
    side = logits.shape[1]
    dense = torch.zeros(CLASSES, side, side).scatter_(0, ids.long(), logits)
    boxes = torch.from_numpy(coords.astype(np.float32))
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes if axes == "as-upstream" else boxes[:, [1, 0, 3, 2]]
    boxes = torch.cat([torch.zeros(len(boxes), 1), boxes * side - 0.5], dim=1)
    pooled = ops.roi_align(dense[None], boxes, (1, 1), aligned=False)[:, :, 0, 0]
    return pooled.softmax(dim=1).numpy()


@pytest.mark.parametrize("axes", ["as-upstream", "corrected"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["relabel", "token-labeling"])
def test_label_maps(rng: np.random.Generator, tmp_path: Path, images: Images, dtype: type, axes: str) -> None:
    maps = {}
    for key in images.keys:
        path = (tmp_path / "labels" / key).with_suffix(".pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        maps[key] = random_map(rng, 15 if dtype == np.float32 else 18).astype(dtype)
        torch.save(torch.from_numpy(maps[key]), path)
    source = open_foreign(
        tmp_path / "labels", Settings(CLASSES, images=images, crops=30, k=4, map_axes=axes, seed=5)
    )
    assert source.name == ("relabel" if dtype == np.float32 else "token-labeling")
    centre = "the maps show the centre crop of each image, not the whole of it"
    assert (centre in source.notes) == (dtype == np.float16)
    pack(source, tmp_path / "out.fkdl", value_type="float32")
    labels = LabelFile(tmp_path / "out.fkdl")
    for key, label_map in maps.items():
        found = labels[key]
        height, width = found.image_size
        sides = np.array([height, width, height, width])
        probs = upstream_labels(label_map, found.boxes / sides, axes)
        if (
            dtype == np.float16 and axes == "as-upstream"
        ):  # it flips the image and the map, then cuts the crop
            boxes = found.boxes.copy()
            boxes[:, 1] = width - boxes[:, 1] - boxes[:, 3]
            flipped = upstream_labels(label_map[..., ::-1], boxes / sides, axes)
            probs = np.where(found.flips[:, None], flipped, probs)
        np.testing.assert_allclose(found.values, -np.sort(-probs, axis=1)[:, :4], rtol=5e-5)
        chosen = np.take_along_axis(probs, found.ids.astype(np.int64), axis=1)
        np.testing.assert_allclose(found.values, chosen, rtol=5e-5)
        assert 0 < found.flips.mean() < 1


def test_axes_of_label_maps_differ() -> None:
    """A map that grows from row to row: the top third of it is small, its left third is not."""
    rows = np.arange(15.0)[None, :, None] * np.ones((5, 1, 15))
    ids = np.tile(np.arange(5)[:, None, None], (1, 15, 15))
    top, left = pool_regions(ids, rows, np.array([[0, 0, 0.3, 1], [0, 0, 1, 0.3]]))[1][:, 0]
    assert top == pytest.approx(1.76, abs=0.1)
    assert left == pytest.approx(7.0, abs=0.3)


def test_few_classes_in_a_map(tmp_path: Path, images: Images) -> None:
    """A map of one class: the rest of the kept classes share what is left evenly, in class order."""
    label_map = np.stack([np.full((5, 15, 15), 2.0), np.full((5, 15, 15), 3.0)]).astype(np.float32)
    for key in images.keys:
        path = (tmp_path / "labels" / key).with_suffix(".pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(label_map), path)
    found = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images, k=3)).read_image(0)
    assert found.ids[0].tolist() == [3, 0, 1]
    total = np.exp(2) + CLASSES - 1
    np.testing.assert_allclose(found.values[0], [np.exp(2) / total, 1 / total, 1 / total], rtol=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 5, 15), np.float32),
        np.zeros((3, 5, 15, 15), np.float32),
        np.zeros((2, 5, 0, 15), np.float32),
        np.full((2, 5, 15, 15), np.nan, np.float32),
        np.full((2, 5, 15, 15), CLASSES, np.float32),
        np.full((2, 5, 15, 15), 0.5, np.float32),
        np.zeros((2, 5, 15, 15), np.float64),
    ],
)
def test_wrong_maps(tmp_path: Path, images: Images, value: np.ndarray) -> None:
    path = (tmp_path / "labels" / images.keys[0]).with_suffix(".pt")
    path.parent.mkdir(parents=True)
    torch.save(torch.from_numpy(value), path)
    with pytest.raises(FormatError):
        open_foreign(tmp_path / "labels", Settings(CLASSES, images=images), "relabel").read_image(0)


def test_label_maps_need_images_and_known_axes(tmp_path: Path, images: Images) -> None:
    path = (tmp_path / "labels" / images.keys[0]).with_suffix(".pt")
    path.parent.mkdir(parents=True)
    torch.save(torch.zeros(2, 5, 15, 15).half(), path)
    with pytest.raises(FormatError, match="--images"):
        open_foreign(tmp_path / "labels", Settings(CLASSES))
    with pytest.raises(ValueError, match="axes"):
        open_foreign(tmp_path / "labels", Settings(CLASSES, images=images, map_axes="swapped"))
    with pytest.raises(FormatError, match="float16 cannot represent all larger ids"):
        open_foreign(tmp_path / "labels", Settings(2050, images=images))
