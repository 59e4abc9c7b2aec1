"""How soon a loader of many images is ready, and what memory it takes.

    python bench/startup.py --images 1281167 --folder DIR                   # makes DIR once
    python bench/startup.py --images 14200000 --folder DIR2 --labels-only   # ImageNet-21K, no images
    python bench/startup.py --images 1281167 --folder DIR --shards         # with webdataset and datasets

Every row runs in a process of its own: seconds from the call to the loader, of the clock and of CPU time, and
to its first batch; memory is the growth of the process's resident set over that of one whose loader has 64
images. Beside it stand `--hard`, where listing cannot be avoided, torchvision's ImageFolder, which lists, and
with `--shards` webdataset, which opens shards and knows neither length nor keys, and datasets, which copies
parquet files into a cache first. Images are JPEG files of 64 pixels, the same one for a whole class; for
1,281,167 the shards take 2.0 GB, the parquet files 0.9 GB and their cache as much again.
"""

import argparse
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fkdx import _C, LabelWriter

CROPS = 16
FOOTER = struct.Struct("<QQQQQQIIII32s16sQI4s")  # of a label file, see docs/format.md
ROWS = ("labels", "hard", "list", "torchvision")
PEERS = ("webdataset", "datasets", "datasets again")

CHILD = """
import glob, json, os, resource, sys, time
import fkdx, torch
from fkdx.stores import open_store
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
what, folder, small, first = sys.argv[1:]
root, labels, shards = f"{folder}/train", f"{folder}/labels.fkdl", f"{folder}/shards"
if what == "torchvision":
    from torchvision.datasets import ImageFolder
elif what == "webdataset":
    import webdataset
elif what.startswith("datasets"):
    import datasets
    datasets.disable_progress_bars()
loader = fkdx.CropLoader(f"{small}/train", f"{small}/labels.fkdl", 32, 4, 32, threads=2)
next(iter(loader)); loader.close()
before, begin, spent = resident(), time.perf_counter(), time.process_time()
if what in ("labels", "shards"):
    loader = fkdx.CropLoader(root if what == "labels" else shards, labels, 256, 4, 32, threads=2)
elif what == "hard":
    loader = fkdx.CropLoader(root, None, 256, 1, 32, threads=2)
elif what == "list":
    loader = open_store(root); len(loader.keys)
elif what == "torchvision":
    loader = ImageFolder(root)
elif what == "webdataset":
    loader = webdataset.WebDataset(sorted(glob.glob(f"{shards}/*.tar")), shardshuffle=False).decode("pil")
else:
    loader = datasets.load_dataset("parquet", data_files=f"{folder}/parquet/*.parquet", split="train",
                                   cache_dir=f"{folder}/cache")
ready, cpu, memory = time.perf_counter() - begin, time.process_time() - spent, resident() - before
if first == "1" and what != "list":
    next(iter(loader))
print(json.dumps({"ready": ready, "cpu": cpu, "first": time.perf_counter() - begin, "MB": memory / 1e6,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""


def names(images: int) -> Iterator[list[str]]:
    """ImageNet's names, `n01440764/n01440764_10026.JPEG`, class by class, each class sorted."""
    classes = 1000 if images < 5_000_000 else 21841
    for number in range(classes):
        synset = f"n{1440764 + 977 * number:08}"
        first, last = number * images // classes, (number + 1) * images // classes
        yield sorted(f"{synset}/{synset}_{image % 29000}_{image}.JPEG" for image in range(first, last))


def image_of(number: int) -> bytes:
    """The JPEG file of all images of a class."""
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), number % 251, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def make_images(root: Path, images: int) -> None:
    """Hard links to one image a class, or to more where a file system allows no more of them."""
    for number, keys in enumerate(names(images)):
        for place, key in enumerate(keys):
            path = root / key
            if place % 60000 == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image_of(number))
                first = path
            else:
                os.link(first, path)


def make_shards(folder: Path, images: int, classes: int = 20) -> None:
    """Tar files of some classes each, with their index."""
    folder.mkdir()
    for number, keys in enumerate(names(images)):
        data = image_of(number)
        padded = data + bytes(-len(data) % tarfile.BLOCKSIZE)
        with open(folder / f"train-{number // classes:05}.tar", "ab") as shard:
            for key in keys:
                member = tarfile.TarInfo(key)
                member.size = len(data)
                shard.write(member.tobuf(tarfile.USTAR_FORMAT) + padded)
    for path in folder.iterdir():
        with open(path, "ab") as shard:
            shard.write(bytes(2 * tarfile.BLOCKSIZE))
    subprocess.run([sys.executable, "-m", "fkdx", "index", str(folder)], check=True)


