"""Label files: what is written is read back, and the second reader reads the same."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from label_draws import write_labels

import fkdx
from fkdx import _C, reference
from fkdx.labels import KINDS, LabelFile, LabelWriter, boxes_from_ratios, fingerprint

LAYOUTS = [
    (kind, encoding, value_type)
    for kind in KINDS
    for encoding in ("plain", "compact")
    for value_type in ("none", "float16", "float32", "log8", "int8")
    if (kind == "hard") == (value_type == "none")
    and (value_type != "int8" or kind == "embedding")
    and (value_type != "log8" or (encoding == "compact" and kind in ("topk", "smoothing")))
]
OPTIONS = [{}, {"crops": None}, {"ratios": True}, {"mix_size": 224}, {"extra": True, "crops": None}]
OPTIONS += [{"ratios": True, "mix_size": 32, "crops": None}]


def tolerance(value_type: str, values: np.ndarray) -> dict[str, float]:
    largest = float(np.abs(values).max(initial=0))
    return {
        "none": {"rtol": 0, "atol": 0},
        "float32": {"rtol": 0, "atol": 0},
        "float16": {"rtol": 2**-11, "atol": 2**-25},
        "int8": {"rtol": 0, "atol": largest / 127 / 2 * (1 + 1 / 128) * (1 + 1e-6)},  # docs/format.md
        "log8": {"rtol": 2 ** (1 / 30) - 1 + 1e-6, "atol": 2.1e-6},
    }[value_type]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("kind", "encoding", "value_type"), LAYOUTS)
def test_round_trip_and_second_reader(
    tmp_path: Path, rng, kind: str, encoding: str, value_type: str, options: dict
) -> None:
    path = tmp_path / "labels.fkdl"
    num_classes = int(rng.choice([1, 2, 30, 257, 70_000 if kind.startswith("topk") else 90]))
    k = int(rng.integers(1, min(num_classes, 40) + 1))
    written = write_labels(
        path, rng, kind, num_classes=num_classes, k=k, encoding=encoding, value_type=value_type, **options
    )
    labels = LabelFile(path, io=str(rng.choice(["mmap", "pread", "preload"])))
    _, second = reference.labels.read_labels(path)
    assert list(labels.keys) == list(second)
    for key, want in written.items():
        got, seen = labels[key], second[key]
        assert (got.key, got.image_size) == (key, want["image_size"])
        np.testing.assert_array_equal(got.boxes, want["boxes"])
        np.testing.assert_array_equal(got.flips, want["flips"])
        np.testing.assert_array_equal(seen["boxes"], want["boxes"])
        np.testing.assert_array_equal(seen["flips"], want["flips"])
        if "ids" in want:
            np.testing.assert_array_equal(got.ids, want["ids"])
            np.testing.assert_array_equal(seen["ids"], want["ids"])
        if "values" in want:
            np.testing.assert_allclose(got.values, want["values"], **tolerance(value_type, want["values"]))
            np.testing.assert_array_equal(seen["values"], got.values)
        if "tails" in want:
            np.testing.assert_array_equal(got.tails, want["tails"])
            np.testing.assert_array_equal(seen["tails"][:, 0], want["tails"])
        if "extra" in want:
            assert got.extra == seen["extra"] == want["extra"]
        if "mixes" in want:
            check_mixes(got.mixes, want["mixes"], seen, list(second))


@pytest.mark.parametrize(
    ("encoding", "value_type"), [("plain", "float16"), ("compact", "float16"), ("compact", "log8")]
)
@pytest.mark.parametrize("k", range(1, 10))
def test_some_crops_of_some_images(
    tmp_path: Path, rng, cpu: str, k: int, encoding: str, value_type: str
) -> None:
    """Fields of all widths, at all bits: every variant of the CPU reads what the second reader reads."""
    path = tmp_path / "labels.fkdl"
    sizes = {f"{i}": tuple(rng.integers(1, rng.choice([9, 700, 65_536]), 2).tolist()) for i in range(12)}
    num_classes = int(rng.choice([k, 10, 1000, 33_000, 70_000]))
    options = {"encoding": encoding, "value_type": value_type, "sizes": sizes, "crops": None}
    write_labels(path, rng, num_classes=max(num_classes, k), k=k, **options)
    second = list(reference.labels.read_labels(path)[1].values())
    images = rng.permutation([i for i, one in enumerate(second) for _ in one["flips"][:1]])
    crops = np.stack([rng.integers(0, len(second[image]["flips"]), 3) for image in images])
    for io in ("mmap", "pread", "preload"):
        found = LabelFile(path, io=io).gather(images, crops)
        for name, got in zip(("boxes", "flips", "ids", "values"), found, strict=True):
            want = [second[image][name][of_image] for image, of_image in zip(images, crops)]
            np.testing.assert_array_equal(got, np.stack(want))


def check_mixes(got, want, seen: dict, keys: list[str]) -> None:
    assert list(got.partners) == list(want.partners)
    for name in ("boxes", "flips", "operations", "lambdas", "mix_boxes"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_array_equal(seen["operations"][:, 0], want.operations + 4 * want.flips)
    np.testing.assert_array_equal(seen["partner_boxes"], want.boxes)
    np.testing.assert_array_equal(seen["mix_boxes"], want.mix_boxes)
    np.testing.assert_array_equal(seen["lambdas"][:, 0], want.lambdas)
    for partner, name in zip(seen["partners"][:, 0], want.partners):
        assert name is None or keys[partner] == name


def test_tensors_are_arrays(tmp_path: Path) -> None:
    """A teacher's answers, as they are."""
    boxes, flips = torch.tensor([[0, 0, 9, 9], [1, 2, 5, 5]]), torch.tensor([True, False])
    ids, values = torch.tensor([[3, 1], [0, 2]]), torch.tensor([[0.5, 0.25], [0.75, 0.125]])
    with LabelWriter(tmp_path / "x.fkdl", num_classes=4, k=2, crops=2) as writer:
        writer.add("a/1.jpg", boxes, flips, ids, values, (20, 20))
        writer.add_many(
            ["a/2.jpg"], boxes[None], flips[None], ids[None], values[None], torch.tensor([[20, 20]])
        )
    for label in LabelFile(tmp_path / "x.fkdl"):
        for name, given in {"boxes": boxes, "flips": flips, "ids": ids, "values": values}.items():
            np.testing.assert_array_equal(getattr(label, name), given.numpy())


