"""Files that name images or their classes: for validation archives, and for stores of running numbers."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from images import draw_black
from loading import Data, rows
from store_writers import SYNSETS, WORDS, arrow_table, mds, number, parquet_rows
from storing import write_tar

from fkdx import CropLoader, LabelWriter, ValidationLoader
from fkdx.image import image_size
from fkdx.labels import fingerprint, size_marks
from fkdx.stores import Store, class_numbers, open_store

VAL = [f"ILSVRC2012_val_{number:08}" for number in (1, 2, 3, 4)]
TRUTH = [SYNSETS[1], SYNSETS[0], SYNSETS[2], SYNSETS[0]]


@pytest.fixture
def flat(tmp_path: Path, rng: np.random.Generator) -> Path:
    """The official validation archive: a flat tar file."""
    root = draw_black(tmp_path / "flat", [f"{name}.JPEG" for name in VAL], rng)
    return write_tar(
        tmp_path / "ILSVRC2012_img_val.tar", {path.name: path.read_bytes() for path in sorted(root.iterdir())}
    )


def classes(store: Store) -> list[str]:
    return [store.class_names[number] for number in store.class_of]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(TRUTH),
        "\n".join(f"{name}.JPEG {synset}" for name, synset in reversed(list(zip(VAL, TRUTH)))),
        "\n".join(
            f"{name}\t{synset}" for name, synset in zip([*VAL, "ILSVRC2012_val_00000005"], [*TRUTH, "x"])
        ),
        "ImageId,PredictionString\n"
        + "\n".join(f"{name},{synset} 85 1 499 272 {synset} 2 3 4 5" for name, synset in zip(VAL, TRUTH)),
    ],
    ids=["synsets", "pairs", "pairs of more images", "LOC_val_solution.csv"],
)
def test_classes_of_a_flat_archive(flat: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.txt").write_text(text)
    for data in (flat, flat.with_name("flat")):
        store = open_store(f"{data}@{tmp_path / 'truth.txt'}")
        assert classes(store) == TRUTH
        assert store.class_names == list(SYNSETS)
        loader = ValidationLoader(store, 4, 8, classes=["x", *SYNSETS])
        assert [b.classes.tolist() for b in loader] == [[2, 1, 3, 1]]
        loader.close()


@pytest.mark.parametrize("between", [" ", "\t", ", "])
@pytest.mark.parametrize("suffix", ["jpg", "JPEG"])
def test_names_with_spaces(tmp_path: Path, suffix: str, between: str) -> None:
    write_tar(tmp_path / "x.tar", {f"my {name} 1.{suffix}": b"x" for name in ("cat", "dog")})
    lines = [f"my {name} 1.{suffix}{between}{{}}" for name in ("dog", "cat")]
    (tmp_path / "classes.txt").write_text("\n".join(lines).format("dog", "tom cat"))
    store = open_store(f"{tmp_path}/x.tar@{tmp_path}/classes.txt")
    assert dict(zip(store.keys, classes(store))) == {
        f"my cat 1.{suffix}": "tom cat",
        f"my dog 1.{suffix}": "dog",
    }
    (tmp_path / "keys.txt").write_text("\n".join(lines).format("dog/my 2.jpg", "cat/1.jpg"))
    store = open_store(f"{tmp_path}/x.tar@{tmp_path}/keys.txt")
    assert list(store.keys) == ["cat/1.jpg", "dog/my 2.jpg"]
    assert store.place(0)[1] < store.place(1)[1]


@pytest.mark.parametrize("before", ["val/", "./", "/data/imagenet/val/"])
def test_names_with_folders_of_a_flat_archive(flat: Path, tmp_path: Path, before: str) -> None:
    """`find /data/imagenet/val` writes such; a line is no class of its own then."""
    keys = open_store(flat).keys
    lines = [f"{before}{key} {'ab'[i % 2]}" for i, key in enumerate(keys)]
    (tmp_path / "names.txt").write_text("\n".join(reversed(lines)))
    store = open_store(f"{flat}@{tmp_path / 'names.txt'}")
    assert classes(store) == ["ab"[i % 2] for i in range(len(keys))]


def test_names_of_other_images(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"x{i}.JPEG a" for i in range(len(open_store(flat)))))
    with pytest.raises(ValueError, match=r"name, got x0.JPEG, expected one of an image, such as .*names.txt"):
        open_store(f"{flat}@{tmp_path / 'names.txt'}")


@pytest.mark.parametrize("end", ["", ".0"])  # pandas writes 1.0 in a column with gaps
def test_class_numbers(flat: Path, tmp_path: Path, end: str) -> None:
    """Caffe's val.txt: numbers, which mean nothing until somebody says what."""
    (tmp_path / "val.txt").write_text(
        "\n".join(f"{name}.JPEG {SYNSETS.index(c)}{end}" for name, c in zip(VAL, TRUTH))
    )
    data = f"{flat}@{tmp_path / 'val.txt'}"
    store = open_store(data)
    assert store.numbered
    assert classes(store) == [str(SYNSETS.index(c)) for c in TRUTH]
    with pytest.raises(ValueError, match=r"'1' of ILSVRC.*they are numbers: say whose with --classes"):
        class_numbers(store, SYNSETS)
    (tmp_path / "synsets.txt").write_text("\n".join(f"{s} {w}" for s, w in zip(SYNSETS, WORDS)))
    assert classes(open_store(data, tmp_path / "synsets.txt")) == TRUTH


