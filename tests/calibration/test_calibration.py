"""FerKD's calibration: a view of a label file equals the slow twin, the file that is written of it, and what
a student sees; every crop is accounted for."""

import csv
import pickle
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_draws import draw_labels
from toy import CLASSES, COMMON, HEIGHT, WIDTH, draw_images, steps_of

from fkdx import cli, reference
from fkdx.calibration import CalibratedLabels, Calibration, calibrated
from fkdx.cli import main as fkdx
from fkdx.commands.calibrate import calibrate
from fkdx.labels import LabelFile, LabelWriter
from fkdx.labels.distributions import image_probabilities, recover
from fkdx.loader import CropLoader
from fkdx.train.loop import main as train

RULE = Calibration(0.45, 0.6, 0.9, least=2)
KINDS = ["topk", "smoothing", "dense", "topk_logits", "dense_logits"]
LAYOUTS = [*((kind, "plain") for kind in KINDS), ("topk", "compact"), ("smoothing", "compact")]
CROPS = 9


@dataclass
class Toy:
    images: Path
    keys: list[str]
    crops: dict[str, tuple]  # key: boxes and flips, the same for all teachers


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Toy:
    rng = np.random.default_rng(run_seed)
    images = tmp_path_factory.mktemp("toy") / "train"
    draw_images(images, 10, rng)
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    return Toy(images, keys, {key: draw_crops(rng) for key in keys})


def draw_crops(rng: np.random.Generator, count: int = CROPS) -> tuple[np.ndarray, np.ndarray]:
    height, width = rng.integers(8, HEIGHT + 1, count), rng.integers(8, WIDTH + 1, count)
    top, left = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
    return np.stack([top, left, height, width], axis=1), rng.random(count) < 0.5


def write(path: Path, toy: Toy, rng: np.random.Generator, kind: str = "topk", **options) -> Path:
    """A teacher's answers to the toy's crops, from sure to clueless."""
    k = {"k": 2} if kind.startswith("topk") else {}
    given = {"classes": CLASSES, **k, **options}
    with LabelWriter(path, kind, num_classes=len(CLASSES), crops=CROPS, **given) as writer:
        for key in toy.keys:
            boxes, flips = toy.crops[key]
            kinds = [draw_labels(rng, 1, kind, len(CLASSES), k.get("k", 1)) for _ in range(CROPS)]
            labels = {name: np.concatenate([one[name] for one in kinds]) for name in kinds[0]}
            writer.add(key, boxes, flips, **labels, image_size=(HEIGHT, WIDTH))
    return path


def dense(labels: LabelFile, image: int) -> np.ndarray:
    """(M, C) distributions that an image's labels stand for."""
    if labels.kind.startswith("dense"):
        return image_probabilities(labels, labels[image])
    rows = recover(labels, labels[image])
    return rows.at(np.broadcast_to(np.arange(labels.num_classes), (len(rows.base), labels.num_classes)))


def expected(files: list[LabelFile], image: int, rule: Calibration) -> list[tuple[int, list[np.ndarray]]]:
    truth = CLASSES.index(files[0].keys[image].split("/")[0])
    return reference.calibration.calibrated_image(
        [dense(labels, image) for labels in files], truth, *(getattr(rule, f.name) for f in fields(rule))
    )


# ---- what is left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["max", "truth"])
@pytest.mark.parametrize(("kind", "encoding"), LAYOUTS)
def test_a_view_equals_the_reference(toy, tmp_path, rng, kind, encoding, score):
    labels = LabelFile(write(tmp_path / "a.fkdl", toy, rng, kind, encoding=encoding))
    low, middle, top = np.sort(rng.uniform(0.1, 1, 3))
    rule = Calibration(low, middle, top, rng.uniform(0, 0.5), score, int(rng.integers(1, 4)))
    view = calibrated([labels], rule)[0]
    for image, key in enumerate(view.keys):
        crops = expected([labels], image, rule)
        kept = [crop for crop, _ in crops]
        np.testing.assert_array_equal(view[key].boxes, labels[key].boxes[kept])
        np.testing.assert_array_equal(view[key].flips, labels[key].flips[kept])
        rounding = 0.025 if encoding == "compact" else 4e-3  # logits are rounded by up to 2^-8
        np.testing.assert_allclose(dense(view, image), [rows[0] for _, rows in crops], atol=rounding)


