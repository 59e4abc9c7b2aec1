"""What a teacher thinks of every image, as a JSON file that FiftyOne opens beside the images."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fkdx.errors import expect, refuse
from fkdx.files import write_whole
from fkdx.importers.pred_probs import mean_probabilities
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.labels.distributions import Tail


def export_fiftyone(
    labels: LabelFile, images: Iterable[ImageLabels], path: str | Path, tail: Tail = "smoothing"
) -> int:
    """Writes a `labels.json` of FiftyOne's FiftyOneImageClassificationDataset; returns the number of images.

    An image goes by its key without suffix. Its label is the likeliest class in the mean over its crops, its
    confidence that probability; the attribute `agreement` is the part of the crops whose likeliest class it
    is. `images` are those of `labels`; `tail` is that of `fkdx.labels.distributions.recover`.

    Raises ValueError for embeddings, for mixed crops, whose labels are of two images, and for two keys that
    differ in their suffix alone; OSError if the file cannot be written.
    """
    check_class_labels("export", labels)
    if labels.mix_size:
        refuse(
            "export", "labels", "mixed crops, which show two images", "labels of one image each", labels.path
        )
    shown: dict[str, Any] = {}
    for image in images:
        name = str(PurePosixPath(image.key).with_suffix(""))
        expect(
            "export", name not in shown, "images", f"two called '{name}'", "one, without suffix", labels.path
        )
        if len(image.flips):
            shown[name] = opinion(labels, image, tail)
    names = labels.classes or [str(number) for number in range(labels.num_classes)]
    write_whole(path, json.dumps({"classes": names, "labels": shown}, ensure_ascii=False).encode())
    return len(shown)


def opinion(labels: LabelFile, image: ImageLabels, tail: Tail) -> dict[str, Any]:
    """{"label", "confidence", "attributes"} of one image."""
    mean = mean_probabilities(labels, image, tail)
    label = int(mean.argmax())
    likeliest = image.values.argmax(axis=1)
    if image.ids.shape[1]:
        likeliest = np.take_along_axis(image.ids, likeliest[:, None], axis=1)[:, 0]
    agreement = float((likeliest == label).mean())
    return {
        "label": label,
        "confidence": round(float(mean[label]), 6),
        "attributes": {"agreement": round(agreement, 4)},
    }