def test_development_kit(flat: Path, tmp_path: Path) -> None:
    """Its numbers are in an order of their own."""
    matlab = pytest.importorskip("scipy.io")
    kit = tmp_path / "ILSVRC2012_devkit_t12/data"
    kit.mkdir(parents=True)
    order = [SYNSETS[2], SYNSETS[0], SYNSETS[1]]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    synsets = np.zeros((4, 1), kinds)
    for i, synset in enumerate([*order, "n00001740"]):
        synsets[i, 0] = (i + 1, synset, "words", 3 * (i == 3))  # the last one is no leaf
    matlab.savemat(kit / "meta.mat", {"synsets": synsets})
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("\n".join(str(order.index(synset) + 1) for synset in TRUTH))
    assert classes(open_store(f"{flat}@{truth}")) == TRUTH
    with tarfile.open(tmp_path / "kit.tar.gz", "w:gz") as tar:
        tar.add(kit.parent, arcname="ILSVRC2012_devkit_t12")
    assert classes(open_store(f"{flat}@{tmp_path / 'kit.tar.gz'}")) == TRUTH
    truth.write_text("1\n2\n3\n4\n")
    with pytest.raises(ValueError, match=r"number in the ground truth, got 4, expected 1 to 3"):
        open_store(f"{flat}@{truth}")
    (kit / "meta.mat").unlink()
    with pytest.raises(ValueError, match=r"an order of its own; put meta.mat .* beside it, or give a list"):
        open_store(f"{flat}@{truth}")
    (tmp_path / "kit.tar.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"not a whole archive.*kit.tar.gz"):
        open_store(f"{flat}@{tmp_path / 'kit.tar.gz'}")


@pytest.mark.parametrize("folder", ["kaggle", "me@home"])
def test_kaggle(tmp_path: Path, folder: str) -> None:
    """A part of an archive, and a file of classes behind it: LOC_val_solution.csv as it is."""
    path = tmp_path / folder / "k.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in [f"val/{name}" for name in VAL] + [f"train/{SYNSETS[0]}/x"]:
            archive.writestr(f"ILSVRC/Data/CLS-LOC/{name}.JPEG", name.encode())
    lines = [f"{name},{synset} 1 2 3 4 {synset} 5 6 7 8 " for name, synset in zip(VAL, TRUTH)]
    (path.parent / "truth.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]))
    store = open_store(f"{path}::ILSVRC/Data/CLS-LOC/val@{path.parent / 'truth.csv'}")
    assert classes(store) == TRUTH
    assert [store.encoded(i) for i in range(4)] == [f"val/{name}".encode() for name in VAL]
    with pytest.raises(FileNotFoundError, match=r"no such file of names or classes, nowhere.csv"):
        open_store(f"{path}::ILSVRC/Data/CLS-LOC/val@nowhere.csv")
    assert len(open_store(f"{path}::ILSVRC/Data/CLS-LOC/val")) == 4


def test_without_classes(flat: Path) -> None:
    with pytest.raises(ValueError, match=r"4 images are in no class folder.*DATA@FILE.*img_val.tar"):
        ValidationLoader(flat, 4, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\nc", r"lines, got 3, expected 4, one an image, .*names.txt"),
        (
            f"{VAL[0]} a\n{VAL[1]} b\n",
            rf"lines of {VAL[2]}.JPEG, got none .2 such images., expected one an im",
        ),
        ("\n".join(f"{name} a" for name in [*VAL, VAL[0]]), rf"lines of {VAL[0]}, got two, expected one"),
        ("x/1.jpg\nx/2.jpg\nx/3.jpg\nants", r"value, got 'ants', expected a name of an image, as other"),
        ("x/1.jpg\nx/2.jpg\nx/1.jpg\nx/3.jpg", r"got 'x/1.jpg' twice, expected each once, .*names.txt"),
        ("x/1.jpg\nx/2.jpg\n../1.jpg\nx/3.jpg", r"got '../1.jpg', expected what a label file can hold"),
        ("1\nants\n1\n2", r"got 'ants' of .*, expected a number as others have, .*names.txt"),
    ],
)
def test_files_that_do_not_fit(flat: Path, tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ValueError, match=expected):
        open_store(f"{flat}@{tmp_path / 'names.txt'}")


def test_no_such_file(flat: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file of names or classes, nowhere.txt"):
        open_store(f"{flat}@nowhere.txt")


def test_paths_with_the_sign(tmp_path: Path, rng: np.random.Generator) -> None:
    root = draw_black(tmp_path / "me@home", ["a/1.jpg"], rng)
    assert len(open_store(root)) == 1
    (tmp_path / "names.txt").write_text("b/1.jpg")
    assert list(open_store(f"{root}@{tmp_path / 'names.txt'}").keys) == ["b/1.jpg"]


# ---- keys for running numbers ------------------------------------------------------------------------------


def wds(data: Data, to: Path) -> Path:
    members = {}
    for i, key in enumerate(data.keys):
        members |= {f"{i:06}.jpg": (data.root / key).read_bytes(), f"{i:06}.cls": b"%d" % number(key)}
    return write_tar(to / "0.tar", members)


def rows_without_paths(data: Data, to: Path) -> Path:
    images, labels = parquet_rows(data)
    return arrow_table(to / "0.parquet", {"jpg": [row["bytes"] for row in images], "label": labels})


def test_keys_of_running_numbers(data: Data, tmp_path: Path) -> None:
    """Training on members that are numbers, with labels made on the folder: refused, or the same batches."""
    path = wds(data, tmp_path)
    with pytest.raises(ValueError, match=r"do not match.*are numbers: name them in a file, DATA@FILE"):
        CropLoader(path, data.labels, 8, 2, 32)
    (tmp_path / "keys.txt").write_text("\n".join(data.keys))
    shown = []
    for root in (data.root, f"{path}@{tmp_path / 'keys.txt'}"):
        loader = CropLoader(root, data.labels, 8, 2, 32, threads=2)
        shown.append([row for batch in loader for row in rows(batch)])
        loader.close()
    assert shown[0] == shown[1]
    store = open_store(f"{path}@{tmp_path / 'keys.txt'}")
    assert store.class_names == list(SYNSETS)
    assert store.numbered


def test_keys_of_rows(data: Data, tmp_path: Path) -> None:
    """Rows without paths are numbered in their order."""
    images, _ = parquet_rows(data)
    stems = [row["path"].removesuffix(".JPEG").rpartition("_") for row in images]
    (tmp_path / "keys.txt").write_text("\n".join(f"{synset}/{stem}.JPEG" for stem, _, synset in stems))
    store = open_store(f"{rows_without_paths(data, tmp_path)}@{tmp_path / 'keys.txt'}")
    assert list(store.keys) == data.keys
    assert [store.encoded(i) for i in range(17)] == [(data.root / key).read_bytes() for key in data.keys]
    assert [store.keys[int(i)].split("/")[1] for i in store.reading_order] == [
        f"{stem}.JPEG" for stem, *_ in stems
    ]
    assert store.sizes().tolist() == [(data.root / key).stat().st_size for key in data.keys]


def test_keys_of_samples(data: Data, tmp_path: Path) -> None:
    """MosaicML's samples under other names, whatever names they have."""
    pairs = [f"{key.split('/')[1]}, {key.replace('.JPEG', '.jpg')}" for key in reversed(data.keys)]
    (tmp_path / "keys.csv").write_text("\n".join(pairs))
    store = open_store(f"{mds(data, tmp_path)}@{tmp_path / 'keys.csv'}")
    assert list(store.keys) == [key.replace(".JPEG", ".jpg") for key in data.keys]
    assert [store.encoded(i) for i in range(17)] == [(data.root / key).read_bytes() for key in data.keys]


@pytest.mark.parametrize("marked", [True, False])
def test_the_same_numbers_for_other_images(data: Data, tmp_path: Path, marked: bool) -> None:
    """Labels of one store of running numbers do not fit another that counts in another order."""
    images = {f"{i:06}.jpg": (data.root / key).read_bytes() for i, key in enumerate(data.keys)}
    path = write_tar(tmp_path / "a.tar", images)
    sizes = [len(image) for image in images.values()]
    dataset = fingerprint(zip(images, sizes)) | ({"sizes": size_marks(np.array(sizes))} if marked else {})
    with LabelWriter(tmp_path / "a.fkdl", "hard", num_classes=3, crops=1, dataset=dataset) as writer:
        for key, image in images.items():
            writer.add(key, [[0, 0, 40, 40]], [False], [1], None, image_size(image))
    CropLoader(path, tmp_path / "a.fkdl", 17, 1, 32).close()
    other = write_tar(tmp_path / "b.tar", dict(zip(images, reversed(images.values()))))
    with pytest.raises(ValueError, match=r"the same numbers for names, .*DATA@FILE, .*b.tar"):
        CropLoader(other, tmp_path / "a.fkdl", 17, 1, 32)
