"""Several Python threads in the extension at once: what each gets is what one thread alone gets.

Under the lock of the interpreter this finds little; `make sanitize` runs it under TSan, and a free-threaded
Python runs it as it is.
"""

import io
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import draw_data, evict
from PIL import Image

from fkdx import _C, CropLoader, LabelFile, LabelWriter, decode_crops

ROOT = Path(__file__).resolve().parents[2]
THREADS, ROUNDS, SIZE, COUNT = 6, 12, 24, 16


def in_threads(work: Callable[[int], object]) -> list:
    """What `work(number)` returns, of all threads, which start together."""
    start, results, errors = threading.Barrier(THREADS), [None] * THREADS, []

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    """JPEG images with restarts and without, and one that is cut short."""
    paths = [tmp_path / f"{i}.jpg" for i in range(COUNT)]
    for i, path in enumerate(paths):
        pixels = Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8))
        pixels.save(path, restart_marker_blocks=i % 3)
    data = paths[3].read_bytes()
    paths[3].write_bytes(data[: len(data) // 2])
    return paths


def draws(number: int) -> dict[str, np.ndarray]:
    """Two crops of image `number` with labels of two classes."""
    rng = np.random.default_rng(number)
    ids = np.stack([rng.permutation(9)[:2] for _ in range(2)])
    values = np.sort(rng.random((2, 2)).astype(np.float32) / 2)[:, ::-1]
    return {"boxes": np.array([[0, 0, 30, 40], [5, 3, 20, 20]]), "flips": rng.random(2) < 0.5, "ids": ids} | {
        "values": values
    }


def write(path: Path, encoding: str = "compact") -> Path:
    with LabelWriter(path, num_classes=9, k=2, crops=2, encoding=encoding, overwrite=True) as writer:
        for i in range(COUNT):
            writer.add(f"{i}.jpg", **draws(i), image_size=(40 + i, 50))
    return path


def submitted(pool: "_C.Pool", files: list[Path]) -> tuple["_C.Pending", np.ndarray]:
    images = np.empty((2 * COUNT, SIZE, SIZE, 3), np.uint8)
    boxes = np.tile(np.array([[0, 0, 30, 40], [5, 3, 20, 20]], np.int32), (COUNT, 1))
    places = [(str(path), 0, -1) for path in files]
    view = _C.View(SIZE)
    pending = pool.submit(
        view, places, list(range(COUNT)), [2] * COUNT, images, boxes, np.zeros(2 * COUNT, np.uint8)
    )
    return pending, images


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_one_pool_fed_by_many_threads(files: list[Path], cache: int) -> None:
    pool = _C.Pool(3, cache)

    def feed(number: int) -> int:
        seen = set()
        for turn in range(ROUNDS):
            pending, images = submitted(pool, files)
            if (turn + number) % 4 == 3:
                pending.cancel()
                continue
            assert pending.wait(60)
            assert pending.failed() == [3]
            with pytest.raises(ValueError, match=r"[Pp]remature"):
                pending.raise_error(3)
            assert pending.sizes()[5].tolist() == [45, 50]
            pool.stages()
            seen.add(zlib.crc32(np.delete(images.reshape(COUNT, -1), 3, axis=0)))
        return seen

    seen = set().union(*in_threads(feed))
    assert len(seen) == 1
    pool.close()


def test_one_pool_closed_by_many_threads(files: list[Path]) -> None:
    pool = _C.Pool(2)
    pending = [submitted(pool, files) for _ in range(4)]
    in_threads(lambda _: pool.close())
    assert all(one.wait(60) for one, _ in pending)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
def test_pools_of_many_threads_that_end_while_they_read_ahead(files: list[Path]) -> None:
    """Where the file system has a disk: every pool meets images that no cache holds."""

    def end_pools(number: int) -> set[int]:
        seen = set()
        for turn in range(ROUNDS):
            evict(files)
            pool = _C.Pool(2)
            batches = [submitted(pool, files) for _ in range(4)]
            if (turn + number) % 2:
                batches.pop(1)[0].cancel()
            else:
                pending, images = batches[0]
                assert pending.wait(60)
                seen.add(zlib.crc32(np.delete(images.reshape(COUNT, -1), 3, axis=0)))
            pool.close()
            assert all(pending.wait(60) for pending, _ in batches)
        return seen

    assert len(set().union(*in_threads(end_pools))) == 1


@pytest.mark.parametrize("io_kind", ["mmap", "pread"])
@pytest.mark.parametrize("encoding", ["plain", "compact"])
def test_one_label_file_read_by_many_threads(tmp_path: Path, encoding: str, io_kind: str) -> None:
    """All of them meet blocks, keys and the index that nobody has checked yet."""
    path = write(tmp_path / "labels.fkdl", encoding)
    expected = [LabelFile(path)[f"{i}.jpg"].values.tolist() for i in range(COUNT)]
    for _ in range(ROUNDS):
        labels = LabelFile(path, io=io_kind)

        def read(number: int, labels: LabelFile = labels) -> list:
            order = np.random.default_rng(number).permutation(COUNT)
            found = {i: labels[f"{i}.jpg"].values.tolist() for i in order.tolist()}
            return [found[i] for i in range(COUNT)]

        assert in_threads(read) == [expected] * THREADS


def test_label_files_opened_by_many_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.fkdl")
    digests = in_threads(lambda _: [LabelFile(path).digest for _ in range(ROUNDS)])
    assert digests == [[LabelFile(path).digest] * ROUNDS] * THREADS


def test_objects_are_registered_while_the_lock_is_held() -> None:
    """pybind11 registers what a constructor made of a lambda returns within its call_guard."""
    bindings = [path.read_text() for path in (ROOT / "csrc/bindings").glob("*.cpp")]
    constructors = [
        part for text in bindings for part in re.split(r"\.def\w*\(", text) if "py::init([" in part
    ]
    assert len(constructors) >= 2
    assert [part for part in constructors if "call_guard" in part] == []


def test_writers_of_many_threads(tmp_path: Path) -> None:
    """One writer a thread: the files are equal, byte for byte."""
    digests = in_threads(lambda number: LabelFile(write(tmp_path / f"{number}.fkdl")).digest)
    assert len(set(digests)) == 1


def test_decoders_of_many_threads(files: list[Path]) -> None:
    sound = [path.read_bytes() for i, path in enumerate(files) if i != 3]
    boxes, flips = np.array([[0, 0, 30, 40]], np.int32), np.array([True])

    def decode(_: int) -> list[int]:
        return [zlib.crc32(decode_crops(data, boxes, flips, SIZE)) for data in sound for _ in range(ROUNDS)]

    assert len({tuple(sums) for sums in in_threads(decode)}) == 1


def test_loaders_of_many_threads(tmp_path: Path) -> None:
    """Each has its own, and three native threads below it."""
    data = draw_data(tmp_path)

    def load(_: int) -> list[tuple]:
        loader = CropLoader(data.root, data.labels, 8, 2, SIZE, threads=3, seed=5)
        batches = [batch for epoch in range(2) for batch in (loader.set_epoch(epoch), *loader)[1:]]
        sums = [zlib.crc32(batch.images.numpy()) for batch in batches]
        return [(batch.keys, batch.crops.tolist(), one) for batch, one in zip(batches, sums, strict=True)]

    assert in_threads(load) == [load(0)] * THREADS


def test_key_tables_of_many_threads() -> None:
    keys = [f"class {i % 7}/{i}.jpg" for i in range(300)]
    starts = np.cumsum([0, *map(len, keys)]).astype(np.uint32)
    table = _C.KeyTable(starts, np.frombuffer("".join(keys).encode(), np.uint8).copy())
    found = in_threads(lambda _: [table.key(i) for i in range(len(keys))])
    assert found == [keys] * THREADS


def test_the_extension_leaves_the_lock_off() -> None:
    """Importing it does not switch the lock of a free-threaded interpreter on again."""
    if hasattr(sys, "_is_gil_enabled") and "free-threading" in sys.version:
        assert not sys._is_gil_enabled()


def test_pixels_of_a_thread_are_those_of_pillow(files: list[Path]) -> None:
    data = files[0].read_bytes()
    expected = np.asarray(Image.open(io.BytesIO(data)))
    box = 0, 0, *expected.shape[:2], False, False
    for pixels in in_threads(lambda _: _C.CropDecoder().decode_box(data, *box)):
        np.testing.assert_array_equal(pixels, expected)
