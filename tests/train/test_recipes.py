"""Recipes and schedules: what they say, and two steps of every shipped one, in one process and in two."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from toy import steps_of, torchrun

from fkdx.train.check_recipe import check_recipe
from fkdx.train.differences import differences, without_effect
from fkdx.train.loop import main
from fkdx.train.read_recipe import SHIPPED, load_yaml, read_recipe
from fkdx.train.recipe import KEYS, Recipe
from fkdx.train.schedule import Pass, learning_rate, passes, settings_at

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
TOY = ["--size", "32", "--batch-size", "8", "--max-steps", "2", "--warmup-epochs", "0", "--device", "cpu"]
TOY += ["--pretrained", "false", "--log-every", "1"]
# Evaluations of distilled sets, whose labels are logits.
DISTILLED = [f"{name}_resnet18" for name in ("sre2l", "cda", "g_vbsm", "edc", "lpld", "lpqld", "rded")]
# Students that can do with 32 pixels, in place of those that cannot or that take long.
SMALLER = {
    "fkd_resnet101_plain": ["--student", "resnet18"],
    "embedding_vit_small": ["--student-args", "{img_size: 32, depth: 2}"],
    "ferkd_finetune": ["--crops-per-image", "4"],
    "ferkd_vit_small": ["--student-args", "{img_size: 32, depth: 2}"],
    "fkd_vit_tiny": ["--student-args", "{img_size: 32, drop_path_rate: 0.1}"],
    "meal_v2_resnet50": ["--crops-per-image", "4"],
    "ssl_resnet50": ["--student-args", "{backbone: resnet18, hidden: 32}"],
    "vanillakd_vit_tiny": ["--student-args", "{img_size: 32, drop_path_rate: 0.05}"],
    "vanillakd_vit_small": ["--student-args", "{img_size: 32, depth: 2}"],
    "vanillakd_convnextv2_tiny": ["--student", "convnextv2_atto"],
}
# ResNets with a block a stage, but for these recipes.
SHALLOW = {"resnet18": {"layers": [1] * 4}, "resnet50": {"layers": [1] * 4, "base_width": 16}}
WHOLE = ("fkd_resnet50", "sre2l_resnet18")


def small_student(name: str) -> list[str]:
    """Arguments that make a recipe's student small."""
    recipe = load_yaml(name)
    shallow = SHALLOW.get(recipe["student"].split(".")[0])
    if name in WHOLE or shallow is None:
        return SMALLER.get(name, [])
    args = {**recipe.get("student_args", {}), **shallow}
    return ["--student-args", yaml.safe_dump(args, default_flow_style=True), *SMALLER.get(name, [])]


@pytest.fixture(scope="session")
def arguments_of(toy, logits, class_logits, embeddings, teachers) -> Callable[[str, Path], list[str]]:
    """arguments_of(recipe's name, output): two steps of it on the toy images."""

    def arguments_of(name: str, output: Path) -> list[str]:
        own = {"ssl": logits, "embedding": embeddings}
        labels = own.get(name.split("_")[0], toy / "labels.fkdl")
        if name in DISTILLED:
            labels = class_logits["topk_logits" if name.startswith("lpqld") else "dense_logits"]
        taught = ["--labels", str(labels)]
        if name.startswith("vanillakd"):
            weights = str(teachers / "test_vit.safetensors")
            taught = ["--teacher", "test_vit", "--teacher-checkpoint", weights]
            taught += ["--teacher-input", "{size: 160}", "--threads", "1"]
        given = ["--config", name, "--data", str(toy / "data" / "train"), "--output", str(output), *taught]
        return [*given, *TOY, *small_student(name)]

    return arguments_of


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs(name, arguments_of, tmp_path):
    assert main(arguments_of(name, tmp_path / "run")) == 0
    assert [math.isfinite(line["loss"]) for line in steps_of(tmp_path / "run")] == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a machine that others keep busy
def test_every_recipe_runs_in_two_processes(arguments_of, tmp_path):
    """One after the other in the same two processes, to start torch once only."""
    program = tmp_path / "all.py"
    runs = [arguments_of(name, tmp_path / name) for name in NAMES]
    program.write_text(
        "from fkdx.train.distributed import World\nfrom fkdx.train.read_recipe import read_recipe\n"
        "from fkdx.train.loop import train\n"
        f"world = World()\nfor arguments in {runs!r}:\n"
        "    assert train(read_recipe(arguments), world) == 0, arguments\nworld.leave()\n"
    )
    done = torchrun(2, [], timeout=900, program=[str(program)])
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert [math.isfinite(line["loss"]) for line in steps_of(tmp_path / name)] == [True, True]


