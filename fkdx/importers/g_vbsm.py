"""G-VBSM and EDC: SRe2L's batch files with a seventh part that names the images of the rows.

    [6] int64 (B,)   number of the image in the order of an image folder
    [7] EDC only: an order of patches that its generator did not apply; ignored

EDC divided boxes by the wrong sides (top by the width, left by the height, ...), which makes no difference in
square images; others are refused. Labels are averages over several teachers. (Shao et al., "Generalized
Large-Scale Data Condensation via Various Backbone and Statistical Matching", CVPR 2024; "Elucidating the
Design Space of Dataset Condensation", NeurIPS 2024.)
"""

from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.importers.batch_files import BatchFile, BatchLabels, read_batch
from fkdx.importers.foreign_labels import Settings


class GVbsmLabels(BatchLabels):
    name = "g-vbsm"
    about = "G-VBSM and EDC: epoch_<e>/batch_<b>.tar of 7 or 8 parts"

    square = False  # EDC: only square images can be replayed

    @classmethod
    def matches(cls, path: Path) -> bool:
        first = path / "epoch_0" / "batch_0.tar"
        return first.exists() and read_batch(first, cutouts=True).indices is not None

    def check_batch(self, batch: BatchFile, path: Path) -> None:
        if batch.indices is None:
            raise FormatError(
                f"g-vbsm: parts, got {batch.parts}, expected 7 or 8 (see --format sre2l), {path}"
            )
        self.square = self.square or batch.parts == 8

    def orders(self, settings: Settings) -> list[np.ndarray]:
        return [
            np.concatenate([read_batch(self.root / file, mapped=True).indices for file in epoch])
            for epoch in self.files
        ]

    def image_size(self, image: int) -> tuple[int, int]:
        height, width = size = super().image_size(image)
        if self.square and height != width:
            path = f"{self.images.root}: {self.keys[image]}"
            raise FormatError(f"g-vbsm: image, got {height} x {width}, expected a square one for EDC, {path}")
        return size
