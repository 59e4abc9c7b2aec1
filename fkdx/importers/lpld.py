"""LPLD: SRe2L's batch files, and `sampler_indices_epoch.json`, which names the image of every row.

    {"<epoch>": [number of the image in the order of an image folder, ...], ...}

In the ImageNet-21K variant part 1 of a batch is cutouts, see `cutouts`. Pruned sets drop the last batch of an
epoch and stop inside the last epoch, so the number of crops differs between images. (Xiao and He, "Are
Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?", NeurIPS 2024.)
"""

import json
from pathlib import Path

import numpy as np

from fkdx._C import FormatError
from fkdx.importers.batch_files import BatchFile, BatchLabels, read_batch
from fkdx.importers.foreign_labels import Settings

ORDER_FILE = "sampler_indices_epoch.json"


class LpldLabels(BatchLabels):
    name = "lpld"
    about = "LPLD: batch files as SRe2L's, with sampler_indices_epoch.json"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / ORDER_FILE).exists()

    def read_file(self, file: str, mapped: bool = False) -> BatchFile:
        return read_batch(self.root / file, mapped, cutouts=True)

    def orders(self, settings: Settings) -> list[np.ndarray]:
        path = self.root / ORDER_FILE
        try:
            orders = json.loads(path.read_bytes())
            found = [np.array(orders[str(epoch)]) for epoch in range(len(self.files))]
            if any(order.ndim != 1 or order.dtype.kind != "i" for order in found):
                raise ValueError("something else than lists of numbers")
            return found
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            expected = f"lists of whole numbers for epochs 0 ... {len(self.files) - 1}"
            raise FormatError(f"lpld: order, got {error!r}, expected {expected}, {path}") from None
