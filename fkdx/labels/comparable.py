"""Whether label files can be used together: the same images, the same crops, the same classes."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from fkdx.errors import expect
from fkdx.labels.file import ImageLabels, LabelFile, Mixes


def check_same_images(where: str, labels: LabelFile, first: LabelFile) -> None:
    """Raises ValueError unless both files label the same images with as many crops each."""
    same = labels is first or _same_images(labels, first)
    expect(where, same, "images", f"others than in {first.path}", "the same, with as many crops", labels.path)


def _same_images(labels: LabelFile, first: LabelFile) -> bool:
    if labels.mix_size and first.mix_size:  # images that are only partners stand elsewhere in a set of shards
        return _crops_of(labels) == _crops_of(first)
    return same_keys(labels, first) and np.array_equal(labels.crop_counts, first.crop_counts)


def _crops_of(labels: LabelFile) -> list[tuple[str, int]]:
    return [(key, count) for key, count in zip(labels.keys, labels.crop_counts.tolist()) if count]


def same_keys(labels: LabelFile, first: LabelFile) -> bool:
    """Whether both files have the same keys in the same order."""
    ours, theirs = labels.key_arrays(), first.key_arrays()
    if len(ours) == len(theirs) == 1:
        return all(np.array_equal(a, b) for a, b in zip(ours[0], theirs[0]))
    return labels.keys[:] == first.keys[:]


def check_same_crops(
    where: str,
    files: Sequence[LabelFile],
    boxes: Sequence[np.ndarray],
    flips: Sequence[np.ndarray],
    key: str | None = None,
) -> None:
    """Raises ValueError unless boxes and flips, one array a file, are those of the first file.

    `key` names the image where they are those of one alone.
    """
    crops = "crops" if key is None else f"crops of '{key}'"
    for file, box, flip in zip(files, boxes, flips, strict=True):
        same = np.array_equal(box, boxes[0]) and np.array_equal(flip, flips[0])
        expect(where, same, crops, f"others than in {files[0].path}", "labels of the same crops", file.path)


def check_same_changes(where: str, files: Sequence[LabelFile], images: Sequence[ImageLabels]) -> None:
    """Raises ValueError unless an image's crops were mixed and augmented alike in all files."""
    first = images[0]
    for file, image in zip(files, images, strict=True):
        same = file.mix_size == files[0].mix_size and image.extra == first.extra
        if first.mixes is not None and image.mixes is not None:
            pairs = [
                (getattr(image.mixes, field.name), getattr(first.mixes, field.name))
                for field in fields(Mixes)
            ]
            same = same and all(np.array_equal(ours, theirs) for ours, theirs in pairs)
        what = f"mixing or augmentation of '{first.key}'"
        expect(where, same, what, f"another one than in {files[0].path}", "the same", file.path)


def check_same_classes(where: str, labels: LabelFile, first: LabelFile, unnamed: bool = True) -> None:
    """Raises ValueError unless both files have the same number and names of classes.

    `unnamed` accepts a file without class names beside one that has them.
    """
    same = labels.num_classes == first.num_classes
    expect(where, same, "classes", labels.num_classes, f"{first.num_classes} as in {first.path}", labels.path)
    same = labels.classes == first.classes or (unnamed and not (labels.classes and first.classes))
    expect(where, same, "class names", f"others than in {first.path}", "the same in order", labels.path)


def check_class_labels(where: str, *files: LabelFile) -> None:
    """Raises ValueError for labels that say nothing of classes."""
    for labels in files:
        expect(where, labels.kind != "embedding", "labels", "embeddings", "labels of classes", labels.path)


def check_plain_crops(where: str, labels: LabelFile) -> None:
    """Raises ValueError where crops were mixed or augmented before the teacher saw them."""
    plain = not (labels.mix_size or labels.extra_operations)
    expect(where, plain, "labels", "mixed or further changed crops", "plain crops", labels.path)
