"""Batches of crops with their targets: one image decoded once gives m crops.

A batch is image after image: rows `i * m ... i * m + m - 1` are the m crops of its i-th image, so
`images.view(-1, m, S, S, 3)` has one image per row. The tensors of a batch belong to the caller: their memory
is reused only after the last reference to it is gone.
"""

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NoReturn

import numpy as np
import torch

from fkdx import _C
from fkdx.calibration import CalibratedLabels, Calibration
from fkdx.errors import refuse, whole
from fkdx.image.augment import augment_rows
from fkdx.image.crops import Interpolation, Resample
from fkdx.image.random_boxes import RATIO, SCALE
from fkdx.labels import LabelFile
from fkdx.labels.distributions import SCORES, Score
from fkdx.loader.batches import Batch, check_shares, check_word, refuse_copy
from fkdx.loader.drawn_crops import DrawnCrops
from fkdx.loader.labelled_crops import LabelledCrops, Labels
from fkdx.loader.partners import Partners
from fkdx.loader.plan import Plan
from fkdx.loader.pool import ImagePool, Pending, View
from fkdx.loader.sampler import CURRICULA, Choice, Sampler
from fkdx.loader.slots import Device, make_slots, send
from fkdx.loss.target import KINDS, LabelKind
from fkdx.stores import Store, check_random_access, open_store
from fkdx.system import submit

_HEAD_START = 0.002  # seconds for the caller, who frees the last batch and needs the interpreter for it
_PLANNER = "fkdx-planner"  # the name of its threads begins so
_HOPELESS = 100  # unreadable images in a row after which something else must be wrong
_Slots = tuple[np.ndarray, np.ndarray | None]  # memory for a batch, and for what it is mixed with


