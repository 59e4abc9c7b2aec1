"""The systems that `bench/loader.py` compares: all give the same crops and labels of the same stored boxes.

A system is a generator of batches: (images, target), images uint8 (B, S, S, 3) or normalised float32
(B, 3, S, S); the target is dense (B, C) beside float32, as FKD trains, and top-K (ids, values) beside uint8.
"""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import functional as F
from torchvision.transforms.v2 import functional as F2

from fkdx import _C, CropLoader, LabelFile
from fkdx.image import installed_rule

# The order of passes of the Pillow that runs here, which all but DALI and torch follow.
RESAMPLE = installed_rule()
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass
class Work:
    """The same labels as one fkdx file and as a folder of FKD's files, for the images below `root`."""

    root: Path
    labels: Path
    tars: Path
    keys: list[str]
    num_classes: int
    size: int = 224
    batch: int = 256
    crops: int = 4  # m
    threads: int = 1
    floats: bool = False

    def groups(self) -> Iterator[np.ndarray]:
        """Images of one batch after another, without end."""
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(len(self.keys))
            count = self.batch // self.crops
            for start in range(0, len(order) - count + 1, count):
                yield order[start : start + count]


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, S, S, 3) to float32 (B, 3, S, S)."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(MEAN[:, None, None]).div_(STD[:, None, None])


def dense(ids: torch.Tensor, values: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Marginal smoothing of top-K labels (B, K)."""
    rest = (1 - values.sum(1, keepdim=True)) / (num_classes - ids.shape[1])
    return rest.repeat(1, num_classes).scatter_(1, ids.long(), values)


# ---- fkdx --------------------------------------------------------------------------------------------------


def fkdx_without_points(work: Work) -> Iterator[tuple]:
    """The same where no index of entry points lies beside the folder."""
    bare = work.root.with_name("bare")
    if not bare.exists():
        bare.symlink_to(work.root)
    return fkdx(replace(work, root=bare))


def fkdx(work: Work) -> Iterator[tuple]:
    labels = LabelFile(work.labels)
    options = {"threads": work.threads, "resample": RESAMPLE}
    loader = CropLoader(work.root, labels, work.batch, work.crops, work.size, **options)
    for _ in loader:  # a first epoch proves the entry points that it passes
        pass
    while True:
        for batch in loader:
            if work.floats:
                images, target = batch.prepared(MEAN.tolist(), STD.tolist())
                yield images, target.to_dense()
            else:
                yield batch.images, batch.target


# ---- FKD as published: one pickled label file an image, PIL, ToTensor, Normalize, a DataLoader -------------


class StoredCropDataset(Dataset):
    def __init__(self, work: Work) -> None:
        self.work = work

    def __len__(self) -> int:
        return len(self.work.keys)

    def __getitem__(self, i: int) -> tuple:
        work, key = self.work, self.work.keys[i]
        coordinates, flips, labels = torch.load(work.tars / f"{key}.tar", weights_only=False)
        image = Image.open(work.root / key).convert("RGB")
        images, targets = [], []
        for crop in np.random.permutation(len(flips))[: work.crops]:
            pixels = cut(image, coordinates[crop], bool(flips[crop]), work.size)
            if work.floats:
                images.append(F.normalize(F.to_tensor(pixels), MEAN.tolist(), STD.tolist()))
            else:
                images.append(torch.from_numpy(np.array(pixels)))
            targets.append(torch.from_numpy(labels[crop]))
        return images, targets


def cut(image: Image.Image, ratios: np.ndarray, flip: bool, size: int) -> Image.Image:
    top, left, height, width = (float(ratio) for ratio in ratios)
    box = top * image.height, left * image.width, height * image.height, width * image.width
    crop = F.resized_crop(image, *box, [size, size], F.InterpolationMode.BILINEAR)
    return F.hflip(crop) if flip else crop


def reference(work: Work) -> Iterator[tuple]:
    options = {"batch_size": work.batch // work.crops, "shuffle": True, "drop_last": True}
    loader = DataLoader(StoredCropDataset(work), num_workers=work.threads, persistent_workers=True, **options)
    while True:
        for images, labels in loader:  # lists of the first, second, ... crops of all images
            images, labels = torch.cat(images), torch.cat(labels)
            ids, values = labels[:, 0], labels[:, 1]
            yield images, dense(ids, values, work.num_classes) if work.floats else (ids, values)


# ---- peers: one process, threads, labels from fkdx's file --------------------------------------------------


def threaded(work: Work, decode: object) -> Iterator[tuple]:
    """decode(encoded) -> uint8 tensor (3, H, W); torch's antialiased uint8 resize; one image a task."""
    labels = LabelFile(work.labels)
    number_of = np.array([labels.find(key) for key in work.keys])

    def cut_image(image: int, boxes: np.ndarray, flips: np.ndarray, out: torch.Tensor) -> None:
        pixels = decode((work.root / work.keys[image]).read_bytes())
        for row, box, flip in zip(out, boxes.tolist(), flips):
            crop = F2.resized_crop(pixels, *box, [work.size, work.size], antialias=True)  # stays uint8
            row.copy_((F2.hflip(crop) if flip else crop).permute(1, 2, 0))

    rng = np.random.default_rng(0)

    def begin(images: np.ndarray) -> tuple:
        crops = np.stack([rng.permutation(labels.crops)[: work.crops] for _ in images])
        boxes, flips, ids, values = labels.gather(number_of[images], crops)
        out = torch.empty(len(images), work.crops, work.size, work.size, 3, dtype=torch.uint8)
        tasks = [pool.submit(cut_image, *arguments) for arguments in zip(images, boxes, flips, out)]
        return tasks, out, torch.from_numpy(ids).flatten(0, 1), torch.from_numpy(values).flatten(0, 1)

    with ThreadPoolExecutor(work.threads) as pool:
        groups = work.groups()
        ahead = begin(next(groups))
        while True:
            (tasks, out, ids, values), ahead = ahead, begin(next(groups))
            for task in tasks:
                task.result()
            images = out.flatten(0, 1)
            if work.floats:
                yield normalised(images), dense(ids, values, work.num_classes)
            else:
                yield images, (ids, values)


def torchvision(work: Work) -> Iterator[tuple]:
    def decode(encoded: bytes) -> torch.Tensor:
        return decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB)

    return threaded(work, decode)


