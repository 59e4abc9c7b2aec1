"""What a teacher thinks of every image, as the matrix that cleanlab and other tools for label errors read."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fkdx.errors import refuse
from fkdx.files import write_whole
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.labels.distributions import Tail, recover


def export_pred_probs(
    labels: LabelFile, images: Iterable[ImageLabels], path: str | Path, tail: Tail = "smoothing"
) -> int:
    """Writes the probabilities of every image, the mean over its crops, as a numpy file (N, C) float32.

    `images` are those of `labels`, in its order; `tail` is that of `fkdx.labels.distributions.recover`. Rows
    sum to 1. The keys of the rows go into a file of the same name that ends in `.keys.txt`, one a line.
    Returns N.

    Raises ValueError for mixed crops, whose labels are of two images, and for images without crops; OSError
    if a file cannot be written.
    """
    check_class_labels("export", labels)
    if labels.mix_size:
        refuse(
            "export", "labels", "mixed crops, which show two images", "labels of one image each", labels.path
        )
    empty = np.flatnonzero(labels.crop_counts == 0)
    if len(empty):
        refuse("export", "labels", f"no crop of {labels.keys[int(empty[0])]}", "at least one", labels.path)

    def write(temporary: Path) -> None:
        shape = (len(labels), labels.num_classes)
        matrix = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        for row, image in enumerate(images):
            matrix[row] = mean_probabilities(labels, image, tail)
        matrix.flush()

    write_whole(path, write)
    names = "".join(f"{key}\n" for key in labels.keys)
    write_whole(keys_path(path), names.encode())
    return len(labels)


def keys_path(path: str | Path) -> Path:
    """Where the keys of the rows are listed, beside the matrix at `path`."""
    return Path(path).with_suffix(".keys.txt")


def mean_probabilities(labels: LabelFile, image: ImageLabels, tail: Tail = "smoothing") -> np.ndarray:
    """(C,) float64 mean of the distributions of an image's crops, scaled to sum to 1."""
    crops = recover(labels, image, tail)
    total = np.full(labels.num_classes, crops.base.sum())
    np.add.at(total, crops.ids, crops.values - crops.base[:, None])
    total = np.maximum(total, 0)
    return total / total.sum()
