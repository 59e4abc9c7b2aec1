"""Labels of mixed crops in several files: the same images, crops and partners as in one."""

from pathlib import Path

import numpy as np
import pytest
from label_draws import write_labels, write_mixed_shards

from fkdx import FormatError, LabelFile, LabelWriter, reference
from fkdx.commands.concat import concat
from fkdx.commands.convert import convert
from fkdx.commands.merge import merge
from fkdx.commands.slice import slice_labels
from fkdx.importers.parquet_export import export_parquet
from fkdx.labels import shard_path, write_manifest
from fkdx.labels.rewrite import writer_like

OPTIONS = [
    {},
    {"ratios": True, "encoding": "compact"},
    {"kind": "topk_logits", "crops": None, "extra": True},
    {"kind": "dense"},
    {"kind": "embedding", "k": 0, "encoding": "compact"},
]


def draw_set(tmp_path: Path, rng: np.random.Generator, ordered: bool = True, **options) -> tuple:
    """A file of mixed crops and the same labels in 2 to 5 shards, of ascending keys or of any."""
    used: set[str] = set()
    while not used:  # until every image has crops or is a partner: a set has no others
        options = {"num_classes": 30, **options, "images": 17, "mix_size": 32, "overwrite": True}
        write_labels(tmp_path / "one.fkdl", rng, **options)
        one = LabelFile(tmp_path / "one.fkdl")
        used = {image.key for image in one if len(image.flips)}.union(
            *(image.mixes.partners for image in one)
        )
        used = used if used >= set(one.keys) else set()
    shown = np.flatnonzero(one.crop_counts)
    cuts = np.sort(rng.choice(np.arange(1, len(shown)), rng.integers(1, 5), replace=False))
    parts = np.split(shown if ordered else rng.permutation(shown), cuts)
    return one, write_mixed_shards(one, tmp_path / "set", parts)