def make_parquet(folder: Path, images: int, classes: int = 20) -> None:
    """Parquet files of some classes each, as Hugging Face keeps images; not compressed, as JPEG is."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir()
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", kind), ("label", pyarrow.int64())])
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    writer = None
    for number, keys in enumerate(names(images)):
        if number % classes == 0:
            if writer:
                writer.close()
            path = folder / f"train-{number // classes:05}.parquet"
            writer = parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False)
        data = image_of(number)
        image = pyarrow.array([{"bytes": data, "path": key.split("/")[1]} for key in keys], kind)
        writer.write_table(pyarrow.table([image, pyarrow.array([number] * len(keys))], schema=schema))
    writer.close()


def make_labels(path: Path, images: int) -> None:
    """Hard labels of 16 crops an image. All images share one block, so that the file is small: a reader that
    is not asked to verify the file cannot tell. Keys are written class by class, never held together."""
    folders = [keys[0].split("/")[0] for keys in names(images) if keys]
    boxes, flips = np.tile([[0, 0, 64, 64]], (CROPS, 1)), np.zeros(CROPS, bool)
    dataset = {"images": images, "bytes": 0, "digest": "", "sizes": "AA" * images}
    options = {"num_classes": len(folders), "crops": CROPS, "classes": folders, "dataset": dataset}
    with LabelWriter(path, "hard", **options) as writer:
        writer.add("x", boxes, flips, np.zeros(CROPS, np.int64), None, (64, 64))
    whole = path.read_bytes()
    *_, identity, _, _, _ = footer = list(FOOTER.unpack(whole[-FOOTER.size :]))
    header = footer[0]
    block, padded_header = whole[64:header], whole[header : footer[2]]
    lengths = np.zeros(images, np.uint32)
    text_path = path.with_suffix(".keys")
    with open(path, "wb") as file, open(text_path, "wb") as text:
        file.write(whole[:header] + padded_header)
        index, done = Part(file), 0
        for keys in names(images):
            coded = [key.encode() for key in keys]
            index.write(b"".join(seal(key, identity, block) for key in coded))
            text.write(b"".join(coded))
            lengths[done : done + len(coded)] = list(map(len, coded))
            done += len(coded)
        index.end()
        key_part = Part(file)
        key_part.write(np.concatenate([[0], np.cumsum(lengths, dtype=np.uint64)]).astype("<u4").tobytes())
        text.flush()
        with open(text_path, "rb") as written:
            while data := written.read(1 << 24):
                key_part.write(data)
        key_bytes = key_part.bytes
        key_part.end()
        parts = [header, footer[1], index.begin, images, key_part.begin, key_bytes]
        crcs = [_C.crc32c(padded_header), index.crc, key_part.crc, 0]
        end = file.tell()
        last = FOOTER.pack(*parts, *crcs, bytes(32), identity, end + FOOTER.size, 0, b"DXKF")
        file.write(last[:120] + _C.crc32c(last[:120]).to_bytes(4, "little") + b"DXKF")
    text_path.unlink()


class Part:
    """A part of a label file that is written piece by piece."""

    def __init__(self, file) -> None:
        self._file, self.begin, self.bytes, self.crc = file, file.tell(), 0, 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.bytes, self.crc = self.bytes + len(data), _C.crc32c(data, self.crc)

    def end(self) -> None:
        self.write(bytes(-self.bytes % 64))


def seal(key: bytes, identity: bytes, block: bytes) -> bytes:
    """The index entry of an image whose labels are the first block."""
    entry = struct.pack("<QIHHI", 64, CROPS, 64, 64, 0)
    return entry + struct.pack("<I", _C.crc32c(identity + entry + key + block))


def touch_some(root: Path, images: int) -> None:
    """Empty files for the labels that a loader looks for before it starts."""
    wanted = set(np.unique(np.linspace(0, images - 1, 256).astype(np.int64)).tolist())
    done = 0
    for keys in names(images):
        for place in wanted & set(range(done, done + len(keys))):
            (root / keys[place - done]).parent.mkdir(parents=True, exist_ok=True)
            (root / keys[place - done]).touch()
        done += len(keys)


def prepare(folder: Path, images: int, bare: bool, shards: bool) -> None:
    if not (folder / "labels.fkdl").exists():
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (touch_some if bare else make_images)(folder / "train", images)
        make_labels(folder / "labels.fkdl", images)
    if shards and not (folder / "shards/train.fkdi").exists():
        shutil.rmtree(folder / "shards", ignore_errors=True)
        make_shards(folder / "shards", images)
    if shards and not (folder / "parquet").exists():
        make_parquet(folder / "parquet", images)


def measure(what: str, folder: Path, small: Path, first: bool) -> dict[str, float]:
    if what == "datasets":
        shutil.rmtree(folder / "cache", ignore_errors=True)
    arguments = [sys.executable, "-c", CHILD, what, str(folder), str(small), str(int(first))]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--folder", type=Path, required=True, help="where images and labels are kept")
    parser.add_argument("--labels-only", action="store_true", help="labels without images: nothing is read")
    parser.add_argument("--shards", action="store_true", help="shards too, with webdataset and datasets")
    args = parser.parse_args()
    small = args.folder / "small"
    prepare(small, 64, False, False)
    prepare(args.folder, args.images, args.labels_only, args.shards)
    rows = ROWS[:1] if args.labels_only else (*ROWS, *(("shards", *PEERS) if args.shards else ()))
    print(f"{args.images:,} images")
    print(f"{'':<16} {'ready s':>9} {'CPU s':>7} {'first batch s':>14} {'MB':>8} {'peak MB':>8}")
    for what in rows:
        row = measure(what, args.folder, small, not args.labels_only)
        first = f"{row['first']:.2f}" if not args.labels_only and what != "list" else ""
        numbers = f"{row['ready']:>9.2f} {row['cpu']:>7.2f} {first:>14} {row['MB']:>8.0f} {row['peak']:>8.0f}"
        print(f"{what:<16} {numbers}", flush=True)


if __name__ == "__main__":
    main()