class CropLoader:
    """Batches of stored crops with targets recovered from their labels, or of random crops with hard labels.

    Which images and crops form a batch depends on (seed, epoch, step) alone: not on threads, ranks or
    interruptions.

    Args:
        root: where the images are, see `fkdx.stores.open_store`.
        labels: a LabelFile or its path. Several for the same crops, one per teacher: their targets are
            averaged. None: plain training, with one-hot targets of the image's class and random crops drawn
            on the fly, as by torchvision's RandomResizedCrop(scale=scale, ratio=ratio) and a random flip.
        batch_size: crops of the global batch; every rank gets `batch_size / world_size` of them.
        crops_per_image: m, crops of one image in a batch; divides a rank's part of the batch.
        size: pixels of a crop's side.
        seed: seed of the order of images and the choice of crops.
        threads: decoding threads of this process (default: its cores, shared among the processes of one
            machine). Where opening and reading a file takes milliseconds, as in network file systems, use
            eight times as many: most of them just wait, and each takes 5 MB of memory.
        rank, world_size: the number of this process, and how many there are.
        label_kind: how targets are recovered, see `SparseTarget.from_topk`.
        teacher_temperature: divides stored logits of kind `topk_logits` before they become probabilities: a
            number, or a function of the epoch and of the share (0 to 1) of its steps that are done, which a
            thread of the loader calls some batches ahead. `dense_logits` stay logits, see `Batch.prepared`.
        calibration: FerKD's rule for crops that are too hard or too easy, applied to every teacher's labels.
        interpolation: "bilinear" or "bicubic", antialiased as Pillow's.
        resample: "pillow12" or "pillow13", the order of Pillow's two passes.
        choice: "independent" (m fresh random crops), "cycle" (every stored crop once before any again), or a
            curriculum, "easy_to_hard", "hard_to_easy" or "range": fresh random crops of a `window` of the
            image's crops, ranked by the teacher's `score`; see `Sampler.window_at`.
        window, epochs, score: for a curriculum: the part of the crops shown at a time, the epochs of the
            whole run, and how easy a crop is: the teacher's "max" probability, or that of the "truth".
        drop_last: leave out the last images of an epoch if they do not fill a batch; otherwise fill the batch
            up with the epoch's first images.
        on_error: "raise", or "skip": show the epoch's next image instead of an unreadable one, warn, and
            count it in `skipped`.
        on_missing: "raise", or "ignore" images without labels and labels without images (a folder must be
            listed for that).
        check_images: list a folder before the first batch. Otherwise the labels name its files, nothing is
            listed, and a missing image is an error, or a skip, when it is first read.
        allow_warnings: accept damaged images that libjpeg decodes with a warning.
        prefetch: number of batches prepared ahead.
        cache_bytes: memory for encoded images.
        device: None or "cpu": batches stay in ordinary memory. A CUDA device: they are copied there on a
            separate stream.

    Attributes:
        teachers: the label files as they are used, calibrated ones with their `statistics`.
        skipped: unreadable images that gave way to others: {key: reason}.
        warned: keys of images that were shown although their files have faults, which change no pixel.

    Raises:
        ValueError: arguments that contradict each other, or images and labels that do not match.
        ImageError, OSError: while iterating: a bad image, with its path, at the batch to which it belongs.

    Example:
        >>> from pathlib import Path
        >>> import fkdx
        >>> from PIL import Image
        >>> Path("photos/cat").mkdir(parents=True, exist_ok=True)
        >>> Image.new("RGB", (80, 60), "red").save("photos/cat/1.jpg")
        >>> with fkdx.LabelWriter("cats.fkdl", num_classes=3, k=1, crops=2, overwrite=True) as writer:
        ...     boxes, flips = [[0, 0, 60, 80], [10, 10, 40, 40]], [False, True]
        ...     writer.add("cat/1.jpg", boxes, flips, [[0], [2]], [[0.9], [0.8]], image_size=(60, 80))
        >>> loader = fkdx.CropLoader("photos", "cats.fkdl", batch_size=2, crops_per_image=2, size=32)
        >>> for batch in loader:
        ...     print(tuple(batch.images.shape), batch.target.to_dense().sum(1).tolist(), batch.keys)
        (2, 32, 32, 3) [1.0, 1.0] ['cat/1.jpg', 'cat/1.jpg']
    """

    def __init__(
        self,
        root: "str | os.PathLike | Store",
        labels: "Labels | Sequence[Labels] | None",
        batch_size: int,
        crops_per_image: int = 4,
        size: int = 224,
        *,
        seed: int = 0,
        threads: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        label_kind: LabelKind = "marginal_smoothing",
        teacher_temperature: float | Callable[[int, float], float] = 1.0,
        calibration: Calibration | None = None,
        interpolation: Interpolation = "bilinear",
        resample: Resample = "pillow12",
        choice: Choice = "independent",
        window: tuple[float, float] = (0.0, 0.25),
        epochs: int = 0,
        score: Score = "max",
        drop_last: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
        on_missing: Literal["raise", "ignore"] = "raise",
        check_images: bool = False,
        allow_warnings: bool = False,
        prefetch: int = 2,
        cache_bytes: int = 0,
        device: Device = None,
        scale: tuple[float, float] = SCALE,
        ratio: tuple[float, float] = RATIO,
    ) -> None:
        check_shares(batch_size, crops_per_image, rank, world_size)
        check_word("CropLoader", "on_error", on_error, ("raise", "skip"))
        check_word("CropLoader", "on_missing", on_missing, ("raise", "ignore"))
        check_word("CropLoader", "label_kind", label_kind, KINDS)
        check_word("CropLoader", "score", score, SCORES)
        seed, size = whole("CropLoader", "seed", seed), whole("CropLoader", "size", size)
        if whole("CropLoader", "prefetch", prefetch) < 1:
            refuse("CropLoader", "prefetch", prefetch, "at least 1")
        store = open_store(root)
        check_random_access(store)
        self.crops_per_image, self.batch_size = crops_per_image, batch_size
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self.label_kind, self.on_error, self.seed = label_kind, on_error, seed
        self._rows = batch_size // world_size
        self.teachers: list[LabelFile | CalibratedLabels] = []
        if labels is None:
            if calibration is not None or choice in CURRICULA:
                raise ValueError(
                    "CropLoader: a calibration or curriculum chooses among stored crops: give `labels`"
                )
            rule = _C.RandomCrops(scale, ratio, 0.5)
            self._crops: DrawnCrops | LabelledCrops = DrawnCrops(store, crops_per_image, seed, rule)
        else:
            labelled = self._crops = LabelledCrops(
                store,
                labels,
                size,
                label_kind,
                calibration=calibration,
                score=score if choice in CURRICULA else None,
                on_missing=on_missing,
                check_images=check_images,
            )
            store = labelled.store
            self.teachers = labelled.files
        self.classes = self._crops.classes
        self._temperature = _temperature(teacher_temperature, [file.kind for file in self.teachers])
        self.sampler = Sampler(
            self._crops.stored,
            batch_size // crops_per_image,
            crops_per_image,
            seed,
            choice,
            drop_last,
            window=window,
            epochs=epochs,
            drawn=labels is None,
        )
        view = View(size, interpolation, resample, allow_warnings, **self._crops.view)
        self.pool = ImagePool(store, view, threads, cache_bytes)
        shape = (self._rows, size, size, 3)
        self._slots = make_slots(shape, device, prefetch + 2)
        self._partner_slots = make_slots(shape, device, prefetch + 2)
        self._device = device
        self.skipped: dict[str, str] = {}  # key of an image that could not be read: the reason
        self.warned: set[str] = set()
        self._epoch = self._step = self._start = 0

    def __repr__(self) -> str:
        pool, crops = self.pool, f"{self._rows} crops of {self._rows // self.crops_per_image} images"
        return f"CropLoader({pool.store.path!r}: {len(self)} batches of {crops}, {pool.view.size} pixels)"

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __len__(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return self.sampler.steps

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass. Passes over the images with m crops each count as m epochs.

        By itself the epoch moves on with the last batch of a pass; a pass that is broken off begins again.
        """
        epoch = whole("set_epoch", "epoch", epoch)
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader is: the next batch is number `step` of `epoch`. Loading may continue from here
        with any number of threads and any world size that divides the batch."""
        return {"epoch": self._epoch, "step": self._step, **self._shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken. ValueError if the plan of the epochs has changed since."""
        if not {"epoch", "step"} <= state.keys():
            refuse("load_state_dict", "state", list(state), "what `state_dict` gave")
        for name, value in self._shape().items():
            if state.get(name, value) != value:
                raise ValueError(f"load_state_dict: {name}, got {state[name]}, expected {value}")
        if not 0 <= state["step"] <= len(self):
            raise ValueError(f"load_state_dict: step, got {state['step']}, expected 0..{len(self)}")
        self._epoch, self._start = state["epoch"], state["step"]
        self._step = self._start

    def _shape(self) -> dict[str, int]:
        sampler = self.sampler
        return {
            "seed": self.seed,
            "images": len(sampler.stored),
            "batch_size": self.batch_size,
            "crops_per_image": self.crops_per_image,
        }

    def close(self) -> None:
        """End the threads. This also happens when the loader is no longer used, and at exit."""
        self.pool.close()

    # ---- one pass ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the current step to the end of the epoch; then the next epoch is set."""
        self.pool.store.check_unchanged()
        epoch, done, self._start = self._epoch, self._start, 0
        self._reach(epoch, done)
        order = self.sampler.order(epoch)
        steps = iter(range(done, len(self)))
        begun: deque[Future[_Part]] = deque()  # after the one that is handed out
        planner = ThreadPoolExecutor(1, _PLANNER)  # so that the caller need not wait for the plans
        this_thread, name = threading.current_thread, _PLANNER  # modules may be gone when a pass ends at exit

        def begin(ahead: int, wait: float = 0.0) -> None:
            # Here, in the caller's thread: it has chosen the CUDA device to which pinned memory belongs.
            for step in islice(steps, ahead - len(begun)):
                slots = self._slots.take(), self._partner_slot()
                begun.append(submit(planner, self._begin, epoch, order, step, slots, wait))

        try:
            begin(self.prefetch)
            while begun:
                self.pool.check_process()  # a forked child has no planner, and would wait for ever
                if not _whole(begun[0]):
                    begin(self.prefetch + 1)  # there is time for it
                part = begun.popleft().result()
                self._replace_bad(part, epoch, order)
                batch = self._deliver(part)
                del part  # the slot belongs to the caller from now on
                next_is_whole = bool(begun) and self._copy_if_whole(begun[0])
                done += 1
                self._reach(epoch, done)
                # Only now, after all that lets go of the interpreter, which the planner would keep from us.
                begin(self.prefetch, _HEAD_START if next_is_whole else 0.0)
                yield batch
                del batch
        finally:
            for future in begun:
                future.cancel()
            # The garbage collector may end a forgotten pass in any thread, even this one.
            planner.shutdown(wait=not this_thread().name.startswith(name))
        self.pool.warn_of_misfits()

    def _reach(self, epoch: int, done: int) -> None:
        """Note that this many batches of a pass are handed out. The last one ends it, even if the caller, who
        has counted them, does not ask for another."""
        self._step = done % len(self)
        if done == len(self) and self._epoch == epoch:  # else set_epoch has chosen another meanwhile
            self._epoch += self.crops_per_image

    def _copy_if_whole(self, planned: "Future[_Part]") -> bool:
        """Begins the copy of the next batch, if it is whole, before the caller asks for it; returns that."""
        part = _whole(planned)
        if part:
            self._slots.begin(part.pending.slot, self._rows)
        return part is not None

    def _partner_slot(self) -> np.ndarray | None:
        return self._partner_slots.take() if self._crops.mixed else None

    def _begin(self, epoch: int, order: np.ndarray, step: int, slots: _Slots, wait: float) -> "_Part":
        time.sleep(wait)
        share = self._rows // self.crops_per_image
        positions = self.sampler.positions(step)[self.rank * share : (self.rank + 1) * share]
        part = self._submit(epoch, order, positions, slots)
        part.plan.temperature = self._temperature(epoch, step / len(self))
        part.plan.target()  # now, while the images are being decoded
        return part

    def _submit(
        self, epoch: int, order: np.ndarray, positions: np.ndarray, slots: _Slots, urgent: bool = False
    ) -> "_Part":
        laps, turns = np.divmod(positions, len(order))
        images = order[turns]
        plan = self._crops.plan(epoch, images, self.sampler.crops(epoch, images, laps))
        slot, partner_slot = slots
        if partners := plan.partners:
            assert partner_slot is not None  # taken wherever crops are mixed
            partners.slot = partner_slot
            partners.pixels = partners.slot[: len(partners.work.images)]
            if len(partners.pixels):
                partners.pending = self.pool.submit(partners.work, partners.pixels, urgent)
        return _Part(self.pool.submit(plan.work, slot, urgent), positions, plan)

    def _replace_bad(self, part: "_Part", epoch: int, order: np.ndarray) -> None:
        """Wait for the batch. A bad image is an error, or is replaced by the next good one in the order.

        That depends on the image's place in the order alone, so every rank chooses the same one by itself.
        """
        errors = part.finish()
        self.warned |= {self.pool.store.keys[part.plan.work.images[i]] for i in part.pending.warned()}
        for i in list(errors):
            if self.on_error == "raise":
                raise errors.pop(i)  # a reference kept here would keep the loader alive with its error
            self._replace(part, i, errors[i], epoch, order)

    def _replace(self, part: "_Part", i: int, error: Exception, epoch: int, order: np.ndarray) -> None:
        m = self.crops_per_image
        rows = part.pending.slot[i * m : (i + 1) * m]
        image = part.plan.work.images[i]
        tries = min(_HOPELESS, len(order))
        for shift in range(1, tries):
            self._count_skip(image, error)
            slots = rows, self._partner_slot()
            other = self._submit(epoch, order, part.positions[i : i + 1] + shift, slots, urgent=True)
            image = other.plan.work.images[0]
            errors = other.finish()
            if not errors:
                part.plan.replace(i, other.plan)
                return
            error = errors[0]
        self._count_skip(image, error)
        if tries == len(order):
            raise RuntimeError(f"CropLoader: none of the {tries} images can be read; the last one: {error}")
        raise RuntimeError(f"CropLoader: {tries} images in a row are unreadable; the last one: {error}")

    def _count_skip(self, file: int, error: Exception) -> None:
        key = self.pool.store.keys[file]
        if key not in self.skipped:
            warnings.warn(f"CropLoader: skipped {key}: {error}", stacklevel=2)
        self.skipped[key] = str(error)

    def _deliver(self, part: "_Part") -> Batch:
        plan, pixels = part.plan, part.pending.slot
        target, classes = plan.target(), plan.row_classes
        if plan.steps:
            augment_rows(pixels, plan.steps, self.pool.threads)
        mix = others = None
        if plan.partners and plan.partners.pixels is not None:
            if plan.partners.steps:
                augment_rows(plan.partners.pixels, plan.partners.steps, self.pool.threads)
            mix = plan.partners.mix.apply(pixels, plan.partners.pixels)
            others = mix and self._others(plan.partners, plan.partners.pixels)
            mix = mix and replace(mix, others=None)
        target, classes, mix = send((target, classes, mix), self._device)
        mix = mix and replace(mix, others=others)
        keys = [self.pool.store.keys[image] for image in plan.work.images]
        keys = [key for key in keys for _ in range(self.crops_per_image)]
        crops = torch.from_numpy(plan.crops.reshape(-1))
        images = self._slots.deliver(pixels, self._rows)
        return Batch(images, target, classes, keys, crops, mix, self._crops.bare)

    def _others(self, partners: Partners, crops: np.ndarray) -> torch.Tensor:
        """The partners' crops on the device."""
        if partners.slot is None:
            return send((torch.from_numpy(crops),), self._device)[0]
        return self._partner_slots.deliver(partners.slot, len(crops))


@dataclass
class _Part:
    """Images that are being decoded: n of them, at positions (n,) of the epoch's order."""

    pending: Pending
    positions: np.ndarray
    plan: Plan

    def whole(self) -> bool:
        """Whether the pixels are what the caller will see, with nothing to wait for or to do."""
        return not self.plan.partners and not self.plan.steps and self.pending.ready()

    def finish(self) -> dict[int, Exception]:
        """Wait for all crops; returns the errors by the image's place, in order."""
        errors = self.pending.finish()
        of_partners = self.plan.partners.finish() if self.plan.partners else {}
        return dict(sorted({**of_partners, **errors}.items()))


def _whole(planned: "Future[_Part]") -> _Part | None:
    """The part, if it is planned and whole."""
    if planned.done() and not planned.exception() and (part := planned.result()).whole():
        return part
    return None


def _temperature(
    given: float | Callable[[int, float], float], kinds: Sequence[str]
) -> Callable[[int, float], float]:
    """The teacher's temperature, for labels of these kinds. ValueError for others."""
    if callable(given):
        temperature = given
    else:
        if not given > 0:
            refuse("CropLoader", "teacher_temperature", given, "a positive number")

        def temperature(epoch: int, done: float) -> float:
            return given

    if given != 1 and set(kinds) != {"topk_logits"}:
        got = f"one for labels of kind {' and '.join(kinds)}" if kinds else "one without labels"
        refuse("CropLoader", "teacher_temperature", got, "labels of kind topk_logits")
    return temperature
