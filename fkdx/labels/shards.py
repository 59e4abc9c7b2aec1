"""Sets of label files with one manifest, so that they can be written in parallel, hosted and resumed."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fkdx import _C
from fkdx.files import write_whole
from fkdx.labels.header import check_same_labels

MANIFEST = "manifest.json"
FORMAT, VERSION = "fkdl-shards", 1


def shard_path(folder: str | os.PathLike, number: int) -> Path:
    """The path of shard `number` of a set."""
    return Path(folder) / f"{number:05d}.fkdl"


def write_manifest(folder: str | os.PathLike, shards: Sequence[str | os.PathLike], sizes: str = "") -> Path:
    """Makes complete shards in `folder` a set that `LabelFile(folder)` opens.

    `sizes` are those of all images, as `size_marks` gives them: by these the images that differ are named.

    Raises FormatError if the shards do not belong together, ValueError if one lies elsewhere or comes twice.
    """
    folder = Path(folder)
    paths = [Path(shard) for shard in shards]
    strange = [path for path, times in Counter(paths).items() if times > 1 or path.parent != folder]
    if strange:
        raise ValueError(f"write_manifest: shard, got {strange[0]}, expected a file in {folder}, each once")
    files = _C.LabelSet([str(path) for path in paths], "mmap").files()
    check_same_labels(files)
    digests = [file["digest"] for file in files]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "shards": [
            {"file": path.name, "images": file["images"], "digest": file["digest"].hex()}
            for path, file in zip(paths, files)
        ],
        "seal": _seal(digests),
    }
    if sizes:
        manifest |= {"sizes": sizes, "sizes_crc": _C.crc32c(sizes.encode())}
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    return folder / MANIFEST


def open_set(path: str) -> tuple[list[str], str]:
    """The label files at a path: the path itself, or the files of a manifest; and the manifest's `sizes`.

    Raises FormatError for a broken manifest, FileNotFoundError for a folder without one.
    """
    if os.path.isdir(path):
        path = os.path.join(path, MANIFEST)
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"LabelFile: this folder has no {MANIFEST}, so its set of shards is incomplete or there is "
                f"none; give a label file (.fkdl) or a complete set, {os.path.dirname(path)}"
            )
    if not path.endswith(".json"):
        return [path], ""
    folder = os.path.dirname(path)
    paths = []
    shards, sizes = _read_manifest(path)
    for shard in shards:
        file = os.path.join(folder, shard["file"])
        facts = _C.LabelSet([file], "pread").files()[0]
        if facts["digest"].hex() != shard["digest"] or facts["images"] != shard["images"]:
            raise _C.FormatError(f"LabelFile: this shard is not the file that the manifest describes, {file}")
        paths.append(file)
    return paths, sizes


def _read_manifest(path: str) -> tuple[list[dict], str]:
    with open(path, "rb") as file:
        try:
            manifest = json.load(file)
            if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
                raise ValueError(
                    f"got {manifest['format']} {manifest['version']}, expected {FORMAT} {VERSION}"
                )
            shards = manifest["shards"]
            if manifest["seal"] != _seal([bytes.fromhex(shard["digest"]) for shard in shards]):
                raise ValueError("its seal is wrong, so it was changed")
            for shard in shards:
                if os.path.basename(shard["file"]) != shard["file"] or shard["file"] in ("", ".", ".."):
                    raise ValueError(f"file name, got {shard['file']!r}")
            sizes = manifest.get("sizes", "")
            if sizes and manifest["sizes_crc"] != _C.crc32c(sizes.encode()):
                raise ValueError("its sizes are damaged")
        except (TypeError, AttributeError):
            raise _C.FormatError(f"LabelFile: manifest: this is none, or it was changed, {path}") from None
        except (ValueError, KeyError) as error:
            said = f"this is none, it has no {error}" if isinstance(error, KeyError) else error
            raise _C.FormatError(f"LabelFile: manifest: {said}, {path}") from None
    return shards, sizes


def _seal(digests: list[bytes]) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
