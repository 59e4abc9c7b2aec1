"""Stored embeddings: what they cost, what int8 changes, and what a student learns from them.

    python bench/embeddings.py reading
    python bench/embeddings.py int8
    python bench/embeddings.py learning --data CIFAR --output runs/embeddings --seeds 3

`reading` measures bytes a crop and the time to read m = 4 embeddings of D = 768 from the map. `int8` measures
what rounding does where dimensions differ in scale. `learning`
trains a teacher on CIFAR-10 (train/<class>/*.jpg and test/<class>/*.jpg), stores its embeddings of some
images without their classes, and trains a student of a fifth of its work three ways, on the same crops from
the same first weights: from the stored embeddings, from the teacher at every step, and from the images'
classes. Students are compared by k-NN and by a linear probe on their frozen features. Finished runs are
kept in --output.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from ferkd import call, link_part
from timing import wall
from torch import Tensor, nn
from torch.nn import functional

from fkdx import CropLoader, LabelFile, LabelWriter, ValidationLoader, decode_crops, prepare
from fkdx.commands.convert import convert
from fkdx.labels.similarity import cosines
from fkdx.loader import Batch
from fkdx.loss.embed import embedding_losses
from fkdx.models.build import load_teacher
from fkdx.models.embed import EmbeddingStudent, EmbeddingTeacher
from fkdx.train.distributed import World
from fkdx.train.embedding import Embeddings
from fkdx.train.frozen import Features, counted, extract, knn, probe

SIZE, SCALE, CROPS, M, BATCH = 32, (0.25, 1.0), 16, 4, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES_A_CLASS, TEACHER_EPOCHS, EPOCHS, RATE = 100, 6, 16, 3e-3
WAYS = ("stored", "online", "classes")


def teacher_network(num_classes: int) -> nn.Module:
    """A small ResNet; 16 million multiplications an image of 32 pixels."""
    model = timm.create_model("resnet10t", num_classes=num_classes, channels=(40, 80, 160, 320))
    model.preprocess = {"size": SIZE, "mean": MEAN, "std": STD}
    return model


def student_backbone() -> nn.Module:
    """A smaller one: 2.9 million."""
    return timm.create_model("resnet10t", num_classes=10, channels=(16, 32, 64, 128), stem_width=16)


# ---- reading ---------------------------------------------------------------------------------------------


def measure_reading(images: int = 600, crops: int = 100, d: int = 768) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (crops, d)).astype(np.float32)
    corners = np.concatenate([rng.integers(0, 100, (crops, 2)), rng.integers(100, 270, (crops, 2))], axis=1)
    print(f"| D = {d}, {crops} crops an image | bytes a crop | us an image, m = 4 | mean cosine | lowest |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for encoding, value_type in (("plain", "float16"), ("plain", "int8"), ("compact", "int8")):
            path = Path(folder) / f"{encoding}-{value_type}.fkdl"
            options = {"encoding": encoding, "value_type": value_type, "crops": crops}
            with LabelWriter(path, "embedding", embeddings={"cls": d}, **options) as writer:
                for image in range(images):
                    writer.add(f"{image}.jpg", corners, np.zeros(crops, bool), None, values, (375, 500))
            labels = LabelFile(path)
            cosine = cosines(labels[0].values, values)
            row = [labels.size / images / crops, reading_time(labels, rng), cosine.mean(), cosine.min()]
            print(f"| {encoding} {value_type} | " + " | ".join(f"{number:.6g}" for number in row) + " |")


def reading_time(labels: LabelFile, rng: np.random.Generator, together: int = 256) -> float:
    """Microseconds of an image in a batch whose labels are in the page cache."""
    for first in range(0, len(labels), together):  # checks every block once
        these = np.arange(first, min(first + together, len(labels)))
        labels.gather(these, np.zeros((len(these), 1), np.int64))
    found = []
    for _ in range(200):
        images, crops = rng.permutation(len(labels))[:together], rng.integers(0, labels.crops, (together, 4))
        start = time.perf_counter()
        labels.gather(images, crops)
        found.append(time.perf_counter() - start)
    return 1e6 * min(found) / together


# ---- int8 ------------------------------------------------------------------------------------------------


def measure_int8(rows: int = 2000, d: int = 768) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (rows, d))
    kinds = {"alike, normal": values, "alike, Student's t with 5 degrees": rng.standard_t(5, (rows, d))}
    kinds["deviations log-normal, sigma 1"] = values * np.exp(rng.normal(0, 1, d))
    for size in (5, 20, 50):  # as of large transformers
        massive = values.copy()
        massive[:, :2] = size + size / 10 * massive[:, :2]
        kinds[f"two dimensions at {size} ± {size / 10:g}, others at 0 ± 1"] = massive
    print("| dimensions | int8 | int8 after `--standardise` |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, drawn in kinds.items():
            labels, cells = Path(folder) / "exact.fkdl", []
            with LabelWriter(
                labels, "embedding", embeddings={"cls": d}, value_type="float32", overwrite=True
            ) as writer:
                boxes = np.tile([0, 0, 9, 9], (rows, 1))
                writer.add("a.jpg", boxes, np.zeros(rows, bool), None, drawn.astype(np.float32), (9, 9))
            for standardise in (False, True):
                found = convert(
                    LabelFile(labels), Path(folder) / "b", standardise, encoding="compact", overwrite=True
                )
                cells.append(f"{found.cosine:.5f}, {found.gradient:.1%}")
            print(f"| {name} | {' | '.join(cells)} |")


# ---- learning --------------------------------------------------------------------------------------------


def prepare_data(data: Path, output: Path) -> tuple[Path, LabelFile, EmbeddingTeacher]:
    """The students' images, the teacher, and its stored embeddings of these images."""
    run, labels = output / "teacher", output / "embeddings.fkdl"
    part = link_part(data / "train", output / "data" / "train", IMAGES_A_CLASS)
    if not (run / "last.safetensors").exists():
        pixels = ["--size", SIZE, "--mean", list(MEAN), "--std", list(STD), "--scale", list(SCALE)]
        learn = ["--epochs", TEACHER_EPOCHS, "--lr", 0.002, "--optimizer", "adamw", "--weight-decay", 0.05]
        more = ["--crops-per-image", 1, "--batch-size", 128, "--smooth", "true", "--device", "cpu"]
        few = link_part(data / "train", output / "teacher-data", 300)
        given = ["--student", "embeddings:teacher_network", "--hard", "--data", few, "--val", data / "test"]
        call("train", *given, *pixels, *learn, *more, "--eval-every", TEACHER_EPOCHS, "--output", run)
    teacher = ["--teacher", "embeddings:backbone", "--checkpoint", run / "backbone.safetensors"]
    if not labels.exists():
        save_backbone(run)
        stored = ["--crops", CROPS, "--scale", *SCALE, "--kind", "embedding", "--encoding", "compact"]
        call("generate", "--data", part, *teacher, *stored, "--batch-size", 128, "-o", labels)
        call("verify", labels, "--images", part, *teacher)
    asked = load_teacher(teacher[1], str(teacher[3]), features="pooled")
    return part, LabelFile(labels), asked


