"""How soon a loader of many images is ready, and what memory it takes.

    python bench/startup.py --images 1281167 --folder DIR     # makes DIR once: hard links, empty labels
    python bench/startup.py --images 14200000 --folder DIR2 --labels-only

Every row runs in a process of its own: seconds from the call to the loader, and to its first batch; memory is
the growth of the process's resident set over that of one whose loader has 64 images. Beside it stand
torchvision's ImageFolder (which lists), and `--hard`, where listing cannot be avoided.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fkdx import _C, LabelWriter

CLASSES, CROPS = 1000, 16
FOOTER = struct.Struct("<QQQQQQIIII32s16sQI4s")  # of a label file, see docs/format.md
ROWS = ("labels", "hard", "list", "torchvision")

CHILD = """
import json, os, resource, sys, time
import fkdx, torch
from fkdx.stores import open_store
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
what, root, labels, small_root, small_labels, first = sys.argv[1:]
small = fkdx.CropLoader(small_root, small_labels, 32, 4, 32, threads=2)
next(iter(small)); small.close()
before, begin = resident(), time.perf_counter()
if what == "labels":
    loader = fkdx.CropLoader(root, labels, 256, 4, 32, threads=2)
elif what == "hard":
    loader = fkdx.CropLoader(root, None, 256, 1, 32, threads=2)
elif what == "list":
    loader = open_store(root); len(loader)
else:
    from torchvision.datasets import ImageFolder
    loader = ImageFolder(root)
ready, memory = time.perf_counter() - begin, resident() - before
if first == "1" and what in ("labels", "hard"):
    next(iter(loader))
print(json.dumps({"ready": ready, "first": time.perf_counter() - begin, "MB": memory / 1e6,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""


def name(number: int, images: int) -> str:
    """ImageNet's names: `n01440764/n01440764_10026.JPEG`."""
    synset = f"n{1440764 + 977 * (number * CLASSES // images):08}"
    return f"{synset}/{synset}_{number % 29000}_{number}.JPEG"


def make_images(root: Path, images: int) -> None:
    """Hard links to one image a class."""
    folder = None
    for number in range(images):
        path = root / name(number, images)
        if path.parent != folder:
            folder = path.parent
            folder.mkdir(parents=True, exist_ok=True)
            first = path
            Image.fromarray(np.full((64, 64, 3), number % 251, np.uint8)).save(path, "JPEG")
        elif number % 60000:
            os.link(first, path)
        else:
            path.write_bytes(first.read_bytes())
            first = path


def make_labels(path: Path, images: int, probes: Path | None = None) -> None:
    """Hard labels of 16 crops an image. All images share one block, so that the file is small: a reader that
    is not asked to verify the file cannot tell."""
    names = sorted(name(number, images) for number in range(images))
    for number in np.linspace(0, images - 1, 256).astype(int) if probes else ():
        (probes / names[number]).parent.mkdir(parents=True, exist_ok=True)
        (probes / names[number]).touch()
    folders = sorted({key.split("/")[0] for key in names})
    boxes, flips = np.tile([[0, 0, 64, 64]], (CROPS, 1)), np.zeros(CROPS, bool)
    options = {"num_classes": len(folders), "crops": CROPS, "classes": folders}
    with LabelWriter(path, "hard", **options) as writer:
        writer.add("x", boxes, flips, np.zeros(CROPS, np.int64), None, (64, 64))
    whole = path.read_bytes()
    *_, identity, _, _, _ = footer = list(FOOTER.unpack(whole[-FOOTER.size :]))
    header = footer[0]
    block, padded_header = whole[64:header], whole[header : footer[2]]
    index = b"".join(seal(key.encode(), identity, block) for key in names)
    starts = np.cumsum([0, *(len(key.encode()) for key in names)]).astype("<u4")
    keys = starts.tobytes() + "".join(names).encode()
    with open(path, "wb") as file:
        places = []
        for part in (whole[:header], padded_header, index, keys):
            places.append(file.tell())
            file.write(part + bytes(-len(part) % 64))
        end = file.tell()
        parts = [padded_header, index, keys]
        crcs = [_C.crc32c(part + bytes(-len(part) % 64)) for part in parts]
        numbers = [places[1], footer[1], places[2], len(names), places[3], len(keys), *crcs, 0]
        last = FOOTER.pack(*numbers, bytes(32), identity, end + FOOTER.size, 0, b"DXKF")
        file.write(last[:120] + _C.crc32c(last[:120]).to_bytes(4, "little") + b"DXKF")


def seal(key: bytes, identity: bytes, block: bytes) -> bytes:
    """The index entry of an image whose labels are the first block."""
    entry = struct.pack("<QIHHI", 64, CROPS, 64, 64, 0)
    return entry + struct.pack("<I", _C.crc32c(identity + entry + key + block))


def measure(what: str, folder: Path, small: Path, first: bool) -> dict[str, float]:
    paths = [folder / "train", folder / "labels.fkdl", small / "train", small / "labels.fkdl"]
    arguments = [sys.executable, "-c", CHILD, what, *map(str, paths), str(int(first))]
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--folder", type=Path, required=True, help="where images and labels are kept")
    parser.add_argument("--labels-only", action="store_true", help="labels without images: nothing is read")
    args = parser.parse_args()
    small = args.folder / "small"
    for folder, images in ((small, 64), (args.folder, args.images)):
        if not (folder / "labels.fkdl").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "train").mkdir(exist_ok=True)
            if folder == small or not args.labels_only:
                make_images(folder / "train", images)
            bare = args.labels_only and folder != small
            make_labels(folder / "labels.fkdl", images, folder / "train" if bare else None)
    print(f"{args.images:,} images\n{'':<12} {'ready s':>9} {'first batch s':>14} {'MB':>8} {'peak MB':>8}")
    for what in ROWS[:1] if args.labels_only else ROWS:
        row = measure(what, args.folder, small, not args.labels_only)
        print(f"{what:<12} {row['ready']:>9.2f} {row['first']:>14.2f} {row['MB']:>8.0f} {row['peak']:>8.0f}")


if __name__ == "__main__":
    main()
