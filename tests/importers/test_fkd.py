"""FKD label files, made here as its generator makes them, become label files and go back unchanged."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from label_draws import write_labels
from PIL import Image

from fkdx import FormatError
from fkdx.importers import Settings, open_foreign
from fkdx.importers.fkd_export import export_fkd, fkd_bytes
from fkdx.importers.foreign_labels import Unreadable, find_files
from fkdx.importers.images import Images
from fkdx.importers.job import pack
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import LabelFile

torch = pytest.importorskip("torch")

CLASSES = 12
CROPS = 7
SIZES = {"n01/a.JPEG": (31, 47), "n01/b.JPEG": (1, 1), "n02/c.JPEG": (333, 500), "n02/d.JPEG": (211, 97)}


@pytest.fixture
def images(tmp_path: Path) -> Images:
    for key, (height, width) in SIZES.items():
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(path)
    return Images(tmp_path / "images")


def random_boxes(rng: np.random.Generator, size: tuple[int, int], crops: int) -> np.ndarray:
    height, width = size
    top, left = rng.integers(0, height, crops), rng.integers(0, width, crops)
    return np.stack([top, left, rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)], axis=1)


def random_label(rng: np.random.Generator, kind: str, crops: int, k: int = 3) -> np.ndarray:
    """What FKD's generator stacks for one image."""
    order = np.argsort(rng.random((crops, CLASSES)), axis=1)
    probs = -np.sort(-rng.dirichlet(np.ones(CLASSES) * 0.3, crops), axis=1).astype(np.float32)
    if kind == "hard":
        return order[:, 0]
    if kind == "smoothing":
        return np.stack([order[:, 0], probs[:, 0]], axis=1).astype(np.float32)
    if kind == "ori":
        return probs
    return np.stack([order[:, :k], probs[:, :k]], axis=1).astype(np.float32)


