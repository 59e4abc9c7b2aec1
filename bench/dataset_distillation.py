"""A distilled CIFAR-10, its labels in SRe2L's files, and students trained from them in two ways.

    python bench/dataset_distillation.py --data CIFAR --output runs/distilled --seeds 3

CIFAR holds train/<class>/*.jpg and test/<class>/*.jpg. Trains a teacher; selects the crops that it
recognises best, as RDED does; labels them in every epoch; and trains students by SRe2L's own procedure
(bench/sre2l.py) and by `fkdx pack` and `fkdx train --config sre2l_resnet18`. It first checks that both have
the same loss on the same batches.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import PIL
import sre2l
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.functional import normalize, to_tensor

from fkdx import CropLoader, LabelFile
from fkdx.commands.demo import call, last_top1
from fkdx.train.objective import losses
from fkdx.train.read_recipe import read_recipe
from fkdx.train.schedule import Settings

NETWORK, SIZE = "test_resnet", 32
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
BATCH, TEMPERATURE = 100, 20.0
RULE = "pillow12" if int(PIL.__version__.split(".")[0]) <= 12 else "pillow13"  # of the Pillow that is here
TEACHER = Path(__file__).parent / "recipes" / "cifar_teacher.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--output", type=Path, default=Path("runs/distilled"))
    parser.add_argument("--seeds", type=int, default=3, help="students of each way (default: %(default)s)")
    parser.add_argument("--ipc", type=int, default=50, help="images a class (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="of labels (default: %(default)s)")
    parser.add_argument("--teacher-epochs", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of SRe2L's loader (default: %(default)s)")
    args = parser.parse_args()
    where = args.output / "teacher"
    if not (where / "last.safetensors").exists():
        flags = ["--config", TEACHER, "--epochs", args.teacher_epochs, "--eval-every", 100]
        call(
            "fkdx",
            "train",
            *flags,
            "--data",
            args.data / "train",
            "--val",
            args.data / "test",
            "--output",
            where,
        )
    teacher = timm.create_model(NETWORK, num_classes=10).eval()
    teacher.load_state_dict(load_file(where / "last.safetensors"))

    images, old, new = (args.output / name for name in ("images", "labels", "labels.fkdl"))
    if not images.exists():
        select(args.data / "train", images, teacher, args.ipc)
    if not old.exists():
        sre2l.relabel(images, teacher, old, args.epochs, BATCH, SIZE, MEAN, STD)
    if not new.exists():
        call("fkdx", "pack", old, "-o", new, "--images", images, "--mix-size", SIZE)
    before = sum(path.stat().st_size for path in old.rglob("*.tar"))
    print(f"labels: {before / 1e6:.2f} MB as SRe2L's files, {new.stat().st_size / 1e6:.2f} MB packed")
    replayed, student = (
        sre2l.Replayed(images, old, SIZE, MEAN, STD),
        timm.create_model(NETWORK, num_classes=10),
    )
    gaps = loss_gaps(replayed, LabelFile(new), student.eval(), BATCH)
    print(f"losses of {len(gaps)} batches differ by {max(gaps):.1e} at most", flush=True)

    found = {"SRe2L's own": [], "fkdx": []}
    for seed in range(args.seeds):
        found["SRe2L's own"].append(original(args, images, old, seed))
        found["fkdx"].append(packed(args, images, new, seed))
        print(
            *(f"{way}: {pairs[-1][0]:.2f} %, {pairs[-1][1]:.1f} steps/s" for way, pairs in found.items()),
            flush=True,
        )
    print(f"\nteacher {last_top1(where):.2f} %\n")
    print(f"| {args.seeds} seeds | top-1, % | steps/s (median) |\n|---|---|---|")
    for way, pairs in found.items():
        top1, speed = zip(*pairs, strict=True)
        spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        print(f"| {way} | {statistics.mean(top1):.2f}{spread} | {statistics.median(speed):.1f} |")
    ratios = [ours / theirs for (_, theirs), (_, ours) in zip(*found.values(), strict=True)]
    print(f"\nsteps/s, fkdx to SRe2L's own: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")


@torch.no_grad()
def select(source: Path, target: Path, teacher: torch.nn.Module, ipc: int) -> None:
    """Of one central square of each of some images, those in which the teacher sees the class best (RDED)."""
    for number, folder in enumerate(sorted(source.iterdir())):
        files = sorted(folder.iterdir())[: 10 * ipc]
        pixels = torch.stack(
            [normalize(to_tensor(Image.open(file).convert("RGB")), MEAN, STD) for file in files]
        )
        hard = sre2l.hardness(teacher, pixels, torch.full((len(files),), number))
        (target / folder.name).mkdir(parents=True)
        for place in hard.argsort()[:ipc].tolist():
            (target / folder.name / files[place].name).symlink_to(files[place].resolve())


@torch.no_grad()
def loss_gaps(
    replayed: sre2l.Replayed, labels: LabelFile, student: torch.nn.Module, batch_size: int, count: int = 20
) -> list[float]:
    """|SRe2L's loss - fkdx's| of batches, under a student's logits for the pixels that each makes itself."""
    size, mean, std = replayed.pixels
    images = Path(replayed.images.root)
    names = [Path(path).relative_to(images).as_posix() for path, _ in replayed.images.samples]
    places, kept = {}, {}
    for epoch, number, chosen in sre2l.batches(len(names), labels.crops, batch_size):
        for row, index in enumerate(chosen):
            places[names[index], epoch] = (epoch, number, tuple(chosen)), row
    stage = read_recipe(["--config", "sre2l_resnet18"])
    now, gaps = Settings(0.0, TEMPERATURE, TEMPERATURE), []
    loader = CropLoader(images, labels, batch_size, 1, size, resample=RULE)
    for batch, _ in zip(loader, range(count)):
        theirs = []
        for key, crop in zip(batch.keys, batch.crops.tolist()):
            index, row = places[key, crop]
            if index not in kept:
                kept[index] = replayed.__getitems__(index)
            theirs.append([part[row] for part in kept[index]])
        mixed, logits = (torch.stack(parts) for parts in zip(*theirs, strict=True))
        expected = sre2l.loss_of(student(mixed), logits, TEMPERATURE)
        pixels, taught = batch.prepared(mean, std, teacher_temperature=None)
        ours = losses(stage, now, student(pixels), taught, None, bare=True).mean()
        gaps.append(abs(ours.item() - expected.item()))
        torch.testing.assert_close(pixels, mixed, rtol=0, atol=1e-5)
    return gaps