@pytest.mark.parametrize("io", ["mmap", "pread", "preload"])
@pytest.mark.parametrize("encoding", ["plain", "compact"])
def test_gather(tmp_path: Path, rng, io: str, encoding: str) -> None:
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng, "topk_logits", images=20, encoding=encoding)
    labels = pickle.loads(pickle.dumps(LabelFile(path, io)))
    images, crops = rng.integers(0, 20, 6), rng.integers(0, 7, (6, 3))
    boxes, flips, ids, values = labels.gather(images, crops)
    tails = labels.gather_tails(images, crops)
    assert (boxes.dtype, flips.dtype, ids.dtype, values.dtype) == (np.int32, bool, np.int32, np.float32)
    for i, image in enumerate(images.tolist()):
        np.testing.assert_array_equal(boxes[i], labels[image].boxes[crops[i]])
        np.testing.assert_array_equal(flips[i], labels[image].flips[crops[i]])
        np.testing.assert_array_equal(ids[i], labels[image].ids[crops[i]])
        np.testing.assert_array_equal(values[i], labels[image].values[crops[i]])
        np.testing.assert_array_equal(tails[i], labels[image].tails[crops[i]])


def test_many_threads_read_the_same(tmp_path: Path, rng) -> None:
    path = tmp_path / "labels.fkdl"
    write_labels(path, rng, images=50)
    images, crops = rng.integers(0, 50, (40, 8)), rng.integers(0, 7, (40, 8, 4))
    want = [LabelFile(path).gather(*request) for request in zip(images, crops)]
    for io in ("mmap", "pread"):
        labels = LabelFile(path, io)
        got: list = [None] * 40

        def read(start: int, labels: LabelFile = labels, got: list = got) -> None:
            for i in range(start, 40, 4):
                got[i] = labels.gather(images[i], crops[i])

        threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for a, b in zip(got, want):
            for x, y in zip(a, b):
                np.testing.assert_array_equal(x, y)