@pytest.mark.parametrize(("kind", "encoding"), LAYOUTS)
def test_a_student_sees_the_same_from_a_view_and_from_a_file(toy, tmp_path, rng, kind, encoding):
    path = write(tmp_path / "a.fkdl", toy, rng, kind, encoding=encoding)
    calibrate(LabelFile(path), tmp_path / "calibrated.fkdl", RULE)
    ways = [
        CropLoader(toy.images, path, 16, 2, 16, calibration=RULE),
        CropLoader(toy.images, tmp_path / "calibrated.fkdl", 16, 2, 16),
    ]
    assert ways[0].teachers[0].header["provenance"] == ways[1].teachers[0].header["provenance"]
    seen = 0
    for one, other in zip(*ways, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.images, other.images)
        assert all(torch.equal(a, b) for a, b in zip(tables(one.target), tables(other.target), strict=True))
        seen += len(one.keys)
    assert seen == 80


@pytest.mark.parametrize("kind", ["topk", "smoothing", "dense"])
def test_a_calibrated_file_becomes_fkds_files_and_comes_back(toy, tmp_path, rng, kind):
    path, folder = tmp_path / "calibrated.fkdl", tmp_path / "fkd"
    calibrate(LabelFile(write(tmp_path / "a.fkdl", toy, rng, kind, value_type="float32")), path, RULE)
    assert cli.run("export", [str(path), "-o", str(folder)]) == 0
    back = [str(folder), "-o", str(tmp_path / "b.fkdl"), "--images", str(toy.images)]
    assert cli.run("pack", [*back, "--value-type", "float32"]) == 0
    calibrated, packed = LabelFile(path), LabelFile(tmp_path / "b.fkdl")
    assert packed.keys[:] == calibrated.keys[:]
    assert len(set(packed.crop_counts.tolist())) > 1
    for one, other in zip(calibrated, packed):
        for name in ("boxes", "flips", "ids", "values"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6)


def tables(target) -> list[torch.Tensor]:
    if isinstance(target, torch.Tensor):
        return [target]
    return [table for source in target.sources for table in (source.ids, source.values)]


def test_discarded_crops_are_never_drawn(toy, tmp_path, rng):
    labels = LabelFile(write(tmp_path / "a.fkdl", toy, rng))
    loader = CropLoader(toy.images, labels, 16, 2, 16, calibration=RULE)
    left = {key: [crop for crop, _ in expected([labels], i, RULE)] for i, key in enumerate(labels.keys)}
    shown: dict[str, set] = {key: set() for key in toy.keys}
    for epoch in range(0, 60, 2):
        loader.set_epoch(epoch)
        for batch in loader:
            for key, crop in zip(batch.keys, batch.crops.tolist()):
                shown[key].add(crop)
    places = {key: {int(place) for place in range(len(left[key]))} for key in toy.keys}
    assert all(shown[key] <= places[key] for key in toy.keys)
    assert sum(map(len, shown.values())) > 0.95 * sum(map(len, places.values()))
    assert sum(map(len, left.values())) < CROPS * len(toy.keys), "something was discarded"


def test_an_image_without_crops_gets_the_nearest_back(tmp_path):
    sure = [0.10, 0.97, 0.20, 0.96, 0.05]
    values = np.stack([np.array(sure), [0.02] * 5, [0.01] * 5], axis=1).astype(np.float32)
    with LabelWriter(tmp_path / "a.fkdl", num_classes=40, k=3, crops=5, value_type="float32") as writer:
        boxes = np.tile([0, 0, 8, 8], (5, 1))
        boxes[:, 0] = np.arange(5)  # tells the crops apart
        for label in range(40):
            ids = np.tile([label, (label + 1) % 40, (label + 2) % 40], (5, 1))
            writer.add(f"{label:02d}/0.jpg", boxes, [False] * 5, ids, values, image_size=(20, 20))
    labels = LabelFile(tmp_path / "a.fkdl")
    rule = Calibration(0.3, 0.5, 0.95, least=2)
    view = calibrated([labels], rule)[0]
    assert [int(top) for top in view[7].boxes[:, 0]] == [1, 3], "0.97 and 0.96 are nearest to 0.95"
    assert (view[7].values[:, 0] > 0.9).all()
    counted = view.statistics
    assert counted.names[7] == "07"
    assert (counted.emptied[7], counted.filled[7], counted.returned[7]) == (1, 1, 2)
    assert (counted.crops[7], counted.too_hard[7], counted.too_easy[7], counted.kept[7]) == (5, 3, 2, 2)
    assert "40 images were left with too few crops (40 with none): 80 discarded crops came back" in str(
        counted
    )
    weak = calibrated([labels], replace(rule, least=3))[0][7]
    assert weak.boxes[:, 0].tolist() == [1, 2, 3]
    assert weak.values[1].tolist() == pytest.approx([0.9, 0.1 / 39, 0.1 / 39]), (
        "0.20 came back with its class"
    )


