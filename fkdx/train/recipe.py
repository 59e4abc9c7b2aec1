"""Recipes: every key of a training run, its default, its meaning."""

# ruff: noqa: RUF009 (`key` is `dataclasses.field` with a text)

import difflib
import types
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
import yaml

from fkdx.models.machine import AMP, PRECISIONS

# Keys that may change when a run is resumed: where things lie, what the machine can do, how the run
# is watched, when it is cut off.
MOVABLE = {
    *("data", "labels", "ensemble", "val", "output", "resume", "device", "teacher_checkpoint", "real_labels"),
    *("threads", "cache_bytes", "accumulate", "compile", "teacher_compile", "max_steps", "nonfinite_limit"),
    *("evaluate", "eval_every", "log_every", "save_every", "save_minutes", "tensorboard", "wandb"),
}
# Keys of a run as a whole, which no stage can have for itself.
OF_THE_RUN = {
    *("student", "student_args", "pretrained", "init", "ema", "output", "resume", "evaluate", "stages"),
    *("teacher", "teacher_checkpoint", "teacher_input", "teacher_compile", "more_teachers"),
    *("device", "channels_last", "sync_bn", "deterministic", "max_steps", "save_every", "nonfinite_limit"),
    *("tensorboard", "wandb"),
}
# Functions that moved; recipes and checkpoints may name their old place.
MOVED = {f"fkdx.train.student:{name}": f"fkdx.models.heads:{name}" for name in ("with_moco_v2", "with_swav")}
OF_A_TEACHER = {"teacher", "teacher_checkpoint", "teacher_input"}


def key(default: Any, text: str, heading: str = "") -> Any:
    """A key of a recipe; `heading` begins a group of them in `--help`."""
    make = {"default_factory": default.copy} if isinstance(default, (list, dict)) else {"default": default}
    return field(metadata={"help": text, "heading": heading}, **make)


