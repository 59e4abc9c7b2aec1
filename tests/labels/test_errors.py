"""What the writer of label files refuses, mends, and leaves behind."""

import os
from pathlib import Path

import numpy as np
import pytest

from fkdx.labels import LabelFile, LabelWriter, Mixes, check_key, layout

CROP = {
    "boxes": [[0, 0, 4, 4]],
    "flips": [False],
    "ids": [[1, 2]],
    "values": [[0.5, 0.25]],
    "image_size": (4, 5),
}


def writer(path: Path, **options) -> LabelWriter:
    return LabelWriter(path, **({"num_classes": 10, "k": 2} | options))


FAULTS = {
    "box below the image": ({"boxes": [[1, 0, 4, 4]]}, "inside an image of 4 x 5"),
    "box right of the image": ({"boxes": [[0, 2, 4, 4]]}, "inside an image of 4 x 5"),
    "negative box": ({"boxes": [[-1, 0, 4, 4]]}, "inside an image"),
    "empty box": ({"boxes": [[0, 0, 0, 4]]}, "inside an image"),
    "NaN": ({"values": [[0.5, np.nan]]}, "probability"),
    "infinity": ({"values": [[np.inf, 0.5]]}, "probability"),
    "negative": ({"values": [[0.5, -0.25]]}, "probability"),
    "sum": ({"values": [[0.75, 0.2512]]}, "sum of the probabilities"),
    "id": ({"ids": [[1, 10]]}, "class id, got 10"),
    "negative id": ({"ids": [[-1, 2]]}, "class id, got -1"),
    "twice": ({"ids": [[3, 3]]}, "class id, got 3 twice"),
}
MENDED = {
    "box below the image": ("boxes", [[1, 0, 3, 4]]),
    "box right of the image": ("boxes", [[0, 2, 4, 3]]),
    "negative box": ("boxes", [[0, 0, 3, 4]]),
    "empty box": ("boxes", [[0, 0, 1, 4]]),
    "NaN": ("values", [[0.5, 0]]),
    "infinity": ("values", [[0.5, 0]]),
    "negative": ("values", [[0.5, 0]]),
    "sum": ("values", [[0.749, 0.251]]),
    "id": ("ids", [[1, 0]]),
    "negative id": ("ids", [[2, 0]]),
    "twice": ("ids", [[3, 0]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_crops_are_refused_by_key(tmp_path: Path, fault: str) -> None:
    change, text = FAULTS[fault]
    with writer(tmp_path / "x.fkdl") as labels:
        labels.add("good", **CROP)
        with pytest.raises(ValueError, match=rf"n1/bad\.JPEG.*crop 0.*{text}.*x\.fkdl"):
            labels.add("n1/bad.JPEG", **CROP | change)
        labels.add("n1/bad.JPEG", **CROP)
    assert len(LabelFile(tmp_path / "x.fkdl")) == 2
    assert "repairs" not in LabelFile(tmp_path / "x.fkdl").header


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_crops_are_mended_and_counted(tmp_path: Path, fault: str) -> None:
    with writer(tmp_path / "x.fkdl", repair=True) as labels:
        labels.add("good", **CROP)
        labels.add("bad", **CROP | FAULTS[fault][0])
    labels = LabelFile(tmp_path / "x.fkdl")
    name, want = MENDED[fault]
    np.testing.assert_allclose(getattr(labels["bad"], name), want, atol=1e-3)
    assert sum(labels.header["repairs"].values()) == 1
    np.testing.assert_array_equal(labels["good"].ids, CROP["ids"])
    labels.verify()


def test_mended_entries_lose_their_probability(tmp_path: Path) -> None:
    with writer(tmp_path / "x.fkdl", repair=True) as labels:
        labels.add("bad", **CROP | {"ids": [[10, 2]]})
    assert LabelFile(tmp_path / "x.fkdl")["bad"].ids.tolist() == [[2, 0]]
    assert LabelFile(tmp_path / "x.fkdl")["bad"].values.tolist() == [[0.25, 0]]


@pytest.mark.parametrize("ids", [[[3, 3]], [[3, 10]]])
def test_mended_entries_take_no_part_in_the_sum(tmp_path: Path, ids: list) -> None:
    with writer(tmp_path / "x.fkdl", repair=True) as labels:
        labels.add("bad", **CROP | {"ids": ids, "values": [[0.75, 0.5]]})
    labels = LabelFile(tmp_path / "x.fkdl")
    assert (labels["bad"].ids.tolist(), labels["bad"].values.tolist()) == ([[3, 0]], [[0.75, 0]])
    assert labels.header["repairs"]["sums"] == 0


def test_what_a_later_version_mended_is_counted_on(tmp_path: Path) -> None:
    with writer(tmp_path / "x.fkdl") as labels:
        labels._header["repairs"] = {"flips": 3}
    with writer(tmp_path / "y.fkdl") as labels:
        labels.add_counts(LabelFile(tmp_path / "x.fkdl"))
    assert LabelFile(tmp_path / "y.fkdl").header["repairs"]["flips"] == 3


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/..", ".", "a/./b", "a\\b", "a\0", "a\nb", "C:/a"]
)
def test_unclean_keys_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        check_key(key)
    with writer(tmp_path / "x") as labels, pytest.raises(ValueError, match="key"):
        labels.add(key, **CROP)


def test_other_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unicode"):
        check_key("\ud800")
    with pytest.raises(ValueError, match="4097 bytes"):
        check_key("a" * 4097)
    with pytest.raises(ValueError, match=r"key: got .*Path\('a/1.jpg'\), expected a text"):
        check_key(Path("a/1.jpg"))
    for key in ("..a", "a..", "...", "ü/ß", "a" * 4096, "a b", "C"):
        assert check_key(key) == key.encode()
    with writer(tmp_path / "x") as labels:
        labels.add("a", **CROP)
        with pytest.raises(ValueError, match="a: the key was added before"):
            labels.add("a", **CROP)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"flips": [True, False]}, "boxes"),
        ({"flips": [0.3]}, "flips, got float64"),
        ({"flips": [2]}, "flips, got int64"),
        ({"boxes": [[0.0, 0, 1, 1]]}, "expected integers"),
        ({"boxes": [[0, 0, 4]]}, "shape"),
        ({"boxes": [[0, 0, 4, 2**40]]}, "32-bit"),
        ({"ids": [[1.0, 2.0]]}, "expected integers"),
        ({"ids": [[1, 2, 3]]}, "ids"),
        ({"values": [["a", "b"]]}, "floats"),
        ({"image_size": None}, "image_size"),
        ({"image_size": (0, 5)}, "image_size"),
        ({"image_size": (4, 65_536)}, "image_size"),
        ({"image_size": (4.5, 5)}, "image_size"),
        ({"image_size": (4, 5, 3)}, "image_size"),
        ({"extra": b"x"}, "extra"),
        ({"mixes": Mixes([], [], [], [], [], [])}, "mixes"),
    ],
)
def test_wrong_arguments_of_add(tmp_path: Path, change: dict, text: str) -> None:
    with writer(tmp_path / "x") as labels, pytest.raises(ValueError, match=text):
        labels.add("a", **CROP | change)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "top"}, "kind, got 'top'"),
        ({"encoding": "zip"}, "encoding"),
        ({"value_type": "float8"}, "value_type"),
        ({"value_type": "log8"}, "log8"),
        ({"kind": "hard", "k": 1, "value_type": "float16"}, "none"),
        ({"kind": "dense", "value_type": "log8", "encoding": "compact"}, "log8"),
        ({"k": 0}, "kept"),
        ({"k": 11}, "kept"),
        ({"k": None}, "k, expected"),
        ({"kind": "smoothing", "k": 2}, "expected 1"),
        ({"num_classes": 0}, "classes"),
        ({"num_classes": 2**24 + 1}, "classes"),
        ({"crops": 0}, "crops"),
        ({"crops": 65_536}, "crops"),
        ({"classes": ["a"]}, "1 names"),
        ({"classes": list(range(10))}, "expected names, as text"),
        ({"provenance": "resnet50"}, "provenance, got 'resnet50', expected a dict"),
        ({"dataset": 5}, "dataset, got 5, expected a dict"),
        ({"provenance": {"accuracy": np.float32(0.5)}}, "header, Object of type float32 is not JSON"),
        ({"provenance": {"accuracy": float("nan")}}, "header, Out of range float"),
        ({"images": ["a"]}, "mix_size"),
        ({"mix_size": 3}, "images"),
        ({"images": ["a"], "mix_size": 65_536}, "mix_size, got 65536, expected 1 to 65535"),
        ({"images": ["b", "a", "b"], "mix_size": 3}, "images, got 'b' twice"),
        ({"images": ["a", "../b"], "mix_size": 3}, r"images: key: path, got '\.\./b'"),
    ],
)
def test_wrong_arguments_of_the_writer(tmp_path: Path, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        writer(tmp_path / "x", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"partners": ["c"]}, "partner"),
        ({"lambdas": [1.5]}, "lambda"),
        ({"operations": [8]}, "operation"),
        ({"operations": [257]}, "operations, got 257"),
        ({"partners": [None]}, "partner, got none of crop 0"),
        ({"mix_boxes": [[0, 0, 33, 1]]}, "mix box"),
        ({"boxes": [[0, 0, 0, 1]]}, "partner box"),
    ],
)
def test_wrong_mixes(tmp_path: Path, change: dict, text: str) -> None:
    mix = {
        "partners": ["b"],
        "boxes": [[0, 0, 1, 1]],
        "flips": [True],
        "operations": [3],
        "lambdas": [0.5],
        "mix_boxes": [[0, 0, 32, 0]],
    }
    with writer(tmp_path / "x", images=["a", "b"], mix_size=32) as labels:
        labels.add("a", **CROP, mixes=Mixes(**mix))
        with pytest.raises(ValueError, match="not one of `images`"):
            labels.add("c", **CROP, mixes=Mixes(**mix))
        with pytest.raises(ValueError, match=text):
            labels.add("b", **CROP, mixes=Mixes(**mix | change))
    assert LabelFile(tmp_path / "x")["a"].mixes.partners == ["b"]