def test_statistics_count_every_crop(toy, tmp_path, rng):
    labels = LabelFile(write(tmp_path / "a.fkdl", toy, rng))
    view = calibrated([labels], RULE)[0]
    counted = view.statistics
    for number, name in enumerate(CLASSES):
        images = [i for i, key in enumerate(labels.keys) if key.startswith(f"{name}/")]
        scores = np.concatenate([dense(labels, i).max(axis=1) for i in images])
        crops = [crop for i in images for crop in expected([labels], i, RULE)]
        smooth = sum(bool(np.isclose(rows[0].max(), 1 - RULE.epsilon)) for _, rows in crops)
        assert counted.images[number] == len(images)
        assert counted.crops[number] == len(scores)
        assert counted.too_hard[number] == (scores < RULE.low).sum()
        assert counted.too_easy[number] == (scores > RULE.top).sum()
        assert counted.kept[number] == len(crops)
        assert counted.smoothed[number] == smooth
    assert counted.kept.sum() == view.crop_counts.sum()


# ---- several teachers -----------------------------------------------------------------------------------


def test_teachers_are_calibrated_one_by_one_and_averaged(toy, tmp_path, rng):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng) for i in range(3)]
    files = [LabelFile(path) for path in paths]
    loader = CropLoader(toy.images, paths, 16, 2, 16, calibration=RULE)
    for batch in loader:
        target = batch.target.to_dense()
        for row, (key, crop) in enumerate(zip(batch.keys, batch.crops.tolist())):
            _, rows = expected(files, files[0].find(key), RULE)[crop]
            np.testing.assert_allclose(target[row], np.mean(rows, axis=0), atol=1e-3)


def test_files_of_an_ensemble_fit_each_other(toy, tmp_path, rng):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng) for i in range(2)]
    written = [tmp_path / f"{i}.calibrated.fkdl" for i in range(2)]
    words = ["--thresholds", "0.45", "0.6", "0.9", "--least", "2"]
    for own, other, output in ((paths[0], paths[1], written[0]), (paths[1], paths[0], written[1])):
        assert fkdx(["calibrate", str(own), "--with", str(other), "-o", str(output), *words]) == 0
    ways = [
        CropLoader(toy.images, paths, 16, 2, 16, calibration=RULE),
        CropLoader(toy.images, written, 16, 2, 16),
    ]
    for one, other in zip(*ways, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tables(one.target), tables(other.target), strict=True))
    assert fkdx(["merge", *map(str, written), "-o", str(tmp_path / "mean.fkdl"), "-k", "4"]) == 0


def test_dense_labels_of_teachers_are_averaged(toy, tmp_path, rng):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng, "dense") for i in range(2)]
    batch = next(iter(CropLoader(toy.images, paths, 16, 2, 16)))
    for row, (key, crop) in enumerate(zip(batch.keys, batch.crops.tolist())):
        rows = [LabelFile(path)[key].values[crop].astype(np.float32) for path in paths]
        np.testing.assert_allclose(batch.target[row], np.mean(rows, axis=0), atol=1e-6)


