"""LabelWriter.add_many writes the bytes that `add` writes image by image, or nothing at all."""

from pathlib import Path

import numpy as np
import pytest

from fkdx import LabelFile, LabelWriter

IMAGES, CROPS, CLASSES, K = 9, 5, 40, 3
KEYS = [f"c{i % 3}/{i}.jpg" for i in range(IMAGES)]


def drawn(rng: np.random.Generator, kind: str) -> dict[str, np.ndarray]:
    """Arguments of add_many."""
    sizes = rng.integers(30, 400, (IMAGES, 2))
    corners = rng.integers(0, 10, (IMAGES, CROPS, 2))
    many = {
        "boxes": np.concatenate([corners, rng.integers(1, 20, corners.shape)], axis=2),
        "flips": rng.random((IMAGES, CROPS)) < 0.5,
        "image_sizes": sizes,
    }
    if kind == "dense":
        return many | {"values": rng.dirichlet(np.ones(CLASSES), (IMAGES, CROPS)).astype(np.float32)}
    ids = np.argsort(rng.random((IMAGES, CROPS, CLASSES)), axis=2)
    if kind == "hard":
        return many | {"ids": ids[:, :, 0]}
    values = rng.dirichlet(np.ones(K + 1), (IMAGES, CROPS))[:, :, :K].astype(np.float32)
    if kind == "topk_logits":
        return many | {"ids": ids[:, :, :K], "values": np.log(values), "tails": values[:, :, 0] - 5}
    return many | {"ids": ids[:, :, :K], "values": values}


def one(many: dict[str, np.ndarray], image: int) -> dict:
    """Arguments of `add` for one of the images."""
    arguments = {name: array[image] for name, array in many.items()}
    size = arguments.pop("image_sizes")
    return arguments | {"image_size": tuple(size.tolist())}


def test_embeddings(tmp_path: Path, rng: np.random.Generator) -> None:
    many = drawn(rng, "hard")
    del many["ids"]
    many["values"] = rng.normal(size=(IMAGES, CROPS, 7)).astype(np.float32)
    with LabelWriter(tmp_path / "single", kind="embedding", embeddings={"cls": 4, "mean": 3}) as writer:
        for image, key in enumerate(KEYS):
            writer.add(key, **one(many, image))
    with LabelWriter(tmp_path / "many", kind="embedding", embeddings={"cls": 4, "mean": 3}) as writer:
        writer.add_many(KEYS, **many)
    assert (tmp_path / "single").read_bytes() == (tmp_path / "many").read_bytes()


@pytest.mark.parametrize("encoding", ["plain", "compact"])
@pytest.mark.parametrize("kind", ["topk", "hard", "dense", "topk_logits"])
def test_the_bytes_of_single_images(tmp_path: Path, rng: np.random.Generator, kind: str, encoding) -> None:
    options = {"kind": kind, "num_classes": CLASSES, "k": {"hard": 1, "dense": CLASSES}.get(kind, K)}
    many = drawn(rng, kind)
    with LabelWriter(tmp_path / "single.fkdl", crops=CROPS, encoding=encoding, **options) as writer:
        for image, key in enumerate(KEYS):
            writer.add(key, **one(many, image))
    with LabelWriter(tmp_path / "many.fkdl", crops=CROPS, encoding=encoding, **options) as writer:
        writer.add(KEYS[0], **one(many, 0))
        writer.add_many(KEYS[1:], **{name: array[1:] for name, array in many.items()})
        writer.add_many([], **{name: array[:0] for name, array in many.items()})
    assert (tmp_path / "single.fkdl").read_bytes() == (tmp_path / "many.fkdl").read_bytes()
    LabelFile(tmp_path / "many.fkdl").verify()


def test_boxes_that_are_parts_of_images(tmp_path: Path, rng: np.random.Generator) -> None:
    many = drawn(rng, "topk")
    many["boxes"], sizes = many["boxes"] / 64, many.pop("image_sizes")
    for name, add in (("single", False), ("many", True)):
        with LabelWriter(tmp_path / name, num_classes=CLASSES, k=K, ratios=True) as writer:
            if add:
                writer.add_many(KEYS, **many)
            for image in () if add else range(len(sizes)):
                writer.add(KEYS[image], **{part: array[image] for part, array in many.items()})
    assert (tmp_path / "single").read_bytes() == (tmp_path / "many").read_bytes()


def test_repairs_are_counted(tmp_path: Path, rng: np.random.Generator) -> None:
    many = drawn(rng, "topk")
    many["values"][3, 2] = (0.9, 0.8, 0.7)
    many["boxes"][4, 1] = (-3, 0, 10, 10)
    with LabelWriter(tmp_path / "x.fkdl", num_classes=CLASSES, k=K, repair=True) as writer:
        writer.add_many(KEYS, **many)
        assert (writer.repairs["sums"], writer.repairs["boxes"]) == (1, 1)


def test_what_is_refused_leaves_no_image_of_the_batch(tmp_path: Path, rng: np.random.Generator) -> None:
    many = drawn(rng, "topk")
    wrong = {name: array.copy() for name, array in many.items()}
    wrong["ids"][7, 2, 0] = CLASSES
    with LabelWriter(tmp_path / "x.fkdl", num_classes=CLASSES, k=K, crops=CROPS) as writer:
        with pytest.raises(ValueError, match=r"add_many: c1/7\.jpg: crop 2.*40.*x\.fkdl"):
            writer.add_many(KEYS, **wrong)
        with pytest.raises(ValueError, match=r"got 'c0/0\.jpg' twice"):
            writer.add_many([KEYS[0], *KEYS[:-1]], **many)
        with pytest.raises(ValueError, match=r"flips, got shape \(9, 5\), expected \(N, M\) with 8 images"):
            writer.add_many(KEYS[1:], **many)
        with pytest.raises(ValueError, match=r"boxes, got shape \(9, 4, 4\), expected \(9, 5\) in front"):
            writer.add_many(KEYS, **many | {"boxes": many["boxes"][:, 1:]})
        with pytest.raises(ValueError, match="crops, got 4, expected 5"):
            writer.add_many(KEYS, **{n: a if n == "image_sizes" else a[:, 1:] for n, a in many.items()})
        with pytest.raises(ValueError, match=r"image_sizes, got shape \(9,\), expected \(9, 2\)"):
            writer.add_many(KEYS, **many | {"image_sizes": many["image_sizes"][:, 0]})
        writer.add_many(KEYS, **many)
        with pytest.raises(ValueError, match=r"got 'c0/3\.jpg' twice"):
            writer.add_many(["c0/3.jpg"], **{name: array[:1] for name, array in many.items()})
    assert len(LabelFile(tmp_path / "x.fkdl")) == IMAGES
    with pytest.raises(RuntimeError, match="the writer is closed"):
        writer.add_many(KEYS, **many)


def test_mixed_crops_come_one_image_at_a_time(tmp_path: Path, rng: np.random.Generator) -> None:
    options = {"num_classes": CLASSES, "k": K, "images": KEYS, "mix_size": 32}
    refused = pytest.raises(ValueError, match="expected plain crops; use `add`")
    with LabelWriter(tmp_path / "x.fkdl", **options) as writer, refused:
        writer.add_many(KEYS, **drawn(rng, "topk"))
