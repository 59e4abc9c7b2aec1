"""Labels of crops mixed across images: the loader shows a student the very input that the teacher saw."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from generating import CROPS, SIZE, changed, make_teacher, replayed, teacher_inputs

from fkdx import LabelFile, LabelWriter, cli
from fkdx.generate.draw import RandomCrops
from fkdx.generate.pairs import RUN, Pairs
from fkdx.labels.layout import CUTMIX, MIXUP

MIXING = ["--mixup", "0.8", "--cutmix", "1"]


def labels_of(options: list[str]) -> LabelFile:
    assert cli.run("generate", options) == 0
    return LabelFile(options[-1])


@pytest.mark.parametrize(("mixing", "found"), [(MIXING, {1, 2}), (MIXING[:2], {1}), (MIXING[2:], {2})])
@pytest.mark.parametrize("batch_size", [8, 64])
def test_a_student_sees_what_the_teacher_saw(job_options, job_images, mixing, found, batch_size) -> None:
    with teacher_inputs() as seen:
        labels = labels_of([*mixing, *changed(job_options, **{"batch-size": batch_size})])
    shown = torch.cat(seen[1:])  # the first is the probe for the number of classes
    student = replayed(job_images, labels)
    for row, place in zip(shown, [(key, crop) for key in labels.keys for crop in range(CROPS)], strict=True):
        assert torch.equal(row, student[place])
    operations = np.concatenate([image.mixes.operations for image in labels])
    assert set(operations.tolist()) == found
    assert labels.mix_size == SIZE
    assert labels.header["provenance"]["mixup"] == (0.8 if 1 in found else 0)


def test_labels_are_what_the_teacher_says_of_mixed_crops(job_options: list[str], job_images: Path) -> None:
    labels = labels_of([*MIXING, *job_options])
    model = make_teacher(Path(job_options[-1]).parent / "weights.safetensors")
    for (key, crop), pixels in replayed(job_images, labels).items():
        with torch.no_grad():
            values, ids = model(pixels[None]).softmax(1)[0].topk(2)
        np.testing.assert_array_equal(labels[key].ids[crop], ids)
        np.testing.assert_allclose(labels[key].values[crop], values, atol=1e-3)


def test_a_folder_of_shards_holds_the_mixes_of_one_file(job_options, job_images, tmp_path: Path) -> None:
    one = labels_of([*MIXING, *job_options])
    several = labels_of([*MIXING, *changed(job_options, output=tmp_path / "set")])
    assert len(list((tmp_path / "set").glob("*.fkdl"))) > 1
    assert sorted(several.keys) == sorted(one.keys)
    for key in one.keys:
        np.testing.assert_array_equal(several[key].values, one[key].values)
        assert several[key].mixes.partners == one[key].mixes.partners
    several.verify()
    shown, again = (replayed(job_images, labels) for labels in (one, several))
    assert all(torch.equal(pixels, again[place]) for place, pixels in shown.items())


def test_fkdx_verify_repeats_the_mixes(job_options: list[str], job_images: Path, capsys) -> None:
    path = Path(job_options[-1])
    labels_of([*MIXING, "--augment", "erase", "color_jitter", "--temperature", "2", *job_options])
    again = ["--images", str(job_images), "--teacher", "test_resnet", "--temperature", "2"]
    again += ["--size", str(SIZE)]
    again += ["--checkpoint", str(path.parent / "weights.safetensors")]
    assert cli.main(["verify", str(path), *again]) == 0
    told = capsys.readouterr().out
    assert re.search(r"as stored +100\.0% +0\.000\d", told)
    assert not re.search(r"left plain +\S+ +0\.000\d", told)


def test_a_new_teacher_sees_old_mixes(job_options: list[str], tmp_path: Path, capsys) -> None:
    old = labels_of([*MIXING, "--augment", "rand_augment", "--seed", "4", *job_options])
    again = ["--crops-from", job_options[-1], *changed(job_options, output=tmp_path / "new.fkdl")]
    new = labels_of(again)
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert one.extra == other.extra
        assert one.mixes.partners == other.mixes.partners
        np.testing.assert_array_equal(one.mixes.boxes, other.mixes.boxes)
        np.testing.assert_array_equal(one.mixes.lambdas, other.mixes.lambdas)
    assert new.header["extra"] == old.header["extra"]
    wrong = changed(again, output=tmp_path / "wrong.fkdl")
    for more, said in [
        (["--mixup", "1"], "mixed already"),
        (["--augment", "erase"], "augmented already"),
    ]:
        assert cli.run("generate", [*more, *wrong]) == 1
        assert said in capsys.readouterr().err
    assert cli.run("generate", changed(wrong, size=48)) == 1
    assert "size of mixed crops, got [48], expected 32" in capsys.readouterr().err


def test_crops_that_nobody_can_repeat_are_refused(job_options: list[str], tmp_path: Path, capsys) -> None:
    extra = {"operations": ["cutout"], "form": "json"}
    with LabelWriter(tmp_path / "old.fkdl", num_classes=3, k=1, crops=2, extra=extra):
        pass
    assert cli.run("generate", ["--crops-from", str(tmp_path / "old.fkdl"), *job_options]) == 1
    assert "went through cutout, expected what can be repeated" in capsys.readouterr().err


@pytest.mark.parametrize("more", [MIXING, ["--augment", "erase"]], ids=["mixed", "augmented"])
def test_what_only_plain_crops_can_do_is_refused_in_one_line(
    job_options, tmp_path: Path, more, capsys
) -> None:
    mixed = labels_of([*more, *job_options]).path
    plain = labels_of(changed(job_options, output=tmp_path / "plain.fkdl")).path
    new = ["--output", str(tmp_path / "new")]
    alone = "mixed or.* changed"
    for verb, arguments, words in [
        ("merge", [plain, mixed, *new], "mixing or augmentation of .*, got another one"),
        ("concat", [mixed, plain, *new], "crops, got plain crops, expected (mixed|changed).* as in"),
        ("compare", [plain, mixed], alone),
        ("calibrate", [mixed, *new], alone),
        ("export", [mixed, *new], alone),
    ]:
        capsys.readouterr()
        assert cli.run(verb, list(map(str, arguments))) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(f"fkdx {verb}: .*{words}.*{mixed}", line), line
        assert not (tmp_path / "new").exists()


def test_own_crops_do_not_change(job_options: list[str], tmp_path: Path) -> None:
    plain = labels_of(job_options)
    mixed = labels_of([*MIXING, *changed(job_options, output=tmp_path / "mixed.fkdl")])
    for one, other in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.flips, other.flips)


def test_partners_are_other_images_and_shared_by_runs(job_options: list[str]) -> None:
    labels = labels_of([*MIXING, *job_options])
    chosen = set()
    for image in labels:
        assert image.key not in image.mixes.partners
        runs = [set(image.mixes.partners[first : first + RUN]) for first in range(0, CROPS, RUN)]
        assert all(len(run) == 1 for run in runs)
        chosen |= set.union(*runs)
    assert len(chosen) > 3


def test_parameters_depend_on_seed_key_and_crop_alone() -> None:
    pairs = Pairs(0.8, 1.0, RandomCrops(20, 5), SIZE)
    operations, lambdas, boxes = pairs.parameters("a/b.jpg", 400)
    for few, many in zip(pairs.parameters("a/b.jpg", 7), (operations, lambdas, boxes)):
        np.testing.assert_array_equal(few, many[:7])
    other = Pairs(0.8, 1.0, RandomCrops(20, 6), SIZE).parameters("a/b.jpg", 400)
    assert (other[1] != lambdas).any()
    assert 150 < (operations == MIXUP).sum() < 250
    assert (lambdas[operations == CUTMIX] == 1).all()
    assert 0.4 < lambdas[operations == MIXUP].mean() < 0.6
    assert not boxes[operations == MIXUP].any()


def test_a_broken_partner_gives_way(job_options: list[str], job_images: Path, tmp_path: Path) -> None:
    root = make_data_copy(job_images, tmp_path / "broken")
    (root / "bee" / "1.jpg").write_bytes(b"no image")
    labels = labels_of([*MIXING, *changed(job_options, data=root)])
    assert len(labels) == 11
    assert all("bee/1.jpg" not in image.mixes.partners for image in labels)
    assert len(replayed(root, labels)) == 11 * CROPS


def make_data_copy(data: Path, root: Path) -> Path:
    for path in data.glob("*/*.jpg"):
        target = root / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return root


def test_what_cannot_be_mixed_is_refused(
    job_options: list[str], job_images: Path, tmp_path: Path, capsys
) -> None:
    for wrong, said in [(["--mixup", "-1"], "no negative number"), (["--maps", *MIXING], "--maps")]:
        with pytest.raises(SystemExit):
            cli.run("generate", [*wrong, *job_options])
        assert said in capsys.readouterr().err
    (tmp_path / "one" / "ant").mkdir(parents=True)
    (tmp_path / "one" / "ant" / "0.jpg").write_bytes((job_images / "ant" / "0.jpg").read_bytes())
    (tmp_path / "one" / "bee").mkdir()
    (tmp_path / "names").write_text("ant\nbee\ncat\n")
    one = ["--classes", str(tmp_path / "names"), *changed(job_options, data=tmp_path / "one")]
    assert cli.run("generate", [*MIXING, *one]) == 1
    assert "images to mix, got 1" in capsys.readouterr().err
