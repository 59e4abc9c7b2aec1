"""The same images of three synsets, written as every store keeps them, each by its own library."""

import bz2
import gzip
import hashlib
import json
import struct
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from images import encode
from loading import Data, write_labels
from storing import write_tar

SYNSETS = ("n01440764", "n02018795", "n04286575")
WORDS = ["tench, Tinca tinca", "bustard", "spotlight, spot"]


def draw_synsets(root: Path) -> Data:
    """17 images of three synsets under ImageNet's names, and their labels."""
    rng = np.random.default_rng(5)
    keys = [f"{SYNSETS[i % 3]}/{SYNSETS[i % 3]}_{7 * i}.JPEG" for i in range(17)]
    for i, key in enumerate(keys):
        path = root / "images/train" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rng, ("4:2:0", "progressive", "gray", "cmyk")[i % 4], 60 + i, 80))
    classes = [*SYNSETS, *"defghij"]
    labels = write_labels(root / "labels.fkdl", root / "images/train", keys, rng, classes=classes)
    return Data(root / "images/train", labels, sorted(keys))


def number(key: str) -> int:
    return SYNSETS.index(key.split("/")[0])


def folder(data: Data, to: Path) -> Path:
    return data.root


def plain_tar(data: Data, to: Path) -> Path:
    with tarfile.open(to / "train.tar", "w") as tar:
        tar.add(data.root, arcname="train")
    return to / "train.tar"


def official_tar(data: Data, to: Path) -> Path:
    """ILSVRC2012_img_train.tar: a tar file of one tar file a synset."""
    members = {}
    for synset in SYNSETS:
        files = {path.name: path.read_bytes() for path in sorted((data.root / synset).iterdir())}
        members[f"{synset}.tar"] = write_tar(to / "inner.tar", files).read_bytes()
    (to / "inner.tar").unlink()
    return write_tar(to / "ILSVRC2012_img_train.tar", members)


def timm_shards(data: Data, to: Path) -> Path:
    """timm/imagenet-1k-wds: .jpg, .cls and .json with the file's name."""
    webdataset = pytest.importorskip("webdataset")
    for shard in range(2):
        with webdataset.TarWriter(str(to / f"imagenet1k-train-{shard:04}.tar")) as sink:
            for key in data.keys[shard::2]:
                note = {"filename": key, "label": number(key), "height": 1, "width": 1}
                jpg = (data.root / key).read_bytes()
                stem = key.split("/")[1].removesuffix(".JPEG")
                sink.write({"__key__": stem, "jpg": jpg, "cls": number(key), "json": note})
    return to / "imagenet1k-train-*.tar"


def shards_of_stems(data: Data, to: Path) -> Path:
    """WebDataset shards whose members are named by the image alone."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(to / "0.tar")) as sink:
        for key in reversed(data.keys):
            stem = key.split("/")[1].removesuffix(".JPEG")
            sink.write({"__key__": stem, "jpg": (data.root / key).read_bytes(), "cls": number(key)})
    return to


def numbered_shards(data: Data, to: Path) -> Path:
    """WebDataset shards whose members are running numbers, named in .json."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(to / "0.tar")) as sink:
        for i, key in enumerate(data.keys):
            note = {"filename": key, "label": number(key)}
            sink.write({"__key__": f"{i:08}", "jpeg": (data.root / key).read_bytes(), "json": note})
    return to / "0.tar"


def stored_zip(data: Data, to: Path) -> str:
    """As Kaggle keeps it: all splits in one archive."""
    with zipfile.ZipFile(to / "kaggle.zip", "w") as archive:
        for key in data.keys:
            archive.write(data.root / key, f"ILSVRC/Data/CLS-LOC/train/{key}")
        archive.writestr("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG", b"another image")
    return f"{to / 'kaggle.zip'}::ILSVRC/Data/CLS-LOC/train"


