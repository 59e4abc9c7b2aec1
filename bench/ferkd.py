"""FKD and FerKD at small scale: what each part of the method brings to a student, several seeds each.

    python bench/ferkd.py cifar --data CIFAR --output runs/ferkd_cifar --seeds 3
    python bench/ferkd.py scenes --output runs/ferkd_scenes --seeds 3

CIFAR holds train/<class>/*.jpg and test/<class>/*.jpg; scenes are drawn. Trains four teachers on all images,
stores their labels of the same crops of some of them, and trains students on those, seed after seed. Finished
runs are kept: repeat the command to continue after an interruption, or to add seeds and print the table
again.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from fkdx.cli import main as fkdx
from fkdx.commands.demo import last_top1
from fkdx.image import scenes

CROPS, EPOCHS = 16, 20
MANY_CROPS, MANY_EPOCHS = 32, 96  # where m is compared: a pass of m = 32 crops is a third of the training
NETWORK = "test_resnet"  # of students and teachers
TEACHERS = 4  # equally good ones, so that only their number counts


@dataclass(frozen=True)
class Setting:
    """One data set: its networks' input, how much of it students see, how long teachers learn."""

    size: int
    scale: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images_a_class: int
    few_a_class: int  # where m is compared
    teacher_epochs: int
    validation: str

    def pixels(self) -> list:
        mean, std = list(self.mean), list(self.std)
        return ["--size", self.size, "--mean", mean, "--std", std, "--scale", list(self.scale)]