# ---- recipes --------------------------------------------------------------------------------------------


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 1e-3\nepochs: 7\nmean: [0.5, 0.5, 0.5]\nstudent_args: {img_size: 32}\n")
    recipe = read_recipe(["--config", str(path), "--epochs", "9", "--hard", "--decay-epochs", "[3, 6]"])
    assert (recipe.lr, recipe.epochs, recipe.hard, recipe.decay_epochs) == (1e-3, 9, True, [3, 6])
    assert recipe.student_args == {"img_size": 32}
    assert recipe.momentum == Recipe().momentum


def test_a_saved_recipe_reads_as_itself(tmp_path):
    recipe = read_recipe(["--config", "fkd_vit_tiny", "--threads", "3", "--std", "[0.1, 0.2, 0.3]"])
    recipe.save(tmp_path / "args.yaml")
    assert read_recipe(["--config", str(tmp_path / "args.yaml")]) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "unknown key, got 'epoch', did you mean 'epochs'?"),
        ("stages: [{warmup_epoch: 3}]", "did you mean 'warmup_epochs'?, stages[0]"),
        ("lr: high", "lr, got 'high', expected float"),
        ("epochs: 2.5", "epochs, got 2.5, expected int"),
        ("hard: 1", "hard, got 1, expected bool"),
        ("mean: [a, b, c]", "mean, got 'a', expected float"),
        ("amp: fp8", "amp, got 'fp8', expected one of none, bf16, fp16"),
        ("stages: [{epochs: 0}]", "epochs, got 0, expected at least 1"),
        ("batch_size: -4", "batch_size, got -4"),
        ("- lr", "expected keys and values"),
        ("lr: [", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("lr: -1", "lr, got -1.0, expected at least 0"),
        ("lr: .nan", "lr, got nan, expected at least 0"),
        ("temperature: 0", "temperature, got 0.0, expected more than 0"),
        ("temperature: .nan", "temperature, got nan, expected more than 0"),
        ("label_kind: soft", "label_kind, got 'soft', expected one of marginal_smoothing"),
        ("max_steps: -1", "max_steps, got -1, expected at least 0"),
        ("clip_grad: -1", "clip_grad, got -1.0, expected at least 0"),
        ("ema: 1.5", "ema, got 1.5, expected 0 to 1"),
        ("scale: [0.5]", "scale, got [0.5], expected 2 numbers"),
        ("mean: [0.5]", "mean, got [0.5], expected 3 numbers"),
        ("{warmup_epochs: 9, epochs: 4}", "warmup_epochs, got 9, expected at most 4"),
        ("{curve_epochs: 3, epochs: 4}", "curve_epochs, got 3, expected at least 4 (epochs)"),
        (
            "stages: [{epochs: 1}, {teacher: resnet50}]",
            "teacher belongs to the whole run and cannot be set in stages[1]",
        ),
        ("stages: [{ema: 0.9}]", "ema belongs to the whole run"),
        ("stages: [{stages: [{}]}]", "stages belongs to the whole run"),
        (
            "{teacher: a, more_teachers: [{lr: 1}]}",
            "lr belongs to the whole run and cannot be set in more_teachers",
        ),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, text, words):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="recipe: ") as error:
        read_recipe(["--config", str(path)])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--student-args", "{img_size: "], "student_args, got '{img_size: ', expected YAML, command line"),
        (["--mean", "0.5", "0.5", "0.5"], "got '0.5' alone, expected --KEY VALUE; write lists as '[1, 2]'"),
        (["--epochs", "ten"], "epochs, got 'ten', expected int, command line"),
    ],
)
def test_a_wrong_flag_is_refused(arguments, words):
    with pytest.raises(ValueError, match="recipe: ") as error:
        read_recipe(arguments)
    assert words in str(error.value)


def test_help_shows_the_defaults(capsys):
    with pytest.raises(SystemExit):
        read_recipe(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "width over height of a random crop (default: [0.75, 1.3333333333333333])",
        "(default: 0.1)",
        "(default: false)",
    ):
        assert text in shown
    assert "default: [])" not in shown


def test_what_is_no_text_is_refused_with_its_path(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"not YAML.*a\.yaml"):
        read_recipe(["--config", str(tmp_path / "a.yaml")])


