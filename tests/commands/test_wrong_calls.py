"""What a first-time user reads after a wrong call of pack, generate or train: one line that leads on."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from generating import make_teacher
from toy import CLASSES, make_toy

from fkdx import cli
from fkdx.importers.fkd_export import fkd_bytes


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data set, images without folders, FKD's labels of 1,000 classes, two teachers."""
    root = tmp_path_factory.mktemp("calls")
    make_toy(root, 0)
    (root / "empty").mkdir()
    (root / "flat").mkdir()
    shutil.copy(root / "data/train/red/0.jpg", root / "flat/0.jpg")
    (root / "text.txt").write_text("hello")
    (root / "link.fkdl").symlink_to("nowhere")
    make_teacher(root / "teacher.safetensors", classes=len(CLASSES))
    make_teacher(root / "of ten.safetensors", classes=10)
    for name in ("red", "blue"):
        ids = np.array([[973, 1, 2, 3, 4]] * 5)
        values = np.full((5, 5), 0.1, np.float32)
        path = root / "fkd" / name / "0.tar"
        path.parent.mkdir(parents=True)
        boxes = np.full((5, 4), 0.4, np.float32)
        path.write_bytes(fkd_bytes("topk", boxes, np.zeros(5, bool), ids, values, None))
    return root


PACK = {"source": "fkd", "-o": "packed.fkdl", "--num-classes": "1000", "--workers": "1"}
GENERATE = {
    "--data": "data/train", "--teacher": "test_resnet", "--checkpoint": "teacher.safetensors", "--crops": "4",
    "--size": "32", "--topk": "2", "--device": "cpu", "-o": "made.fkdl",
}  # fmt: skip
TRAIN = {
    "--data": "data", "--labels": "labels.fkdl", "--student": "test_convnext", "--size": "32",
    "--epochs": "4", "--batch-size": "16", "--crops-per-image": "2", "--device": "cpu", "--output": "run",
}  # fmt: skip
USUAL = {"pack": PACK, "generate": GENERATE, "train": TRAIN}

