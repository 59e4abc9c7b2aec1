"""What must hold between a recipe and its data before the first step: nothing may fail days later."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from fkdx.calibration.survey import find_truth
from fkdx.labels import LabelFile, differing_sizes, fingerprint, same_fingerprint
from fkdx.stores import FileList, LabelledImages, Store, class_numbers, numbers_among
from fkdx.train.data import Data, rule_of, training_loader, validation_loader
from fkdx.train.distributed import World
from fkdx.train.evaluate import read_real
from fkdx.train.frozen import check_neighbours
from fkdx.train.objective import check_objective, check_recovery, class_share, needs_classes
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import passes

MANY_FILES = 200_000  # more are not looked up one by one at the start of a run
FEW = 0.01  # of the images may have other bytes: another copy of the data set, some of it encoded again


@dataclass(frozen=True)
class Outputs:
    """What a student has to give: values for so many classes, and embeddings of these sizes by name."""

    classes: int
    embeddings: dict[str, int]


def check_data(stages: list[Data], world: World) -> Outputs:
    """What the student has to give, after a look at the data of every stage: none may fail days later.

    Raises ValueError or OSError for what does not fit: batch and processes, crops, classes, folders.
    """
    outputs = {data.stage.labels: check_stage(data, world) for data in stages if not data.embeds}
    if len(set(outputs.values())) > 1:
        raise ValueError(f"train: classes, got {outputs} in the stages, expected the same number in all")
    if stages[0].stage.evaluate and not outputs:
        raise ValueError(
            "train: evaluate, got embeddings, expected classes; `fkdx evaluate` measures features"
        )
    embedding_stages = [data for data in stages if data.embeds]
    for data in embedding_stages:
        check_stage(data, world)
    sizes = {data.stage.labels: data.labels.embeddings for data in embedding_stages}
    first = next(iter(sizes.values()), {})
    if any(other != first for other in sizes.values()):
        raise ValueError(f"train: embeddings, got {sizes} in the stages, expected the same in all")
    return Outputs(next(iter(outputs.values()), 0), first)


def check_stage(data: Data, world: World) -> int:
    """The number of outputs that the data of one stage asks for."""
    stage, labels, classes = data.stage, data.labels, data.classes
    rule = rule_of(stage)
    if stage.ensemble and not stage.labels:
        raise ValueError("train: ensemble needs `labels` to be set, the label file of the first teacher")
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
    if labels is not None and labels.mix_size and (mixing or mixes_classes(stage)):
        raise ValueError(
            "train: labels, got crops of two images, expected neither more mixing nor classes with them, "
            f"except in mse_gt, {stage.labels}"
        )
    if labels is not None and (labels.crops or m) < m:
        raise ValueError(
            f"train: crops_per_image, got {m}, expected at most the {labels.crops} in {stage.labels}"
        )
    check_objective(stage, labels)
    for file in data.files or ():
        if not stage.teacher:
            check_recovery(stage, file)
    if data.files and rule:
        find_truth(data.files, rule)
    check_loader(stage, labels, world)
    outputs = labels.num_classes if labels else len(classes)
    if data.embeds:
        return 0
    unjudged = not stage.evaluate and (not stage.val or data.by_knn)
    if outputs != len(classes) and not (data.bare and unjudged and not needs_classes(stage)):
        raise ValueError(
            f"train: classes, got {len(classes)} in {stage.data}, expected the {outputs} of {stage.labels}"
        )
    if stage.val:
        check_validation(data)
    if stage.real_labels:
        read_real(stage.real_labels)
    return outputs


def mixes_classes(stage: Recipe) -> bool:
    """Whether the loss asks for the classes of crops of two images; mse_gt takes that of their own image."""
    return needs_classes(stage) and not (stage.teacher_loss == "mse_gt" and class_share(stage) == 0)


def check_validation(data: Data) -> None:
    """ValueError if no class of the validation images is one of the student's."""
    found, classes = data.validation.class_names, data.classes
    if found and (numbers_among(found, classes) < 0).all():
        numbers = "; numbers need --classes FILE, or --classes labels" if found[0].isdecimal() else ""
        raise ValueError(
            f"train: validation classes, got names such as '{found[0]}', expected names such as "
            f"'{classes[0]}'{numbers}, {data.stage.val}"
        )


