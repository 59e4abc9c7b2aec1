"""What must hold between a recipe and its data before the first step: nothing may fail days later."""

from dataclasses import replace

import torch

from fkdx.labels import LabelFile, fingerprint
from fkdx.stores.sources import Source
from fkdx.train.data import classes_of, folders_of, open_labels, training_loader, validation_loader
from fkdx.train.distributed import World
from fkdx.train.evaluate import read_real
from fkdx.train.objective import check_objective, needs_classes
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import passes
from fkdx.train.teachers_labels import rule_of


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