# ---- curricula ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["max", "truth"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_curriculum_goes_from_easy_to_hard(toy, tmp_path, rng, kind, score):
    labels = LabelFile(write(tmp_path / "a.fkdl", toy, rng, kind))
    plan = {"choice": "easy_to_hard", "window": (0, 1 / 3), "epochs": 31, "score": score}
    loader = CropLoader(toy.images, labels, 15, 3, 16, **plan)
    for epoch, ranks in ((0, {0, 1, 2}), (15, {3, 4, 5}), (30, {6, 7, 8})):
        loader.set_epoch(epoch)
        for batch in loader:
            for key in set(batch.keys):
                rows = dense(labels, labels.find(key))
                truth = CLASSES.index(key.split("/")[0])
                scores = rows.max(axis=1) if score == "max" else rows[:, truth]
                shown = [crop for k, crop in zip(batch.keys, batch.crops.tolist()) if k == key]
                allowed = np.sort(scores)[::-1][sorted(ranks)]
                assert sorted(scores[shown]) == pytest.approx(sorted(allowed), rel=1e-6, abs=1e-9)


def test_a_curriculum_is_the_same_for_every_world_and_after_a_break(toy, tmp_path, rng):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng) for i in range(2)]
    plan = {"choice": "hard_to_easy", "window": (0.1, 0.6), "epochs": 8, "size": 16, "seed": 5}
    whole = list(CropLoader(toy.images, paths, 16, 2, **plan))
    ranks = [list(CropLoader(toy.images, paths, 16, 2, rank=r, world_size=2, **plan)) for r in range(2)]
    for step, batch in enumerate(whole):
        parts = [ranks[r][step] for r in range(2)]
        assert batch.keys == [key for part in parts for key in part.keys]
        assert torch.equal(batch.crops, torch.cat([part.crops for part in parts]))
    broken = CropLoader(toy.images, paths, 16, 2, **plan)
    batches = iter(broken)
    next(batches), next(batches)
    again = CropLoader(toy.images, paths, 16, 2, **plan)
    again.load_state_dict(broken.state_dict())
    assert [batch.keys for batch in again] == [batch.keys for batch in whole[2:]]


def test_the_trainer_follows_a_curriculum(toy, tmp_path, rng):
    path = write(tmp_path / "a.fkdl", toy, rng)
    flags = ["--labels", str(path), "--choice", "hard_to_easy", "--window", "[0, 0.5]", "--max-steps", "2"]
    run = [*COMMON, "--data", str(toy.images), "--epochs", "4", "--output", str(tmp_path / "run")]
    assert train([*run, *flags]) == 0
    assert len(steps_of(tmp_path / "run")) == 2


def test_a_curriculum_needs_the_teachers_answers(toy, tmp_path, rng):
    path, hard = write(tmp_path / "a.fkdl", toy, rng), write(tmp_path / "b.fkdl", toy, rng, "hard")
    for labels, options, words in (
        (hard, {}, "a curriculum over hard labels"),
        (path, {"calibration": RULE}, "some of them calibrated to classes"),
        (None, {}, "a calibration or curriculum chooses among stored crops: give `labels`"),
        (path, {"score": "least"}, "score, got 'least'"),
    ):
        with pytest.raises(ValueError, match=words):
            CropLoader(toy.images, labels, 16, 2, 16, choice="range", **options)


# ---- a view is a label file -----------------------------------------------------------------------------


def test_a_view_travels_to_other_processes(toy, tmp_path, rng):
    view = calibrated([LabelFile(write(tmp_path / "a.fkdl", toy, rng))], RULE)[0]
    again = pickle.loads(pickle.dumps(view))
    assert isinstance(again, CalibratedLabels)
    for one, other in zip(view, again, strict=True):
        assert all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("boxes", "ids", "values"))


def test_a_crop_that_is_gone_is_out_of_range(toy, tmp_path, rng):
    view = calibrated([LabelFile(write(tmp_path / "a.fkdl", toy, rng))], RULE)[0]
    with pytest.raises(IndexError, match=r"CalibratedLabels.gather: crop, got .*a\.fkdl"):
        view.gather([3], [[int(view.crop_counts[3])]])
    with pytest.raises(IndexError):
        view[len(view)]


