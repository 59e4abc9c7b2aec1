"""How fast crops are cut for a teacher: python bench/cutting.py --images DIR [--crops 200,16,4]

A teacher that takes no time sees random crops of every image, M of each from one decode. fkdx's are those of
the feed of `fkdx generate`. torchvision's are what one would write with it, in one worker of a DataLoader:
`RandomResizedCrop` and a flip of a tensor that its own JPEG decoder made, uint8, and the same of a Pillow
image, normalised to float32 as published. All are pinned to one core and take turns; crops a second of CPU
time, workers included, medians of the turns. fkdx's crops are first compared with those of the
reference.
"""

import argparse
import os
import statistics
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from processes import cpu_seconds
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD
from fkdx.generate.draw import RandomCrops
from fkdx.generate.feed import Feed
from fkdx.generate.shards import plan_shards
from fkdx.reference.image import cut_crop
from fkdx.stores import FileList, Store, open_store

SIZE, BATCH = 224, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, help="a folder of JPEG images, <class>/<name>")
    parser.add_argument("--crops", default="200,16,4", help="M, of an image (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of CPU time, about, of a turn")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    source = open_store(args.images)
    check(source)
    print(f"{'M':>4} {'crops/s: fkdx':>14} {'v2, uint8':>10} {'Pillow, float32':>16}  fkdx over the better")
    for crops in map(int, args.crops.split(",")):
        cutters = fkdx_crops, tensor_crops, pillow_crops
        counts = [enough(cut, source, crops, args.seconds) for cut in cutters]
        turns = [[rate(cut, part, crops) for cut, part in zip(cutters, counts)] for _ in range(args.turns)]
        fkdx, *peers = map(statistics.median, zip(*turns))
        print(f"{crops:>4} {fkdx:>14.0f} {peers[0]:>10.0f} {peers[1]:>16.0f}  {fkdx / max(peers):.2f}")


Cutter = Callable[[Store, int], int]  # cuts so many crops of every image, and counts them


def enough(cut: Cutter, source: Store, crops: int, seconds: float) -> Store:
    """As many images, each as often as it takes, as keep a cutter busy for some seconds."""
    speed = rate(cut, FileList(source.path, source.keys[: max(2, 256 // crops)]), crops)
    return FileList(source.path, source.keys[: max(2, int(speed * seconds / crops))])


def rate(cut: Cutter, source: Store, crops: int) -> float:
    begin = cpu_seconds()
    count = cut(source, crops)
    return count / (cpu_seconds() - begin)


def fkdx_crops(source: Store, crops: int) -> int:
    count = 0
    with Feed(source, RandomCrops(crops), BATCH, [(SIZE, "bilinear")], threads=1) as feed:
        for chunk in feed.chunks(plan_shards(len(source), crops, BATCH)):
            count += len(chunk.crops[SIZE, "bilinear"])
    return count


class Crops(Dataset):
    """All crops of an image as one tensor."""

    def __init__(self, source: Store, crops: int, decode: Callable[[str], object], steps: list) -> None:
        self.paths = [os.path.join(source.path, key) for key in source.keys]
        self.crops, self.decode, self.change = crops, decode, v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, image: int) -> Tensor:
        pixels = self.decode(self.paths[image])
        return torch.stack([self.change(pixels) for _ in range(self.crops)])


CUT = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]


def tensor_crops(source: Store, crops: int) -> int:
    decode = lambda path: decode_jpeg(read_file(path), ImageReadMode.RGB)  # noqa: E731
    return loaded(Crops(source, crops, decode, CUT))


def pillow_crops(source: Store, crops: int) -> int:
    decode = lambda path: Image.open(path).convert("RGB")  # noqa: E731
    floats = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return loaded(Crops(source, crops, decode, [*CUT, *floats, v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]))


def loaded(images: Crops) -> int:
    return sum(len(crops) for crops in DataLoader(images, batch_size=None, num_workers=1))


def check(source: Store) -> None:
    """The feed's crops are those of Pillow's images, cut and resized as Pillow 12 does."""
    few = FileList(source.path, source.keys[:3])
    with Feed(few, RandomCrops(4), BATCH, [(SIZE, "bilinear")], threads=1) as feed:
        for chunk in feed.chunks(plan_shards(len(few), 4, BATCH)):
            rows = iter(chunk.crops[SIZE, "bilinear"].numpy())
            for image in chunk.images:
                pixels = np.asarray(Image.open(os.path.join(few.path, image.key)).convert("RGB"))
                for box, flip in zip(image.boxes, image.flips):
                    np.testing.assert_array_equal(next(rows), cut_crop(pixels, box, flip, SIZE))


if __name__ == "__main__":
    main()
