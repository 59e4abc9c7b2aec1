"""`fkdx repack`: copy encoded images, byte for byte, from any store into tar shards with their index."""

import argparse
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fkdx import _C
from fkdx.commands.options import add_classes
from fkdx.errors import refuse
from fkdx.facts import Facts, add_json
from fkdx.files import AtomicFile, write_whole
from fkdx.stores import FORMS, Store, open_store, own_index_path, unpack, write_store_index

_PURPOSE = (
    "Copy images as they are encoded, byte for byte, into tar shards of a given size, with their index."
)
_PLAN = "repack.json"
_GZIP = b"\x1f\x8b"
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True)
class Plan:
    """Which images go into which shard: `starts[s] ... starts[s + 1] - 1` of `order` into shard s."""

    order: np.ndarray
    starts: np.ndarray
    bytes: int

    @property
    def shards(self) -> int:
        return len(self.starts) - 1


def make_plan(store: Store, shard_bytes: int) -> Plan:
    """Shards of about `shard_bytes`, in the order in which the store is read fastest."""
    order, sizes = store.reading_order, store.rough_sizes()
    ends = np.cumsum(sizes[order])
    number = (ends - sizes[order]) // shard_bytes
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return Plan(order, np.append(starts, len(order)), int(ends[-1]))


def repack(store: Store, folder: str | os.PathLike, shard_bytes: int) -> int:
    """Writes the shards that are not there yet, then the index. Returns how many images were gzip files.

    Raises ValueError where the folder holds shards of other images or of another size, or would be a class
    folder of the images; RuntimeError where the images' own shards have changed meanwhile.
    """
    folder = Path(folder)
    if os.path.isdir(store.path) and Path(store.path).resolve() in folder.resolve().parents:
        refuse("repack", "--output", "a folder among the images", "one outside of them", folder)
    plan = make_plan(store, shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    facts = _facts(store, plan, shard_bytes)
    finished = _begin(folder, facts)
    if finished is not None:
        return finished
    names = [f"images-{number:05}.tar" for number in range(plan.shards)]
    unpacked, bare = 0, _have_own_stems(store)
    with tqdm(total=len(plan.order), unit="image", disable=None) as bar:
        for number, name in enumerate(names):
            images = plan.order[plan.starts[number] : plan.starts[number + 1]]
            note = folder / f"{name}.json"
            if not (folder / name).exists():
                _write_shard(store, images, folder / name, note, bare)
            unpacked += json.loads(note.read_text())["gzip"]
            bar.update(len(images))
    made = open_store(str(folder), store.class_names or None)  # those without an image count, too
    if len(made) != len(store):
        refuse("repack", "images in the shards", len(made), len(store), folder)
    write_store_index(made, own_index_path(made))
    _write_json(folder / _PLAN, {**facts, "gzip": unpacked})
    for name in names:
        (folder / f"{name}.json").unlink()
    return unpacked


def member_name(store: Store, image: int) -> str:
    """`<class>/<name>`: the key, or, where that has no folder, its canonical key with its suffix."""
    key = store.keys[image]
    if "/" in key:
        return key
    number = int(store.class_of[image])
    name = store.class_names[number] if number >= 0 and not _is_number_name(store, number) else ""
    return _C.canonical_key(key, name) + os.path.splitext(key)[1]


def _members(store: Store, image: int, data: bytes, bare: bool) -> Iterator[tuple[str, bytes]]:
    """An image, and what a reader of the shard has to know of it.

    A `bare` key, whose class this store alone knows, stays the name: labels made on the store have no other.
    The `.json` beside it has the name with the class, by which labels made elsewhere find the image.
    """
    key, name, number = store.keys[image], member_name(store, image), int(store.class_of[image])
    label = {"label": number} if store.numbered and number >= 0 else {}
    if bare and "/" in name and "/" not in _C.canonical_key(key):
        yield key, data
        yield os.path.splitext(key)[0] + ".json", json.dumps({"filename": name, **label}).encode()
        return
    yield name, data
    if label:
        yield os.path.splitext(name)[0] + ".cls", str(number).encode()


def _have_own_stems(store: Store) -> bool:
    """Whether a `.json` that is called like an image would be of one image alone."""
    stems = [os.path.splitext(key)[0] for key in store.keys]
    return len(set(stems)) == len(stems)


def _is_number_name(store: Store, number: int) -> bool:
    return store.class_names[number] == str(number)


def _write_shard(store: Store, images: np.ndarray, path: Path, note: Path, bare: bool) -> None:
    """One tar file, whole or not at all; `note` says how many images were unpacked for it."""
    target, unpacked = AtomicFile(path, overwrite=False), 0
    try:
        with tarfile.open(fileobj=_Writer(target), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for image in images.tolist():
                data = store.encoded(image)
                if data[:2] == _GZIP:
                    where = f"{store.keys[image]} in {store.path}"
                    data, unpacked = unpack(data, "gz", None, where), unpacked + 1
                for name, content in _members(store, image, data, bare):
                    _add(tar, name, content)
        store.check_unchanged()
        _write_json(note, {"gzip": unpacked})
        target.commit()
    except BaseException:
        target.abort()
        raise


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


class _Writer:
    """What tarfile wants to write to."""

    def __init__(self, target: AtomicFile) -> None:
        self._target = target

    def write(self, data: bytes) -> int:
        self._target.write(data)
        return len(data)


def _facts(store: Store, plan: Plan, shard_bytes: int) -> dict[str, Any]:
    digest = _C.crc32c(store.keys.table.text)
    return {"images": len(store), "bytes": plan.bytes, "keys": digest, "shard_bytes": shard_bytes}


def _begin(folder: Path, facts: dict[str, Any]) -> int | None:
    """Writes down what is repacked; the result where that is done. ValueError where the folder was begun with
    something else."""
    path = folder / _PLAN
    if path.exists():
        got = json.loads(path.read_text())
        finished = got.pop("gzip", None)
        if got != facts:
            refuse("repack", "folder, begun with", got, f"{facts}; choose another folder", path)
        return finished
    if any(folder.iterdir()):
        raise ValueError(f"repack: the folder holds something else; choose a new folder, {folder}")
    _write_json(path, facts)
    return None


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    write_whole(path, json.dumps(facts).encode() + b"\n")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    store = open_store(args.data, args.classes)
    plan = make_plan(store, args.shard_size)
    images, shards = len(store), plan.shards
    with Facts(args.json) as facts:
        facts.say(
            f"{args.data}: {images:,} images, {plan.bytes:,} bytes, into {shards:,} shards in {args.output}",
            path=args.output,
            bytes=plan.bytes,
        )
        try:
            unpacked = repack(store, args.output, args.shard_size)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; repeat the command to go on where it was") from None
        if unpacked:
            facts.say(f"{unpacked:,} images were gzip files; they are unpacked")
        facts.say(
            f"{args.output}: {images:,} images in {shards:,} shards, with their index",
            images=images,
            shards=shards,
            unpacked=unpacked,
        )
    return 0


def _bytes(text: str) -> int:
    """Bytes from a text such as 500M or 1G."""
    unit = text[-1:].lower()
    try:
        count = int(float(text[:-1]) * _UNITS[unit]) if unit in _UNITS else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text}, expected bytes such as 500M or 1G") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected at least 1 byte")
    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx repack",
        description=f"{_PURPOSE} The same command goes on where it was stopped.",
        epilog=FORMS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="the images, see below")
    add("-o", "--output", required=True, metavar="DIR", help="folder for the shards and their index")
    add("--shard-size", type=_bytes, default="1G", metavar="BYTES", help="of a shard (default %(default)s)")
    add_classes(parser)
    add_json(parser)
    return parser