def backbone() -> nn.Module:
    """The teacher without its classifier."""
    return teacher_network(0)


def save_backbone(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(run / "last.safetensors")
    save_file({n: v for n, v in weights.items() if not n.startswith("fc.")}, run / "backbone.safetensors")


def measure_error(part: Path, labels: LabelFile, teacher: EmbeddingTeacher, images: int = 60) -> None:
    """What int8 changes on real images: cosines to the teacher's float32, gradients of the cosine loss."""
    chosen = np.linspace(0, len(labels) - 1, images).round().astype(int).tolist()
    stored, exact = [], []
    for image in (labels[number] for number in chosen):
        crops = decode_crops(str(part / image.key), image.boxes, image.flips, SIZE)
        stored.append(image.values)
        exact.append(teacher(torch.from_numpy(crops)).numpy())
    a, b = (torch.from_numpy(np.concatenate(each)).double() for each in (exact, stored))
    cosine = cosines(a.numpy(), b.numpy())
    student = torch.randn(a.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for target in (a, b):
        own = student.clone().requires_grad_()
        embedding_losses(own, target).sum().backward()
        gradients.append(own.grad)
    off = (gradients[0] - gradients[1]).norm(dim=1) / gradients[0].norm(dim=1)
    largest = (a.abs().amax(1) / a.square().mean(1).sqrt()).mean()
    print(f"int8 on {len(a)} crops whose largest value is {largest:.1f} x the root mean square:")
    print(f"cosine {cosine.mean():.6f}, lowest {cosine.min():.6f};")
    print(f"gradient off by {100 * off.mean():.3f} %, at most {100 * off.max():.3f} %")


class Lesson:
    """One way of teaching: the target of a batch and the loss of a student against it."""

    def __init__(self, way: str, labels: LabelFile, teacher: EmbeddingTeacher) -> None:
        self.way, self.teacher, self.embeddings = way, teacher, Embeddings.of(labels, "standardise")

    def loss(self, student: EmbeddingStudent, batch: Batch) -> Tensor:
        images = prepare(batch.images, MEAN, STD)
        if self.way == "classes":
            return functional.cross_entropy(student.backbone(images), batch.classes)
        answers = batch.target if self.way == "stored" else self.teacher(batch.images).clone()
        target = self.embeddings.target(answers)
        return embedding_losses(student(images), target, self.embeddings.sizes).mean()


def loader_of(part: Path, labels: LabelFile, seed: int) -> CropLoader:
    return CropLoader(part, labels, BATCH, M, SIZE, seed=seed)


def new_student(labels: LabelFile, seed: int) -> EmbeddingStudent:
    torch.manual_seed(seed)
    return EmbeddingStudent(student_backbone(), 128, labels.k, "mlp")


def learn(lesson: Lesson, part: Path, labels: LabelFile, seed: int) -> EmbeddingStudent:
    """A student, one-cycle AdamW over EPOCHS views of every image; `classes` too sees the stored crops."""
    student, loader = new_student(labels, seed), loader_of(part, labels, seed)
    steps = len(loader) * EPOCHS // M
    solver = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(solver, RATE, steps)
    student.train()
    for epoch in range(0, EPOCHS, M):
        loader.set_epoch(epoch)
        for batch in loader:
            solver.zero_grad()
            lesson.loss(student, batch).backward()
            solver.step()
            rate.step()
    loader.close()
    return student.eval()


def judge(embed: Callable[[Tensor], Tensor], part: Path, test: Path) -> dict[str, float]:
    """Top-1 of k-NN (k = 20) and of a linear probe, learned on the students' images."""
    found: list[Features] = []
    for folder in (part, test):
        loader = ValidationLoader(folder, 500, SIZE, 1.0)
        found.append(extract(embed, loader, World()))
        loader.close()
    known, asked = found
    votes = {"knn": knn(known, asked, 20, 10), "probe": probe(known, asked, 10)}
    return {name: counted(guess, asked, World())["top1"] for name, guess in votes.items()}


def measure_learning(data: Path, output: Path, seeds: int) -> None:
    part, labels, teacher = prepare_data(data, output)
    test = link_part(data / "test", output / "data" / "val", 100)
    lessons = {way: Lesson(way, labels, teacher) for way in WAYS}
    size, crops = labels.size, len(labels) * CROPS
    print(f"embeddings of {labels.k} values: {size / crops:.1f} bytes a crop, {size / 1e6:.1f} MB in all")
    measure_error(part, labels, teacher)
    print("the teacher's own features:", judge(teacher, part, test))
    print("a student's before training:", judge(features_of(new_student(labels, 0).eval()), part, test))
    for seed in range(seeds):
        for way, lesson in lessons.items():
            path = output / f"{way}-{seed}.json"
            if not path.exists():
                path.write_text(json.dumps(judge(features_of(learn(lesson, part, labels, seed)), part, test)))
        print(table(output, seed + 1), flush=True)
    measure_steps(lessons, part, labels)


def features_of(student: EmbeddingStudent) -> Callable[[Tensor], Tensor]:
    return lambda crops: student.features(prepare(crops, MEAN, STD))


def table(output: Path, seeds: int) -> str:
    lines = [f"\n| {seeds} seeds | k-NN top-1 | linear probe |", "|---|---|---|"]
    for way in WAYS:
        found = [json.loads((output / f"{way}-{seed}.json").read_text()) for seed in range(seeds)]
        shown = []
        for name in ("knn", "probe"):
            values = [one[name] for one in found]
            spread = f" +- {statistics.stdev(values):.2f}" if seeds > 1 else ""
            shown.append(f"{statistics.mean(values):.2f}{spread}")
        lines.append(f"| {way} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def measure_steps(lessons: dict[str, Lesson], part: Path, labels: LabelFile) -> None:
    """Steps a second, batches loaded and all, of the three ways in turns."""
    turns = {}
    for way, lesson in lessons.items():
        student, loader = new_student(labels, 0).train(), loader_of(part, labels, 0)
        solver, batches = torch.optim.AdamW(student.parameters(), RATE), endless(loader)

        def step(lesson=lesson, student=student, solver=solver, batches=batches) -> None:
            solver.zero_grad()
            lesson.loss(student, next(batches)).backward()
            solver.step()

        turns[way] = step
    seconds = wall(turns, 60)
    print("\nsteps a second: " + ", ".join(f"{way} {1 / found:.2f}" for way, found in seconds.items()))
    print(f"stored against online: {seconds['online'] / seconds['stored']:.2f} times as fast")


def endless(loader: CropLoader):
    while True:
        yield from loader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("reading", "int8", "learning"))
    parser.add_argument("--data", type=Path, help="CIFAR-10 as JPEG files")
    parser.add_argument("--output", type=Path, default=Path("runs/embeddings"))
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind (default: %(default)s)")
    args = parser.parse_args()
    if args.what == "reading":
        measure_reading()
    elif args.what == "int8":
        measure_int8()
    else:
        measure_learning(args.data, args.output, args.seeds)


if __name__ == "__main__":
    main()
