"""The benchmarks run, on a few small images, and print what they promise."""

import json
import re
from pathlib import Path

import forked
import numpy as np
import pytest
import timm
from PIL import Image
from toy import draw_images, environment

from fkdx.commands.bench import main
from fkdx.train.checkpoint import save_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    (root / "a").mkdir()
    for i in range(24):  # half of them large enough for crops that Pillow 13 resizes in another order
        shape = (420, 400, 3) if i % 2 else (60, 80, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(root / "a" / f"{i}.jpg")
    return root


def test_profile(images: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [
        "--crops-per-image",
        "2",
        "--batch-size",
        "8",
        "--size",
        "32",
        "--batches",
        "5",
        "--threads",
        "2",
        "--profile",
    ]
    assert main(["loader", "--data", str(images), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "crops/s" in printed
    shares = [float(line.split()[-1][:-1]) for line in printed.splitlines() if line.endswith("%")]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.slow
def test_comparison(images: Path) -> None:
    options = ["--images", str(images), "--json", "--m", "2", "--batch", "8", "--rounds", "1"]
    done = forked.run([str(ROOT / "bench/loader.py"), *options, "--seconds", "0.05"], timeout=250)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(done.stdout)
    assert table["pixels"] >= 12
    assert {"fkdx", "fkdx float32", "reference float32", "ceiling"} <= set(table["crops_per_second"]["2"])


@pytest.mark.slow
def test_crops_of_images_in_memory(images: Path) -> None:
    options = ["--images", str(images), "--m", "2"]
    done = forked.run([str(ROOT / "bench/images.py"), *options], timeout=250)
    assert done.returncode == 0, done.stderr
    assert re.search(r"m = 2 .*of Huffman code\n +libjpeg-turbo +\d+ +\d+ +1.00 +\d.\d\d\n", done.stdout)
    assert re.search(r"\n +scalar, no points +\d+ +\d+ +\d.\d\d +0.\d\d\n", done.stdout)


@pytest.mark.slow
def test_a_simulated_student_is_fed(images: Path) -> None:
    options = ["--images", str(images), "--only", "fkdx", "--rates", "20", "--m", "2", "--batch", "8"]
    done = forked.run([str(ROOT / "bench/feed.py"), *options, "--seconds", "1"], timeout=250)
    assert done.returncode == 0, done.stderr
    name, rate, cores, waits, microseconds, megabytes = done.stdout.splitlines()[-1].split()
    assert (name, rate) == ("fkdx", "20")
    assert int(cores.removeprefix("~")) >= 1
    assert 0 <= float(waits.removesuffix("%")) <= 100
    assert float(microseconds) > 0
    assert float(megabytes) > 50


@pytest.mark.slow
def test_stored_against_online(tmp_path: Path, rng: np.random.Generator) -> None:
    draw_images(tmp_path / "train", 12, rng)
    draw_images(tmp_path / "val", 3, rng)
    save_weights(tmp_path / "teacher.safetensors", timm.create_model("test_resnet", num_classes=4))
    command = [str(ROOT / "bench/stored_vs_online.py"), "--output", str(tmp_path / "out")]
    data = ["--data", str(tmp_path / "train"), "--val", str(tmp_path / "val")]
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(tmp_path / "teacher.safetensors")]
    teacher += ["--teacher-input", "{size: 32, interpolation: bilinear}", "--crops", "8", "--topk", "2"]
    student = ["--config", "fkd_resnet50", "--student", "test_convnext", "--size", "32", "--device", "cpu"]
    student += ["--batch-size", "16", "--epochs", "8", "--amp", "none"]
    done = forked.run([*command, *data, *teacher, *student], env=environment())
    assert done.returncode == 0, done.stderr
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:] for line in done.stdout.splitlines() if "|" in line
    }
    shares = [float(cell.strip(" %")) for cell in rows["share of the teacher"][:2]]
    assert shares[0] == 0 < shares[1] < 100
    assert int(rows["bytes stored"][0].replace(",", "")) == (tmp_path / "out" / "labels.fkdl").stat().st_size
    assert "online / stored, a training: " in done.stdout