def test_logits(tmp_path: Path) -> None:
    crop = {**CROP, "tails": [1.0]}
    with writer(tmp_path / "x", kind="topk_logits", repair=True) as labels:
        labels.add("a", **crop | {"values": [[-70, 3]]})
        for change, text in [
            ({"values": [[1, np.nan]]}, "finite logit"),
            ({"values": [[1, 65_520]]}, "float16 cannot hold"),
            ({"tails": [-np.inf]}, "tail"),
            ({"ids": [[1, 1]]}, "twice"),
        ]:
            with pytest.raises(ValueError, match=text):
                labels.add("b", **crop | change)


@pytest.mark.parametrize("tail", [np.nan, np.inf, 0.5])
def test_where_all_classes_are_kept_nothing_is_left_for_a_tail(tmp_path: Path, tail: float) -> None:
    crop = CROP | {"ids": [[0, 1]], "values": [[2.0, 1.0]]}
    with writer(tmp_path / "x", kind="topk_logits", num_classes=2, k=2) as labels:
        labels.add("a", **crop, tails=[-np.inf])
        with pytest.raises(ValueError, match=r"tail, got .* expected -inf where all classes are kept"):
            labels.add("b", **crop, tails=[tail])


def test_nothing_is_left_behind_after_an_exception(tmp_path: Path) -> None:
    labels = writer(tmp_path / "x")
    labels.add("a", **CROP)
    labels.__exit__(KeyError, KeyError(), None)
    assert os.listdir(tmp_path) == []
    with pytest.raises(RuntimeError, match="closed"):
        labels.add("b", **CROP)


