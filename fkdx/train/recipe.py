"""Recipes: every key of a training run, with its default, its meaning and the rules for its values."""

# ruff: noqa: RUF009 (`key` is `dataclasses.field` with facts)

from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_type_hints

import torch
import yaml

from fkdx.calibration.rule import SCORES
from fkdx.loader.sampler import CHOICES, CURRICULA
from fkdx.loss.distill import LOSSES
from fkdx.loss.embed import EMBEDDING_LOSSES
from fkdx.loss.target import KINDS
from fkdx.models.machine import AMP, PRECISIONS
from fkdx.train.embedding import NORMS
from fkdx.train.keys import Key, find_folders, key, override

# Functions that moved; recipes and checkpoints may name their old place.
MOVED = {f"fkdx.train.student:{name}": f"fkdx.models.heads:{name}" for name in ("with_moco_v2", "with_swav")}
CURRICULUM = f"choice {' '.join(CURRICULA)}"
MIXING, TAUGHT = ("mixup", "cutmix", "selfmix"), ("labels", "teacher")


@dataclass(frozen=True)
class Recipe:
    """One training run. Sizes in pixels, batches in crops, epochs in views of every image."""

    data: str = key(
        "",
        "training images, or a folder that holds train/ and val/; `fkdx index --help` says what they may be",
        heading="data",
        movable=True,
    )
    labels: str = key("", "label file (.fkdl)", movable=True)
    ensemble: list[str] = key(
        [], "label files of more teachers of these crops; their mean is learned", movable=True, needs="labels"
    )
    calibrate: list[float] = key(
        [],
        "[low, middle, top] of FerKD's calibration: crops that score below low or above top are dropped, "
        "crops below middle learn the image's class",
        length=3,
        needs="labels",
    )
    epsilon: float = key(
        0.1,
        "share that all other classes get where calibration replaces a label by the class",
        at_least=0,
        at_most=0.5,
        needs="calibrate",
    )
    score: str = key(
        "max",
        "score of a crop: the teacher's largest probability (max) or that of the image's class (truth)",
        choices=SCORES,
        needs=("calibrate", CURRICULUM),
    )
    val: str = key("", "validation images (default: data/val if it exists, else no evaluation)", movable=True)
    classes: str = key(
        "",
        "names of classes that are numbers: a file, one a line in order, or labels: those of the label file",
        movable=True,
    )
    output: str = key("", "folder for checkpoints and logs", of="run", movable=True)
    hard: bool = key(False, "learn the images' classes on random crops, without labels (the baseline)")
    label_kind: str = key(
        "marginal_smoothing",
        f"rule that turns top-K labels into targets: {', '.join(KINDS)}",
        choices=KINDS,
        needs="labels",
    )
    temperature: float | dict = key(
        1.0,
        "divisor of the student's logits in the loss: a number, or a schedule such as "
        "{schedule: cosine, first: 20, last: 2}",
        above=0,
        needs=TAUGHT,
    )
    interpolation: str = key(
        "bilinear",
        "interpolation of crops: bilinear, bicubic, or random (with loader timm)",
        choices=("bilinear", "bicubic", "random"),
    )
    choice: str = key(
        "independent",
        "how crops of an image are chosen: independent draws, cycle through all of them, or by the teacher's "
        "confidence: easy_to_hard, hard_to_easy, range",
        choices=CHOICES,
        needs="labels",
    )
    window: list[float] = key(
        [0.0, 0.25],
        "with a choice by confidence: crops to draw from, between the easiest (0) and the hardest (1)",
        length=2,
        needs=CURRICULUM,
    )
    scale: list[float] = key(
        [0.08, 1.0],
        "smallest and largest share of the image's area in a random crop",
        length=2,
        needs=("hard", "teacher"),
    )
    ratio: list[float] = key(
        [3 / 4, 4 / 3],
        "smallest and largest width over height of a random crop",
        length=2,
        needs=("hard", "teacher"),
    )
    on_error: str = key(
        "raise",
        "what to do with an unreadable image: raise an error, or skip and count it",
        choices=("raise", "skip"),
    )
    allow_warnings: bool = key(False, "accept JPEG files that libjpeg finds damaged but decodes in some way")
    check_images: bool = key(
        False,
        "before the first step, read every validation image and look for every labelled image",
        movable=True,
    )
    on_missing: str = key(
        "raise",
        "what to do with images without labels and labels without images: raise an error, or ignore them",
        choices=("raise", "ignore"),
        needs="labels",
    )
    threads: int | None = key(
        None,
        "decoding threads, or worker processes of loader timm, of each process (default: its share of cores)",
        at_least=0,
        movable=True,
    )
    cache_bytes: int = key(
        0, "memory of each process for encoded images", at_least=0, movable=True, needs="loader crops"
    )

    loader: str = key(
        "crops",
        "loader of training images: crops (fkdx's own) or timm (random crops that timm augments)",
        heading="augmentation, with loader timm",
        choices=("crops", "timm"),
    )
    auto_augment: str = key("", "timm's name of a policy, such as rand-m7-mstd0.5 (RandAugment)")
    color_jitter: float = key(0.0, "strength of colour jitter, if there is no auto_augment", at_least=0)
    random_erasing: float = key(0.0, "probability of erasing a rectangle", at_least=0, at_most=1)
    aug_repeats: int = key(
        1, "crops of one image in a batch over all processes (repeated augmentation)", at_least=1
    )

    student: str = key(
        "resnet50",
        "student: a timm model, or module:function of your own, called with num_classes",
        heading="student",
        of="run",
    )
    student_args: dict = key({}, "further arguments of the student, as YAML", of="run")
    pretrained: bool = key(False, "start from timm's pretrained weights, if there is no init", of="run")
    init: str = key(
        "", "file of first weights (.safetensors or .pt); a head of another size starts anew", of="run"
    )
    size: int = key(0, "side of a crop in pixels; 0: what the student expects", at_least=0)
    mean: list[float] | None = key(
        None, "mean of the pixels, in [0, 1] (default: what the student expects)", length=3
    )
    std: list[float] | None = key(
        None, "standard deviation of the pixels, in [0, 1] (default: what the student expects)", length=3
    )
    freeze: list[str] = key(
        [], "patterns of parameter names that are not trained; frozen norms keep their statistics"
    )

    teacher: str = key(
        "",
        "timm model, or module:function, to learn from instead of stored labels",
        heading="online teachers, which answer for the same crops during training",
        of="teacher",
    )
    teacher_checkpoint: str = key(
        "",
        "file of the teacher's weights (default: timm's pretrained ones)",
        of="teacher",
        movable=True,
        needs="teacher",
    )
    teacher_input: dict = key(
        {},
        "size, mean and std of the teacher's input, as YAML (default: the student's size, its own mean)",
        of="teacher",
        needs="teacher",
    )
    teacher_temperature: float | dict = key(
        1.0, "divisor of the teacher's logits, online or stored: number or schedule", above=0, needs=TAUGHT
    )
    teacher_compile: bool = key(
        False, "compile the teachers with torch.compile", of="run", movable=True, needs="teacher"
    )
    more_teachers: list[dict] = key(
        [], "further teachers, each with its own teacher keys; the student learns the mean", of="run"
    )

    teacher_loss: str = key(
        "ce",
        "loss against the teacher: ce (soft cross-entropy), plain_kl (ce less the labels' entropy), or for "
        "the logits of all classes, stored or online, kl, bkl, dkd, dist, mse_gt",
        heading="loss: class_weight x class_loss + (1 - class_weight) x teacher_loss",
        choices=("ce", "plain_kl", *LOSSES),
        needs=TAUGHT,
    )
    teacher_loss_args: dict = key(
        {}, "weights in teacher_loss, as YAML: alpha, beta (dkd), beta, gamma (dist) or gamma (mse_gt)"
    )
    class_loss: str = key(
        "ce",
        "loss against the images' own classes: ce, or bce (binary cross-entropy)",
        choices=("ce", "bce"),
        needs=("class_weight", "hard"),
    )
    class_weight: float = key(
        0.0,
        "share of class_loss in the loss; always 1 with --hard and no teacher",
        at_least=0,
        at_most=1,
        needs=TAUGHT,
    )
    smoothing: float = key(
        0.0,
        "label smoothing of the images' own classes: every class gets smoothing / classes",
        at_least=0,
        at_most=1,
        needs=("class_weight", "hard"),
    )

    embedding_loss: str = key(
        "cosine",
        "loss against stored embeddings: cosine, mse, smooth_l1, or ce (softmaxes at temperature and "
        "teacher_temperature)",
        heading="stored embeddings, learned through a projection that is not exported",
        choices=EMBEDDING_LOSSES,
        needs="labels",
    )
    embedding_norm: str = key(
        "standardise",
        "what is done to each dimension of the embeddings, by the label file's statistics: none, centre "
        "(mean 0), standardise (mean 0, deviation 1)",
        choices=NORMS,
        needs="labels",
    )
    projection: str = key(
        "linear",
        "projection of the student's features onto the embeddings: linear, or mlp (two layers)",
        choices=("linear", "mlp"),
        of="run",
    )
    knn: int = key(
        0,
        "neighbours of the k-NN evaluation of features on val, where embeddings or dense logits are learned",
        at_least=0,
        movable=True,
        needs="labels",
    )

    batch_size: int = key(1024, "crops in a step, over all processes", heading="batches", at_least=1)
    crops_per_image: int = key(4, "crops of one image in a batch (m)", at_least=1)
    accumulate: int = key(
        1, "number of parts that each process's batch is split into to save memory", at_least=1, movable=True
    )
    drop_last: bool = key(
        True,
        "leave out the last images of a pass if they do not fill a batch; false: fill it up with the first",
        needs="loader crops",
    )
    seed: int = key(0, "seed of weights, order, crops, mixing and drop-out")

    mixup: float = key(
        0.0, "alpha of Mixup's Beta(alpha, alpha); 0: no Mixup", heading="mixing of crops", at_least=0
    )
    cutmix: float = key(0.0, "alpha of CutMix; 0: no CutMix", at_least=0)
    selfmix: float = key(
        0.0, "alpha of SelfMix, CutMix among the crops of one image; 0: no SelfMix", at_least=0
    )
    mixup_prob: float = key(1.0, "share of the batches that are mixed", at_least=0, at_most=1, needs=MIXING)
    mixup_switch_prob: float = key(
        0.5,
        "share of CutMix or SelfMix among mixed batches, if Mixup is on too",
        at_least=0,
        at_most=1,
        needs="mixup",
    )
    mixup_off_epoch: int = key(
        0, "epoch from which nothing is mixed; 0: mix to the end", at_least=0, needs=MIXING
    )

    optimizer: str = key(
        "momentum",
        "timm's name of the optimiser: momentum (SGD), sgd (SGD with Nesterov), adamw, lamb, ...",
        heading="optimiser",
    )
    optimizer_args: dict = key({}, "further arguments of the optimiser, as YAML")
    momentum: float = key(0.9, "momentum of the optimiser, if it has any", at_least=0)
    weight_decay: float = key(1e-4, "weight decay", at_least=0)
    decay_all: bool = key(True, "decay norms and biases too")
    clip_grad: float = key(0.0, "largest norm of the gradient; 0: no limit", at_least=0)
    ema: float = key(
        0.0,
        "decay of a moving average of the weights, which is then evaluated and exported; 0: no average",
        of="run",
        at_least=0,
        at_most=1,
    )

    epochs: int = key(300, "views of every image", heading="schedule", at_least=1)
    schedule: str = key(
        "cosine",
        "curve of the learning rate: cosine, linear, step or constant",
        choices=("cosine", "linear", "step", "constant"),
    )
    curve_epochs: int = key(
        0,
        "epochs after which cosine and linear would end, more than `epochs`; 0: `epochs`",
        at_least=0,
        needs="schedule cosine linear",
    )
    smooth: bool = key(False, "follow the curve step by step instead of once a pass (serrated)")
    lr: float = key(0.1, "peak of the learning rate", at_least=0)
    lr_batch: int = key(
        0, "batch size that lr is meant for; lr is scaled to batch_size; 0: lr as it is", at_least=0
    )
    min_lr: float = key(
        0.0, "learning rate at the end of cosine and linear", at_least=0, needs="schedule cosine linear"
    )
    warmup_epochs: int = key(0, "single-crop epochs in which the learning rate grows linearly", at_least=0)
    warmup_lr: float = key(
        0.0, "learning rate at the beginning of warm-up", at_least=0, needs="warmup_epochs"
    )
    decay_epochs: list[int] = key(
        [], "epochs at which the learning rate falls, with schedule step", needs="schedule step"
    )
    decay_rate: float = key(0.1, "factor of each fall, with schedule step", at_least=0, needs="schedule step")
    max_steps: int = key(
        0, "number of steps after which to stop early; 0: none", of="run", at_least=0, movable=True
    )
    stages: list[dict] = key(
        [], "stages to run one after the other, each with the keys that differ", of="run"
    )

    device: str = key("auto", "cuda, cuda:N, cpu or auto", heading="machine", of="run", movable=True)
    amp: str = key("none", "precision of the forward pass: none (float32), bf16 or fp16", choices=tuple(AMP))
    channels_last: bool = key(True, "keep weights and activations in NHWC memory", of="run")
    compile: bool = key(False, "compile the student with torch.compile", movable=True)
    sync_bn: bool = key(False, "compute batch statistics over all processes", of="run")
    deterministic: bool = key(
        False, "get the same bits in every run on one kind of machine, at some cost in speed", of="run"
    )

    evaluate: bool = key(
        False,
        "only evaluate `init`, or the pretrained student, on `val`",
        heading="evaluation, checkpoints, logs",
        of="run",
        movable=True,
    )
    eval_every: int = key(
        1, "number of passes between evaluations; the last pass is always evaluated", at_least=1, movable=True
    )
    eval_size: int = key(0, "side of a validation crop in pixels; 0: size", at_least=0, needs="val")
    eval_interpolation: str = key(
        "bilinear",
        "interpolation of validation images: bilinear or bicubic",
        choices=("bilinear", "bicubic"),
        needs="val",
    )
    crop_ratio: float = key(
        0.875,
        "side of the validation crop, as a share of the resized image's shorter side",
        at_least=0,
        at_most=1,
        needs="val",
    )
    real_labels: str = key(
        "",
        "real.json of ImageNet-ReaL: a guess is right if it is among the image's labels there",
        movable=True,
        needs="val",
    )
    resume: str = key(
        "auto",
        "checkpoint to go on from: auto (output/last.pt if it exists), never, or a file",
        of="run",
        movable=True,
    )
    save_every: int = key(
        0,
        "number of passes between checkpoints that are kept; 0: keep the last and the best only",
        of="run",
        at_least=0,
        movable=True,
    )
    save_minutes: float = key(15.0, "most minutes between two writes of last.pt", at_least=0, movable=True)
    nonfinite_limit: int = key(
        5,
        "number of steps in a row with an infinite or NaN loss that ends the run",
        of="run",
        at_least=1,
        movable=True,
    )
    log_every: int = key(50, "number of steps between lines of log.jsonl", at_least=1, movable=True)
    tensorboard: bool = key(
        False, "also write TensorBoard events to output/tensorboard", of="run", movable=True
    )
    wandb: str = key("", "project of Weights & Biases to log to as well", of="run", movable=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "student", MOVED.get(self.student, self.student))

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
        alone = replace(self, stages=[])
        allowed = {name for name, about in KEYS.items() if about.of == "stage"}
        return [
            find_folders(override(alone, own, f"stages[{i}]", allowed), alone, own)
            for i, own in enumerate(self.stages)
        ]

    def each_teacher(self) -> list["Recipe"]:
        """One recipe an online teacher; the keys of the first are not those of the others."""
        alone = replace(self, teacher_checkpoint="", teacher_input={})
        allowed = {name for name, about in KEYS.items() if about.of == "teacher"}
        more = enumerate(self.more_teachers)
        return [self, *(override(alone, keys, f"more_teachers[{i}]", allowed) for i, keys in more)]

    def save(self, path: Path) -> None:
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False))


TYPES = get_type_hints(Recipe)
KEYS: dict[str, Key] = {f.name: f.metadata["key"] for f in fields(Recipe)}
DEFAULTS = {f.name: f.default if f.default is not MISSING else f.default_factory() for f in fields(Recipe)}