def same_images(one: LabelFile, other: LabelFile) -> None:
    """Both hold the same crops, and each partner has its name in both."""
    assert set(one.keys) == set(other.keys)
    assert len(one) == len(other)
    for want in one:
        got = other[want.key]
        for name in ("boxes", "flips", "ids", "values", "tails"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert not len(want.flips) or (got.extra, got.image_size) == (want.extra, want.image_size)
        assert got.mixes.partners == want.mixes.partners
        for name in ("boxes", "flips", "operations", "lambdas", "mix_boxes"):
            np.testing.assert_array_equal(getattr(got.mixes, name), getattr(want.mixes, name))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("io", ["mmap", "pread", "preload"])
def test_a_set_holds_what_one_file_holds(tmp_path: Path, rng, options: dict, ordered: bool, io: str) -> None:
    one, shards = draw_set(tmp_path, rng, ordered, **options)
    shards = LabelFile(shards.path, io)
    same_images(one, shards)
    assert [shards.find(key) for key in shards.keys] == list(range(len(shards)))
    assert sum(len(LabelFile(path)) for path in (tmp_path / "set").glob("*.fkdl")) > len(shards)
    assert dict(zip(shards.keys, shards.crop_counts)) == dict(zip(one.keys, one.crop_counts))
    shards.verify()


@pytest.mark.parametrize("ordered", [True, False])
def test_the_second_reader_numbers_a_set_alike(tmp_path: Path, rng, ordered: bool) -> None:
    _, shards = draw_set(tmp_path, rng, ordered, ratios=bool(rng.integers(2)))
    files = sorted((tmp_path / "set").glob("*.fkdl"))
    joined = reference.labels.join_mixed([reference.labels.read_labels(path)[1] for path in files])
    assert list(joined) == shards.keys[:]
    for number, (key, image) in enumerate(joined.items()):
        count = len(image["flips"])
        assert count == len(shards[key].flips)
        partners, *_ = shards.gather_mixes([number], [np.arange(count)])
        np.testing.assert_array_equal(partners[0], image["partners"].ravel())
    assert set(joined) == {key for path in files for key in LabelFile(path).keys}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tools_make_of_a_set_what_they_make_of_one_file(tmp_path: Path, rng, options: dict) -> None:
    one, shards = draw_set(tmp_path, rng, **options)
    folder, *_ = {key.split("/")[0] for key in one.keys}
    tools = {
        "convert": lambda labels, path: convert(labels, path, encoding="compact"),
        "slice": lambda labels, path: slice_labels(labels, path, crops=2 if one.crops else None),
        "classes": lambda labels, path: slice_labels(labels, path, folders=[folder]),
        "merge": lambda labels, path: merge([labels, labels] if labels.embeddings else [labels], path),
        "concat": lambda labels, path: concat([labels], path),
    }
    for name, tool in tools.items():
        for labels, path in ((one, tmp_path / name), (shards, tmp_path / f"{name}.set")):
            tool(labels, path)
        same_images(LabelFile(tmp_path / name), LabelFile(tmp_path / f"{name}.set"))


def test_a_set_converted_has_the_bytes_of_one_file(tmp_path: Path, rng) -> None:
    one, shards = draw_set(tmp_path, rng)
    convert(one, tmp_path / "a")
    convert(shards, tmp_path / "b")
    files = [LabelFile(path) for path in sorted((tmp_path / "set").glob("*.fkdl"))]
    concat(files, tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    same_images(LabelFile(tmp_path / "a"), LabelFile(tmp_path / "c"))


def test_merge_takes_a_file_and_a_set(tmp_path: Path, rng) -> None:
    one, shards = draw_set(tmp_path, rng, value_type="float32")
    merge([one, shards], tmp_path / "m", value_type="float32")
    merge([one, one], tmp_path / "n", value_type="float32")
    same_images(LabelFile(tmp_path / "n"), LabelFile(tmp_path / "m"))


def test_a_set_is_a_table_as_one_file_is(tmp_path: Path, rng) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    for labels, path in zip(draw_set(tmp_path, rng), (tmp_path / "a", tmp_path / "b")):
        export_parquet(labels, labels, path)
    a, b = (pyarrow.read_table(path).replace_schema_metadata() for path in (tmp_path / "a", tmp_path / "b"))
    assert a.num_rows == 17 * 7
    assert a.equals(b)


def test_crops_of_an_image_in_two_shards_are_refused(tmp_path: Path, rng) -> None:
    one, _ = draw_set(tmp_path, rng)
    twice = one.keys[int(np.flatnonzero(one.crop_counts)[0])]
    for number in range(2):
        with writer_like(one, shard_path(tmp_path, number)) as writer:
            writer.add_image(one[twice])
    with pytest.raises(FormatError, match=rf"{twice}', got crops of it in two shards, expected one"):
        write_manifest(tmp_path, [shard_path(tmp_path, number) for number in range(2)])


def test_a_set_with_damaged_keys_is_refused(tmp_path: Path, rng) -> None:
    _, shards = draw_set(tmp_path, rng)
    path = shard_path(tmp_path / "set", 0)
    data = bytearray(path.read_bytes())
    data[-128 - 64] ^= 1  # among the keys, which lie before the footer
    path.write_bytes(data)
    with pytest.raises(FormatError, match="LabelFile: CRC of the keys does not hold"):
        LabelFile(shards.path)


def test_an_empty_shard_counts_nothing(tmp_path: Path, rng) -> None:
    one, _ = draw_set(tmp_path, rng)
    folder = tmp_path / "more"
    folder.mkdir()
    with writer_like(one, shard_path(folder, 0)) as writer:
        for image in np.flatnonzero(one.crop_counts).tolist():
            writer.add_image(one[image])
    with LabelWriter(shard_path(folder, 1), num_classes=30, k=5, crops=7, images=["z"], mix_size=32):
        pass
    shards = LabelFile(write_manifest(folder, [shard_path(folder, 0), shard_path(folder, 1)]))
    assert shards.keys[:] == [*one.keys, "z"]
