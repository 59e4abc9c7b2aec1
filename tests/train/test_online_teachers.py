"""VanillaKD: online teachers, their losses beside the classes', and timm's augmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional
from toy import CLASSES, COMMON, draw_images, log_of, same_end, steps_of, write_labels

from fkdx import CropLoader, SparseTarget, prepare, reference
from fkdx.batch.mix import Mixer
from fkdx.models.online import OnlineTeachers
from fkdx.models.teacher import Preprocess, Teacher
from fkdx.stores import open_store
from fkdx.train.augmented import AugmentedLoader
from fkdx.train.checkpoint import save_weights
from fkdx.train.distributed import World
from fkdx.train.lesson import make_lesson
from fkdx.train.loop import main
from fkdx.train.objective import losses
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Settings

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
CPU = torch.device("cpu")
AUGMENTED = Recipe(
    loader="timm", size=32, mean=MEAN, std=STD, batch_size=8, crops_per_image=1, threads=0, hard=True
)
STRONG = ["--loader", "timm", "--auto-augment", "rand-m7-mstd0.5", "--random-erasing", "0.5"]
STRONG += ["--aug-repeats", "3", "--mixup", "0.2", "--cutmix", "1.0", "--crops-per-image", "1"]


def teacher_of(size: int = 32, mean=MEAN, std=STD, outputs: int = 4) -> Teacher:
    model = timm.create_model("test_resnet", num_classes=outputs).eval()
    torch.nn.init.normal_(model.get_classifier().weight)  # answers that differ from image to image
    return Teacher("toy", model, Preprocess(size=size, mean=tuple(mean), std=tuple(std)), {})


def images_of(toy: Path) -> list[str]:
    return ["--data", str(toy / "data" / "train")]


@pytest.fixture(scope="session")
def online(teachers) -> list[str]:
    """Options of an online teacher."""
    weights = str(teachers / "test_resnet.safetensors")
    return ["--teacher", "test_resnet", "--teacher-checkpoint", weights, "--teacher-input", "{size: 32}"]


# ---- teachers -------------------------------------------------------------------------------------------


def test_a_teacher_sees_the_images_of_the_student(rng):
    """Normalised for the student as for itself, it answers as for the crops."""
    crops = torch.from_numpy(rng.integers(0, 256, (3, 32, 32, 3), np.uint8))
    teacher = teacher_of(mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    answer = OnlineTeachers([teacher])(prepare(crops, MEAN, STD), MEAN, STD)
    torch.testing.assert_close(answer, teacher(crops), rtol=1e-4, atol=1e-4)
    assert not answer.is_inference()
    assert not answer.requires_grad


def test_a_teacher_has_its_own_resolution(rng):
    crops = torch.from_numpy(rng.integers(0, 256, (3, 32, 32, 3), np.uint8))
    images = prepare(crops, MEAN, STD)
    teacher = teacher_of(size=48)
    larger = functional.interpolate(images, size=(48, 48), mode="bilinear", antialias=True)
    answer = OnlineTeachers([teacher])(images, MEAN, STD)
    torch.testing.assert_close(answer, teacher(larger), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(answer, teacher_answer_of_size(teacher, images, 32), atol=1e-3)


def teacher_answer_of_size(teacher: Teacher, images: Tensor, size: int) -> Tensor:
    return teacher(functional.interpolate(images, size=(size, size)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_several_teachers_are_their_mean(rng, temperature):
    images = torch.from_numpy(rng.normal(0, 1, (5, 3, 32, 32)).astype(np.float32))
    teachers = [teacher_of(), teacher_of(size=24)]
    alone = [OnlineTeachers([teacher])(images, MEAN, STD) for teacher in teachers]
    together = OnlineTeachers(teachers)(images, MEAN, STD, temperature)
    expected = sum((answer / temperature).softmax(1) for answer in alone) / 2
    torch.testing.assert_close((together / temperature).softmax(1), expected, rtol=1e-4, atol=1e-6)


def test_teachers_agree_on_the_classes():
    with pytest.raises(ValueError, match="teacher: outputs, got"):
        OnlineTeachers([teacher_of(outputs=3), replace_name(teacher_of(outputs=4))])


def replace_name(teacher: Teacher) -> Teacher:
    teacher.name = "another"
    return teacher


def test_a_teacher_sees_what_is_mixed(toy, rng):
    loader = CropLoader(toy / "data" / "train", toy / "labels.fkdl", 8, 2, 32)
    batch = next(iter(loader))
    mix = Mixer(cutmix=1.0).draw(8, 32, 32, rng)
    seen = []

    def teachers(images, mean, std, temperature):
        seen.append(images)
        return torch.zeros(len(images), 4)

    stage = Recipe(mean=MEAN, std=STD, class_weight=0.5, smoothing=0.1)
    lesson = make_lesson(stage, batch, mix, teachers, Settings(0.1, 1.0, 1.0))
    assert seen[0] is lesson.images
    torch.testing.assert_close(lesson.images, prepare(batch.images, MEAN, STD, mix=mix))
    smooth = functional.one_hot(batch.classes, 4) * 0.9 + 0.1 / 4
    lam = mix.lam[:, None]
    expected = lam * smooth + (1 - lam) * smooth[mix.partners]
    torch.testing.assert_close(lesson.classes.to_dense(), expected)


# ---- loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_loss", ["ce", "bce"])
@pytest.mark.parametrize("teacher_loss", ["ce", "plain_kl", "kl", "bkl", "dkd", "dist", "mse_gt"])
def test_the_loss_is_its_formula(rng, class_loss, teacher_loss):
    logits, taught = rng.normal(0, 2, (2, 6, 4))
    classes, share, temperature = rng.integers(0, 4, 6), rng.uniform(0.1, 0.9), rng.uniform(0.5, 4)
    one_hot = np.eye(4)[classes]
    class_term = (
        reference.loss.soft_cross_entropy(logits, one_hot)[0]
        if class_loss == "ce"
        else reference.loss.binary_cross_entropy(logits, one_hot)[0]
    )
    if teacher_loss == "ce":
        target = np.exp(taught / temperature) / np.exp(taught / temperature).sum(1, keepdims=True)
        teacher_term = reference.loss.soft_cross_entropy(logits, target, temperature)[0]
    elif teacher_loss == "plain_kl":
        teacher_term = np.array(reference.loss.kl(logits, taught, temperature)) / temperature**2
    elif teacher_loss == "mse_gt":
        teacher_term = reference.loss.mse_gt(logits, taught, classes, temperature, 3.0)
    elif teacher_loss in ("kl", "bkl"):
        teacher_term = getattr(reference.loss, teacher_loss)(logits, taught, temperature)
    elif teacher_loss == "dkd":
        teacher_term = reference.loss.dkd(logits, taught, classes, temperature, 0.5, 3.0)
    else:
        teacher_term = reference.loss.dist(logits, taught, temperature, 0.5, 3.0)
    names = {
        "dkd": {"alpha": 0.5, "beta": 3.0},
        "dist": {"beta": 0.5, "gamma": 3.0},
        "mse_gt": {"gamma": 3.0},
    }
    stage = Recipe(
        teacher="toy",
        class_loss=class_loss,
        class_weight=share,
        teacher_loss=teacher_loss,
        teacher_loss_args=names.get(teacher_loss, {}),
    )
    got = losses(
        stage,
        Settings(0.1, temperature, temperature),
        torch.from_numpy(logits),
        torch.from_numpy(taught),
        SparseTarget.from_classes(classes, 4),
        bare=True,
    )
    expected = share * class_term + (1 - share) * np.array(teacher_term)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("teacher_loss", ["kl", "bkl", "dkd", "dist"])
def test_a_student_comes_nearer_to_its_teacher(toy, online, tmp_path, teacher_loss):
    data = [*images_of(toy), "--output", str(tmp_path / "run"), "--epochs", "16"]
    flags = ["--teacher-loss", teacher_loss, "--class-weight", "0.1", "--class-loss", "bce"]
    assert main([*COMMON, *data, *online, *flags, "--optimizer", "adamw", "--lr", "0.003"]) == 0
    curve = [line["loss"] for line in steps_of(tmp_path / "run")]
    assert np.mean(curve[-4:]) < np.mean(curve[:4])


def test_two_teachers_of_other_kinds_teach_together(toy, teachers, online, tmp_path):
    data = [*images_of(toy), "--output", str(tmp_path / "run"), "--max-steps", "2"]
    weights = teachers / "test_vit.safetensors"
    vit = f"{{teacher: test_vit, teacher_checkpoint: {weights}, teacher_input: {{size: 160}}}}"
    flags = ["--more-teachers", f"[{vit}]", "--teacher-loss", "kl", "--temperature", "2", "--amp", "bf16"]
    assert main([*COMMON, *data, *online, *flags]) == 0
    assert all(np.isfinite(line["loss"]) for line in steps_of(tmp_path / "run"))


def test_all_teachers_are_compiled_if_asked(toy, teachers, online, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    data = [*images_of(toy), "--output", str(tmp_path / "run"), "--max-steps", "1"]
    another = f"[{{teacher: test_resnet, teacher_checkpoint: {teachers}/test_resnet.safetensors}}]"
    flags = ["--teacher-compile", "--more-teachers", another]
    assert main([*COMMON, *data, *online, *flags]) == 0
    assert len(compiled) == 2


def test_stored_labels_may_be_joined_by_the_classes(toy, tmp_path):
    """With class_weight a the first loss is a * CE of the classes + (1 - a) * CE of the labels."""
    first = {}
    for share in ("0", "0.3", "1"):
        run = tmp_path / share
        data = [*images_of(toy), "--labels", str(toy / "labels.fkdl"), "--output", str(run)]
        assert main([*COMMON, *data, "--class-weight", share, "--max-steps", "1"]) == 0
        first[share] = steps_of(run)[0]["loss"]
    assert first["0.3"] == pytest.approx(0.3 * first["1"] + 0.7 * first["0"], rel=1e-5)
    assert first["0"] != first["1"]


# ---- timm's augmentation --------------------------------------------------------------------------------


def augmented(toy: Path, rank: int = 0, size: int = 1, **keys: object) -> AugmentedLoader:
    world = World()
    world.rank, world.size = rank, size
    recipe = replace(AUGMENTED, data=str(toy / "data" / "train"), **keys)
    return AugmentedLoader(recipe, open_store(recipe.data), CLASSES, world, CPU)


STRONG_KEYS = {
    "auto_augment": "rand-m7-mstd0.5",
    "random_erasing": 0.5,
    "aug_repeats": 3,
    "mixup": 0.2,
    "cutmix": 1.0,
    "smoothing": 0.1,
}


def test_batches_are_a_function_of_seed_epoch_and_step(toy):
    whole = list(augmented(toy, **STRONG_KEYS))
    assert len(whole) == len(augmented(toy)) == 48 // 8
    other = augmented(toy, threads=2, **STRONG_KEYS)
    other.load_state_dict({"epoch": 0, "step": 4})
    for mine, theirs in zip(whole[4:], other, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.target, theirs.target)
        assert mine.keys == theirs.keys
    other.load_state_dict({"epoch": 1, "step": 4})
    assert not torch.equal(next(iter(other)).images, whole[4].images)
    assert not torch.equal(next(iter(augmented(toy, seed=1, **STRONG_KEYS))).images, whole[0].images)


@pytest.mark.slow
def test_workers_that_are_no_forks_make_the_same_batches(toy, monkeypatch):
    """As on macOS; they import torch anew."""
    whole = list(augmented(toy, threads=0, **STRONG_KEYS))
    monkeypatch.setattr("fkdx.train.augmented.start_method", lambda: "spawn")
    for mine, theirs in zip(whole, augmented(toy, threads=1, **STRONG_KEYS), strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert mine.keys == theirs.keys


def test_a_global_batch_is_the_same_for_any_number_of_processes(toy):
    alone = next(iter(augmented(toy, auto_augment="rand-m7-mstd0.5", aug_repeats=3)))
    parts = [
        next(iter(augmented(toy, rank, 2, auto_augment="rand-m7-mstd0.5", aug_repeats=3))) for rank in (0, 1)
    ]
    for rank, part in enumerate(parts):
        assert torch.equal(part.images, alone.images[rank::2])
        assert part.keys == alone.keys[rank::2]


def test_repeated_crops_of_an_image_share_a_batch_and_differ(toy):
    batches = list(augmented(toy, aug_repeats=3, batch_size=24))
    keys = [key for batch in batches for key in batch.keys]
    assert len(set(keys)) == 48 // 3
    first = batches[0]
    assert first.keys[0] == first.keys[1] == first.keys[2] != first.keys[3]
    assert not torch.equal(first.images[0], first.images[1])


def test_plain_crops_come_with_their_classes(toy):
    for batch in augmented(toy, smoothing=0.2):
        assert batch.images.shape == (8, 3, 32, 32)
        classes = torch.tensor([CLASSES.index(key.split("/")[0]) for key in batch.keys])
        assert torch.equal(batch.classes, classes)
        torch.testing.assert_close(batch.target, functional.one_hot(classes, 4) * 0.8 + 0.2 / 4)


def test_without_workers_a_run_is_still_evaluated(soft, tmp_path):
    """The threads that decode validation images are another number."""
    more = ["--labels", "", "--hard", "--loader", "timm", "--crops-per-image", "1", "--threads", "0"]
    assert main([*soft, *more, "--max-steps", "1"]) == 0
    assert log_of(tmp_path / "run")[-1]["images"] == 20


def test_mixed_targets_follow_the_pixels(toy):
    """CutMix of the same crops: the share of pixels that changed is the share of the partner's class."""
    shares = []
    for mixed, plain in zip(augmented(toy, cutmix=1.0), augmented(toy), strict=True):
        share = (mixed.images != plain.images).any(1).flatten(1).float().mean(1, keepdim=True)
        expected = (1 - share) * plain.target + share * plain.target.flip(0)
        torch.testing.assert_close(mixed.target, expected, rtol=0, atol=0.02)
        shares.append(share.mean().item())
    assert max(shares) > 0.05
    off = augmented(toy, cutmix=1.0, mixup_off_epoch=3)
    off.load_state_dict({"epoch": 3, "step": 0})
    assert torch.equal(next(iter(off)).target.max(1).values, torch.ones(8))