def test_facts_and_sequence(tmp_path: Path, rng) -> None:
    path = tmp_path / "labels.fkdl"
    names = [f"class {i}" for i in range(100)]
    dataset = fingerprint([("a.jpg", 3), ("b/c.jpg", 4)])
    written = write_labels(path, rng, crops=None, classes=names, provenance={"teacher": "x"}, dataset=dataset)
    labels = fkdx.LabelFile(path)
    assert (labels.kind, labels.num_classes, labels.k, labels.crops) == ("topk", 100, 5, None)
    assert labels.classes == names
    assert labels.header["provenance"] == {"teacher": "x"}
    assert labels.header["dataset"] == dataset == fingerprint([("b/c.jpg", 4), ("a.jpg", 3)])
    assert dataset["images"] == 2
    assert fingerprint([("a.jpg", 4), ("b/c.jpg", 3)]) != dataset  # as many bytes in all
    counts = [len(crops["flips"]) for crops in written.values()]
    assert len(labels) == len(counts)
    assert labels.crop_counts.tolist() == counts
    assert labels.image_sizes.tolist() == [list(crops["image_size"]) for crops in written.values()]
    assert [image.key for image in labels] == list(written)
    assert labels[-1].key == labels.keys[-1] == [*written][-1]
    assert labels.keys[1:3] == [*written][1:3]
    assert next(iter(written)) in labels
    assert "nothing" not in labels
    assert labels[0].ids.base is not None
    assert not labels[0].values.flags.writeable
    with pytest.raises(KeyError, match="nothing"):
        labels.find("nothing")
    for image in (-6, 5):
        with pytest.raises(IndexError, match=rf"LabelFile: image, got {image}, expected 0 to 4, "):
            labels[image]
    for image in (slice(0, 2), None, 1.5, [0, 1]):
        with pytest.raises(TypeError, match=r"LabelFile: image, got .*, expected its number or its key, "):
            labels[image]
    assert pickle.loads(pickle.dumps(labels.keys)) == list(labels.keys)
    with pytest.raises(IndexError, match="crop of image"):
        labels.gather([0], [[counts[0]]])
    with pytest.raises(ValueError, match=r"\(n, m\)"):
        labels.gather([0, 1], [[0]])
    for wrong in (np.array([0.7]), np.array([True]), ["0"]):
        with pytest.raises(ValueError, match=r"gather: images and crops, got .*, expected integers"):
            labels.gather(wrong, [[0]])


