"""Loaders that find entry points in the data index give the same pixels, and count what does not fit."""

import re
from pathlib import Path

import numpy as np
import pytest
from images import write_entry_points
from loading import Data, draw_data, draw_image, rows
from PIL import Image

from fkdx import _C, CropLoader, FormatError
from fkdx.cli import main
from fkdx.image import image_size
from fkdx.loader import ValidationLoader
from fkdx.stores import DataIndex
from fkdx.stores.index import write_index


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return draw_data(tmp_path)


def make_loader(data: Data, **options: object) -> CropLoader:
    options = {"batch_size": 6, "crops_per_image": 2, "size": 32, "drop_last": False, **options}
    return CropLoader(data.root, data.labels, **options)


def all_rows(loader: CropLoader) -> list[tuple]:
    return [row for batch in loader for row in rows(batch)]


def use(loader: CropLoader) -> tuple[int, int]:
    stages = loader.pool.stages()
    return stages["entered"], stages["misfits"]


def test_the_same_pixels(data: Data, capsys: pytest.CaptureFixture) -> None:
    plain = make_loader(data)
    expected = all_rows(plain)
    assert use(plain) == (0, 0)
    assert main(["index", str(data.root), "--entry-points"]) == 0
    assert re.search(r"entry points of [1-9]\d* images, 0\.\d\d% of all bytes", capsys.readouterr().out)
    DataIndex(f"{data.root}.fkdi").verify()
    for options in ({}, {"check_images": True}, {"threads": 2}):
        loader = make_loader(data, **options)
        assert all_rows(loader) == expected
        entered, misfits = use(loader)
        assert entered > 0
        assert misfits == 0


def test_validation(data: Data) -> None:
    def pixels() -> list[bytes]:
        loader = ValidationLoader(data.root, batch_size=4, size=32)
        return [batch.images.numpy().tobytes() for batch in loader]

    expected = pixels()
    main(["index", str(data.root), "--entry-points"])
    assert pixels() == expected


def test_an_image_replaced_between_two_epochs(data: Data, rng: np.random.Generator) -> None:
    main(["index", str(data.root), "--entry-points"])
    loader = make_loader(data)
    all_rows(loader)
    entered, _ = use(loader)
    assert entered > 0
    for key in data.keys:
        width, height = data.pixels(key).size
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(data.root / key, "JPEG")
    loader.set_epoch(0)
    with pytest.warns(
        UserWarning, match=rf"entry points of {entered} image.* run `fkdx index` again, .*images"
    ):
        again = all_rows(loader)
    assert use(loader) == (entered, entered)
    Path(f"{data.root}.fkdi").unlink()
    assert again == all_rows(make_loader(data))


def test_an_index_of_other_data(data: Data, tmp_path: Path, rng: np.random.Generator) -> None:
    for key in data.keys:
        draw_image(rng, tmp_path / "other" / key)
    main(["index", str(tmp_path / "other"), "--entry-points"])
    expected = all_rows(make_loader(data))
    (tmp_path / "other.fkdi").rename(f"{data.root}.fkdi")
    loader = make_loader(data)
    with pytest.warns(UserWarning, match=r"entry points of \d+ images .* run `fkdx index`"):
        assert all_rows(loader) == expected
    assert use(loader)[0] == 0


def test_a_forged_index(data: Data) -> None:
    """All checksums are right, and no point contradicts another: only reading up to them can tell."""
    epochs = range(3)

    def passes(loader: CropLoader) -> list[list[tuple]]:
        return [all_rows(loader) for epoch in epochs if not loader.set_epoch(epoch)]

    expected = passes(make_loader(data))
    main(["index", str(data.root), "--entry-points"])
    path = Path(f"{data.root}.fkdi")
    index, decoder = DataIndex(path), _C.CropDecoder()
    coded, fooled = [], 0
    for key in data.keys:
        image = (data.root / key).read_bytes()
        coded.append(write_entry_points(image, shift=40) if _C.is_jpeg(image) else b"")
        if coded[-1]:
            height, width = image_size(image)
            corner = (height - 9, width - 9, 9, 9, False, False)
            forged = decoder.decode_box(image, *corner, entries=coded[-1])
            fooled += not np.array_equal(forged, decoder.decode_box(image, *corner))
    assert fooled > 5
    columns = {name: index.column(name) for name in ("class", "pixels") if name in index}
    starts = np.cumsum([0, *map(len, coded)], dtype=np.uint64)
    write_index(path, index.about, index.keys(), columns, entries=(starts, b"".join(coded)))
    loader = make_loader(data)
    with pytest.warns(UserWarning, match="entry points of"):
        assert passes(loader) == expected
    assert use(loader)[1] > 0


def test_several_epochs_of_proved_points(data: Data) -> None:
    expected = all_rows(make_loader(data))
    main(["index", str(data.root), "--entry-points"])
    loader = make_loader(data)
    for _ in range(4):
        loader.set_epoch(0)
        assert all_rows(loader) == expected
    assert use(loader)[1] == 0


def test_a_damaged_index(data: Data) -> None:
    expected = all_rows(make_loader(data))
    main(["index", str(data.root), "--entry-points"])
    path = Path(f"{data.root}.fkdi")
    whole = bytearray(path.read_bytes())
    offset, length, _ = DataIndex(path)._sections["entry starts"]
    whole[offset + 9] ^= 1
    path.write_bytes(whole)
    with pytest.warns(UserWarning, match="CRC of 'entry starts' does not hold.*without its entry points"):
        loader = make_loader(data)
    assert all_rows(loader) == expected
    whole[offset + 9] ^= 1
    offset, length, _ = DataIndex(path)._sections["entry points"]
    for at in range(offset, offset + length, 16):
        whole[at] ^= 4
    path.write_bytes(whole)
    loader = make_loader(data)
    with pytest.warns(UserWarning, match="entry points of"):
        assert all_rows(loader) == expected
    assert use(loader)[0] == 0
    with pytest.raises(FormatError, match="CRC of 'entry points'"):
        DataIndex(path).verify()


def test_starts_that_lead_nowhere(data: Data) -> None:
    main(["index", str(data.root), "--entry-points"])
    index = DataIndex(f"{data.root}.fkdi")
    starts, coded = index.entry_points()
    assert starts[-1] == len(coded)
    wild = starts.copy()
    wild[3], wild[5] = 2**63, 0
    table = _C.EntryTable(wild, coded)
    assert [len(table.of(i)) for i in (2, 3, 4, -1, 10**9)] == [0] * 5
    numbers = np.full(3, -1, np.int32)
    numbers[1] = 7
    table = _C.EntryTable(starts, coded, numbers)
    assert table.of(0) == table.of(2) == table.of(3) == b""
    assert table.of(1) == coded[int(starts[7]) : int(starts[8])].tobytes()