def test_without_classes_crops_can_still_be_dropped(tmp_path, rng):
    with LabelWriter(tmp_path / "a.fkdl", num_classes=6, k=2, crops=4) as writer:
        for number in range(5):
            labels = draw_labels(rng, 4, "topk", 6, 2)
            writer.add(
                f"{number}.jpg", np.tile([0, 0, 5, 5], (4, 1)), [False] * 4, **labels, image_size=(9, 9)
            )
    view = calibrated([LabelFile(tmp_path / "a.fkdl")], Calibration(0.5, 0.5, 1, least=1))[0]
    assert view.statistics.names == ["all"]
    assert all((image.values[:, 0] >= 0.5).all() or len(image.values) == 1 for image in view)


# ---- trainer and command --------------------------------------------------------------------------------


def test_the_trainer_learns_the_same_from_a_view_and_from_a_file(toy, tmp_path, rng, capsys):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng) for i in range(2)]
    files = [LabelFile(path) for path in paths]
    for number, rest in ((0, files[1:]), (1, files[:1])):
        calibrate(files[number], tmp_path / f"written.{number}.fkdl", RULE, rest)
    common = [*COMMON, "--data", str(toy.images), "--epochs", "4"]
    ways = {
        "view": ["--labels", paths[0], "--ensemble", f"[{paths[1]}]", "--calibrate", "[0.45, 0.6, 0.9]"],
        "file": ["--labels", tmp_path / "written.0.fkdl", "--ensemble", f"[{tmp_path / 'written.1.fkdl'}]"],
    }
    for way, flags in ways.items():
        assert train([*common, *map(str, flags), "--output", str(tmp_path / way)]) == 0
        said = capsys.readouterr().out
        assert ("360 crops of 40 images" in said) == (way == "view")
    losses = [[line["loss"] for line in steps_of(tmp_path / way)] for way in ways]
    assert losses[0] == losses[1]
    with open(tmp_path / "view" / "calibration.1.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert sum(int(row["crops"]) for row in rows) == 360


def test_the_command_writes_a_file_and_says_what_it_did(toy, tmp_path, rng, capsys):
    path, output, table = write(tmp_path / "a.fkdl", toy, rng), tmp_path / "b.fkdl", tmp_path / "classes.csv"
    words = ["calibrate", str(path), "-o", str(output), "--thresholds", "0.45", "0.6", "0.9", "--least", "2"]
    assert fkdx([*words, "--table", str(table)]) == 0
    said = capsys.readouterr().out
    view = calibrated([LabelFile(path)], RULE)[0]
    assert str(view.statistics) in said
    assert f"{len(toy.keys)} images, {int(view.crop_counts.sum())} crops" in said
    assert LabelFile(output).header["provenance"]["calibration"]["top"] == 0.9
    assert len(table.read_text().splitlines()) == 1 + len(CLASSES)
    assert fkdx(words) == 1
    assert "--overwrite" in capsys.readouterr().err or output.exists()


# ---- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0.4, "middle": 0.3}, "thresholds, got"),
        ({"middle": 0.96}, "thresholds, got"),
        ({"top": 1.1}, "thresholds, got"),
        ({"epsilon": 0.6}, "epsilon, got 0.6"),
        ({"score": "min"}, "score, got 'min'"),
        ({"least": 0}, "least, got 0"),
    ],
)
def test_a_wrong_rule_is_refused(options, words):
    with pytest.raises(ValueError, match="calibration: ") as error:
        Calibration(**options)
    assert words in str(error.value)


