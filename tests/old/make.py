"""Make the files of this folder with the fkdx that is installed: `python tests/old/make.py tests/old/FOLDER`.

data/train, data/val    a few images of three classes
labels.fkdl             a finished label job, and its report
job.fkdl.parts          the same job, killed in its middle
mixed.fkdl              compact labels of mixed and augmented crops
run/                    a training run of two stages, stopped in its middle
run/whole.safetensors   the weights with which that run ends if it is not stopped
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
JOB = [
    "--data",
    "data/train",
    "--teacher",
    "tiny:network",
    "--crops",
    "4",
    "--topk",
    "2",
    "--batch-size",
    "4",
]
JOB += ["--device", "cpu", "--precision", "float32", "--threads", "1"]
RUN = ["--data", "data", "--labels", "labels.fkdl", "--student", "tiny:network", "--size", "16"]
RUN += ["--mean", "[0.5, 0.5, 0.5]", "--std", "[0.25, 0.25, 0.25]", "--batch-size", "8"]
RUN += ["--crops-per-image", "2", "--optimizer", "adamw", "--lr", "0.01", "--ema", "0.5", "--cutmix", "1"]
RUN += ["--device", "cpu", "--threads", "1"]
RUN += ["--stages", "[{epochs: 4}, {epochs: 2, crops_per_image: 1, lr: 0.001, label_kind: hard}]"]


def main(folder: Path) -> None:
    folder.mkdir()
    for split, images in (("train", 4), ("val", 1)):
        draw_images(folder / "data" / split, images)
    fkdx(folder, "generate", *JOB, "-o", "labels.fkdl")
    fkdx(
        folder,
        "generate",
        *JOB,
        "--encoding",
        "compact",
        "--mixup",
        "0.8",
        "--augment",
        "erase=0.5",
        "-o",
        "mixed.fkdl",
    )
    kill_midway(folder)
    fkdx(folder, "train", *RUN, "--output", "whole")
    fkdx(folder, "train", *RUN, "--output", "run", "--max-steps", "4")
    shutil.copy(folder / "whole/last.safetensors", folder / "run/whole.safetensors")
    shutil.rmtree(folder / "whole")
    for path in ("best.pt", "best.safetensors", "last.safetensors", "curves.png"):
        (folder / "run" / path).unlink(missing_ok=True)


def draw_images(folder: Path, images: int) -> None:
    rng = np.random.default_rng(len(str(folder)))
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
            small.resize((40, 32)).save(folder / name / f"{number}.jpg", quality=60)


def kill_midway(folder: Path) -> None:
    """Kill a label job when three of its twelve shards are done."""
    command = [sys.executable, "-m", "fkdx", "generate", *JOB, "-o", "job.fkdl"]
    process = subprocess.Popen(command, cwd=folder, env={**environment(), "TINY_PAUSE": "0.5"})
    while len(list(folder.glob("job.fkdl.parts/0000?.json"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def fkdx(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fkdx", *arguments], cwd=folder, env=environment(), check=True)


def environment() -> dict[str, str]:
    """With `tiny` to be found, and one thread, so that sums come out the same."""
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
