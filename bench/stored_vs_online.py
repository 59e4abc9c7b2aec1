"""One student and one teacher: labels stored once, or computed by the teacher at every step.

    python bench/stored_vs_online.py --data IMAGES/train --val IMAGES/val --teacher resnet152 \
        --checkpoint teacher.safetensors --config fkd_resnet50 --output runs/compare [--epochs 100 ...]

Stores the teacher's labels (top K of M random crops an image), trains the recipe's student from them, and
trains it again on fresh random crops that the teacher labels during training; further flags are keys of the
recipe and apply to both. Prints seconds of training, the teacher's share of them, seconds to a top-1 that
both reach (or `--target`), bytes stored, final top-1, and the ratio of both training times, also including
the time of labelling, which is needed only once for all students.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from fkdx.generate.program import main as generate
from fkdx.models.online import OnlineTeachers
from fkdx.train.loop import main as train


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="training images, one folder a class")
    parser.add_argument("--val", required=True, help="validation images, one folder a class")
    parser.add_argument("--teacher", required=True, help="timm model")
    parser.add_argument("--checkpoint", required=True, help="its weights")
    parser.add_argument("--teacher-input", default="{}", help="size, mean, std where not its usual, as YAML")
    parser.add_argument("--config", required=True, help="recipe of the student")
    parser.add_argument("--crops", type=int, default=200, help="stored crops an image (M)")
    parser.add_argument("--topk", type=int, default=5, help="classes stored a crop (K)")
    parser.add_argument("--scale", type=float, nargs=2, default=[0.08, 1.0], help="of all random crops")
    parser.add_argument("--target", type=float, help="top-1 to reach, in percent")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    args, recipe = parser.parse_known_args()
    args.output.mkdir(parents=True)

    labels, labelling = args.output / "labels.fkdl", Stopwatch()
    labelling.around(lambda: expect_success(generate(store(args, labels))))()
    common = ["--config", args.config, "--data", args.data, "--val", args.val, *recipe]
    common += ["--scale", str(args.scale)]
    asked = ["--teacher", args.teacher, "--teacher-checkpoint", args.checkpoint]
    asked += ["--teacher-input", args.teacher_input]
    ways = {
        "stored": run(args.output / "stored", [*common, "--labels", str(labels)]),
        "online": run(args.output / "online", [*common, *asked]),
    }
    target = args.target or min(way["top1"] for way in ways.values())
    print(table(ways, labelling.seconds, labels.stat().st_size, target))
    return 0


class Stopwatch:
    """Sums the seconds that a function takes, on the GPU too."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable) -> Callable:
        def timed(*arguments: object) -> object:
            begun = now()
            try:
                return function(*arguments)
            finally:
                self.seconds += now() - begun

        return timed


def now() -> float:
    """Seconds, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


def store(args: argparse.Namespace, labels: Path) -> list[str]:
    """The arguments of `fkdx generate`."""
    words = ["--data", args.data, "--teacher", args.teacher, "--checkpoint", args.checkpoint]
    for name, value in yaml.safe_load(args.teacher_input).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    words += ["--crops", str(args.crops), "--scale", *map(str, args.scale)]
    return [*words, "--kind", "topk", "--topk", str(args.topk), "-o", str(labels)]


def run(output: Path, arguments: list[str]) -> dict:
    """One training: its seconds, the teacher's among them, and its (seconds, top-1) curve."""
    whole, teacher = Stopwatch(), Stopwatch()
    asked = OnlineTeachers.__call__
    OnlineTeachers.__call__ = teacher.around(asked)
    begun = now()
    try:
        whole.around(lambda: expect_success(train([*arguments, "--output", str(output)])))()
    finally:
        OnlineTeachers.__call__ = asked
    lines = map(json.loads, (output / "log.jsonl").read_text().splitlines())
    curve = [(line["time"] - begun, line["top1"]) for line in lines if line["kind"] == "evaluation"]
    return {"seconds": whole.seconds, "teacher": teacher.seconds, "curve": curve, "top1": curve[-1][1]}


def expect_success(status: int) -> None:
    if status:
        raise SystemExit(status)


def table(ways: dict[str, dict], labelling: float, stored_bytes: int, target: float) -> str:
    def row(name: str, value: Callable[[dict], str]) -> str:
        return f"| {name} | " + " | ".join(value(way) for way in ways.values()) + " |"

    def reached(way: dict) -> str:
        return next((f"{seconds:.1f}" for seconds, top1 in way["curve"] if top1 >= target), "never")

    stored, online = ways["stored"]["seconds"], ways["online"]["seconds"]
    return "\n".join(
        [
            "| | " + " | ".join(ways) + " |",
            "|---|" + "---|" * len(ways),
            row("seconds of training, with evaluation", lambda way: f"{way['seconds']:.1f}"),
            row("share of the teacher", lambda way: f"{way['teacher'] / way['seconds']:.1%}"),
            row(f"seconds to {target:.2f}% top-1", reached),
            row("final top-1, %", lambda way: f"{way['top1']:.2f}"),
            f"| seconds of labelling, once | {labelling:.1f} | |",
            f"| bytes stored | {stored_bytes:,} | |",
            "",
            f"online / stored, a training: {online / stored:.2f}; with the labelling: "
            f"{online / (stored + labelling):.2f} for one student, "
            f"{10 * online / (10 * stored + labelling):.2f} for ten",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
