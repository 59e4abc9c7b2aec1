"""Stores as other programs write them: GNU tar, img2dataset, Hugging Face, polars, and what they do oddly."""

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import Data, rows
from store_writers import SYNSETS, WORDS, arrow_table, mds, number, official_tar, parquet_rows
from storing import write_tar

from fkdx import CropLoader
from fkdx.commands.repack import repack
from fkdx.stores import open_store

WRITERS: list[Callable] = []


def writer(write: Callable) -> Callable:
    WRITERS.append(write)
    return write


def files_of(data: Data) -> dict[str, bytes]:
    return {key: (data.root / key).read_bytes() for key in data.keys}


def copy_to(folder: Path, data: Data) -> Path:
    for key, content in files_of(data).items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
    return folder


def gnu_tar(to: Path, folder: Path, *options: str) -> Path:
    if shutil.which("tar") is None:
        pytest.skip("no tar program")
    command = ["tar", *options, "-cf", to / "x.tar", "-C", folder.parent, folder.name]
    subprocess.run(list(map(str, command)), check=True)
    return to / "x.tar"


@writer
def gnu_names_of_300_bytes(data: Data, to: Path) -> Path:
    copy_to(to / "in/train" / ("a" * 150) / ("b" * 150), data)
    return gnu_tar(to, to / "in/train", "--format=gnu", "--label=images")


@writer
def pax_names_of_400_bytes(data: Data, to: Path) -> Path:
    copy_to(to / "in/train" / ("a" * 240) / ("\u00fc" * 80), data)
    return gnu_tar(to, to / "in/train", "--format=pax", "--mtime=2020-01-01 00:00:00.123456")


@writer
def v7_with_an_appended_file(data: Data, to: Path) -> Path:
    path = gnu_tar(to, copy_to(to / "in/train", data), "--format=v7")
    (to / "note.txt").write_text("no image")
    subprocess.run(["tar", "-rf", path, "-C", to, "note.txt"], check=True)
    return path


@writer
def hard_links(data: Data, to: Path) -> Path:
    """The same file under a name that is no image, first or last."""
    folder = copy_to(to / "in/train", data)
    os.link(folder / data.keys[-1], folder / "zz.txt")
    return gnu_tar(to, folder, "--sort=name")


@writer
def official_in_folders(data: Data, to: Path) -> Path:
    inner = official_tar(data, to)
    with tarfile.open(inner) as tar:
        members = {f"./img_train/{m.name.replace('.tar', '.TAR')}": tar.extractfile(m).read() for m in tar}
    inner.unlink()
    return write_tar(to / "x.tar", members)


@writer
def img2dataset(data: Data, to: Path) -> str:
    """Running numbers, captions, facts without a class; tables beside the shards."""
    members = {}
    for i, content in enumerate(files_of(data).values()):
        facts = {"caption": None, "url": "http://x", "key": f"{i:09}", "status": "success", "width": 1}
        members |= {f"{i:09}.jpg": content, f"{i:09}.json": json.dumps(facts).encode(), f"{i:09}.txt": b"a"}
    write_tar(to / "00000.tar", members)
    (to / "00000_stats.json").write_text("{}")
    (to / "00000.parquet").write_bytes(b"no images")
    (to / "keys.txt").write_text("\n".join(data.keys))
    return f"{to}@{to / 'keys.txt'}"


@writer
def samples_of_several_parts(data: Data, to: Path) -> Path:
    """WebDataset's names are cut at the first dot: `x.image.jpg` and `x.cls` are one sample."""
    members = {}
    for key, content in files_of(data).items():
        stem = key.split("/")[1].removesuffix(".JPEG")
        members |= {f"{stem}.image.jpg": content, f"{stem}.cls": b"%d\n" % number(key), f"{stem}.txt": b"a"}
    return write_tar(to / "x.tar", members)


@writer
def shards_in_braces(data: Data, to: Path) -> str:
    """One of them empty; another one beside them."""
    files = files_of(data)
    for shard in range(11):
        keys = data.keys[shard - (shard > 4) :: 10] if shard != 4 else []
        name = f"t-{shard:04}" if shard < 10 else "u"
        write_tar(to / f"{name}.tar", {key: files[key] for key in keys})
    write_tar(to / "left-0000.tar", {"another/1.jpg": b"x"})
    return str(to / "{t-{0000..0009},u}.tar")


