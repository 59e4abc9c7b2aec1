"""What a stage learns from and is examined on: its labels, its classes and its two loaders."""

from dataclasses import replace
from pathlib import Path

import torch

from fkdx.labels import LabelFile, fingerprint
from fkdx.loader import CropLoader, ValidationLoader
from fkdx.sources import Source
from fkdx.train.augmented import AugmentedLoader
from fkdx.train.distributed import World
from fkdx.train.evaluate import read_real
from fkdx.train.objective import check_objective, needs_classes
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import passes
from fkdx.train.teachers_labels import rule_of


def open_labels(recipe: Recipe) -> LabelFile | None:
    """The label file; None where the images' own classes are learned.

    Raises ValueError where the recipe does not say what to learn from.
    """
    if recipe.labels and not recipe.hard:
        return LabelFile(recipe.labels)
    if not (recipe.hard or recipe.teacher or recipe.evaluate):
        raise ValueError(
            "train: nothing to learn from, expected --labels FILE, or --hard for the images' own classes"
        )
    return None


def identity(labels: LabelFile | None, *others: LabelFile) -> str:
    """What tells label files from others, wherever they lie: the digests of their contents."""
    return "classes" if labels is None else " ".join(file.digest for file in (labels, *others))


def classes_of(recipe: Recipe, labels: LabelFile | None) -> list[str]:
    """The names of all classes in order: the label file's, or the folders'.

    Where there are validation images alone, folders that are numbers come in the order of these.
    """
    if labels and labels.classes:
        return list(labels.classes)
    folders = folders_of(recipe.data or recipe.val)
    numbers = not recipe.data and all(map(str.isdecimal, folders))
    return sorted(folders, key=int) if numbers else folders


def folders_of(data: str) -> list[str]:
    """The names of the folders in a folder, sorted."""
    if not data:
        raise ValueError("train: no images, expected --data DIR with one folder a class")
    if not Path(data).is_dir():
        raise FileNotFoundError(f"train: no such folder, expected one folder a class, {data}")
    folders = sorted(entry.name for entry in Path(data).iterdir() if entry.is_dir())
    if not folders:
        raise ValueError(f"train: no class folders, expected one folder a class, {data}")
    return folders


def check_data(recipe: Recipe, world: World) -> int:
    """How many outputs the student needs, after a look at the data of every stage: none may fail days later.

    Raises ValueError or OSError for what does not fit: batch and processes, crops, classes, folders.
    """
    outputs = {stage.labels: check_stage(stage, world) for stage in recipe.in_stages()}
    if len(set(outputs.values())) > 1:
        raise ValueError(f"train: classes, got {outputs} in the stages, expected the same number in all")
    return next(iter(outputs.values()))


def check_stage(stage: Recipe, world: World) -> int:
    """The number of outputs that the data of one stage asks for."""
    labels = open_labels(stage)
    rule_of(stage)
    if stage.ensemble and not stage.labels:
        raise ValueError("train: ensemble, got no labels, expected those of the first teacher in labels")
    classes = classes_of(stage, labels)
    m, parts = stage.crops_per_image, stage.accumulate
    if stage.batch_size % (m * world.size) or stage.batch_size % (parts * world.size):
        raise ValueError(
            f"train: batch_size, got {stage.batch_size}, expected a multiple of crops_per_image x processes"
            f" ({m} x {world.size}) and of accumulate x processes ({parts} x {world.size})"
        )
    mixing = stage.mixup or stage.cutmix or stage.selfmix
    if mixing and labels is not None and labels.kind == "dense_logits":
        raise ValueError(
            f"train: mixing, got labels that are bare logits, expected probabilities, {stage.labels}"
        )
    if labels is not None and labels.mix_size and (mixing or needs_classes(stage)):
        raise ValueError(
            "train: labels, got crops of two images, expected neither more mixing nor classes with them, "
            f"{stage.labels}"
        )
    if labels is not None and (labels.crops or m) < m:
        raise ValueError(
            f"train: crops_per_image, got {m}, expected at most the {labels.crops} in {stage.labels}"
        )
    check_objective(stage, labels)
    check_loader(stage, labels)
    outputs = labels.num_classes if labels else len(classes)
    bare = labels is not None and labels.kind == "dense_logits" and not stage.val
    if outputs != len(classes) and not bare:
        raise ValueError(
            f"train: classes, got {len(classes)} in {stage.data}, expected the {outputs} of {stage.labels}"
        )
    if stage.val and not set(folders_of(stage.val)) & {*classes, *map(str, range(len(classes)))}:
        raise ValueError(f"train: no folder has the name of a class such as '{classes[0]}', {stage.val}")
    if stage.real_labels:
        read_real(stage.real_labels)
    return outputs


