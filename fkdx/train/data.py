"""What a stage learns from and is examined on: its labels, its classes and its two loaders."""

from pathlib import Path

import torch

from fkdx.labels import LabelFile
from fkdx.loader import CropLoader, ValidationLoader
from fkdx.train.augmented import AugmentedLoader
from fkdx.train.distributed import World
from fkdx.train.recipe import Recipe


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
