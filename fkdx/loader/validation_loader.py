"""Validation batches: every image once, resized and cut from the centre."""

import os
from collections.abc import Iterator
from typing import Literal, NoReturn

import numpy as np
import torch

from fkdx.errors import whole
from fkdx.image.crops import Interpolation, Resample
from fkdx.loader.batches import Batch, check_shares, check_word, refuse_copy
from fkdx.loader.pool import ImagePool, Pending, View, Work, run_ahead
from fkdx.loader.slots import Device, make_slots, send
from fkdx.stores import Store, class_numbers, open_store


class ValidationLoader:
    """Every image once: the shorter side resized to floor(size / crop_ratio), then the centre, as torchvision
    does.

    Images come in the order of their keys, those of parquet files in the order of their rows. Rank r takes
    images r, r + world_size, ...: no image is shown twice and nothing is padded, so totals summed over the
    ranks are exact. The numbers of images, and so of batches, may differ by one between ranks: keep
    collective operations out of the loop over batches.

    Args:
        root: where the images are, see `fkdx.stores.open_store`.
        batch_size: images in a batch of this process; the last one may be smaller.
        classes: class names in order (default: the store's own), to which the store's join by name.
        on_error: "raise", or "skip": leave out images that cannot be read or have no class, and keep the
            reasons in `skipped`.
        others: as for CropLoader.

    Attributes:
        skipped: key of every image of this rank that was left out: the reason.
        warned: keys of this rank's images whose files have faults, which change no pixel.

    Raises:
        ValueError: an image's class is not among the classes, or it has none.
        ImageError, OSError: while iterating, an image that cannot be read, with its path.

    Example:
        >>> from pathlib import Path
        >>> import fkdx
        >>> from PIL import Image
        >>> for name in ("cat", "dog"):
        ...     Path(f"val/{name}").mkdir(parents=True, exist_ok=True)
        ...     Image.new("RGB", (80, 60), "red").save(f"val/{name}/1.jpg")
        >>> for batch in fkdx.ValidationLoader("val", batch_size=2, size=32):
        ...     print(tuple(batch.images.shape), batch.classes.tolist(), batch.keys)
        (2, 32, 32, 3) [0, 1] ['cat/1.jpg', 'dog/1.jpg']
    """

    def __init__(
        self,
        root: "str | os.PathLike | Store",
        batch_size: int,
        size: int = 224,
        crop_ratio: float = 0.875,
        classes: list[str] | None = None,
        *,
        threads: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        interpolation: Interpolation = "bilinear",
        resample: Resample = "pillow12",
        on_error: Literal["raise", "skip"] = "raise",
        allow_warnings: bool = False,
        prefetch: int = 2,
        cache_bytes: int = 0,
        device: Device = None,
    ) -> None:
        check_shares(batch_size * world_size, 1, rank, world_size)
        check_word("ValidationLoader", "on_error", on_error, ("raise", "skip"))
        size = whole("ValidationLoader", "size", size)
        store = open_store(root)
        self.batch_size, self.prefetch, self._device = batch_size, prefetch, device
        self.on_error = on_error
        self.classes, self._class_of = class_numbers(store, classes)
        bare = np.flatnonzero(self._class_of < 0)
        if len(bare) and on_error == "raise":
            named = ", ".join(store.keys[image] for image in bare[:4].tolist())
            raise ValueError(
                f"ValidationLoader: {len(bare)} images are in no class folder ({named}), "
                "expected <class>/<name>; name their classes in a file behind the images, DATA@FILE, or "
                f"leave them out with on_error skip, {store.path}"
            )
        own = bare[rank::world_size].tolist()
        self.skipped = {store.keys[image]: "it is in no class folder" for image in own}
        self.warned: set[str] = set()
        order = store.reading_order if store.sequential else np.arange(len(store))
        self._files = order[self._class_of[order] >= 0][rank::world_size]
        view = View(size, interpolation, resample, allow_warnings, "centre", crop_ratio)
        self.pool = ImagePool(store, view, threads, cache_bytes)
        self._slots = make_slots((batch_size, size, size, 3), device, prefetch + 2)

    def __repr__(self) -> str:
        pool, images = self.pool, f"{len(self._files)} images in batches of {self.batch_size}"
        return f"ValidationLoader({pool.store.path!r}: {images}, {pool.view.size} pixels)"

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __len__(self) -> int:
        """Number of batches of this rank."""
        return -(-len(self._files) // self.batch_size)

    def close(self) -> None:
        """End the threads. This also happens when the loader is no longer used, and at exit."""
        self.pool.close()

    def __iter__(self) -> Iterator[Batch]:
        self.pool.store.check_unchanged()
        for pending in run_ahead(self._begin, range(len(self)), self.prefetch):
            errors = pending.finish()
            if errors and self.on_error == "raise":
                raise errors.pop(min(errors))
            batch = self._deliver(pending, errors)
            del pending
            if len(batch.keys):
                yield batch
            del batch

    def _begin(self, step: int) -> Pending:
        files = self._files[step * self.batch_size : (step + 1) * self.batch_size]
        n = len(files)
        work = Work(files.tolist(), [1] * n, np.zeros((n, 4), np.int32), np.zeros(n, np.uint8))
        return self.pool.submit(work, self._slots.take())

    def _deliver(self, pending: Pending, errors: dict[int, Exception]) -> Batch:
        files, keys = np.array(pending.work.images), self.pool.store.keys
        self.skipped |= {keys[files[place]]: str(error) for place, error in errors.items()}
        self.warned |= {keys[files[place]] for place in pending.warned()}
        good = [place for place in range(len(files)) if place not in errors]
        (classes,) = send((torch.from_numpy(self._class_of[files].astype(np.int64)),), self._device)
        images = self._slots.deliver(pending.slot, len(files))
        if errors:
            images, classes, files = images[good], classes[good], files[good]
        batch_keys = [keys[image] for image in files.tolist()]
        return Batch(images, None, classes, batch_keys, torch.zeros(len(files), dtype=torch.int64))