def check_batches(stages: list[Data], world: World) -> None:
    """ValueError if the images of a stage, of a later one too, do not fill one batch of its every pass, have
    too few crops for it or are not those that were labelled, or if its validation images are none, or not of
    its classes; with `check_images`, if one cannot be read."""
    known = set()  # labels and images that belong together
    for data in stages:
        stage = data.stage
        crops = [this_pass.crops for this_pass in passes(stage)]
        loader = training_loader(data, data.files, min(crops), world, threads=1)
        if not len(loader):  # CropLoader raises this itself
            size, there = stage.batch_size, len(data.images)
            raise ValueError(f"train: a batch needs {size} images, but there are only {there}, {stage.data}")
        if data.files:
            replace(loader.sampler, crops_per_image=max(crops))  # raises where an image has fewer
            if world.main and (stage.labels, stage.data) not in known:
                check_fingerprint(data.labels, loader.pool.store, stage.check_images)
            known.add((stage.labels, stage.data))
        if data.by_knn:
            check_neighbours(stage.knn, len(data.images))
        check_classes(data, loader.pool.store if stage.loader == "crops" else data.images)
        if data.evaluates:
            if not len(validation_loader(data, world, threads=1).pool.store):
                raise ValueError(f"train: no image to evaluate on, {stage.val}")
            if stage.check_images:
                check_images(data, world)


def check_classes(data: Data, images: Store) -> None:
    """ValueError if an image has no class and the loss, or timm's mixing, asks for it."""
    if not (needs_classes(data.stage) or data.stage.loader == "timm"):
        return
    _, classes = class_numbers(images, data.own_classes)
    if bare := (classes < 0).nonzero()[0].tolist():
        named = ", ".join(images.keys[image] for image in bare[:4])
        raise ValueError(
            f"train: {len(bare)} images are in no class folder ({named}), expected <class>/<name>: "
            f"the loss uses the images' classes, {data.stage.data}"
        )


def check_images(data: Data, world: World) -> None:
    """Decode every validation image once. ValueError if some cannot be read, unless on_error is skip."""
    loader, hidden = validation_loader(data, world, on_error="skip"), None if world.main else True
    for _ in tqdm(loader, desc="validation images", unit="batch", disable=hidden, leave=False):
        pass
    loader.close()
    reasons = world.gather([f"{key}: {reason}" for key, reason in sorted(loader.skipped.items())])
    if reasons and data.stage.on_error == "raise":
        raise ValueError(
            f"train: {len(reasons)} validation images cannot be used, the first is {reasons[0]}; "
            f"remove them, or leave them out with --on-error skip, {data.stage.val}"
        )


def check_loader(stage: Recipe, labels: LabelFile | None, world: World) -> None:
    """ValueError if a recipe asks a loader for what only the other one has."""
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
    elif stage.batch_size // world.size % 2:
        share = f" for each of {world.size} processes" if world.size > 1 else ""
        raise ValueError(
            f"train: batch_size, got {stage.batch_size}, expected an even number for loader timm{share}"
        )


def check_fingerprint(labels: LabelFile, images: LabelledImages, whole: bool = False) -> None:
    """ValueError if the label file was made for other images of the same names; a warning if a few differ.

    The sizes of very many files are looked up only if `whole`: that takes hours on some network file systems.
    """
    expected = labels.header.get("dataset")
    if not expected:
        return
    unread = len(images) > MANY_FILES and not whole and isinstance(images.store, FileList)
    if len(images) != expected["images"]:
        _check_part(labels, images, expected, unread)
        return
    if unread:
        return
    sizes = images.sizes()
    differing = differing_sizes(expected, sizes)
    if differing is not None and len(differing) <= FEW * len(images):
        _say_few(labels, images, differing)
        return
    if same_fingerprint(found := fingerprint(zip(images.keys, sizes.tolist())), expected):
        return
    raise ValueError(
        f"train: the images are not those that were labelled, got {found['bytes']} bytes in all, "
        f"expected {expected['bytes']} with digest {expected['digest']}, {labels.path}"
    )


def _check_part(labels: LabelFile, images: LabelledImages, expected: dict, unread: bool) -> None:
    """The same of some of the images that were labelled, one by one, where the label file has their sizes."""
    known = len(labels) == expected["images"] and images.label_of is not None and not unread
    differing = differing_sizes(expected, images.sizes(), images.label_of) if known else None
    checked = "" if differing is not None else ", so their fingerprint cannot be checked"
    said = f"{len(images):,} of the {len(labels):,} images that were labelled are here"
    if len(images) == len(labels):
        said = f"{len(labels):,} of the data set's {expected['images']:,} images have labels"
    warnings.warn(f"{said}{checked}, {labels.path}", stacklevel=3)
    if differing is None:
        return
    if len(differing) > FEW * len(images):
        raise ValueError(
            f"train: the images are not those that were labelled, got other bytes in {len(differing):,} of "
            f"{len(images):,} images, such as {images.keys[int(differing[0])]}, {labels.path}"
        )
    _say_few(labels, images, differing)


def _say_few(labels: LabelFile, images: LabelledImages, differing: np.ndarray) -> None:
    if len(differing):
        warnings.warn(
            f"differs: {len(differing):,} of {len(images):,} images have other bytes than those that were "
            f"labelled, such as {images.keys[int(differing[0])]}; `fkdx verify LABELS --images DATA` names "
            f"them, {labels.path}",
            stacklevel=4,
        )