def refused(words: list[str], capsys) -> str:
    """The one line with which `fkdx calibrate` or the trainer refuses."""
    assert (train(words) if words[0].startswith("--") else fkdx(words)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_thresholds_out_of_order_are_refused(toy, tmp_path, rng, capsys):
    path = write(tmp_path / "a.fkdl", toy, rng)
    words = ["calibrate", str(path), "-o", str(tmp_path / "b.fkdl"), "--thresholds", "0.5", "0.3", "0.9"]
    assert "thresholds, got (0.5, 0.3, 0.9)" in refused(words, capsys)
    run = ["--data", str(toy.images), "--labels", str(path), "--output", str(tmp_path / "run")]
    assert "thresholds, got (0.5, 0.3, 0.9)" in refused([*run, "--calibrate", "[0.5, 0.3, 0.9]"], capsys)
    assert "calibrate, got [0.5, 0.3], expected 3 numbers" in refused(
        [*run, "--calibrate", "[0.5, 0.3]"], capsys
    )
    assert not (tmp_path / "b.fkdl").exists()


def test_labels_without_ground_truth_are_refused(tmp_path, rng, capsys):
    for name, key, outputs in (("bare", "0.jpg", 6), ("features", "cat/0.jpg", 6)):
        with LabelWriter(tmp_path / f"{name}.fkdl", "dense", num_classes=outputs, crops=1) as writer:
            labels = draw_labels(rng, 1, "dense", outputs, 1)
            writer.add(key, [[0, 0, 5, 5]], [False], **labels, image_size=(9, 9))
        words = ["calibrate", str(tmp_path / f"{name}.fkdl"), "-o", str(tmp_path / "b.fkdl")]
        assert "no ground truth" in refused(words, capsys)


def test_random_crops_are_not_calibrated(toy):
    with pytest.raises(
        ValueError, match="calibration or curriculum chooses among stored crops: give `labels`"
    ):
        CropLoader(toy.images, None, 16, 2, 16, calibration=RULE)


def test_an_ensemble_needs_labels_and_stays_what_it_was(toy, tmp_path, rng, capsys):
    paths = [write(tmp_path / f"{i}.fkdl", toy, rng, provenance={"teacher": f"number {i}"}) for i in range(3)]
    run = [*COMMON, "--data", str(toy.images), "--output", str(tmp_path / "run"), "--max-steps", "1"]
    assert "ensemble needs `labels` to be set" in refused(
        [*run, "--teacher", "x", "--ensemble", f"[{paths[1]}]"], capsys
    )
    labels = ["--labels", str(paths[0]), "--ensemble"]
    assert train([*run, *labels, f"[{paths[1]}]"]) == 0
    assert "other labels" in refused([*run, *labels, f"[{paths[2]}]"], capsys)


def test_labels_without_probabilities_are_refused(toy, tmp_path, rng, capsys):
    path = write(tmp_path / "a.fkdl", toy, rng, "hard")
    words = ["calibrate", str(path), "-o", str(tmp_path / "b.fkdl")]
    assert "got hard ones, expected probabilities" in refused(words, capsys)


@pytest.mark.parametrize("change", ["boxes", "flips"])
def test_labels_of_other_crops_are_refused(toy, tmp_path, rng, change, capsys):
    paths = [write(tmp_path / "0.fkdl", toy, rng)]
    crops = {key: tuple(part.copy() for part in parts) for key, parts in toy.crops.items()}
    boxes, flips = crops[toy.keys[17]]
    boxes[4] = (0, 0, 7, 5) if change == "boxes" else boxes[4]
    flips[4] ^= change == "flips"
    paths.append(write(tmp_path / "1.fkdl", replace(toy, crops=crops), rng))
    words = ["calibrate", str(paths[0]), "--with", str(paths[1]), "-o", str(tmp_path / "b.fkdl")]
    assert "crops, got others than in" in refused(words, capsys)
    loader = CropLoader(toy.images, paths, 40 * CROPS, CROPS, 16)
    with pytest.raises(ValueError, match=r"crops, got others than in .*0\.fkdl, expected .*1\.fkdl"):
        next(iter(loader))


def test_labels_of_other_images_or_sorts_are_refused(toy, tmp_path, rng):
    first = write(tmp_path / "0.fkdl", toy, rng)
    fewer = write(tmp_path / "1.fkdl", replace(toy, keys=toy.keys[1:]), rng)
    renamed = write(tmp_path / "2.fkdl", toy, rng, classes=CLASSES[::-1])
    sort = write(tmp_path / "3.fkdl", toy, rng, "dense")
    for other, words in ((fewer, "images, got"), (renamed, "class names, got"), (sort, "several teachers")):
        with pytest.raises(ValueError, match=words):
            CropLoader(toy.images, [first, other], 16, 2, 16)
    with pytest.raises(ValueError, match="calibration: images, got others than in"):
        calibrated([LabelFile(first), LabelFile(fewer)], RULE)


def test_a_view_hides_the_bytes_of_its_file(toy, tmp_path, rng):
    """Copying blocks would write the labels of the file, not those of the view."""
    view = calibrated([LabelFile(write(tmp_path / "a.fkdl", toy, rng))], RULE)[0]
    assert view.kind == "topk"
    with pytest.raises(AttributeError, match="_native"):
        view._native  # noqa: B018