@dataclass(frozen=True)
class Recipe:
    """One training run. Sizes in pixels, batches in crops, epochs in views of every image."""

    data: str = key(
        "",
        "training images: one folder a class, or a folder that holds train/ and val/",
        heading="what is learned from",
    )
    labels: str = key("", "label file (.fkdl)")
    ensemble: list[str] = key([], "label files of more teachers for the same crops: the mean is learned")
    calibrate: list[float] = key(
        [],
        "FerKD's [low, middle, top]: drop crops scored below low or above top, below middle learn the class",
    )
    epsilon: float = key(0.1, "what a class that is learned in a label's place leaves to all others")
    score: str = key("max", "of a crop: the teacher's largest probability (max) or that of the class (truth)")
    val: str = key(
        "", "validation images, one folder a class; empty: data/val if there is one, else no evaluation"
    )
    output: str = key("", "folder for checkpoints and logs")
    hard: bool = key(False, "learn from the images' classes on random crops instead of labels: the baseline")
    label_kind: str = key(
        "marginal_smoothing", "how top-K labels become targets: also marginal_renorm, smoothing, hard"
    )
    temperature: float = key(1.0, "divides the student's logits in the loss")
    interpolation: str = key("bilinear", "of crops: bilinear, bicubic, or (timm's loader) random")
    choice: str = key(
        "independent",
        "crops of an image: independent draws, cycle through all of them, or by how sure the teacher is: "
        "easy_to_hard, hard_to_easy, range",
    )
    window: list[float] = key(
        [0.0, 0.25], "where choice is by sureness: part of the crops, from the easiest (0) to the hardest (1)"
    )
    scale: list[float] = key([0.08, 1.0], "random crops (--hard): share of the image's area")
    ratio: list[float] = key([3 / 4, 4 / 3], "random crops (--hard): width over height")
    on_error: str = key("raise", "an unreadable image: raise, or skip (counted and reported)")
    on_missing: str = key("raise", "images without labels, labels without images: raise, or ignore")
    threads: int | None = key(
        None, "decoding threads (loader timm: processes) of each process; empty: its share"
    )
    cache_bytes: int = key(0, "memory of each process for encoded images")

    loader: str = key(
        "crops",
        "crops: fkdx's own, plain crops; timm: random crops that timm augments",
        heading="augmentation, with loader timm",
    )
    auto_augment: str = key("", "timm's name of a policy, such as rand-m7-mstd0.5 (RandAugment)")
    color_jitter: float = key(0.0, "strength of colour jitter, where there is no auto_augment")
    random_erasing: float = key(0.0, "probability of erasing a rectangle")
    aug_repeats: int = key(1, "crops of one image in a batch over all processes (repeated augmentation)")

    student: str = key(
        "resnet50",
        "timm model name, or module:function of your own called with num_classes",
        heading="who learns",
    )
    student_args: dict = key({}, "more arguments of the student, as YAML")
    pretrained: bool = key(False, "start from timm's pretrained weights")
    init: str = key("", "start from these weights (.safetensors or .pt); a head of another size starts anew")
    size: int = key(0, "side of a crop; 0: what the student expects")
    mean: list[float] | None = key(None, "mean of the pixels, in [0, 1]; empty: the student's own")
    std: list[float] | None = key(None, "standard deviation of the pixels; empty: the student's own")
    freeze: list[str] = key(
        [],
        "parameters whose names match one of these patterns stay as they are, statistics of such norms too",
    )

    teacher: str = key(
        "",
        "learn from this timm model's answers to the crops instead of stored ones",
        heading="online teachers, which label the same crops on the fly",
    )
    teacher_checkpoint: str = key("", "its weights; empty: timm's pretrained ones")
    teacher_input: dict = key(
        {}, "its size (default: the student's), and mean and std if not the usual, as YAML"
    )
    teacher_temperature: float = key(1.0, "divides a teacher's logits, online or stored")
    teacher_compile: bool = key(False, "torch.compile the teachers")
    more_teachers: list[dict] = key(
        [], "more of them, of whose answers the mean is learned: each names keys such as teacher"
    )

    teacher_loss: str = key(
        "ce",
        "ce: soft cross-entropy; kl, bkl, dkd, dist: of online teachers' logits, both over temperature",
        heading="loss: class_weight x class_loss + (1 - class_weight) x teacher_loss",
    )
    teacher_loss_args: dict = key({}, "dkd: alpha, beta; dist: beta, gamma; as YAML")
    class_loss: str = key("ce", "of the images' own classes: ce, or bce (binary cross-entropy)")
    class_weight: float = key(0.0, "its share; all of it with --hard and no teacher")
    smoothing: float = key(0.0, "of the images' own classes: each class gets smoothing / classes")

    batch_size: int = key(1024, "crops a step over all processes", heading="batches")
    crops_per_image: int = key(4, "crops of one image in a batch (m)")
    accumulate: int = key(1, "split each process's batch into this many parts, one after the other")
    seed: int = key(0, "of weights, order, crops, mixing and drop-outs")

    mixup: float = key(0.0, "Mixup: alpha of Beta(alpha, alpha); 0: none", heading="mixing of crops")
    cutmix: float = key(0.0, "CutMix: alpha; 0: none")
    selfmix: float = key(0.0, "SelfMix, CutMix among the crops of one image: alpha; 0: none")
    mixup_prob: float = key(1.0, "part of the batches that are mixed")
    mixup_switch_prob: float = key(0.5, "part of them that are cut where Mixup is on as well")
    mixup_off_epoch: int = key(0, "no mixing from this epoch on; 0: to the end")

    optimizer: str = key(
        "momentum",
        "timm name: momentum (SGD), sgd (SGD with Nesterov), adamw, lamb, ...",
        heading="optimiser",
    )
    optimizer_args: dict = key({}, "more arguments of the optimiser, as YAML")
    momentum: float = key(0.9, "of SGD")
    weight_decay: float = key(1e-4, "weight decay")
    decay_all: bool = key(True, "decay norms and biases too")
    clip_grad: float = key(0.0, "largest norm of the gradient; 0: any")
    ema: float = key(0.0, "decay of an average of the weights, which is then evaluated and exported; 0: none")

    epochs: int = key(300, "views of every image", heading="schedule")
    schedule: str = key("cosine", "cosine, linear, step or constant")
    smooth: bool = key(False, "follow the curve step by step; otherwise once a pass (serrated)")
    lr: float = key(0.1, "learning rate")
    lr_batch: int = key(0, "lr is meant for this many crops a step and scaled to batch_size; 0: lr as it is")
    min_lr: float = key(0.0, "where cosine and linear end")
    warmup_epochs: int = key(0, "single-crop epochs with a linearly growing rate")
    warmup_lr: float = key(0.0, "where warm-up starts")
    decay_epochs: list[int] = key([], "schedule step: epochs at which the rate falls")
    decay_rate: float = key(0.1, "schedule step: by this factor")
    max_steps: int = key(0, "stop after this many steps; 0: at the end")
    stages: list[dict] = key([], "run one after the other: each names the keys in which it differs")

    device: str = key("auto", "cuda, cpu or auto", heading="machine")
    amp: str = key("none", "precision of the forward pass: none, bf16 or fp16")
    channels_last: bool = key(True, "NHWC weights and activations")
    compile: bool = key(False, "torch.compile the student")
    sync_bn: bool = key(False, "batch statistics over all processes")
    deterministic: bool = key(False, "the same bits in every run on one kind of machine, at some cost")

    evaluate: bool = key(
        False,
        "only evaluate `init` or the pretrained student on val",
        heading="evaluation, checkpoints, logs",
    )
    eval_every: int = key(1, "evaluate after every so many passes, and after the last")
    eval_size: int = key(0, "side of a validation crop; 0: size")
    eval_interpolation: str = key("bilinear", "of validation images: bilinear or bicubic")
    crop_ratio: float = key(0.875, "side of the validation crop over the resized image's shorter side")
    real_labels: str = key(
        "", "real.json of ImageNet-ReaL: count a guess right if it is among the image's labels"
    )
    resume: str = key("auto", "auto: output/last.pt if it is there; never; or a checkpoint")
    save_every: int = key(0, "also keep the checkpoint of every so many passes; 0: last and best only")
    save_minutes: float = key(15.0, "write last.pt within a pass at least this often")
    nonfinite_limit: int = key(5, "stop after so many steps in a row with a loss that is not finite")
    log_every: int = key(50, "steps between lines of log.jsonl")
    tensorboard: bool = key(False, "also write TensorBoard events to output/tensorboard")
    wandb: str = key("", "also log to this Weights & Biases project")

    @property
    def peak_lr(self) -> float:
        return self.lr * (self.batch_size / self.lr_batch if self.lr_batch else 1.0)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the forward pass."""
        return PRECISIONS[AMP[self.amp]]

    def in_stages(self) -> list["Recipe"]:
        """One recipe a stage; a recipe without stages is its own only stage."""
        if not self.stages:
            return [self]
        alone, allowed = replace(self, stages=[]), TYPES.keys() - OF_THE_RUN
        return [
            find_folders(override(alone, keys, f"stages[{i}]", allowed)) for i, keys in enumerate(self.stages)
        ]

    def each_teacher(self) -> list["Recipe"]:
        """One recipe an online teacher; the keys of the first are not those of the others."""
        alone = replace(self, teacher_checkpoint="", teacher_input={})
        more = enumerate(self.more_teachers)
        return [self, *(override(alone, keys, f"more_teachers[{i}]", OF_A_TEACHER) for i, keys in more)]

    def save(self, path: Path) -> None:
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False))


TYPES = get_type_hints(Recipe)


def override(
    recipe: Recipe, keys: dict[str, Any], where: str, allowed: Collection[str] | None = None
) -> Recipe:
    """`recipe` with `keys` put in their place; `where` names their origin in errors. `allowed`: not all."""
    for name in keys:
        if name not in TYPES:
            raise unknown(where, str(name))
        if allowed is not None and name not in allowed:
            raise ValueError(f"recipe: {name} is of the whole run, expected it outside of {where}")
    keys = _as_today(keys)
    return replace(recipe, **{name: cast(name, value, TYPES[name], where) for name, value in keys.items()})


def unknown(where: str, name: str) -> ValueError:
    near = difflib.get_close_matches(name, TYPES, n=1, cutoff=0.0)
    return ValueError(f"recipe: unknown key, got '{name}', did you mean '{near[0]}'?, {where}")


def cast(name: str, value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind`. YAML reads 1e-4 as a string, so numbers may come as text."""
    if get_origin(kind) is types.UnionType:
        return None if value is None else cast(name, value, get_args(kind)[0], where)
    if get_origin(kind) is list and isinstance(value, list):
        return [cast(name, item, get_args(kind)[0], where) for item in value]
    try:
        if kind is float and isinstance(value, (str, int)) and not isinstance(value, bool):
            return float(value)
        if kind is str and value is None:
            return ""
        if isinstance(value, get_origin(kind) or kind) and isinstance(value, bool) == (kind is bool):
            return value
    except ValueError:
        pass
    expected = str(getattr(kind, "__name__", kind))
    raise ValueError(f"recipe: {name}, got {value!r}, expected {expected}, {where}")


def find_folders(recipe: Recipe) -> Recipe:
    """A data folder that holds train/ and val/ stands for both."""
    data = Path(recipe.data)
    if not recipe.data or not (data / "train").is_dir():
        return recipe
    val = recipe.val or (str(data / "val") if (data / "val").is_dir() else "")
    return replace(recipe, data=str(data / "train"), val=val)


def differences(old: dict[str, Any], new: Recipe) -> list[str]:
    """Where a checkpoint's recipe and this one disagree, as 'key: old -> new'; movable keys are left out."""
    old, now = _unmovable(_as_today(old)), _unmovable(asdict(new))
    names = [name for name in {**old, **now} if old.get(name) != now.get(name)]
    return [f"{name}: {old.get(name)!r} -> {now.get(name)!r}" for name in names]


def _as_today(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of an old recipe with today's names."""
    student = keys.get("student")
    return {**keys, "student": MOVED[student]} if isinstance(student, str) and student in MOVED else keys


def _unmovable(keys: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in keys.items() if name not in MOVABLE}
    inner = {name: list(map(_unmovable, kept[name])) for name in ("stages", "more_teachers") if name in kept}
    return kept | inner