def test_a_stage_finds_its_folders(tmp_path):
    for folder in ("one/train", "one/val", "two/train", "two/val"):
        (tmp_path / folder).mkdir(parents=True)
    stages = f"[{{}}, {{data: {tmp_path}/two}}, {{data: {tmp_path}/two, val: {tmp_path}/one/val}}]"
    recipe = read_recipe(["--data", f"{tmp_path}/one", "--stages", stages])
    places = [(stage.data, stage.val) for stage in recipe.in_stages()]
    one, two = ((f"{tmp_path}/{name}/train", f"{tmp_path}/{name}/val") for name in ("one", "two"))
    assert places == [one, two, (two[0], one[1])]


def test_other_data_bring_their_own_validation_images(tmp_path):
    """Unless others are named, or a recipe names those of whatever data."""
    for folder in ("one/train", "one/val", "two/train", "two/val", "three/train"):
        (tmp_path / folder).mkdir(parents=True)
    read_recipe(["--data", f"{tmp_path}/one"]).save(tmp_path / "args.yaml")
    (tmp_path / "val.yaml").write_text(f"val: {tmp_path}/one/val")
    for config, data, more, val in (
        ("args", "two", [], "two/val"),
        ("args", "two", ["--val", f"{tmp_path}/one/val"], "one/val"),
        ("args", "two/train", [], "one/val"),
        ("args", "three", [], "one/val"),
        ("val", "two", [], "one/val"),
    ):
        recipe = read_recipe(["--config", f"{tmp_path}/{config}.yaml", "--data", f"{tmp_path}/{data}", *more])
        assert recipe.val == f"{tmp_path}/{val}"


def test_shipped_recipes_name_what_they_train_and_no_place():
    assert len(NAMES) >= 29
    for name in NAMES:
        text = (SHIPPED / f"{name}.yaml").read_text()
        assert text.startswith("# ")
        keys = load_yaml(name)
        assert not {"data", "labels", "val", "output"} & keys.keys()
        assert read_recipe(["--config", name]).student == keys["student"]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ("fkd_resnet50_plain fkd_resnet101_plain", (300, 1024, 0.1, 1e-4, 0, 0.0, 0.0)),
        ("fkd_resnet50", (300, 1024, 0.2, 1e-4, 5, 0.0, 0.0)),
        ("relabel_resnet50 hard_resnet50", (300, 1024, 0.1, 1e-4, 5, 0.0, 0.0)),
        ("fkd_resnet50_adamw fkd_vit_tiny", (300, 1024, 0.002, 0.05, 5, 1e-6, 1e-5)),
        ("fkd_efficientnetv2_b0 fkd_fbnet_c100", (300, 1024, 0.002, 0.05, 5, 1e-6, 1e-5)),
        ("ferkd_resnet50 ferkd_vit_small", (300, 1024, 0.002, 0.05, 5, 1e-6, 1e-5)),
        ("meal_v2_resnet50", (270, 512, 0.01, 0.0, 0, 0.0, 0.0)),
        ("vanillakd_resnet50_a2", (300, 2048, 0.005, 0.03, 5, 1e-6, 1e-6)),
        ("vanillakd_resnet50_a1", (600, 2048, 0.005, 0.01, 5, 1e-6, 1e-6)),
    ],
)
def test_shipped_recipes_have_the_numbers_of_their_papers(names, numbers):
    """Epochs, batch, rate at its peak, weight decay, warm-up: FKD's tables 10 and 11, VanillaKD's table 2."""
    for recipe in map(read_recipe, (["--config", name] for name in names.split())):
        found = (recipe.epochs, recipe.batch_size, recipe.peak_lr, recipe.weight_decay)
        assert (*found, recipe.warmup_epochs, recipe.warmup_lr, recipe.min_lr) == numbers
        assert recipe.schedule == "cosine"


