"""What a stage learns from and is evaluated on: labels, images, classes, all opened once; and its loaders."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from fkdx.calibration import Calibration, calibrated
from fkdx.files import write_whole
from fkdx.labels import LabelFile
from fkdx.loader import CropLoader, ValidationLoader
from fkdx.models.weights import trained_facts
from fkdx.stores import Store, are_placeholders, open_store, read_classes
from fkdx.train.augmented import AugmentedLoader
from fkdx.train.distributed import World
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass, settings_at

OpenImages = Callable[[str, tuple[str, ...] | None], Store]  # a path, and names of class numbers


@dataclass(frozen=True)
class Data:
    """The data of one stage. Stages that name the same file or folder share what is opened.

    Attributes:
        labels: the label file; None if the images' own classes are learned.
        others: label files of further teachers.
        classes: the names of all classes in order.
        own_classes: the same as labels or training images call them, see `named_by_validation`.
        told: names of the class numbers of images; None where the images name them.
    """

    stage: Recipe
    labels: LabelFile | None
    others: list[LabelFile]
    classes: list[str]
    own_classes: list[str]
    told: tuple[str, ...] | None
    open_images: OpenImages

    @cached_property
    def images(self) -> Store:
        """The training images, listed on first use."""
        return self.open_images(self.stage.data, self.told)

    @cached_property
    def validation(self) -> Store:
        """The validation images, listed on first use."""
        return self.open_images(self.stage.val, self.told)

    @property
    def files(self) -> list[LabelFile] | None:
        """One label file a teacher; None if there are none."""
        return None if self.labels is None else [self.labels, *self.others]

    @cached_property
    def identity(self) -> str:
        """What distinguishes what is learned from, wherever it lies: the digests of label files, or of the
        images' names."""
        if self.files:
            return " ".join(file.digest for file in self.files)
        names = "\0".join(self.images.keys)
        return f"images {hashlib.sha256(names.encode()).hexdigest()}"

    @property
    def class_names(self) -> list[str]:
        """The names of the student's outputs; none if its outputs are no classes."""
        unnamed = self.bare and self.labels.num_classes != len(self.classes)
        return [] if unnamed or self.embeds else self.classes

    @property
    def bare(self) -> bool:
        """Whether the labels are a teacher's logits, whose outputs need not be classes."""
        return self.labels is not None and self.labels.kind == "dense_logits"

    @property
    def embeds(self) -> bool:
        """Whether embeddings are learned, not classes."""
        return self.labels is not None and bool(self.labels.embeddings)

    @property
    def by_knn(self) -> bool:
        """Whether the stage is evaluated by k-NN on features, because its outputs are no classes."""
        return self.stage.knn > 0 and (self.embeds or self.bare)

    @property
    def evaluates(self) -> bool:
        """Whether the stage is evaluated at all."""
        return bool(self.stage.val) and (self.by_knn or not self.embeds)


def open_data(recipe: Recipe) -> list[Data]:
    """The data of every stage. ValueError if a recipe does not say what to learn from."""
    open_labels, open_images = cache(LabelFile), cache(open_store)
    stages = []
    for stage in recipe.in_stages():
        labels = open_labels(stage.labels) if stage.labels and not stage.hard else None
        if labels is None and not (stage.hard or stage.teacher or stage.evaluate):
            raise ValueError(
                "train: nothing to learn from, expected --labels FILE, or --hard for the images' own classes"
            )
        others = list(map(open_labels, stage.ensemble))
        known = known_classes(stage, labels)
        told = told_classes(stage, known, labels)
        needed = not (labels and labels.embeddings and not stage.knn)
        own = list(known or images_classes(stage, told, open_images, needed))
        classes = named_by_validation(stage, own, told, open_images)
        stages.append(Data(stage, labels, others, classes, own, told, open_images))
    return stages


def known_classes(stage: Recipe, labels: LabelFile | None) -> list[str] | None:
    """The names of all classes in order, of weights to evaluate or of the label file; None without any."""
    if stage.evaluate and stage.init and (names := trained_facts(stage.init).get("classes")):
        return names
    return labels.classes if labels else None


def told_classes(stage: Recipe, known: list[str] | None, labels: LabelFile | None) -> tuple[str, ...] | None:
    """What `classes` says of class numbers: names, or of `labels` without names that the numbers are theirs.
    ValueError where it says `labels`, and there are none."""
    if stage.classes != "labels":
        return tuple(read_classes(stage.classes)) if stage.classes else None
    if not known and not (labels and labels.num_classes):
        where = stage.labels or stage.init or "no label file"
        raise ValueError(f"train: classes, got labels, expected labels or weights with class names, {where}")
    return tuple(known or map(str, range(labels.num_classes)))