def check_batches(recipe: Recipe, world: World) -> None:
    """ValueError where the images of a stage, of a later one too, do not fill one batch of its every pass, or
    where its validation images are none or not of its classes."""
    for stage in recipe.in_stages():
        labels = open_labels(stage)
        files = labels and [labels, *map(LabelFile, stage.ensemble)]
        fewest = min(at.crops for at in passes(stage))
        loader = training_loader(replace(stage, threads=1), files, fewest, world, torch.device("cpu"))
        if not len(loader):  # CropLoader says so itself
            got = len(loader.source)
            raise ValueError(f"train: one batch needs {stage.batch_size} images, got {got}, {stage.data}")
        if stage.val:
            alone, classes = replace(stage, threads=1), classes_of(stage, labels)
            if not len(validation_loader(alone, classes, world, torch.device("cpu")).pool.source):
                raise ValueError(f"train: no image to evaluate on, {stage.val}")


def check_loader(stage: Recipe, labels: LabelFile | None) -> None:
    """ValueError where a recipe asks a loader for what only the other one has."""
    if stage.loader == "crops":
        for name in ("auto_augment", "color_jitter", "random_erasing"):
            if getattr(stage, name):
                raise ValueError(f"train: {name}, got {getattr(stage, name)}, expected loader timm with it")
        if stage.interpolation == "random" or stage.aug_repeats > 1:
            raise ValueError(
                "train: interpolation random and aug_repeats, expected loader timm with them;"
                " crops_per_image repeats images here"
            )
    elif labels is not None or stage.crops_per_image > 1 or stage.on_error == "skip":
        raise ValueError(
            "train: loader timm, got labels, crops_per_image > 1 or on_error skip,"
            " expected a teacher or --hard, and one crop an image"
        )
    elif stage.batch_size % 2:
        raise ValueError(
            f"train: batch_size, got {stage.batch_size}, expected an even number for loader timm"
        )


def check_fingerprint(labels: LabelFile, source: Source) -> None:
    """ValueError where the label file says that it was made for other images under the same names."""
    expected = labels.header.get("dataset")
    if not expected or len(source) != expected["images"]:
        return
    found = fingerprint(source.files())
    if found != expected:
        raise ValueError(
            f"train: the images are not those that were labelled, got {found['bytes']} bytes in all, "
            f"expected {expected['bytes']} with digest {expected['digest']}, {labels.path}"
        )


def training_loader(
    recipe: Recipe, labels: list[LabelFile] | None, crops: int, world: World, device: torch.device
) -> CropLoader | AugmentedLoader:
    """Training batches with `crops` crops an image."""
    if recipe.loader == "timm":
        return AugmentedLoader(recipe, folders_of(recipe.data), world, device)
    return CropLoader(
        recipe.data,
        labels,
        recipe.batch_size,
        crops,
        recipe.size,
        seed=recipe.seed,
        threads=recipe.threads,
        rank=world.rank,
        world_size=world.size,
        label_kind=recipe.label_kind,
        interpolation=recipe.interpolation,
        choice=recipe.choice,
        window=tuple(recipe.window),
        epochs=recipe.epochs,
        score=recipe.score,
        on_error=recipe.on_error,
        on_missing=recipe.on_missing,
        cache_bytes=recipe.cache_bytes,
        device=device,
        scale=tuple(recipe.scale),
        ratio=tuple(recipe.ratio),
    )


def validation_loader(
    recipe: Recipe, classes: list[str], world: World, device: torch.device
) -> ValidationLoader:
    """Every validation image once over all processes.

    Folders named 0, 1, 2, ... (ImageNetV2) are class numbers, unless the classes themselves are named so.
    """
    folders, numbers = set(folders_of(recipe.val)), [str(number) for number in range(len(classes))]
    return ValidationLoader(
        recipe.val,
        max(1, recipe.batch_size // world.size),
        recipe.eval_size or recipe.size,
        recipe.crop_ratio,
        classes=numbers if folders <= set(numbers) and not folders <= set(classes) else classes,
        interpolation=recipe.eval_interpolation,
        threads=recipe.threads,
        rank=world.rank,
        world_size=world.size,
        device=device,
    )
