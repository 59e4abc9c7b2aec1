"""The verbs that inspect, check and change label files."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_draws import draw_boxes, draw_labels, write_labels
from PIL import Image

from fkdx import cli, reference
from fkdx.commands.compare import compare
from fkdx.commands.concat import concat
from fkdx.commands.convert import convert
from fkdx.commands.image_faults import ImageFaults, faults_text, match_images
from fkdx.commands.info import sureness
from fkdx.commands.merge import merge
from fkdx.commands.slice import slice_labels
from fkdx.commands.verify import Agreement, teacher_text, verify_teacher
from fkdx.image.steps import decode, encode
from fkdx.labels import KINDS, LabelFile, LabelWriter, fingerprint
from fkdx.labels.rewrite import copy_images, writer_like

C = 12


def dense(ids: np.ndarray, values: np.ndarray, tail: str = "smoothing") -> np.ndarray:
    """(M, C) targets, one crop after the other."""
    rows = np.zeros((len(values), C))
    for row, row_ids, row_values in zip(rows, ids, values.astype(np.float64)):
        if tail == "smoothing":
            row[:] = max(0, 1 - row_values.sum()) / (C - len(row_ids))
        else:
            row_values = row_values / row_values.sum()
        row[row_ids] = row_values
    return rows


def write_teachers(
    folder: Path, rng, count: int, k: int = 3, images: int = 4, crops: int = 5
) -> list[LabelFile]:
    """Label files of several teachers over the same crops."""
    views = [(f"n{i % 2}/{i}.jpg", draw_boxes(rng, crops), rng.random(crops) < 0.5) for i in range(images)]
    for t in range(count):
        with LabelWriter(folder / f"{t}.fkdl", num_classes=C, k=k, crops=crops, value_type="float32",
                         provenance={"teacher": f"T{t}"}) as writer:  # fmt: skip
            for key, boxes, flips in views:
                writer.add(key, boxes, flips, **draw_labels(rng, crops, "topk", C, k), image_size=(375, 500))
    return [LabelFile(folder / f"{t}.fkdl") for t in range(count)]


# ---- slice, concat, convert ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["topk", "topk_logits"])
def test_slice(tmp_path: Path, rng, kind: str) -> None:
    write_labels(tmp_path / "a", rng, kind, images=6, num_classes=C, value_type="float32")
    whole = LabelFile(tmp_path / "a")
    slice_labels(whole, tmp_path / "b", crops=3, k=2, folders=["n1"])
    part = LabelFile(tmp_path / "b")
    assert list(part.keys) == [key for key in whole.keys if key.startswith("n1/")]
    assert (part.crops, part.k) == (3, 2)
    for image in part:
        np.testing.assert_array_equal(image.boxes, whole[image.key].boxes[:3])
        np.testing.assert_array_equal(image.flips, whole[image.key].flips[:3])
        np.testing.assert_array_equal(image.ids, whole[image.key].ids[:3, :2])
        np.testing.assert_array_equal(image.values, whole[image.key].values[:3, :2])
        if kind == "topk_logits":
            old = whole[image.key]
            before = np.exp(old.values[:3].astype(np.float64)).sum(axis=1) + np.exp(old.tails[:3])
            after = np.exp(image.values.astype(np.float64)).sum(axis=1) + np.exp(image.tails)
            np.testing.assert_allclose(after, before, rtol=1e-5)
    with pytest.raises(ValueError, match="k, got 6"):
        slice_labels(whole, tmp_path / "c", k=6)
    with pytest.raises(ValueError, match=f"crops, got {whole.crops + 1}, expected 1 to {whole.crops}"):
        slice_labels(whole, tmp_path / "c", crops=whole.crops + 1)
    with pytest.raises(ValueError, match="no image lies in n9"):
        slice_labels(whole, tmp_path / "c", folders=["n9"])


def test_slice_takes_the_steps_of_the_crops_that_stay(tmp_path: Path) -> None:
    steps = [[["erase", 0.0, 0.0, 0.1 * crop, 0.5]] for crop in range(4)]
    extra = {"operations": ["erase"], "form": "steps"}
    with LabelWriter(tmp_path / "a", num_classes=C, k=1, crops=4, extra=extra) as writer:
        crops = [[0, 0, 9, 9]] * 4, [False] * 4, [[0]] * 4, [[0.5]] * 4, (9, 9)
        writer.add("n0/1.jpg", *crops, extra=encode(steps))
    slice_labels(LabelFile(tmp_path / "a"), tmp_path / "b", crops=3)
    assert decode(LabelFile(tmp_path / "b")[0].extra) == steps[:3]
    slice_labels(LabelFile(tmp_path / "a"), tmp_path / "c", crops=4)
    assert LabelFile(tmp_path / "c")[0].extra == encode(steps)


@pytest.mark.parametrize(("kind", "cut"), [("dense", "topk"), ("dense_logits", "topk_logits")])
@pytest.mark.parametrize("mix_size", [0, 32])
def test_labels_of_all_classes_become_those_of_the_best(tmp_path: Path, rng, kind, cut, mix_size) -> None:
    write_labels(tmp_path / "a", rng, kind, num_classes=C, value_type="float32", mix_size=mix_size)
    whole = LabelFile(tmp_path / "a")
    slice_labels(whole, tmp_path / "b", k=3, crops=2)
    part = LabelFile(tmp_path / "b")
    assert (part.kind, part.k, part.num_classes, part.mix_size) == (cut, 3, C, mix_size)
    for image in part:
        old = whole[image.key]
        values = old.values[: len(image.ids)].astype(np.float64)
        best = np.argsort(-values, axis=1, kind="stable")
        np.testing.assert_array_equal(image.ids, best[:, :3])
        kept, rest = (np.take_along_axis(values, ids, axis=1) for ids in (best[:, :3], best[:, 3:]))
        np.testing.assert_allclose(image.values, kept, rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(image.boxes, old.boxes[: len(image.ids)])
        if kind == "dense_logits":
            np.testing.assert_allclose(image.tails, np.logaddexp.reduce(rest, axis=1), rtol=1e-5)
        if mix_size:
            np.testing.assert_array_equal(image.mixes.lambdas, old.mixes.lambdas[: len(image.ids)])
    slice_labels(whole, tmp_path / "c", k=C)
    assert LabelFile(tmp_path / "c").kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_convert_there_and_back(tmp_path: Path, rng, kind: str) -> None:
    write_labels(tmp_path / "a", rng, kind, num_classes=C, mix_size=32 if kind == "dense_logits" else 0)
    convert(
        LabelFile(tmp_path / "a"),
        tmp_path / "b",
        encoding="compact",
        value_type=LabelFile(tmp_path / "a").value_type,
    )
    convert(
        LabelFile(tmp_path / "b"),
        tmp_path / "c",
        encoding="plain",
        value_type=LabelFile(tmp_path / "a").value_type,
    )
    assert (tmp_path / "b").stat().st_size <= (tmp_path / "a").stat().st_size
    for a, c in zip(LabelFile(tmp_path / "a"), LabelFile(tmp_path / "c")):
        for name in ("boxes", "flips", "ids", "values"):
            np.testing.assert_array_equal(getattr(a, name), getattr(c, name))


def test_log8_does_not_drift(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng, encoding="compact", crops=500)
    flat = rng.dirichlet(np.full(5, 9), 500)  # its levels often sum to more than 1
    with LabelWriter(tmp_path / "flat", num_classes=5, k=5, encoding="compact") as writer:
        writer.add(
            "a", draw_boxes(rng, 500), np.zeros(500), np.tile(np.arange(5), (500, 1)), flat, (375, 500)
        )
    for name in ("a", "flat"):
        convert(LabelFile(tmp_path / name), tmp_path / "b", overwrite=True)
        convert(LabelFile(tmp_path / "b"), tmp_path / "c", encoding="plain", overwrite=True)
        convert(LabelFile(tmp_path / "c"), tmp_path / "d", encoding="compact", overwrite=True)
        for a, b, c, d in zip(*(LabelFile(tmp_path / file) for file in (name, "b", "c", "d"))):
            np.testing.assert_array_equal(a.values, b.values)
            np.testing.assert_allclose(c.values, a.values, rtol=1e-3, atol=1e-7)
            np.testing.assert_allclose(d.values, a.values, rtol=0.024, atol=2.1e-6)
    assert LabelFile(tmp_path / "flat")["a"].values.sum(axis=1).max() > 1.001


def test_log8_hardly_moves_the_loss(tmp_path: Path, rng) -> None:
    """A teacher that is sure of most crops: the mean loss of any student stays within 1e-3."""
    rows, classes = 20_000, 50
    logits = rng.normal(0, 1, (rows, classes))
    logits[np.arange(rows), rng.integers(0, classes, rows)] += rng.exponential(6, rows)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = np.argsort(-probabilities, axis=1)[:, :5]
    values = np.take_along_axis(probabilities, ids, axis=1)
    with LabelWriter(tmp_path / "a", num_classes=classes, k=5, encoding="compact") as writer:
        writer.add("a", draw_boxes(rng, rows), np.zeros(rows), ids, values, (375, 500))
    stored = LabelFile(tmp_path / "a")["a"].values.astype(np.float64)
    np.testing.assert_allclose(stored, values, rtol=0.025, atol=2.1e-6)
    for doubt in (0.1, 1.0, 3.0):  # students that nearly agree, and that do not
        student = rng.normal(0, doubt, (rows, classes)) + np.log(probabilities) / doubt
        student -= np.log(np.exp(student).sum(axis=1, keepdims=True))
        losses = [
            -(reference.loss.dense_target(ids, labels, classes, "marginal_smoothing") * student).sum(axis=1)
            for labels in (values, stored)
        ]
        assert abs(losses[0].mean() - losses[1].mean()) <= 1e-3 * max(1, losses[0].mean())


def test_concat(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng, images=3, crops=4)
    write_labels(tmp_path / "b", rng, images=3, crops=5)
    slice_labels(LabelFile(tmp_path / "a"), tmp_path / "a1", folders=["n0", "n2"])
    slice_labels(LabelFile(tmp_path / "b"), tmp_path / "b1", folders=["n1"])
    files = [LabelFile(tmp_path / "b1"), LabelFile(tmp_path / "a1")]
    concat(files, tmp_path / "c")
    both = LabelFile(tmp_path / "c")
    assert [key[:2] for key in both.keys] == ["n0", "n1", "n2"]
    for file in files:
        for image in file:
            np.testing.assert_array_equal(image.values, both[image.key].values)
    with pytest.raises(ValueError, match="added before"):
        concat([files[0], files[0]], tmp_path / "d")
    write_labels(tmp_path / "e", rng, kind="hard")
    with pytest.raises(ValueError, match="kind, got hard"):
        concat([files[0], LabelFile(tmp_path / "e")], tmp_path / "d")
    assert not (tmp_path / "d").exists()


# ---- merge and compare -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense_logits", "topk"])
def test_merge_keeps_how_crops_were_mixed(tmp_path: Path, rng, kind: str) -> None:
    write_labels(tmp_path / "a", rng, kind, num_classes=C, mix_size=32, images=5)
    first = LabelFile(tmp_path / "a")
    with writer_like(first, tmp_path / "b") as writer:  # another teacher's answers for the same crops
        for image in first:
            values = image.values[:, ::-1] if kind == "dense_logits" else image.values
            ids = image.ids if kind == "dense_logits" else (image.ids.astype(int) + 1) % C
            copy_images([replace(image, values=np.array(values), ids=ids)], writer)
    files = [first, LabelFile(tmp_path / "b")]
    merge(files, tmp_path / "m", value_type="float32")
    merged = LabelFile(tmp_path / "m")
    assert (merged.mix_size, merged.keys[:]) == (32, first.keys[:])
    for image in merged:
        for name in ("partners", "boxes", "flips", "operations", "lambdas", "mix_boxes"):
            old, new = (getattr(one.mixes, name) for one in (first[image.key], image))
            np.testing.assert_array_equal(new, old)
        if kind == "dense_logits":
            every = [np.exp(file[image.key].values.astype(np.float64)) for file in files]
            mean = np.mean([one / one.sum(axis=1, keepdims=True) for one in every], axis=0)
            np.testing.assert_allclose(image.values, mean, atol=1e-6)


def test_merge_refuses_crops_that_were_mixed_otherwise(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng, num_classes=C, mix_size=32, images=3)
    first = LabelFile(tmp_path / "a")
    with writer_like(first, tmp_path / "b") as writer:
        for image in first:
            mixes = replace(image.mixes, lambdas=image.mixes.lambdas / 2)
            copy_images([replace(image, mixes=mixes)], writer)
    with pytest.raises(ValueError, match=r"merge: mixing or augmentation of .*, got another one than in"):
        merge([first, LabelFile(tmp_path / "b")], tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("tail", ["smoothing", "renorm"])
@pytest.mark.parametrize("k", [1, 3, 7, C])
def test_merge_is_the_mean_of_recovered_targets(tmp_path: Path, rng, tail: str, k: int) -> None:
    files = write_teachers(tmp_path, rng, 3)
    merge(files, tmp_path / "m", k, tail, value_type="float32")
    merged = LabelFile(tmp_path / "m")
    assert merged.header["provenance"]["mean_of"] == [{"teacher": f"T{t}"} for t in range(3)]
    for image in merged:
        mean = np.mean([dense(file[image.key].ids, file[image.key].values, tail) for file in files], axis=0)
        best = -np.sort(-mean, axis=1)[:, :k]
        np.testing.assert_allclose(image.values, best, atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(mean, image.ids.astype(int), axis=1), best, atol=1e-6)


def test_merge_of_dense_labels(tmp_path: Path, rng) -> None:
    boxes, flips = draw_boxes(rng, 4), np.zeros(4, bool)
    dense_values = rng.dirichlet(np.ones(C), 4)
    logits = rng.normal(size=(4, C))
    for kind, values in (("dense", dense_values), ("dense_logits", logits)):
        with LabelWriter(tmp_path / kind, kind, num_classes=C, value_type="float32") as writer:
            writer.add("a", boxes, flips, values=values, image_size=(375, 500))
    merge([LabelFile(tmp_path / kind) for kind in ("dense", "dense_logits")], tmp_path / "m")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert LabelFile(tmp_path / "m").kind == "dense"
    np.testing.assert_allclose(LabelFile(tmp_path / "m")["a"].values, (dense_values + softmax) / 2, atol=1e-3)


def test_merge_refuses_other_crops(tmp_path: Path, rng) -> None:
    write_labels(tmp_path / "a", rng)
    write_labels(tmp_path / "b", rng)
    with pytest.raises(
        ValueError,
        match=r"crops of 'n.*, got others than in .*a, expected .* same crops, .*b",
    ):
        merge([LabelFile(tmp_path / "a"), LabelFile(tmp_path / "b")], tmp_path / "c")
    write_labels(tmp_path / "d", rng, images=3)
    with pytest.raises(ValueError, match=r"merge: images, got others than in .*a, expected the same"):
        merge([LabelFile(tmp_path / "a"), LabelFile(tmp_path / "d")], tmp_path / "c")
    write_labels(tmp_path / "e", rng, num_classes=20)
    with pytest.raises(ValueError, match=r"merge: classes, got 20, expected 100 as in .*a"):
        merge([LabelFile(tmp_path / "a"), LabelFile(tmp_path / "e")], tmp_path / "c")


def test_compare(tmp_path: Path, rng) -> None:
    a, b = write_teachers(tmp_path, rng, 2)
    found = compare(a, b, worst=3)
    entropies, agree = {}, {}
    for key in a.keys:
        p, q = dense(a[key].ids, a[key].values), dense(b[key].ids, b[key].values)
        entropies[key] = (
            -(p * np.log(np.maximum(q, 1e-12))).sum(axis=1),
            -(q * np.log(np.maximum(p, 1e-12))).sum(axis=1),
        )
        agree[key] = p.argmax(axis=1) == q.argmax(axis=1)
    np.testing.assert_allclose(found.total.ab, sum(x.sum() for x, _ in entropies.values()), rtol=1e-6)
    np.testing.assert_allclose(found.total.ba, sum(x.sum() for _, x in entropies.values()), rtol=1e-6)
    np.testing.assert_allclose(
        found.classes["n1"].ab, sum(entropies[k][0].sum() for k in a.keys if k[:2] == "n1"), rtol=1e-6
    )
    assert found.total.agree == sum(x.sum() for x in agree.values())
    assert found.total.crops == 20
    worst = max((x + y).max() for x, y in entropies.values())
    np.testing.assert_allclose(found.worst[0][0], worst, rtol=1e-6)
    assert len(found.worst) == 3
    same = compare(a, a)
    assert same.total.agree == 20
    assert same.total.ab < found.total.ab


# ---- info and verify -------------------------------------------------------------------------------------


def test_info(tmp_path: Path, capsys) -> None:
    with LabelWriter(tmp_path / "a", num_classes=10, k=2, classes=list("abcdefghij")) as writer:
        writer.add("x", np.tile([0, 0, 1, 1], (4, 1)), [0, 0, 0, 1], np.tile([[3, 4]], (4, 1)),
                   [[0.5, 0.25], [0.98, 0], [0.31, 0.25], [0.52, 0.1]], (3, 3))  # fmt: skip
    seen = sureness(LabelFile(tmp_path / "a"))
    assert (seen.histogram * 4).tolist() == [0] * 6 + [1] + [0] * 3 + [2] + [0] * 8 + [1]
    np.testing.assert_allclose(seen.coverage, [2.31 / 4, 2.91 / 4], atol=1e-3)
    assert cli.main(["info", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    for part in ("1 x 4 crops", "topk, K = 2 of 10 classes", "a, b, c, ..., j", "0.95 to 1.00   25.0%"):
        assert part in text
    assert cli.main(["info", "--json", str(tmp_path / "a")]) == 0
    assert json.loads(capsys.readouterr().out)["header"]["classes"][0] == "a"


@pytest.fixture
def labelled_images(tmp_path: Path, rng) -> tuple[Path, LabelFile]:
    """A folder of images, and labels that `mean_colours` made of them."""
    from fkdx.image import decode_crops

    root = tmp_path / "images"
    with LabelWriter(tmp_path / "a.fkdl", num_classes=C, k=3, value_type="float32",
                     dataset={"images": 0, "bytes": 0, "digest": ""}) as writer:  # fmt: skip
        for i in range(6):
            path = root / f"n{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((80, 50), Image.BICUBIC).save(path)
            boxes, flips = draw_boxes(rng, 6, 50, 80), rng.random(6) < 0.5
            said = mean_colours(decode_crops(path, boxes, flips, 8))
            ids = np.argsort(-said, axis=1, kind="stable")[:, :3]  # the first of equal ones, as argmax
            writer.add(
                f"n{i % 2}/{i}.png", boxes, flips, ids, np.take_along_axis(said, ids, axis=1), (50, 80)
            )
        files = [(str(p.relative_to(root)), p.stat().st_size) for p in root.rglob("*.png")]
        writer._header["dataset"] = fingerprint(files)
    return root, LabelFile(tmp_path / "a.fkdl")


def mean_colours(crops: np.ndarray) -> np.ndarray:
    """A teacher of C = 12 classes that sees where colours are: (n, 8, 8, 3) -> (n, 12) probabilities."""
    quarters = crops.reshape(len(crops), 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(len(crops), -1)
    scores = np.exp((quarters - quarters.mean(axis=1, keepdims=True)) / 20)
    return scores / scores.sum(axis=1, keepdims=True)


def test_verify_teacher(labelled_images) -> None:
    root, labels = labelled_images
    found = verify_teacher(labels, root, mean_colours, size=8, sample=6, crops=6)
    assert found["as stored"].top1 == 1
    assert found["as stored"].difference < 1e-6
    assert found["x and y swapped"].difference > 0.01
    assert found["not flipped"].difference > 0.01
    with pytest.raises(ValueError, match="classes of the teacher"):
        verify_teacher(labels, root, lambda crops: mean_colours(crops)[:, :5], size=8)


def test_match_images(labelled_images) -> None:
    root, labels = labelled_images
    assert not match_images(labels, root)
    Image.new("RGB", (80, 51)).save(root / "n0/2.png")
    (root / "n0/4.png").write_bytes(b"no image")
    (root / "n1/3.png").rename(root / "n1/7.png")
    faults = match_images(labels, root)
    assert (faults.missing, faults.extra) == (["n1/3.png"], ["n1/7.png"])
    assert faults.differing == ["n0/2.png: got (51, 80), expected (50, 80)"]
    assert [text.split(":")[0] for text in faults.unreadable] == ["n0/4.png"]
    assert faults.fingerprint is False


def test_names_that_only_look_the_same_are_told() -> None:
    faults = ImageFaults(2, missing=["n/1.jpg", "n/\u00fc.jpg"], extra=["n/2.jpg", "n/u\u0308.jpg"])
    assert r"'n/\xfc.jpg' and 'n/u\u0308.jpg' look the same but are two names" in faults_text(faults)
    faults.missing.pop()
    assert "look the same" not in faults_text(faults)


def test_verify_command(labelled_images, capsys) -> None:
    root, labels = labelled_images
    assert cli.main(["verify", labels.path, "--images", str(root)]) == 0
    assert "matches" in capsys.readouterr().out
    (root / "n1/3.png").unlink()
    assert cli.main(["verify", labels.path, "--images", str(root)]) == 1
    data = bytearray(Path(labels.path).read_bytes())
    data[-50] ^= 1
    Path(labels.path).write_bytes(data)
    assert cli.main(["verify", labels.path]) > 0
    assert "CRC of the footer" in capsys.readouterr().err


def test_verify_command_with_a_teacher(tmp_path: Path, rng, capsys) -> None:
    import timm
    import torch

    from fkdx.image import decode_crops
    from fkdx.models.build import load_teacher

    model = timm.create_model("test_resnet", num_classes=C)
    torch.nn.init.normal_(model.get_classifier().weight, std=5)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    inputs = {"size": 48, "mean": (0.3,) * 3}  # as the header tells
    teacher = load_teacher("test_resnet", str(tmp_path / "teacher.pth"), num_classes=C, overrides=inputs)
    look = teacher.preprocess
    (tmp_path / "images/n0").mkdir(parents=True)
    told = {"teachers": [{"name": "test_resnet", "size": 48, "mean": [0.3, 0.3, 0.3]}]}
    with LabelWriter(tmp_path / "a.fkdl", num_classes=C, k=3, provenance=told) as writer:
        for i in range(4):
            path = tmp_path / f"images/n0/{i}.png"
            small = Image.fromarray(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8))
            small.resize((80, 50), Image.BICUBIC).save(path)
            boxes, flips = draw_boxes(rng, 6, 50, 80), rng.random(6) < 0.5
            crops = torch.from_numpy(decode_crops(path, boxes, flips, look.size, look.interpolation))
            values, ids = torch.softmax(teacher(crops), dim=1).topk(3)
            writer.add(f"n0/{i}.png", boxes, flips, ids.numpy(), values.numpy(), (50, 80))
    command = ["verify", str(tmp_path / "a.fkdl"), "--images", str(tmp_path / "images")]
    command += ["--teacher", "test_resnet", "--checkpoint", str(tmp_path / "teacher.pth")]
    assert cli.main(command) == 0
    assert re.search(r"as stored +100.0%", capsys.readouterr().out)


def test_a_strange_teacher_is_no_convention() -> None:
    """That another reading of crops is a little better by chance says nothing; much better says a lot."""
    found = {"as stored": Agreement(0.2, 0.164), "not flipped": Agreement(0.2, 0.163)}
    assert "disagrees with the labels: is it the right one" in teacher_text(found)
    found["not flipped"] = Agreement(0.9, 0.01)
    assert "crops not flipped: were these labels imported" in teacher_text(found)


def test_commands(tmp_path: Path, rng, capsys) -> None:
    files = write_teachers(tmp_path, rng, 2)
    a, b, out = files[0].path, files[1].path, str(tmp_path / "out.fkdl")
    for command in (
        ["slice", a, "--crops", "2", "-k", "1", "--classes", "n0"],
        ["convert", a, "--encoding", "compact"],
        ["merge", a, b, "-k", "4", "--tail", "renorm"],
        ["concat", a],
    ):
        assert cli.main([*command, "-o", out, "--overwrite"]) == 0
        assert "crops" in capsys.readouterr().out
        LabelFile(out).verify()
    assert cli.main(["concat", a, "-o", out]) > 0
    assert "exists" in capsys.readouterr().err
    assert cli.main(["compare", a, b]) == 0
    assert "all classes" in capsys.readouterr().out
    assert cli.main(["export", a, "-o", str(tmp_path / "fkd")]) == 0
    assert len(list((tmp_path / "fkd").rglob("*.tar"))) == 4
    assert cli.main(["export", a, "-o", str(tmp_path / "fkd")]) == 1
    assert "export: the folder is not empty; remove it" in capsys.readouterr().err