def test_existing_files_and_second_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with writer(path) as labels:
        with pytest.raises(BlockingIOError, match="another process"):
            writer(path)
        labels.add("a", **CROP)
    with pytest.raises(FileExistsError):
        writer(path)
    with writer(path, overwrite=True) as labels:
        labels.add("b", **CROP)
        assert list(LabelFile(path).keys) == ["a"]
    assert list(LabelFile(path).keys) == ["b"]
    (tmp_path / "y.tmp").write_bytes(b"left by a killed process" * 1000)
    with writer(tmp_path / "y") as labels:
        labels.add("a", **CROP)
    LabelFile(tmp_path / "y").verify()


def test_a_file_whose_keys_do_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_KEY_BYTES", 10)
    path = tmp_path / "labels.fkdl"

    def write(keys: list[str]) -> None:
        with LabelWriter(path, "hard", num_classes=2, crops=1, overwrite=True) as writer:
            for key in keys:
                writer.add(key, [[0, 0, 1, 1]], [False], [[1]], image_size=(1, 1))

    with pytest.raises(
        ValueError, match="bytes of all keys, got 15, expected at most 10; write a sharded set"
    ):
        write(["a/1.j", "a/2.j", "a/3.j"])
    assert not path.exists()
    write(["a/1.j", "a/2.j"])
    assert len(LabelFile(path)) == 2
