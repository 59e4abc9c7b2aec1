"""SRe2L, CDA, CV-DD and FADRM: batch files that do not name their images; their order is drawn again.

The generator visited the images in the order of torch's `RandomSampler` with a generator of seed 42. That
sampler draws two permutations an epoch and uses the first, so epoch e has the (2 e)-th permutation of the
generator. (Yin, Xing and Shen, "Squeeze, Recover and Relabel", NeurIPS 2023.)
"""

from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.importers.batch_files import BatchFile, BatchLabels, read_batch
from fkdx.importers.foreign_labels import Settings
from fkdx.importers.lpld import ORDER_FILE


class Sre2lLabels(BatchLabels):
    name = "sre2l"
    about = "SRe2L, CDA, CV-DD and FADRM: epoch_<e>/batch_<b>.tar of 6 parts"

    @classmethod
    def matches(cls, path: Path) -> bool:
        first = path / "epoch_0" / "batch_0.tar"
        is_lpld = (path / ORDER_FILE).exists()
        return first.exists() and not is_lpld and read_batch(first).indices is None

    def check_batch(self, batch: BatchFile, path: Path) -> None:
        if batch.indices is not None:
            raise FormatError(f"sre2l: parts, got {batch.parts}, expected 6 (see --format g-vbsm), {path}")

    def orders(self, settings: Settings) -> list[np.ndarray]:
        images = len(self.images.samples)
        for epoch, rows in enumerate(self.rows):
            if sum(rows) != images:
                got = f"{sum(rows)} rows in epoch {epoch}"
                raise FormatError(f"sre2l: labels, got {got}, expected {images}, one an image, {self.root}")
        return sampler_orders(images, len(self.files), settings.seed)


def sampler_orders(images: int, epochs: int, seed: int) -> list[np.ndarray]:
    """The images in the order in which torch's RandomSampler visits them, an array (images,) int64 per epoch.

    Raises RuntimeError if torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise RuntimeError("sre2l: replaying torch's sampler needs torch; install it") from error
    generator = torch.Generator().manual_seed(seed)
    sampler = torch.utils.data.RandomSampler(range(images), generator=generator)
    # `list` runs the sampler to its very end, where it draws the second permutation
    return [np.array(list(sampler), np.int64) for _ in range(epochs)]
