"""Bad images: an error at the batch they belong to, or the next image on every rank alike."""

import io
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from loading import Data, rows
from PIL import Image

from fkdx import _C, CropLoader, LabelFile, ValidationLoader


@pytest.fixture
def spoiled(data: Data, tmp_path: Path) -> Data:
    """The same with three bad images."""
    shutil.copytree(data.root, tmp_path / "images")
    for number, content in ((4, b""), (5, b"\xff\xd8 no image"), (17, None)):
        path = tmp_path / "images" / data.keys[number]
        path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    return Data(tmp_path / "images", data.labels, data.keys)


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_what_replaces_an_image_brings_its_own_class_and_label(spoiled: Data) -> None:
    labels = LabelFile(spoiled.labels)
    loader = CropLoader(spoiled.root, labels, 16, 2, size=8, on_error="skip", drop_last=False)
    for _ in range(4):
        for batch in loader:
            for row, (key, crop) in enumerate(zip(batch.keys, batch.crops.tolist())):
                assert loader.classes[batch.classes[row]] == key.split("/")[0]
                assert batch.target.ids[row].tolist() == labels[key].ids[crop].tolist()
    assert len(loader.skipped) == 3


def test_errors_come_with_the_batch_they_belong_to(spoiled: Data) -> None:
    bad = {spoiled.keys[i] for i in (4, 5, 17)}
    for seed in range(5):
        good = CropLoader(spoiled.root, spoiled.labels, 8, 4, size=16, seed=seed, on_error="skip")
        order = good.sampler.order(0)
        first_bad = min(np.flatnonzero(np.isin(order, [4, 5, 17]))) // 2
        loader = CropLoader(spoiled.root, spoiled.labels, 8, 4, size=16, seed=seed)
        batches = iter(loader)
        for _ in range(first_bad):
            next(batches)
        with pytest.raises(_C.ImageError) as caught:
            next(batches)
        assert any(str(spoiled.root / key) in str(caught.value) for key in bad)
        assert loader.state_dict()["step"] == first_bad


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
@pytest.mark.parametrize("drop_last", [True, False])
def test_skip_shows_the_next_image_on_every_rank_alike(spoiled: Data, drop_last: bool) -> None:
    def batches(world: int) -> list[list[tuple]]:
        options = {"size": 8, "seed": 2, "on_error": "skip", "drop_last": drop_last, "world_size": world}
        loaders = [CropLoader(spoiled.root, spoiled.labels, 16, 2, rank=r, **options) for r in range(world)]
        found = [[row for part in parts for row in rows(part)] for parts in zip(*loaders, strict=True)]
        skipped = {key for loader in loaders for key in loader.skipped}
        shown = set(loaders[0].sampler.order(0)[: 8 * len(loaders[0])])
        assert skipped == {spoiled.keys[i] for i in (4, 5, 17) if i in shown}
        return found

    expected = batches(1)
    for world in (2, 4, 8):
        assert batches(world) == expected
    order = [
        spoiled.keys[i] for i in CropLoader(spoiled.root, spoiled.labels, 16, 2, seed=2).sampler.order(0)
    ]
    labels = LabelFile(spoiled.labels)
    for place, row in enumerate(row for batch in expected for row in batch[::2]):
        wanted = place
        while order[wanted % 23] in {spoiled.keys[i] for i in (4, 5, 17)}:
            wanted += 1
        assert row[0] == order[wanted % 23]
        assert row[4] == tuple(labels[row[0]].ids[row[1]].tolist()), "the label is the substitute's own"


@pytest.mark.parametrize(
    ("images", "tried", "text"),
    [(23, 23, "none of the 23 images can be read"), (120, 100, "100 images in a row are unreadable")],
)
def test_nothing_readable_is_an_error(tmp_path: Path, images: int, tried: int, text: str) -> None:
    """Each image is tried once, a hundred of them at most."""
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(images):
        (folder / f"{number}.jpg").touch()
    loader = CropLoader(tmp_path, None, 1, 1, on_error="skip")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(RuntimeError, match=text):
        next(iter(loader))
    assert len(loader.skipped) == tried


def jpeg(width: int = 64, height: int = 48, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def resized_header(width: int, height: int, **options: object) -> bytes:
    """A JPEG that claims another size."""
    content = bytearray(jpeg(**options))
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := content.find(marker)) > 0:
            content[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


BAD_FILES = {
    "empty": b"",
    "truncated": jpeg()[:2000],
    "header only": jpeg()[:200],
    "corrupt": jpeg()[:1000] + b"\xff\xd9" * 200 + jpeg()[1400:],
    "huge": resized_header(65500, 65500),
    "bomb": resized_header(65500, 65500, progressive=True),
    "bomb of few enough pixels": resized_header(13000, 13000, progressive=True),
    "text": b"no image at all",
    "broken png": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a" / "bad.jpg"
    path.parent.mkdir()
    path.write_bytes(BAD_FILES[name])
    peak = peak_bytes()
    begun = time.process_time()  # which a busy machine does not lengthen
    for loader in (CropLoader(tmp_path, None, 1, 1), ValidationLoader(tmp_path, 1)):
        with pytest.raises(_C.ImageError, match=str(path)):
            list(loader)
    assert time.process_time() - begun < 5
    assert peak_bytes() < peak + (400 << 20)


def test_missing_files_folders_and_pipes(data: Data, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "x")
    loader = CropLoader(tmp_path / "x", data.labels, 8, 2)
    victim = tmp_path / "x" / data.keys[int(loader.sampler.order(0)[0])]
    victim.unlink()
    with pytest.raises(OSError, match=str(victim)) as caught:
        next(iter(loader))
    assert caught.value.errno == 2
    victim.mkdir()
    with pytest.raises(_C.ImageError, match=rf"not a regular file.*{victim}"):
        next(iter(loader))
    victim.rmdir()
    os.mkfifo(victim)
    with pytest.raises(_C.ImageError, match=rf"not a regular file.*{victim}"):
        next(iter(loader))


def test_labels_of_another_image(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    """An image that was exchanged for one of another size is an error, even if the boxes fit."""
    shutil.copytree(data.root, tmp_path / "x")
    loader = CropLoader(tmp_path / "x", data.labels, 8, 2)
    key = data.keys[int(loader.sampler.order(0)[0])]
    for form in ("JPEG", "PNG"):
        Image.new("RGB", (500, 400)).save(tmp_path / "x" / key, form)
        with pytest.raises(_C.ImageError, match=rf"another size than its labels.*400.*{key}"):
            next(iter(loader))


def test_warnings_are_errors_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg()[:-500])
    whole = {"scale": (1.0, 1.0), "ratio": (64 / 48, 64 / 48)}
    with pytest.raises(_C.ImageError):
        list(CropLoader(tmp_path, None, 1, 1, **whole))
    assert len(list(CropLoader(tmp_path, None, 1, 1, allow_warnings=True, **whole))) == 1