@pytest.mark.parametrize(
    ("names", "numbers"),
    [  # batch, schedule, share of the rate that is left at the end, loss, passes between evaluations, choice
        ("sre2l_resnet18 cda_resnet18", (1024, "cosine", 0.0, "plain_kl", 10, "cycle")),
        ("g_vbsm_resnet18", (1024, "cosine", 0.0, "mse_gt", 10, "cycle")),
        ("edc_resnet18", (100, "linear", 0.5, "mse_gt", 30, "cycle")),
        ("lpld_resnet18", (128, "cosine", 0.0, "plain_kl", 10, "independent")),
        ("lpqld_resnet18", (128, "cosine", 0.0, "plain_kl", 50, "independent")),
        ("rded_resnet18", (100, "cosine", 0.5, "plain_kl", 10, "cycle")),
    ],
)
def test_evaluations_of_distilled_sets_have_the_numbers_of_their_authors(names, numbers):
    for recipe in map(read_recipe, (["--config", name] for name in names.split())):
        last = learning_rate(recipe, recipe.epochs) / recipe.lr
        found = (recipe.batch_size, recipe.schedule, pytest.approx(last), recipe.teacher_loss)
        assert (*found, recipe.eval_every, recipe.choice) == numbers
        assert (recipe.epochs, recipe.optimizer, recipe.lr, recipe.weight_decay) == (300, "adamw", 1e-3, 0.01)
        assert (recipe.decay_all, recipe.smooth, recipe.amp, recipe.size) == (False, False, "none", 224)
        assert (recipe.crops_per_image, recipe.eval_size, recipe.crop_ratio) == (1, 0, 0.875)
        if recipe.teacher_loss == "plain_kl" and "lpqld" not in names:
            assert (recipe.temperature, recipe.teacher_temperature) == (20, 20)


def test_gamma_and_average_are_those_of_g_vbsm_and_edc():
    one, other = (read_recipe(["--config", f"{name}_resnet18"]) for name in ("g_vbsm", "edc"))
    assert (one.teacher_loss_args, one.ema) == ({"gamma": 0.1}, 0)
    assert (other.teacher_loss_args, other.ema) == ({"gamma": 0.025}, 0.99)