@writer
def beside_large_json(data: Data, to: Path) -> Path:
    """Annotations of everything are no note on an image, whatever they are."""
    members = {f"train/{key}": content for key, content in files_of(data).items()}
    members |= {
        "annotations.json": b"[" + b"1," * (1 << 20) + b"1]",
        "broken.json": b"{",
        "paper.cls": b"\\x",
    }
    return write_tar(to / "x.tar", members)


class Pipe(io.RawIOBase):
    """A file in which nothing can be changed later."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


@writer
def zip_through_a_pipe(data: Data, to: Path) -> Path:
    """Sizes stand behind the entries; a program stands before the archive."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.comment = b"images"
        for key, content in files_of(data).items():
            info = zipfile.ZipInfo(f"tr\u00e4in/{key}")
            info.extra = b"UT\x05\x00\x03abcd"
            archive.writestr(info, content)
    (to / "x.zip").write_bytes(b"#!/bin/sh\nexit\n" + pipe.data)
    return to / "x.zip"


@writer
def zip64(data: Data, to: Path) -> Path:
    with zipfile.ZipFile(to / "x.zip", "w") as archive:
        for key, content in files_of(data).items():
            with archive.open(f"train/{key}", "w", force_zip64=True) as file:
                file.write(content)
    return to / "x.zip"


@writer
def one_zip_a_class(data: Data, to: Path) -> Path:
    for synset in SYNSETS:
        with zipfile.ZipFile(to / f"{synset}.zip", "w") as archive:
            for key, content in files_of(data).items():
                if key.startswith(synset):
                    archive.writestr(key, content)
    return to


@writer
def image_folder_with_metadata(data: Data, to: Path) -> Path:
    copy_to(to / "train", data)
    (to / "train/metadata.parquet").write_bytes(b"facts")
    (to / "train/metadata.csv").write_text("file_name,text\n" + "\n".join(f"{key},a" for key in data.keys))
    return to / "train"


def flat(data: Data, to: Path) -> Path:
    (to / "flat").mkdir()
    for key, content in files_of(data).items():
        (to / "flat" / key.split("/")[1]).write_bytes(content)
    return to / "flat"


@writer
def flat_with_a_table(data: Data, to: Path) -> str:
    lines = [f'{key.split("/")[1]},"a, b",{number(key)}' for key in data.keys]
    (to / "metadata.csv").write_text("\n".join(["file_name,text,label", *lines]))
    return f"{flat(data, to)}@{to / 'metadata.csv'}"


@writer
def flat_with_json_lines(data: Data, to: Path) -> str:
    lines = [
        json.dumps({"label": number(key), "file_name": key.split("/")[1]}) for key in reversed(data.keys)
    ]
    (to / "metadata.jsonl").write_text("\n".join(lines))
    return f"{flat(data, to)}@{to / 'metadata.jsonl'}"


@writer
def linked_folders(data: Data, to: Path) -> Path:
    copy_to(to / "real", data)
    (to / "train").mkdir()
    for synset in SYNSETS:
        os.symlink(to / "real" / synset, to / "train" / synset)
    return to / "train"