def deflated_zip(data: Data, to: Path) -> Path:
    """As `zip -r` makes it: what shrinks is deflated, the rest is stored."""
    with zipfile.ZipFile(to / "train.zip", "w") as archive:
        for i, key in enumerate(data.keys):
            archive.write(
                data.root / key, f"train/{key}", (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[i % 5 == 3]
            )
    return to / "train.zip"


def listed(data: Data, to: Path) -> Path:
    (data.root / "list.txt").write_text("\n".join(data.keys))
    return data.root / "list.txt"


def mds(data: Data, to: Path, compression: str | None = None, hashes: tuple[str, ...] = ()) -> Path:
    """With mosaicml-streaming where that is installed: it wants older numpy and transformers than others."""
    if find_spec("streaming") is None:
        return mds_by_its_layout(data, to, compression, hashes)
    import streaming

    columns = {"image": "bytes", "filename": "str", "label": "int"}
    options = {"compression": compression, "hashes": hashes, "size_limit": 20_000}
    with streaming.MDSWriter(out=str(to / "mds"), columns=columns, **options) as out:
        for key in data.keys:
            name = key.split("/")[1]
            out.write({"image": (data.root / key).read_bytes(), "filename": name, "label": number(key)})
    return to / "mds"


def packed_mds(data: Data, to: Path) -> Path:
    return mds(data, to, "zstd:7", ("sha1", "xxh64"))


def compress(data: bytes, method: str) -> bytes:
    """As mosaicml-streaming compresses a shard."""
    if method == "gz":
        return gzip.compress(data)
    if method == "bz2":
        return bz2.compress(data)
    arrow = pytest.importorskip("pyarrow")
    return arrow.compress(data, {"br": "brotli"}.get(method, method), asbytes=True)


def mds_by_its_layout(
    data: Data, to: Path, compression: str | None = None, hashes: tuple[str, ...] = ()
) -> Path:
    """Shards of five samples: their number, where each starts, JSON, and the samples' columns by name."""
    facts = {
        "column_encodings": ["str", "bytes", "int"],
        "column_names": ["filename", "image", "label"],
        "column_sizes": [None, None, 8],
        "compression": compression,
        "format": "mds",
        "hashes": list(hashes),
        "size_limit": 20_000,
        "version": 2,
    }
    config, shards = json.dumps(facts, sort_keys=True).encode(), []
    (to / "mds").mkdir()
    for first in range(0, len(data.keys), 5):
        samples = []
        for key in data.keys[first : first + 5]:
            name, image = key.split("/")[1].encode(), (data.root / key).read_bytes()
            sizes = struct.pack("<II", len(name), len(image))
            samples.append(sizes + name + image + struct.pack("<q", number(key)))
        start = 4 + 4 * (len(samples) + 1) + len(config)
        starts = np.cumsum([start, *map(len, samples)]).astype("<u4").tobytes()
        shard = struct.pack("<I", len(samples)) + starts + config + b"".join(samples)
        raw, zipped = mds_file(f"shard.{len(shards):05}.mds", shard, hashes), None
        if compression:
            method = compression.partition(":")[0]
            shard = compress(shard, method)
            zipped = mds_file(f"{raw['basename']}.{method}", shard, hashes)
        (to / "mds" / (zipped or raw)["basename"]).write_bytes(shard)
        shards.append({**facts, "raw_data": raw, "samples": len(samples), "zip_data": zipped})
    (to / "mds" / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    return to / "mds"


def mds_file(name: str, data: bytes, hashes: tuple[str, ...]) -> dict:
    known = {name: hashlib.new(name, data).hexdigest() for name in hashes if name != "xxh64"}
    return {"basename": name, "bytes": len(data), "hashes": known}


def parquet_rows(data: Data) -> tuple[list[dict], list[int]]:
    """Shuffled rows of {bytes, path} and their class numbers, as ILSVRC/imagenet-1k has them."""
    order = np.random.default_rng(1).permutation(len(data.keys))
    keys = [data.keys[i] for i in order]
    names = [f"{key.split('/')[1].removesuffix('.JPEG')}_{key.split('/')[0]}.JPEG" for key in keys]
    images = [{"bytes": (data.root / key).read_bytes(), "path": name} for key, name in zip(keys, names)]
    return images, [number(key) for key in keys]


def parquet(data: Data, to: Path) -> Path:
    """Hugging Face's own writer: an Image and a ClassLabel of words."""
    datasets = pytest.importorskip("datasets")
    images, classes = parquet_rows(data)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=WORDS))
    made = datasets.Dataset.from_dict({"image": images, "label": classes}, features=features)
    (to / "data").mkdir(exist_ok=True)
    made.to_parquet(str(to / "data/train-00000-of-00001.parquet"), batch_size=4)
    return to


def arrow_table(path: Path, columns: dict[str, list], names: list[str] | None = None) -> Path:
    """A parquet file of these columns, four rows a group, with Hugging Face's names of classes."""
    arrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_table(arrow.table(columns).replace_schema_metadata(said), path, row_group_size=4)
    return path


STORES = [
    folder,
    plain_tar,
    official_tar,
    timm_shards,
    shards_of_stems,
    numbered_shards,
    stored_zip,
    listed,
    mds,
]
PACKED = [deflated_zip, packed_mds]  # which have no index
EVERY = [*STORES, parquet]