def torchcodec(work: Work) -> Iterator[tuple]:
    from torchcodec.decoders import decode_jpeg as decode_by_codec

    return threaded(work, decode_by_codec)


def simplejpeg(work: Work) -> Iterator[tuple]:
    from simplejpeg import decode_jpeg as decode_simply

    return threaded(work, lambda encoded: torch.from_numpy(decode_simply(encoded)).permute(2, 0, 1))


def dali(work: Work) -> Iterator[tuple]:
    """DALI on the CPU: the union of an image's boxes decoded once, then sliced, resized (triangle filter) and
    flipped. Boxes lie in the stored image, so orientation tags stay ignored.
    """
    from nvidia.dali import fn, pipeline_def, types

    labels = LabelFile(work.labels)
    number_of = np.array([labels.find(key) for key in work.keys])
    rng = np.random.default_rng(0)
    ahead = []  # labels of the batches that DALI has begun

    def begin() -> Iterator[tuple]:
        for images in work.groups():
            crops = np.stack([rng.permutation(labels.crops)[: work.crops] for _ in images])
            boxes, flips, ids, values = labels.gather(number_of[images], crops)
            ahead.append((torch.from_numpy(ids).flatten(0, 1), torch.from_numpy(values).flatten(0, 1)))
            encoded = [np.fromfile(work.root / work.keys[image], np.uint8) for image in images]
            corners, sides = boxes[..., :2], boxes[..., 2:].copy()
            start = corners.min(1)
            yield (
                encoded,
                start,
                (corners + sides).max(1) - start,
                corners - start[:, None],
                sides,
                flips.astype(np.int32),
            )

    @pipeline_def(batch_size=work.batch // work.crops, num_threads=work.threads, device_id=None)
    def graph() -> object:
        encoded, start, shape, corners, sides, flips = fn.external_source(begin(), 6)
        image = fn.decoders.image_slice(encoded, start, shape, axes=[0, 1], adjust_orientation=False)
        crops = []
        for i in range(work.crops):
            crop = fn.slice(image, corners[i], sides[i], axes=[0, 1])
            crop = fn.resize(crop, size=[work.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True)
            crops.append(fn.flip(crop, horizontal=flips[i]))
        return fn.stack(*crops)

    pipeline = graph()
    pipeline.build()
    while True:
        images = torch.from_numpy(np.array(pipeline.run()[0].as_tensor())).flatten(0, 1)
        ids, values = ahead.pop(0)
        if work.floats:
            yield normalised(images), dense(ids, values, work.num_classes)
        else:
            yield images, (ids, values)


def systems() -> dict[str, object]:
    """Those that are installed."""
    found = {
        "fkdx": fkdx,
        "fkdx without points": fkdx_without_points,
        "reference": reference,
        "torchvision": torchvision,
    }
    if importlib.util.find_spec("torchcodec"):
        found["torchcodec"] = torchcodec
    if importlib.util.find_spec("simplejpeg"):
        found["simplejpeg"] = simplejpeg
    if importlib.util.find_spec("nvidia.dali"):
        found["dali"] = dali
    return found


# ---- the ceiling -------------------------------------------------------------------------------------------


def ceiling(work: Work) -> Iterator[tuple]:
    """Reads and decodes nothing but the union of each image's boxes, and throws it away."""
    labels = LabelFile(work.labels)
    number_of = np.array([labels.find(key) for key in work.keys])
    rng = np.random.default_rng(0)

    decoders = [_C.CropDecoder() for _ in range(work.threads)]

    def decode(images: np.ndarray, boxes: np.ndarray, decoder: _C.CropDecoder) -> None:
        for image, image_boxes in zip(images, boxes):
            decoder.decode_region_only((work.root / work.keys[image]).read_bytes(), image_boxes)

    with ThreadPoolExecutor(work.threads) as pool:
        for images in work.groups():
            crops = np.stack([rng.permutation(labels.crops)[: work.crops] for _ in images])
            boxes = labels.gather(number_of[images], crops)[0]
            shares = (slice(t, None, work.threads) for t in range(work.threads))
            tasks = [pool.submit(decode, images[s], boxes[s], d) for s, d in zip(shares, decoders)]
            for task in tasks:
                task.result()
            yield None, None
