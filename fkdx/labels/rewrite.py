"""A label file made from another one's images."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from fkdx.labels.file import ImageLabels, LabelFile
from fkdx.labels.writer import LabelWriter


def writer_like(labels: LabelFile, path: str | os.PathLike, **changes: Any) -> LabelWriter:
    """A writer of a file of the same kind of labels as `labels`, except for `changes` to its arguments."""
    header = labels.header
    options: dict[str, Any] = {
        "kind": labels.kind,
        "num_classes": labels.num_classes,
        "k": labels.k,
        "embeddings": labels.embeddings or None,
        "standardised": header.get("standardised"),
        "crops": labels.crops,
        "classes": labels.classes,
        "provenance": header.get("provenance"),
        "dataset": header.get("dataset"),
        "encoding": labels.encoding,
        "value_type": labels.value_type,
        "ratios": labels.ratios,
        "images": labels.keys[:] if labels.mix_size else None,
        "mix_size": labels.mix_size,
        "extra": header.get("extra"),
    }
    if "encoding" in changes or "kind" in changes:
        options["value_type"] = None  # the default of the new ones
    return LabelWriter(path, **options | changes)


def labelled(labels: LabelFile) -> Iterator[ImageLabels]:
    """The images of a label file, in order, but for those that are only partners of mixed crops."""
    counts = labels.crop_counts
    return (labels[i] for i in range(len(labels)) if counts[i] or not labels.mix_size)


def copy_images(images: Iterable[ImageLabels], writer: LabelWriter) -> None:
    """Adds images, leaving out partners of mixed crops without crops of their own: the writer knows them."""
    for image in images:
        if len(image.flips) or image.mixes is None:
            writer.add_image(image)
