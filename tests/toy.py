"""A toy data set that a student can learn: images of four colours, labels of a made-up teacher."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import forked
import images
import label_draws
import numpy as np
import torch

CLASSES = ["blue", "gray", "green", "red"]
PAINT = {"blue": (0, 0, 1), "gray": (1, 1, 1), "green": (0, 1, 0), "red": (1, 0, 0)}
HEIGHT, WIDTH, CROPS = 40, 48, 6
EMBEDDINGS = 10, 6  # sizes of the two of a crop
STUDENT = ["--student", "test_convnext", "--size", "32", "--batch-size", "16", "--crops-per-image", "2"]
COMMON = [*STUDENT, "--lr", "0.01", "--log-every", "1", "--device", "cpu", "--deterministic"]


def make_toy(folder: Path, seed: int) -> list[str]:
    """Draw data/train, data/val and labels.fkdl into a folder; the arguments of a run on them."""
    rng = np.random.default_rng(seed)
    draw_images(folder / "data" / "train", 12, rng)
    draw_images(folder / "data" / "val", 5, rng)
    write_labels(folder / "labels.fkdl", folder / "data" / "train", rng)
    return ["--data", str(folder / "data"), "--labels", str(folder / "labels.fkdl"), "--epochs", "4"]


def draw_images(folder: Path, images_a_class: int, rng: np.random.Generator) -> None:
    def pixels(key: str) -> np.ndarray:
        noise = rng.integers(0, 80, (HEIGHT, WIDTH, 3))
        return (noise + 110 * np.array(PAINT[Path(key).parent.name])).astype(np.uint8)

    keys = [f"{name}/{number}.jpg" for name in CLASSES for number in range(images_a_class)]
    images.draw_images(folder, keys, pixels)


def write_labels(
    path: Path,
    folder: Path,
    rng: np.random.Generator,
    kind: str = "topk",
    outputs: int = 4,
    teacher: str = "toy",
    **more,
) -> None:
    """Stored crops of every image of a folder; the teacher is fairly sure of the class.

    Of kind topk, topk_logits (the same probabilities), smoothing, hard, dense or dense_logits.
    """
    keys = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.jpg"))
    if kind != "dense_logits" and outputs == len(CLASSES):
        more["classes"] = CLASSES
    label_draws.write_labels(
        path,
        rng,
        kind,
        num_classes=outputs,
        k=2,
        crops=CROPS,
        sizes=dict.fromkeys(keys, (HEIGHT, WIDTH)),
        answers=lambda key, _: draw_answers(rng, kind, CLASSES.index(key.split("/")[0]), outputs),
        smallest=16,
        provenance={"teacher": teacher},
        **more,
    )


def write_embeddings(path: Path, folder: Path) -> None:
    """Two embeddings of stored crops that tell the classes; the first of some images' crops is zero."""
    rng = np.random.default_rng(5)
    keys = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.jpg"))
    d, e = EMBEDDINGS
    centres = {name: rng.normal(0, 1, d + e) * np.linspace(0.1, 10, d + e) for name in CLASSES}

    def answers(key: str, count: int) -> dict[str, np.ndarray]:
        values = centres[key.split("/")[0]] + rng.normal(0, 0.1, (count, d + e))
        if key.endswith("/3.jpg"):
            values[:, :d] = 0
        return {"values": values.astype(np.float32)}

    sizes, shape = dict.fromkeys(keys, (HEIGHT, WIDTH)), {"num_classes": d, "k": e, "crops": CROPS}
    label_draws.write_labels(path, rng, "embedding", sizes=sizes, answers=answers, smallest=16, **shape)


def draw_answers(rng: np.random.Generator, kind: str, truth: int, outputs: int) -> dict[str, np.ndarray]:
    """What the teacher says of an image's crops: ids, values, tails."""
    if kind == "dense_logits":
        values = rng.normal(0, 1, (CROPS, outputs)) + 3 * np.eye(outputs)[truth]
        return {"values": values.astype(np.float32)}
    if kind == "dense":
        return {"values": rng.dirichlet(0.2 + 3 * np.eye(outputs)[truth], CROPS).astype(np.float32)}
    sure = rng.uniform(0.6, 0.9, CROPS)
    if kind == "smoothing":
        return {"ids": np.full(CROPS, truth), "values": sure.astype(np.float32)}
    if kind == "hard":
        return {"ids": np.full(CROPS, truth)}
    ids = np.array([[truth, (truth + 1) % 4]] * CROPS)
    values = np.stack([sure, (1 - sure) * 0.7], axis=1).astype(np.float32)
    if kind == "topk":
        return {"ids": ids, "values": values}
    return {"ids": ids, "values": np.log(values) + 5, "tails": np.log(1 - values.sum(axis=1)) + 5}


def torchrun(
    processes: int, arguments: list[str], timeout: float = 240, program: Sequence[str] = ("-m", "fkdx.train")
) -> subprocess.CompletedProcess:
    """torchrun of `fkdx.train` or another program, waited for; forked, as are its processes."""
    return forked.run(torchrun_words(processes, *program, *arguments), env=environment(), timeout=timeout)


def torchrun_words(processes: int, *more: str) -> list[str]:
    """What follows `python`."""
    return ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", *more]


def environment() -> dict[str, str]:
    """For a process that finds this fkdx and leaves a core to others."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}


def steps_of(output: Path) -> list[dict]:
    return [line for line in log_of(output) if line["kind"] == "step"]


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def same_end(run: Path, other: Path) -> bool:
    """Equal weights, average, optimiser and position, and the same story in the logs."""
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in (run, other))
    for state in (a, b):
        state["position"].pop("best")  # the end of `--max-steps` is evaluated too
    story = [
        [(line["step"], line["loss"], line["lr"]) for line in steps_of(folder)] for folder in (run, other)
    ]
    return same(a, b) and story[0] == story[1]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "recipe")
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b