def test_erased_rectangles_are_noise(toy):
    erased = next(iter(augmented(toy, random_erasing=1.0)))
    plain = next(iter(augmented(toy)))
    changed = (erased.images != plain.images).all(1)
    assert changed.flatten(1).float().mean(1).gt(0.015).all()
    assert erased.images[:, 0][changed].std() == pytest.approx(1, abs=0.3)


def test_an_unreadable_image_is_named(toy, tmp_path, rng, capsys):
    draw_images(tmp_path / "train", 2, rng)
    (tmp_path / "train" / "red" / "0.jpg").write_bytes(b"no image")
    arguments = ["--data", str(tmp_path / "train"), "--output", str(tmp_path / "run"), "--hard"]
    for threads in ("0", "1"):
        assert main([*COMMON, *arguments, *STRONG, "--batch-size", "8", "--threads", threads]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "train: cannot read an image" in line
        assert line.endswith("red/0.jpg")


def test_a_run_that_was_cut_off_goes_on_exactly(toy, online, tmp_path, rng):
    """RandAugment, erasing, repeats, Mixup and CutMix by timm, taught online: three epochs of 3 steps."""
    run = [*COMMON, *images_of(toy), *online, *STRONG, "--epochs", "3", "--threads", "1"]
    run += ["--teacher-loss", "kl", "--class-weight", "0.5", "--class-loss", "bce", "--smoothing", "0.1"]
    assert main([*run, "--output", str(tmp_path / "whole")]) == 0
    for step in sorted(rng.choice(np.arange(1, 9), size=2, replace=False)):
        assert main([*run, "--output", str(tmp_path / "cut"), "--max-steps", str(step)]) == 0
    assert main([*run, "--output", str(tmp_path / "cut")]) == 0
    assert same_end(tmp_path / "cut", tmp_path / "whole")
    assert len(log_of(tmp_path / "whole")) == 9


# ---- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--temperature", "0"], "temperature, got 0.0, expected more than 0"),
        (["--teacher-temperature", "-1"], "teacher_temperature, got -1.0, expected more than 0"),
        (["--class-weight", "1.5"], "class_weight, got 1.5, expected 0 to 1"),
        (["--teacher-loss", "l2"], "teacher_loss, got 'l2', expected one of ce, plain_kl, kl, bkl, dkd"),
        (
            ["--teacher-loss", "kl"],
            "got kl with labels of kind topk, expected ce or plain_kl; the others need",
        ),
        (["--more-teachers", "[{teacher: test_vit}]"], "more_teachers needs `teacher` to be set"),
        (["--auto-augment", "rand-m7"], "auto_augment, got rand-m7, expected loader timm"),
        (["--aug-repeats", "3"], "aug_repeats, expected loader timm"),
        (["--loader", "timm", "--crops-per-image", "1"], "loader timm, got labels"),
    ],
)
def test_what_does_not_fit_is_one_line(toy, tmp_path, flags, words, capsys):
    data = [*images_of(toy), "--labels", str(toy / "labels.fkdl"), "--output", str(tmp_path)]
    assert main([*COMMON, *data, *flags]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_binary_cross_entropy_of_bare_logits_is_refused(toy, tmp_path, rng, capsys):
    images, labels = toy / "data" / "train", tmp_path / "logits.fkdl"
    write_labels(labels, images, rng, "dense_logits", 4)
    data = ["--data", str(images), "--labels", str(labels), "--output", str(tmp_path)]
    assert main([*COMMON, *data, "--class-weight", "0.5", "--class-loss", "bce"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "class_loss, got bce with dense logits" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--teacher-loss", "kl", "--teacher-temperature", "2"], "teacher_temperature, got 2.0 with kl"),
        (["--teacher-checkpoint", "5.safetensors"], "teacher: outputs, got 5, expected the student's 4"),
        (["--teacher-input", "{sise: 32}"], "teacher_input: got {'sise': 32}, expected keys among"),
        (["--teacher-input", "{size: big}"], "teacher_input.size, got 'big', expected int, test_resnet"),
        (["--teacher-input", "{mean: 0.5}"], "teacher_input.mean, got 0.5, expected list, test_resnet"),
        (["--teacher-loss", "dkd", "--teacher-loss-args", "{gamma: 1}"], "expected ['alpha', 'beta']"),
        (["--loader", "timm"], "one crop an image"),
        (["--loader", "timm", "--crops-per-image", "1", "--batch-size", "5"], "expected an even number"),
        (["--more-teachers", "[{teachers: test_vit}]"], "did you mean 'teacher'?, more_teachers[0]"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(toy, online, tmp_path, flags, words, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "5.safetensors", timm.create_model("test_resnet", num_classes=5))
    assert main([*COMMON, *images_of(toy), "--output", "run", *online, *flags]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