SETTINGS = {
    "cifar": Setting(32, (0.25, 1), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 1000, 200, 8, "test"),
    "scenes": Setting(64, (0.08, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 250, 50, 20, "val"),
}
RECIPE = [
    *("--student", NETWORK, "--optimizer", "adamw", "--weight-decay", 0.05, "--decay-all", "false"),
    *("--smooth", "true", "--crop-ratio", 1.0, "--eval-every", 1000, "--save-minutes", 60, "--device", "cpu"),
]


def ways(labels: list[Path], dense: Path) -> dict[str, list]:
    """What is compared, by name: the flags of its students."""
    fkd = ["--labels", labels[0]]
    calibration = ["--calibrate", [0.15, 0.3, 0.95]]
    two, four = (["--ensemble", [str(path) for path in labels[1:n]]] for n in (2, 4))
    selfmix = ["--selfmix", 1.0]
    found = {
        "classes, random crops": ["--hard"],
        "FKD": fkd,
        "FKD + calibration": [*fkd, *calibration],
        "FKD + calibration + SelfMix": [*fkd, *calibration, *selfmix],
        "FKD + calibration + SelfMix + 2 teachers": [*fkd, *calibration, *selfmix, *two],
        "FKD + calibration + SelfMix + 4 teachers": [*fkd, *calibration, *selfmix, *four],
        "FKD + 2 teachers": [*fkd, *two],
        "FKD + 4 teachers": [*fkd, *four],
        "FKD + calibration by truth": [*fkd, *calibration, "--score", "truth"],
        "FKD + SelfMix": [*fkd, *selfmix],
        "FKD + CutMix": [*fkd, "--cutmix", 1.0],
        "FKD + Mixup": [*fkd, "--mixup", 0.2],
        "easy to hard": [*fkd, "--choice", "easy_to_hard"],
        "hard to easy": [*fkd, "--choice", "hard_to_easy"],
        "middle half": [*fkd, "--choice", "range", "--window", [0.25, 0.75]],
    }
    for kind in ("hard", "smoothing", "marginal_renorm"):
        found[f"labels {kind}"] = [*fkd, "--label-kind", kind]
    found["labels full"] = ["--labels", dense]
    return found


def ways_of_m(few: Path, many: Path) -> dict[str, list]:
    """The same crops of fewer images for more epochs, m at a time (FKD's Table 7)."""
    seen = ["--data", few, "--labels", many, "--epochs", MANY_EPOCHS]
    return {f"m = {m}": [*seen, "--crops-per-image", m] for m in (1, 2, 4, 8, 16, 32)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as JPEG files; scenes are drawn into --output")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="of what is compared; FKD and m = 1 are always there"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of students (default: %(default)s)")
    parser.add_argument("--teacher-epochs", type=int, help="default: the setting's")
    parser.add_argument(
        "--images", type=int, metavar="N", help="of a class for students (default: the setting's)"
    )
    args = parser.parse_args()
    setting = SETTINGS[args.setting]
    data = args.data or draw_scenes(args.output / "scenes")
    val = ["--val", data / setting.validation]
    part = link_part(data / "train", args.output / "part", args.images or setting.images_a_class)
    epochs = args.teacher_epochs or setting.teacher_epochs
    labels = []
    for number in range(TEACHERS):
        run = args.output / f"teacher-{number}"
        teach = ["--hard", "--crops-per-image", 1, "--epochs", epochs, "--lr", 0.002]
        train(run, setting, "--data", data / "train", *val, *teach, "--warmup-epochs", 1, "--seed", number)
        labels.append(store(part, run, setting, "topk"))
    dense = store(part, args.output / "teacher-0", setting, "dense")
    few = link_part(data / "train", args.output / "few", setting.few_a_class)
    many = store(few, args.output / "teacher-0", setting, "topk", MANY_CROPS)
    groups = {"FKD": ways(labels, dense), "m = 1": ways_of_m(few, many)}
    for base, compared in groups.items():
        wanted = {base, *(args.only or compared)}
        groups[base] = {name: flags for name, flags in compared.items() if name in wanted}
    for seed in range(args.seeds):
        for base, compared in groups.items():
            for name, flags in compared.items():
                learn = ["--epochs", args.epochs, "--lr", 0.003, "--seed", seed]
                train(run_of(args.output, name, seed), setting, "--data", part, *val, *learn, *flags)
            print(table(args.output, list(compared), base, seed + 1), flush=True)


def train(run: Path, setting: Setting, *flags: object) -> None:
    """One run of the trainer, unless it is over already."""
    if not (run / "last.safetensors").exists():
        batch = ["--batch-size", 256, "--crops-per-image", 4]
        call("train", "--output", run, *setting.pixels(), *RECIPE, *batch, *flags)


def store(images: Path, run: Path, setting: Setting, kind: str, crops: int = CROPS) -> Path:
    """The labels of a trained teacher; all teachers label the same crops."""
    path = run / (f"{kind}.fkdl" if crops == CROPS else f"{kind}-{crops}.fkdl")
    if not path.exists():
        pixels = ["--size", setting.size, "--mean", *setting.mean, "--std", *setting.std]
        teacher = ["--teacher", NETWORK, "--checkpoint", run / "last.safetensors", "--kind", kind]
        stored = ["--crops", crops, "--scale", *setting.scale, "--interpolation", "bilinear"]
        call("generate", "--data", images, *teacher, *pixels, *stored, "-o", path)
    return path


def call(*words: object) -> None:
    if status := fkdx([str(word) for word in words]):
        raise SystemExit(status)


def draw_scenes(folder: Path) -> Path:
    for number, (name, images) in enumerate((("train", 4000), ("val", 2000))):
        if not (folder / name).exists():
            scenes.draw_folder(folder / name, images, seed=number)
    return folder


def link_part(images: Path, folder: Path, images_a_class: int) -> Path:
    """A folder of links to the first images of each class."""
    for path in images.iterdir():
        target = folder / path.name
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(path.iterdir())[:images_a_class]:
            if not (target / file.name).exists():
                (target / file.name).symlink_to(file.resolve())
    return folder


def run_of(output: Path, name: str, seed: int) -> Path:
    return output / name.replace(" ", "_").replace(",", "") / str(seed)


def table(output: Path, names: list[str], base: str, seeds: int) -> str:
    """Top-1 of every kind of student: mean, spread, and mean difference from `base`, same seed."""
    top1 = {name: [last_top1(run_of(output, name, seed)) for seed in range(seeds)] for name in names}
    teachers = ", ".join(f"{last_top1(output / f'teacher-{i}'):.1f}" for i in range(TEACHERS))
    lines = [f"\nteachers {teachers}\n", f"| {seeds} seeds | top-1 | to {base} |", "|---|---|---|"]
    for name, values in top1.items():
        apart = [value - base for value, base in zip(values, top1[base])]
        spread = [f" +- {statistics.stdev(v):.2f}" if seeds > 1 else "" for v in (values, apart)]
        shown = f"{statistics.mean(values):.2f}{spread[0]} | {statistics.mean(apart):+.2f}{spread[1]}"
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