def images_classes(
    stage: Recipe, told: tuple[str, ...] | None, open_images: OpenImages, needed: bool = True
) -> list[str]:
    """The names of all classes in order, of the images. ValueError without any where they are needed."""
    if not (stage.data or stage.val):
        raise ValueError("train: no images, expected --data DATA with one folder for each class")
    names = open_images(stage.data or stage.val, told).class_names
    if not names and needed:
        raise ValueError(f"train: no class folders, expected one folder for each class, {stage.data}")
    return names


def named_by_validation(
    stage: Recipe, names: list[str], told: tuple[str, ...] | None, open_images: OpenImages
) -> list[str]:
    """The names of all classes, by validation images where `names` only count classes.

    The folders of distilled sets are called new000, new001, ... or 00000, 00001, ...: class k of the teacher.
    Validation images of as many classes name them, in their order.
    """
    if not (stage.val and are_placeholders(names)):
        return names
    found = open_images(stage.val, told).class_names
    fits = len(found) == len(names) and not set(found) & set(names) and not are_placeholders(found)
    return list(found) if fits else names


# ---- calibration ------------------------------------------------------------------------------------------


def rule_of(stage: Recipe) -> Calibration | None:
    """FerKD's rule; an image keeps as many crops as a pass draws of it. None without `calibrate`."""
    if not stage.calibrate:
        return None
    return Calibration(*stage.calibrate, stage.epsilon, stage.score, stage.crops_per_image)


def calibrated_files(data: Data, world: World) -> list[LabelFile] | None:
    """The label files as the student learns from them: calibrated if the stage asks for it.

    What calibration did is printed, and written for every class to output/calibration.csv (.1.csv, ... for
    further teachers).
    """
    rule, files = rule_of(data.stage), data.files
    if rule is None or files is None:
        return files
    views = calibrated(files, rule, progress=None if world.main else False)
    for number, view in enumerate(views):
        world.say(f"calibration of {view.path}: {view.statistics}")
        if world.main:
            name = f"calibration.{number}.csv" if number else "calibration.csv"
            write_whole(Path(data.stage.output) / name, view.statistics.write_csv)
    return list(views)


# ---- loaders ----------------------------------------------------------------------------------------------


def training_loader(
    data: Data,
    labels: list[LabelFile] | None,
    crops: int,
    world: World,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> CropLoader | AugmentedLoader:
    """Training batches with `crops` crops an image; `labels` are the stage's files, calibrated or not."""
    stage = data.stage
    tempered = stage.teacher_temperature != 1 and not stage.teacher and not data.bare
    if stage.loader == "timm":
        return AugmentedLoader(stage, data.images, data.images.class_names, world, torch.device(device))
    return CropLoader(
        data.images,
        labels,
        stage.batch_size,
        crops,
        stage.size,
        seed=stage.seed,
        threads=threads or stage.threads,
        rank=world.rank,
        world_size=world.size,
        label_kind=stage.label_kind,
        teacher_temperature=partial(_stored_temperature, stage, crops) if tempered else 1.0,
        interpolation=stage.interpolation,
        choice=stage.choice,
        drop_last=stage.drop_last,
        window=tuple(stage.window),
        epochs=stage.epochs,
        score=stage.score,
        on_error=stage.on_error,
        on_missing=stage.on_missing,
        check_images=stage.check_images,
        allow_warnings=stage.allow_warnings,
        cache_bytes=stage.cache_bytes,
        device=device,
        scale=tuple(stage.scale),
        ratio=tuple(stage.ratio),
    )


def _stored_temperature(stage: Recipe, crops: int, epoch: int, done: float) -> float:
    return settings_at(stage, Pass(epoch, crops), done).teacher_temperature


def known_images(data: Data, world: World, device: torch.device | str = "cpu") -> ValidationLoader:
    """The training images as validation images are shown: the neighbours of a k-NN evaluation."""
    stage = replace(data.stage, val=data.stage.data)
    return validation_loader(replace(data, stage=stage, classes=data.own_classes), world, device)


def validation_loader(
    data: Data, world: World, device: torch.device | str = "cpu", threads: int | None = None, **more: str
) -> ValidationLoader:
    """Every validation image once over all processes."""
    stage = data.stage
    options = {
        "interpolation": stage.eval_interpolation,
        "on_error": stage.on_error,
        "allow_warnings": stage.allow_warnings,
        **more,
    }
    return ValidationLoader(
        data.validation,
        max(1, stage.batch_size // world.size),
        stage.eval_size or stage.size,
        stage.crop_ratio,
        classes=data.classes,
        threads=threads or stage.threads or None,  # 0 is for workers of loader timm
        rank=world.rank,
        world_size=world.size,
        device=device,
        **options,
    )