def test_rows_are_sorted_and_bytes_do_not_depend_on_the_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with LabelWriter(tmp_path / name, num_classes=10, k=3) as writer:
            writer.add("x", [[0, 0, 1, 1]], [True], [[4, 2, 9]], [[0.1, 0.5, 0.25]], (1, 1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    got = LabelFile(tmp_path / "a")["x"]
    assert got.ids.tolist() == [[2, 9, 4]]
    np.testing.assert_allclose(got.values, [[0.5, 0.25, 0.1]], rtol=1e-3)


def test_images_without_crops_lie_anywhere(tmp_path: Path) -> None:
    none = np.empty((0, 4), int), [], np.empty((0, 1), int), np.empty((0, 1)), (9, 9)
    extra = {"operations": ["swirl"], "form": "json"}
    with LabelWriter(tmp_path / "x", num_classes=3, k=1, extra=extra) as writer:
        writer.add("b", *none)
        writer.add("a", *none, extra=b"{}")
    LabelFile(tmp_path / "x").verify()


def test_boxes_from_ratios_round_as_pillow_does(rng) -> None:
    height, width = (int(size) for size in rng.integers(1, 6000, 2))
    ratios = (rng.random((200, 4)) / 2).astype(np.float32)
    want = []
    for top, left, tall, wide in ratios.astype(float):
        i, j, h, w = top * height, left * width, tall * height, wide * width
        want.append((round(i), round(j), round(i + h) - round(i), round(j + w) - round(j)))
    np.testing.assert_array_equal(boxes_from_ratios(ratios, height, width), want)
    assert boxes_from_ratios([[0.5 / 3, 0, 1, 1.5 / 2]], 3, 2).tolist() == [[0, 0, 4, 2]]


def test_crc32c(rng) -> None:
    assert _C.crc32c(b"123456789") == 0xE3069283  # check value of CRC-32C
    for size in [*range(70), *rng.integers(0, 20_000, 20).tolist()]:
        data = rng.bytes(size)
        cut = int(rng.integers(0, size + 1))
        want = reference.labels.crc32c(data)
        for cpu in _C.supported_cpus():
            _C.force_cpu(cpu)
            assert _C.crc32c(data) == want
            assert _C.crc32c(data[cut:], _C.crc32c(data[:cut])) == want
        _C.force_cpu("")


SEEDS = sorted((Path(__file__).parents[1] / "fuzz" / "label_file").glob("*.fkdl"))


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_files_of_version_1_are_read_for_ever(path: Path) -> None:
    labels = LabelFile(path)
    labels.verify()
    _, second = reference.labels.read_labels(path)
    assert list(labels.keys) == list(second)
    for image in labels:
        np.testing.assert_array_equal(image.boxes, second[image.key]["boxes"])
        if "values" in second[image.key]:
            np.testing.assert_array_equal(image.values, second[image.key]["values"])


def test_seeds_are_there() -> None:
    assert len(SEEDS) == 15


def test_what_was_forgotten_comes_back(tmp_path: Path) -> None:
    with LabelWriter(tmp_path / "a.fkdl", "hard", num_classes=3, crops=1) as writer:
        for number in range(2000):
            writer.add(f"{number:04}.jpg", [[0, 0, 4, 4]], [False], [number % 3], None, (4, 4 + number % 7))
    labels = LabelFile(tmp_path / "a.fkdl")
    for _ in range(2):
        assert labels.keys[:] == [f"{number:04}.jpg" for number in range(2000)]
        assert labels.image_sizes[:, 1].tolist() == [4 + number % 7 for number in range(2000)]
        assert labels.find("1234.jpg") == 1234
        labels.forget()


def test_two_probabilities_near_a_half_keep_their_order(tmp_path: Path, rng) -> None:
    """Coarse values of compact files, and what is read from them is written again unchanged."""
    crops = 2000
    outside, first = rng.uniform(0, 0.03, crops), rng.uniform(0, 0.015, crops)
    second = (1 - outside) / 2 - first
    values = np.stack([1 - outside - second, second], axis=1).astype(np.float32)
    ids = np.tile([7, 3], (crops, 1))
    for name in ("once", "twice"):
        with LabelWriter(tmp_path / name, num_classes=9, k=2, encoding="compact") as writer:
            boxes, flips = np.tile([0, 0, 9, 9], (crops, 1)), np.zeros(crops, bool)
            writer.add("a", boxes, flips, ids, values, image_size=(9, 9))
        stored = LabelFile(tmp_path / name)["a"]
        assert (stored.ids == [7, 3]).all()
        assert (stored.values[:, 0] >= stored.values[:, 1]).all()
        np.testing.assert_allclose(stored.values, values, rtol=2 ** (1 / 30) - 1 + 1e-6)
        if name == "twice":
            np.testing.assert_array_equal(stored.values, values)
        values = stored.values