CALLS = [
    ("pack", {"source": "absent"}, "no such folder of labels, absent"),
    ("pack", {"source": "empty"}, "got an empty folder, expected a folder of one of fkd, sre2l,"),
    ("pack", {"source": "text.txt"}, "got a file, expected a folder of one of fkd"),
    ("pack", {"source": "data/train"}, "got images without labels, expected a folder of one of fkd"),
    ("pack", {"source": "labels.fkdl"}, "got a label file, which is packed already"),
    ("pack", {"--num-classes": None}, "the labels name class 973, but only 2 class folders are known; give"),
    ("pack", {"--num-classes": "10"}, "the labels name class 973, but --num-classes gives 10; correct it"),
    ("pack", {"--num-classes": "0"}, "--num-classes, got 0, expected 1 or more"),
    ("pack", {"--num-classes": "-3"}, "--num-classes, got -3, expected 1 or more"),
    ("pack", {"--workers": "0"}, "--workers, got 0, expected 1 or more"),
    ("pack", {"--classes": "absent.txt"}, "no such file, absent.txt"),
    ("pack", {"--classes": "text.txt"}, "--classes, got 1 names, but --num-classes 1000, expected as many"),
    ("pack", {"--images": "absent"}, "no such folder, file or pattern, absent"),
    ("pack", {"--images": "data"}, "val/blue/0.jpg), expected one; give the images of one split"),
    ("pack", {"--images": "data/val/red"}, "got none in a class, expected <class>/<image>, data/val/red"),
    ("pack", {"--format": "fdk"}, "format, got 'fdk', expected auto or one of fkd, sre2l"),
    ("pack", {"--format": "sre2l"}, "these labels do not name their images; give the folder with --images"),
    ("pack", {"--label-type": "hard"}, "label, got kind topk, expected hard, as --label-type says"),
    ("pack", {"-o": "empty"}, "--output, got a folder, expected the name of a file, such as labels.fkdl"),
    ("generate", {"--data": None}, "--data and --teacher are required"),
    ("generate", {"--data": "absent"}, "no such folder, file or pattern, absent"),
    ("generate", {"--data": "empty"}, "no images, expected files such as <class>/<name>.jpg, empty"),
    ("generate", {"--data": "data"}, "got 2 (train, val) of the folders in data; give its class names"),
    ("generate", {"--data": "flat"}, "has 4 classes, got 0 of the folders in flat; give its class names"),
    ("generate", {"--teacher": "resnet5000"}, "timm knows no model 'resnet5000'; near it: resnet50"),
    ("generate", {"--teacher": "tiny:absent"}, "cannot call tiny:absent"),
    ("generate", {"--checkpoint": None}, "has no weights; give --checkpoint FILE, or --pretrained"),
    ("generate", {"--checkpoint": "absent.pt"}, "no checkpoint at absent.pt; expected .safetensors"),
    ("generate", {"--checkpoint": "text.txt"}, "cannot read weights (it is of another kind"),
    ("generate", {"--checkpoint": "labels.fkdl"}, "or asks for code, which is never run), expected"),
    ("generate", {"--checkpoint": "of ten.safetensors"}, "has 10 classes, got 4 (blue, gray, green, ...) of"),
    ("generate", {"--crops": "0"}, "--crops: got 0, expected more than 0"),
    ("generate", {"--scale": "1 0.08"}, "scale, got (1.0, 0.08), expected 0 < low <= high <= 1"),
    ("generate", {"--classes": "text.txt"}, "of blue/0.jpg, expected one of 1 names such as 'hello'"),
    ("generate", {"--crops-from": "text.txt"}, "this is no label file, or the rest of one, text.txt"),
    ("generate", {"--crops-from": "absent.fkdl"}, "cannot open absent.fkdl: No such file"),
    ("generate", {"--policy": "text.txt"}, "policy: expected a list of entries, text.txt"),
    ("generate", {"--device": "gpu"}, "got gpu, expected cpu, cuda, cuda:N or auto"),
    ("generate", {"-o": "labels.fkdl"}, "the output exists; remove it or choose another, labels.fkdl"),
    ("generate", {"-o": "link.fkdl"}, "the output exists; remove it or choose another, link.fkdl"),
    ("generate", {"-o": "."}, "--output: got '.', expected a name"),
    ("generate", {"--evaluate": "absent"}, "no such folder, file or pattern, absent"),
    ("train", {"--data": "flat"}, "no image (such as blue/0.jpg), flat, labels.fkdl; give the images the"),
    ("train", {"--labels": None}, "expected --labels FILE, or --hard for the images' own classes"),
    ("train", {"--labels": "text.txt"}, "this is no label file, or the rest of one, text.txt"),
    ("train", {"--labels": "teacher.safetensors"}, "expected those that a label file (.fkdl) begins with"),
    ("train", {"--labels": "fkd"}, "this folder has no manifest.json"),
    ("train", {"--student": "resnet5000"}, "(Unknown model (resnet5000)); near it: resnet50"),
    ("train", {"--optimizer": "adamx"}, "near it: adamax"),
    ("train", {"--batch-size": "3"}, "batch_size, got 3, expected a multiple of crops_per_image x processes"),
    ("train", {"--batch-size": "100000"}, "there are only 48; choose a smaller batch_size"),
    ("train", {"--output": None}, "nowhere to write, expected --output DIR"),
    ("train", {"--output": "text.txt"}, "output: got a file, expected a folder, text.txt"),
    ("train", {"--resume": "absent.pt"}, "no such checkpoint, expected auto, never or a file, absent.pt"),
    ("train", {"--init": "text.txt"}, "cannot read weights (it is of another kind"),
    ("train", {"--init": "teacher.safetensors"}, "the checkpoint is of another model"),
    ("train", {"--config": "absent"}, "expected a YAML file or one of cda_resnet18, demo_student"),
    ("train", {"--lr": "fast"}, "lr, got 'fast', expected float, command line"),
    ("train", {"--epoch": "3"}, "unknown key, got 'epoch', did you mean 'epochs'?"),
    ("train", {"--schedule": "cosin"}, "schedule, got 'cosin', expected one of cosine"),
    ("train", {"--val": "absent"}, "no such folder, file or pattern, absent"),
    ("train", {"--evaluate": ""}, "expected --val DIR and --init FILE or --pretrained"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "change", "said"), CALLS, ids=lambda value: str(value)[:50])
def test_a_wrong_call_is_one_line(
    verb: str, change: dict, said: str, material: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(material)
    words = []
    for name, value in (USUAL[verb] | change).items():
        if value is not None:
            words += [
                *([] if name == "source" else [name]),
                *(value.split(" ") if name == "--scale" else [value]),
            ]
    before = sorted(os.listdir())
    try:
        status = cli.run(verb, [word for word in words if word != ""])
    except SystemExit as end:
        status = end.code
    lines = capsys.readouterr().err.splitlines()
    last = lines[-1]
    assert status in (1, 2)
    assert last.startswith(f"fkdx {verb}: ")
    assert said in last
    assert not any("Traceback" in line or str(material) + "/tmp" in line for line in lines)
    assert "on_missing" not in last
    assert sorted(os.listdir()) == before


def test_fewer_classes_than_asked_for_is_a_line(material: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(material)
    options = GENERATE | {"--topk": "9", "-o": str(tmp_path / "made.fkdl")}
    assert cli.run("generate", [word for option in options.items() for word in option]) == 0
    assert "--topk 9: the teacher has 4 outputs, and all are kept" in capsys.readouterr().err


def test_some_labels_without_images_name_the_option(
    material: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    shutil.copytree(material / "data/train", tmp_path / "train")
    (tmp_path / "train/red/1.jpg").unlink()
    (tmp_path / "train/red/other.jpg").write_bytes((material / "data/train/red/1.jpg").read_bytes())
    monkeypatch.chdir(material)
    options = TRAIN | {
        "--data": str(tmp_path / "train"),
        "--check-images": "true",
        "--output": str(tmp_path / "r"),
    }
    assert cli.run("train", [word for option in options.items() for word in option]) == 1
    assert "or set on_missing='ignore' (--on-missing ignore)" in capsys.readouterr().err