def original(args: argparse.Namespace, images: Path, labels: Path, seed: int) -> tuple[float, float]:
    """Top-1 and steps a second of SRe2L's own procedure."""
    torch.manual_seed(seed)
    student = timm.create_model(NETWORK, num_classes=10)
    replayed = sre2l.Replayed(images, labels, SIZE, MEAN, STD)
    speed = sre2l.learn(student, replayed, args.epochs, BATCH, TEMPERATURE, args.workers)
    return sre2l.accuracy(student, args.data / "test", MEAN, STD), speed


def packed(args: argparse.Namespace, images: Path, labels: Path, seed: int) -> tuple[float, float]:
    """Top-1 and steps a second of fkdx."""
    run = args.output / f"fkdx-{seed}-{time.time():.0f}"
    recipe = ["--config", "sre2l_resnet18", "--student", NETWORK, "--student-args", "{}", "--size", SIZE]
    data = ["--data", images, "--labels", labels, "--val", args.data / "test", "--mean", MEAN, "--std", STD]
    pixels = ["--crop-ratio", 1.0, "--eval-every", 1000, "--save-minutes", 60, "--device", "cpu"]
    more = ["--batch-size", BATCH, "--epochs", args.epochs, "--seed", seed, "--log-every", 1000]
    call("fkdx", "train", *recipe, *data, *pixels, *more, "--output", run)
    return last_top1(run), steps_a_second(run)


def steps_a_second(run: Path) -> float:
    """Of all passes together, without what lies between them."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    lines = [line for line in lines if line["kind"] == "step"]
    done = [line["step"] - before["step"] for before, line in zip([{"step": 0}, *lines], lines)]
    seconds = [steps * BATCH / line["crops_per_second"] for steps, line in zip(done, lines, strict=True)]
    return sum(done) / sum(seconds)


if __name__ == "__main__":
    main()