def test_temperatures_of_lpqld_are_those_of_its_program():
    """train_FKD_LPQLD.py counts epochs from 1, and its teacher's temperature never falls below 2."""
    recipe = read_recipe(["--config", "lpqld_resnet18"])
    for at in passes(recipe):
        expected = max(20 * 0.7 ** ((at.epoch + 1) // 30), 2)
        settings = settings_at(recipe, at, 0.5)
        assert settings.teacher_temperature == pytest.approx(expected)
        assert settings.temperature == 1.0


def test_every_key_has_a_text_and_a_default_that_passes():
    assert KEYS.keys() == asdict(Recipe()).keys()
    assert all(key.text for key in KEYS.values())
    check_recipe(Recipe())
    assert yaml.safe_load(yaml.safe_dump(asdict(Recipe()))) == asdict(Recipe())


def test_keys_without_effect_are_named():
    idle = without_effect(Recipe(decay_epochs=[3], mixup_prob=0.5, epsilon=0.2, label_kind="hard"))
    assert idle == {
        "decay_epochs": "schedule step",
        "mixup_prob": "mixup or cutmix or selfmix",
        "epsilon": "calibrate",
        "label_kind": "labels",
    }
    taught = {"temperature": 4.0, "teacher_loss": "kl", "class_weight": 0.5}
    needs = dict.fromkeys(taught, "labels or teacher")
    assert without_effect(Recipe(hard=True, **taught)) == needs
    assert without_effect(Recipe(hard=True, labels="l.fkdl", **taught)) == needs  # which it does not open
    assert without_effect(Recipe(hard=True, teacher="resnet50", **taught)) == {}
    assert without_effect(Recipe(hard=True, labels="l.fkdl", calibrate=[0.1, 0.2, 0.9])).keys() == {
        "calibrate"
    }
    bare = Recipe(labels="l.fkdl", teacher_loss="mse_gt", temperature=20.0)
    assert without_effect(bare) == {"temperature": "another teacher_loss than mse_gt"}
    assert without_effect(replace(bare, stages=[{}, {"teacher_loss": "kl"}])) == {}
    one = Recipe(decay_epochs=[3], stages=[{"schedule": "step"}, {}])
    assert without_effect(one) == {}  # one of its stages uses them
    assert "min_lr" not in without_effect(Recipe(min_lr=0.1, schedule="linear"))
    assert without_effect(Recipe(min_lr=0.1, schedule="step")) == {"min_lr": "schedule cosine or linear"}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_shipped_recipe_has_an_effect(name):
    """With the data that it is meant for: labels, images alone or images and a teacher."""
    data = ["--val", "v", *([] if "hard" in name or "vanillakd" in name else ["--labels", "l.fkdl"])]
    assert without_effect(read_recipe(["--config", name, *data])) == {}


def test_movable_keys_may_differ():
    recipe = Recipe()
    assert differences(asdict(recipe), replace(recipe, output="elsewhere", threads=3)) == []
    assert differences(asdict(recipe), replace(recipe, lr=0.2)) == ["lr: 0.1 -> 0.2"]
    here, there = ([{"data": place, "epochs": 2}, {"epochs": 3}] for place in ("here", "there"))
    assert differences(asdict(replace(recipe, stages=here)), replace(recipe, stages=there)) == []
    longer = [*there[:1], {"epochs": 4}]
    assert len(differences(asdict(replace(recipe, stages=here)), replace(recipe, stages=longer))) == 1


def test_a_recipe_of_an_older_version_is_the_same():
    """Its students may have moved, and some of today's keys did not exist."""
    now = Recipe(student="fkdx.train.student:with_swav")
    assert now.student == "fkdx.models.heads:with_swav"
    assert differences({"student": "fkdx.train.student:with_swav"}, now) == []


# ---- schedules ------------------------------------------------------------------------------------------


def fkd_passes(epochs: int, m: int) -> list[tuple[int, int]]:
    """FKD's loop (train_FKD.py), told again: strides of m epochs, the last m one by one, single-crop."""
    seen = []
    epoch = 0
    while epoch < epochs:
        if epoch + m >= epochs:
            seen += [(e, 1) for e in range(epoch, epochs)]
            break
        seen.append((epoch, m))
        epoch += m
    return seen


def test_serrated_passes_are_those_of_fkd(rng):
    for _ in range(200):
        epochs, m = int(rng.integers(1, 400)), int(rng.integers(1, 40))
        plan = list(passes(Recipe(epochs=epochs, crops_per_image=m)))
        assert plan == fkd_passes(epochs, m)
        assert plan[0].epoch == 0
        assert all(after.epoch == before.epoch + before.crops for before, after in pairwise(plan))
        assert plan[-1] == Pass(epochs - 1, 1)


def test_serrated_cosine_is_that_of_fkd():
    recipe = Recipe(epochs=300, lr=0.1)
    for at in passes(recipe):
        expected = 0.1 * 0.5 * (1 + math.cos(math.pi * at.epoch / 300))
        assert settings_at(recipe, at, 0.17).lr == pytest.approx(expected, rel=1e-12)


def test_warm_up_is_single_crop_and_linear():
    recipe = Recipe(epochs=21, crops_per_image=4, warmup_epochs=5, lr=0.002, warmup_lr=1e-5, min_lr=1e-5)
    plan = list(passes(recipe))
    assert plan[:6] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 4)]
    assert learning_rate(recipe, 0) == 1e-5
    assert learning_rate(recipe, 2) == pytest.approx(1e-5 + (0.002 - 1e-5) * 2 / 5)
    assert learning_rate(recipe, 5) == pytest.approx(
        1e-5 + (0.002 - 1e-5) / 2 * (1 + math.cos(math.pi * 5 / 21))
    )


def test_smooth_curves_have_no_teeth():
    recipe = Recipe(epochs=16, crops_per_image=4, smooth=True, warmup_epochs=2, lr=1.0)
    rates = [settings_at(recipe, at, step / 50).lr for at in passes(recipe) for step in range(50)]
    warm, curve = rates[:100], rates[100:]
    assert warm == sorted(warm)
    assert curve == sorted(curve, reverse=True)
    assert max(a - b for a, b in pairwise(curve)) < 0.01


def test_a_curve_may_be_longer_than_the_run():
    for schedule in ("cosine", "linear"):
        whole = Recipe(schedule=schedule, epochs=40, lr=1.0, min_lr=0.1)
        half = replace(whole, epochs=20, curve_epochs=40)
        assert [learning_rate(half, e) for e in range(21)] == [learning_rate(whole, e) for e in range(21)]


def test_other_curves():
    step = Recipe(schedule="step", epochs=90, lr=1.0, decay_epochs=[30, 60])
    assert [learning_rate(step, e) for e in (0, 29, 30, 59, 60)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    linear = Recipe(schedule="linear", epochs=10, lr=1.0, min_lr=0.5)
    assert [learning_rate(linear, e) for e in (0, 5, 10)] == pytest.approx([1, 0.75, 0.5])
    assert learning_rate(Recipe(schedule="constant", lr=0.3), 250) == 0.3
    assert learning_rate(Recipe(lr=0.1, lr_batch=512, batch_size=1024), 0) == pytest.approx(0.2)