def coordinates(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As the generator computes them: python floats, then float32."""
    height, width = size
    rows = [(top / height, left / width, h / height, w / width) for top, left, h, w in boxes.tolist()]
    return np.array(rows, np.float32)


def write_set(
    rng: np.random.Generator,
    folder: Path,
    kind: str = "marginal_smoothing",
    dtype: type = np.float32,
    missing_rows: int = 0,
    **save: object,
) -> dict[str, tuple]:
    """A label folder; returns {key: (boxes, flips, label)} as they should come back."""
    expected = {}
    for key, size in SIZES.items():
        boxes = random_boxes(rng, size, CROPS)
        flips = rng.random(CROPS) < 0.5
        label = random_label(rng, kind, CROPS - missing_rows)
        label = label if label.dtype.kind == "i" else label.astype(dtype)
        path = folder / (key.split(".")[0] + ".tar")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save([coordinates(boxes, size).astype(dtype), flips, label], path, **save)
        kept = CROPS - missing_rows
        expected[key] = (boxes[:kept], flips[:kept], label)
    return expected


def check(labels: LabelFile, expected: dict[str, tuple], kind: str) -> None:
    assert list(labels.keys) == sorted(expected)
    for key, (boxes, flips, label) in expected.items():
        found = labels[key]
        np.testing.assert_array_equal(found.boxes, boxes)
        np.testing.assert_array_equal(found.flips, flips)
        assert found.image_size == SIZES[key]
        if kind == "hard":
            np.testing.assert_array_equal(found.ids[:, 0], label)
        elif kind == "ori":
            np.testing.assert_array_equal(found.values, label)
        elif kind == "smoothing":
            np.testing.assert_array_equal(found.ids[:, 0], label[:, 0])
            np.testing.assert_array_equal(found.values[:, 0], label[:, 1])
        else:
            np.testing.assert_array_equal(found.ids, label[:, 0])
            np.testing.assert_array_equal(found.values, label[:, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["marginal_smoothing", "marginal_renorm", "smoothing", "hard", "ori"])
def test_all_label_types(
    rng: np.random.Generator, tmp_path: Path, images: Images, kind: str, dtype: type
) -> None:
    expected = write_set(rng, tmp_path / "labels", kind, dtype)
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images, label_type=kind))
    value_type = None if kind == "hard" else "float32"
    pack(source, tmp_path / "labels.fkdl", value_type=value_type)
    check(LabelFile(tmp_path / "labels.fkdl"), expected, kind)


@pytest.mark.parametrize(
    "save",
    [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}],
    ids=["zip", "legacy", "protocol 4"],
)
@pytest.mark.parametrize("depth", ["", "train", "imagenet/train"])
def test_containers_and_path_depths(
    rng: np.random.Generator, tmp_path: Path, images: Images, depth: str, save: dict
) -> None:
    expected = write_set(rng, tmp_path / "labels" / depth, **save)
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    pack(source, tmp_path / "labels.fkdl", value_type="float32")
    check(LabelFile(tmp_path / "labels.fkdl"), expected, "topk")


def test_incomplete_last_segment(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    expected = write_set(rng, tmp_path / "labels", missing_rows=2)
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=images))
    assert source.layout.crops == CROPS - 2
    pack(source, tmp_path / "labels.fkdl", value_type="float32")
    check(LabelFile(tmp_path / "labels.fkdl"), expected, "topk")


def test_without_images_boxes_stay_ratios(rng: np.random.Generator, tmp_path: Path) -> None:
    expected = write_set(rng, tmp_path / "labels")
    pack(open_foreign(tmp_path / "labels", Settings(CLASSES)), tmp_path / "labels.fkdl")
    labels = LabelFile(tmp_path / "labels.fkdl")
    assert labels.ratios
    for key, (boxes, _, _) in expected.items():
        np.testing.assert_array_equal(labels[key].boxes, coordinates(boxes, SIZES[key]))


def test_a_forgotten_number_of_classes_is_named(rng: np.random.Generator, tmp_path: Path, images) -> None:
    """Labels of a teacher with more classes than the images have folders."""
    expected = write_set(rng, tmp_path / "labels")
    largest, folders = int(expected[min(expected)][2][:, 0].max()), len(images.classes)
    assert largest >= folders
    told = (
        f"the labels name class {largest}, but only {folders} class folders are known; give .*--num-classes"
    )
    with pytest.raises(FormatError, match=told):
        open_foreign(tmp_path / "labels", Settings(images=images))


def test_boxes_come_back_at_every_size(rng: np.random.Generator, tmp_path: Path) -> None:
    """float32 ratios name the generator's pixels at any size, float16 below 2,048 pixels."""
    for dtype, largest in ((np.float32, 65_535), (np.float16, 2047)):
        for _ in range(30):
            size = tuple(rng.integers(1, largest, 2, endpoint=True).tolist())
            boxes = random_boxes(rng, size, 50)
            path = tmp_path / "n" / "a.tar"
            path.parent.mkdir(exist_ok=True)
            label = random_label(rng, "hard", 50)
            torch.save([coordinates(boxes, size).astype(dtype), np.zeros(50, bool), label], path)
            source = open_foreign(tmp_path, Settings(CLASSES, images=OneImage(size)))
            np.testing.assert_array_equal(source.read_image(0).boxes, boxes)


class OneImage(Images):
    """An image folder of one image of a told size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.told, self.keys, self.classes, self.root = size, ["n/a.JPEG"], ["n"], Path("told")

    def size(self, key: str) -> tuple[int, int]:
        return self.told


def test_dotted_names(rng: np.random.Generator, tmp_path: Path) -> None:
    """FKD cuts names at the first dot of the path; others cut at the last."""
    for key in ("n1/a.b.JPEG", "n1/c.JPEG", "n2.v2/d.JPEG"):
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(path)
    folder = tmp_path / "labels" / "train"
    (folder / "n1").mkdir(parents=True)
    for name in ("n1/a.tar", "n1/c.tar", "n2.tar"):
        boxes = random_boxes(rng, (10, 20), CROPS)
        label = random_label(rng, "topk", CROPS)
        torch.save([coordinates(boxes, (10, 20)), np.zeros(CROPS, bool), label], folder / name)
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=Images(tmp_path / "images")))
    assert source.keys == ["n1/a.b.JPEG", "n1/c.JPEG", "n2.v2/d.JPEG"]
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "n1" / "a.c.JPEG")
    with pytest.raises(FormatError, match="got 2"):
        open_foreign(tmp_path / "labels", Settings(CLASSES, images=Images(tmp_path / "images")))


def test_export_gives_back_the_values(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    for kind, stored in (("topk", "topk"), ("hard", "hard"), ("smoothing", "smoothing"), ("ori", "dense")):
        folder = tmp_path / kind
        write_set(rng, folder / "labels" / "train", kind)
        source = open_foreign(folder / "labels", Settings(CLASSES, images=images))
        pack(source, folder / "labels.fkdl", value_type=None if kind == "hard" else "float32")
        labels = LabelFile(folder / "labels.fkdl")
        assert labels.kind == stored
        assert export_fkd(labels, labels.kind, folder / "back") == len(SIZES)
        for path in (folder / "labels" / "train").rglob("*.tar"):
            back = folder / "back" / path.relative_to(folder / "labels")
            for mine, theirs in zip(torch.load(back, weights_only=False), read_torch_file(path)):
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


def test_export_refuses_what_fkd_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got topk_logits"):
        fkd_bytes("topk_logits", np.zeros((1, 4)), np.zeros(1, bool), None, None, (1, 1))


# ---- refused ------------------------------------------------------------------------------------------


def one_file(folder: Path, coords: object, flips: object, label: object) -> Path:
    (folder / "n").mkdir(parents=True, exist_ok=True)
    torch.save([coords, flips, label], folder / "n" / "a.tar")
    return folder


GOOD = (np.full((2, 4), 0.5, np.float32), np.zeros(2, bool), np.array([1, 2]))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, GOOD[0][:, :3], "coords"),
        (0, GOOD[0].astype(np.float64), "coords"),
        (0, GOOD[0][:1], "flip"),
        (1, np.zeros(2, np.uint8), "flip"),
        (2, np.zeros(3, np.int64), "at most 2"),
        (2, np.zeros(0, np.int64), "at most 2"),
        (2, np.zeros((2, 3, 5), np.float32), "label"),
        (2, np.zeros(2, np.float32), "label"),
        (2, np.array([1, CLASSES]), f"name class {CLASSES}, but --num-classes gives {CLASSES}"),
        (2, np.array([1, -1]), "class ids"),
        (2, np.array([[[1, 2.5], [0.5, 0.1]]] * 2, np.float32), "fractions"),
        (2, np.array([[[1, np.nan], [0.5, 0.1]]] * 2, np.float32), "class ids"),
        (2, np.array([[[1, 1e30], [0.5, 0.1]]] * 2, np.float32), "class ids"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, part: int, value: np.ndarray, message: str) -> None:
    parts = list(GOOD)
    parts[part] = value
    folder = one_file(tmp_path, *parts)
    with pytest.raises(FormatError, match=message):
        open_foreign(folder, Settings(CLASSES), "fkd").read_image(0)


def test_float16_ids_of_many_classes_are_refused(tmp_path: Path) -> None:
    """2,049 as float16 is 2,048: the ids are wrong and nobody can tell."""
    label = np.array([[[7, 8], [0.5, 0.1]]] * 2, np.float16)
    folder = one_file(tmp_path, *GOOD[:2], label)
    with pytest.raises(FormatError, match="float16 cannot represent all larger ids"):
        open_foreign(folder, Settings(2050))
    open_foreign(folder, Settings(2049))


def test_float16_boxes_of_large_images_are_refused(tmp_path: Path) -> None:
    folder = one_file(tmp_path, GOOD[0].astype(np.float16), *GOOD[1:])
    with pytest.raises(FormatError, match="float16 of an image"):
        open_foreign(folder, Settings(CLASSES, images=OneImage((2048, 10)))).read_image(0)
    with pytest.raises(FormatError, match="--images"):
        open_foreign(folder, Settings(CLASSES)).read_image(0)


def test_label_type_is_checked(tmp_path: Path) -> None:
    folder = one_file(tmp_path, *GOOD)
    with pytest.raises(FormatError, match="as --label-type says"):
        open_foreign(folder, Settings(CLASSES, label_type="marginal_renorm_k5"))
    with pytest.raises(ValueError, match="marginal_renorm"):
        open_foreign(folder, Settings(CLASSES, label_type="other"))


def test_files_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    """File systems list them in one of their own."""
    for number in range(40):
        (tmp_path / f"n{number % 3}").mkdir(exist_ok=True)
        (tmp_path / f"n{number % 3}" / f"{number}.tar").touch()
    found = list(find_files(tmp_path, ".tar"))
    assert len(found) == 40
    assert found == sorted(found)


def test_two_files_of_one_image(tmp_path: Path) -> None:
    one_file(tmp_path / "train", *GOOD)
    one_file(tmp_path / "val", *GOOD)
    with pytest.raises(FormatError, match="one split"):
        open_foreign(tmp_path, Settings(CLASSES))


def test_no_image_for_a_label(rng: np.random.Generator, tmp_path: Path, images: Images) -> None:
    with pytest.raises(FormatError, match="none of the labelled images"):
        open_foreign(one_file(tmp_path / "x", *GOOD), Settings(CLASSES, images=images))
    expected = write_set(rng, tmp_path / "labels")
    (images.root / "n01" / "b.JPEG").unlink()
    source = open_foreign(tmp_path / "labels", Settings(CLASSES, images=Images(images.root)))
    report = pack(source, tmp_path / "labels.fkdl", allow_missing=1, value_type="float32")
    assert [one.key for one in report.unreadable] == ["n01/b.JPEG"]
    assert "No such file" in report.unreadable[0].reason
    del expected["n01/b.JPEG"]
    check(LabelFile(tmp_path / "labels.fkdl"), expected, "topk")


def test_an_image_whose_name_only_looks_the_same(tmp_path: Path, images: Images) -> None:
    """macOS writes letters and accents apart; labels name them in one."""
    labels = one_file(tmp_path / "one", *GOOD) / "n/a.tar"
    (tmp_path / "set/n01").mkdir(parents=True)
    for name in ("a", "\u00fc"):
        (tmp_path / f"set/n01/{name}.tar").write_bytes(labels.read_bytes())
    (images.root / "n01/b.JPEG").rename(images.root / "n01/u\u0308.JPEG")
    source = open_foreign(tmp_path / "set", Settings(CLASSES, images=Images(images.root)))
    found = list(source.read(range(2)))
    assert isinstance(found[1], Unreadable)
    assert r"No such file ('n01/\xfc' and 'n01/u\u0308' look the same but are two names" in found[1].reason


def test_differing_files_are_told(rng: np.random.Generator, tmp_path: Path) -> None:
    folder = one_file(tmp_path, *GOOD)
    torch.save([GOOD[0][:1], GOOD[1][:1], GOOD[2][:1]], folder / "n" / "b.tar")
    (folder / "n" / "c.tar").write_bytes(b"PK torn")
    (folder / "n" / "d.tar").write_bytes(pickle.dumps(GOOD))
    results = list(open_foreign(folder, Settings(CLASSES)).read(range(4)))
    assert [isinstance(result, Unreadable) for result in results] == [False, True, True, True]
    assert "as in the first file" in results[1].reason


def test_formats_are_found_or_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="an empty folder"):
        open_foreign(tmp_path, Settings())
    with pytest.raises(ValueError, match="expected auto or one of"):
        open_foreign(tmp_path, Settings(), "nobody")
    with pytest.raises(FileNotFoundError):
        open_foreign(tmp_path / "absent", Settings())


def test_what_macos_leaves_beside_files_does_not_count(tmp_path: Path) -> None:
    folder = one_file(tmp_path, *GOOD)
    for hidden in ("n/._a.tar", ".cache/a.tar", "._n.tar"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(b"no labels")
    source = open_foreign(folder, Settings(CLASSES))
    assert (source.name, len(source.keys)) == ("fkd", 1)
    batches = tmp_path / "sre2l" / "epoch_0"
    batches.mkdir(parents=True)
    parts = [torch.rand(2, 4), torch.rand(2) < 0.5, None, None, None, torch.zeros(2, CLASSES)]
    torch.save(parts, batches / "batch_0.tar")
    (batches / "._batch_0.tar").write_bytes(b"no labels")
    with pytest.raises(FormatError, match="sre2l: these labels do not name their images"):
        open_foreign(batches.parent, Settings(CLASSES))
    (tmp_path / "unpacked").mkdir()
    batches.parent.rename(tmp_path / "unpacked" / "FKD_cutmix_fp16")
    with pytest.raises(FormatError, match="got a folder with sre2l labels in FKD_cutmix_fp16, expected"):
        open_foreign(tmp_path / "unpacked", Settings(CLASSES))


def test_varying_numbers_of_crops_come_back(tmp_path: Path, images: Images) -> None:
    """As a calibration leaves them; where nobody says that they vary, it is damage."""
    options = {"num_classes": CLASSES, "k": 3, "crops": None, "sizes": SIZES, "value_type": "float32"}
    write_labels(tmp_path / "a.fkdl", np.random.default_rng(5), **options)
    labels = LabelFile(tmp_path / "a.fkdl")
    kept = [image for image in labels if len(image.flips)]
    assert len({len(image.flips) for image in kept}) > 1
    export_fkd(kept, labels.kind, tmp_path / "labels")
    settings = Settings(CLASSES, images=images)
    source = open_foreign(tmp_path / "labels", settings)
    assert source.layout.crops is None
    pack(source, tmp_path / "b.fkdl", value_type="float32")
    packed = LabelFile(tmp_path / "b.fkdl")
    for image in kept:
        for name in ("boxes", "flips", "ids", "values"):
            np.testing.assert_array_equal(getattr(packed[image.key], name), getattr(image, name))
    told = tmp_path / "labels" / "crops.json"
    told.write_text("{}")
    with pytest.raises(FormatError, match="facts, got KeyError"):
        open_foreign(tmp_path / "labels", settings)
    told.unlink()
    source = open_foreign(tmp_path / "labels", settings)
    with pytest.raises(FormatError, match="crops, K = 3, as in the first file"):
        list(map(source.read_image, range(len(source.keys))))


@pytest.mark.parametrize("count", [10, 11])
@pytest.mark.parametrize("with_images", [True, False])
def test_folders_that_are_numbers(tmp_path: Path, count: int, with_images: bool) -> None:
    """FKD counts folders as text, 0, 1, 10, 2, ...: more than ten are not named by guessing."""
    keys = [f"{number}/x.JPEG" for number in range(count)]
    for key in keys:
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(path)
        coords = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
        one = tmp_path / "labels" / key.replace(".JPEG", ".tar")
        one.parent.mkdir(parents=True)
        torch.save([coords, torch.tensor([False]), torch.tensor([[[0.0], [0.9]]])], one)
    images = Images(tmp_path / "images") if with_images else None
    labels = open_foreign(tmp_path / "labels", Settings(images=images))
    assert (labels.classes is None) == (count == 11)
    assert any("name them with --classes FILE" in note for note in labels.notes) == (count == 11)
    names = tuple(map(str, range(count)))
    assert open_foreign(tmp_path / "labels", Settings(images=images, classes=names)).classes == names