@writer
def parquet_of_several_splits(data: Data, to: Path) -> str:
    """One of them empty, and another split beside them."""
    images, labels = parquet_rows(data)
    for shard in range(3):
        part = slice(0, 0) if shard == 1 else slice(shard // 2, None, 2)
        columns = {"image": images[part] or images[:1], "label": labels[part] or labels[:1]}
        arrow_table(to / f"data/train-{shard:05}-of-00003.parquet", columns, WORDS)
        if shard == 1:
            from pyarrow import parquet

            path = to / f"data/train-{shard:05}-of-00003.parquet"
            parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    arrow_table(to / "data/validation-00000-of-00001.parquet", {"image": images, "label": labels}, WORDS)
    return str(to / "data/train-*.parquet")


@writer
def parquet_of_polars(data: Data, to: Path) -> Path:
    """Large strings, names instead of numbers."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images, labels = parquet_rows(data)
    kind = arrow.struct([("path", arrow.large_string()), ("bytes", arrow.large_binary())])
    classes = arrow.array([SYNSETS[label] for label in labels], arrow.large_string())
    table = arrow.table({"image": arrow.array(images, kind), "label": classes})
    parquet.write_table(table, to / "x.parquet", row_group_size=5)
    return to / "x.parquet"


@writer
def parquet_of_pandas(data: Data, to: Path) -> Path:
    """Categories instead of texts; metadata that name no classes."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images, labels = parquet_rows(data)
    texts = {"path": [image["path"] for image in images], "label": [SYNSETS[label] for label in labels]}
    columns = {"image": [image["bytes"] for image in images]}
    columns |= {name: arrow.array(values).dictionary_encode() for name, values in texts.items()}
    parquet.write_table(arrow.table(columns).replace_schema_metadata({"huggingface": "[]"}), to / "x.parquet")
    return to / "x.parquet"


@writer
def merged_mds(data: Data, to: Path) -> Path:
    """Two folders of shards under one index, as `streaming.base.util.merge_index` joins them."""
    index = {"version": 2, "shards": []}
    for group in "01":
        (to / group).mkdir()
        part = mds(Data(data.root, data.labels, data.keys[int(group) :: 2]), to / group)
        for shard in json.loads((part / "index.json").read_text())["shards"]:
            shard["raw_data"]["basename"] = f"{group}/mds/{shard['raw_data']['basename']}"
            index["shards"].append(shard)
    (to / "index.json").write_text(json.dumps(index))
    return to


@writer
def beside_an_index_of_its_own(data: Data, to: Path) -> Path:
    """A class folder that is called as an archive is; an `index.json` of something else."""
    copy_to(to, data)
    (to / "nothing.tar").mkdir()
    (to / "index.json").write_text('{"0": "tench"}')
    return to


@writer
def found_files(data: Data, to: Path) -> Path:
    """`find . -name '*.JPEG' > files.txt`."""
    copy_to(to, data)
    (to / "files.txt").write_text("".join(f"./{key}\r\n" for key in data.keys))
    return to / "files.txt"


def batches(root: object, data: Data) -> list[tuple]:
    """Rows of an epoch but their keys, which are the same in any case."""
    loader = CropLoader(root, data.labels, 8, 2, 32, seed=9, threads=1)
    found = [row[1:] for batch in loader for row in rows(batch)]
    loader.close()
    return found


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_same_batches(data: Data, tmp_path: Path, write: Callable) -> None:
    place = tmp_path / "store"
    place.mkdir()
    root = write(data, place)
    store = open_store(root)
    assert len(store) == len(data.keys)
    if store.sequential:
        repack(store, tmp_path / "out", 10**9)
        root = tmp_path / "out"
    assert batches(root, data) == batches(data.root, data)
    named = {key.rpartition("/")[2]: int(c) for key, c in zip(store.keys, store.class_of)}
    assert store.class_names in (list(SYNSETS), [*SYNSETS, "nothing.tar"], ["0", "1", "2"])
    assert sorted(named.values()) == sorted(map(number, data.keys))


# ---- what is refused ---------------------------------------------------------------------------------------


def test_a_sparse_file(data: Data, tmp_path: Path) -> None:
    folder = copy_to(tmp_path / "in/train", data)
    with open(folder / data.keys[3], "ab") as file:
        file.truncate(1 << 20)
    with pytest.raises(ValueError, match=rf"{data.keys[3]}, got a sparse file, .* without --sparse, .*x.tar"):
        open_store(gnu_tar(tmp_path, folder, "--sparse"))


def test_archives_that_say_a_thing_twice(data: Data, tmp_path: Path) -> None:
    """`tar -r` keeps the old file before the new one."""
    path = gnu_tar(tmp_path, copy_to(tmp_path / "in/train", data))
    subprocess.run(["tar", "-rf", path, "-C", tmp_path / "in", f"train/{data.keys[0]}"], check=True)
    with pytest.raises(ValueError, match=rf"image '{data.keys[0]}' is twice in .*x.tar"):
        open_store(path)


def test_compressed_archives_inside(tmp_path: Path) -> None:
    inner = gzip.compress(write_tar(tmp_path / "a.tar", {"1.jpg": b"x"}).read_bytes())
    path = write_tar(tmp_path / "x.tar", {"b/1.jpg": b"x", "n01440764.tar.gz": inner})
    with pytest.raises(
        ValueError, match=r"n01440764.tar.gz, got a compressed tar file, .*unpack it, .*x.tar"
    ):
        open_store(path)


def test_links_where_a_file_should_be(tmp_path: Path) -> None:
    """A class, or a class folder, is not lost because it is a link."""
    for name in ("1.cls", "n01440764.tar"):
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(member)
        with pytest.raises(ValueError, match=rf"{name}, got a link to elsewhere, expected a file; .*x.tar"):
            open_store(tmp_path / "x.tar")


def test_links_in_a_zip_file(tmp_path: Path) -> None:
    """`zip -y` keeps links as they are: the entry's bytes are a path."""
    info = zipfile.ZipInfo("a/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "../elsewhere.jpg")
    with pytest.raises(ValueError, match=r"a/1.jpg, got a link, expected a file; .* without -y, .*x.zip"):
        open_store(tmp_path / "x.zip")


def test_a_split_zip_file(tmp_path: Path, rng: np.random.Generator) -> None:
    if shutil.which("zip") is None:
        pytest.skip("no zip program")
    (tmp_path / "1.jpg").write_bytes(rng.bytes(100_000))
    subprocess.run(["zip", "-q", "-s", "64k", "x.zip", "1.jpg"], cwd=tmp_path, check=True)
    with pytest.raises(ValueError, match=r"a part of a split one, .* zip -s 0 .*x.zip --out WHOLE.zip"):
        open_store(tmp_path / "x.zip")


@pytest.mark.parametrize("suffix", ["tar", "zip", "parquet"])
def test_archives_beside_images(data: Data, tmp_path: Path, suffix: str) -> None:
    """The images of a flat folder are not hidden by an archive that was left there."""
    folder = flat(data, tmp_path)
    (folder / f"left.{suffix}").write_bytes(b"")
    said = rf"1 {suffix} files \(left.{suffix}, ...\) beside images .* give '.*\*.{suffix}'"
    with pytest.raises(ValueError, match=said):
        open_store(f"{folder}/")


def test_what_is_no_store(data: Data, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(FileNotFoundError, match=r"no images, expected one path a line, .*empty.txt"):
        open_store(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match="got an empty list"):
        open_store([])
    for path in (data.root / data.keys[0], data.labels):
        with pytest.raises(ValueError, match=f"got no tar file, .*`fkdx index --help` lists them, {path}"):
            open_store(path)


def test_folders_of_stores(tmp_path: Path) -> None:
    """What to give, or to do, where images lie deeper or in another form."""
    write_tar(tmp_path / "train/0.tar", {"a/1.jpg": b"x"})
    with pytest.raises(FileNotFoundError, match=r"no images, .*; give one of its folders, such as .*/train,"):
        len(open_store(tmp_path))
    (tmp_path / "train/data-00000-of-00001.arrow").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"write Arrow files of `datasets` again as parquet"):
        len(open_store(tmp_path))


def test_braces_that_name_no_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a/1.jpg": b"x"})
    with pytest.raises(FileNotFoundError, match=r"no such file, .*/1.tar"):
        open_store(tmp_path / "{0..1}.tar")
    with pytest.raises(FileNotFoundError, match=r"no such folder, file or pattern, .*{x}.tar"):
        open_store(tmp_path / "{x}.tar")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "file_name,text,kind\na.jpg,b,c", r"columns, got file_name, text, kind, expected one of"),
        ("x.jsonl", '{"file_name": "1.jpg"', r'line, got {"file_name.*, expected a JSON object, .*x.jsonl'),
        ("x.jsonl", "[1]", r"line, got \[1\], expected a JSON object, .*x.jsonl"),
        (
            "x.jsonl",
            '{"file_name": "1.jpg"}',
            r"columns, got file_name, expected one of file_name, .*x.jsonl",
        ),
    ],
)
def test_tables_without_the_columns(tmp_path: Path, name: str, text: str, said: str) -> None:
    write_tar(tmp_path / "x.tar", {"1.jpg": b"x"})
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        open_store(f"{tmp_path / 'x.tar'}@{tmp_path / name}")
