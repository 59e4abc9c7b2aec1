"""Run every step from images to a trained student on a data set that is drawn first, in a few minutes.

Every step is a command that you can run yourself on your own images; the demo prints each before it runs it:
draw scenes, train a teacher, store its labels of many crops, write them as an FKD folder too, pack that and
check that both files agree, train a student from the labels and the same from the images' classes, compare
them, and write pages about labels and runs for a browser.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fkdx.commands.options import at_least
from fkdx.labels import LabelFile
from fkdx.loader import CropLoader

TRAIN_IMAGES, VAL_IMAGES, CROPS, TOPK = 2000, 600, 16, 5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx demo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/demo"),
        help="folder to write: a new one, or that of an earlier demo, which is removed (default: runs/demo)",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of scenes, crops and weights (default: a new one every time)"
    )
    parser.add_argument(
        "--processes",
        type=at_least(1),
        default=1,
        help="number of training processes, started by torchrun (default: 1)",
    )
    args = parser.parse_args(argv)
    seed = int.from_bytes(os.urandom(2), "little") if args.seed is None else args.seed
    start = time.time()
    results = run(args.output, seed, args.processes)
    results["minutes"] = (time.time() - start) / 60
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{table(results)}\n\nseed {seed}; everything lies in {args.output}")
    return 0 if results["soft_top1"] > results["hard_top1"] else 1


def run(root: Path, seed: int, processes: int) -> dict[str, float]:
    """All steps; returns the figures of the table."""
    from fkdx.image import scenes  # needs OpenCV, which `fkdx demo --help` does not

    empty(root)
    train, val, labels = root / "data/train", root / "data/val", root / "labels.fkdl"
    heading("1. Draw scenes: a large object, which gives an image its class, among small ones of others")
    scenes.draw_folder(train, TRAIN_IMAGES, seed)
    scenes.draw_folder(val, VAL_IMAGES, seed + 1)

    heading("2. Train a teacher on the images' classes")
    data = ["--data", train, "--val", val]
    teacher = train_command(root / "teacher", processes, "demo_teacher", seed, *data)

    heading(f"3. Store the teacher's labels of {CROPS} crops of every image, in one file")
    policy = ["--crops", CROPS, "--size", 64, "--scale", 0.08, 1, "--seed", seed]
    pixels = ["--mean", 0.5, 0.5, 0.5, "--std", 0.25, 0.25, 0.25]
    network = ["--teacher", "test_resnet", "--checkpoint", teacher, "--topk", TOPK]
    call("fkdx", "generate", "--data", train, *network, *policy, *pixels, "-o", labels)

    heading("4. The same labels the old way, one pickle an image; packed again they must be the same")
    folder, packed = root / "fkd", root / "packed.fkdl"
    call("fkdx", "export", labels, "-o", folder)
    call("fkdx", "pack", folder, "-o", packed, "--images", train, "--num-classes", len(scenes.CLASSES))
    check_agreement(labels, packed)

    heading("5. Train a student from the stored labels")
    train_command(root / "soft", processes, "demo_student", seed, *data, "--labels", labels)

    heading("6. Train the same student from the images' classes, for as many steps")
    train_command(root / "hard", processes, "demo_student", seed, *data, "--hard")

    heading("7. Look at the labels, and at the runs side by side, in a browser")
    call("fkdx", "report", labels, "--images", train, "-o", root / "labels.html")
    runs = [root / name for name in ("teacher", "soft", "hard")]
    call("fkdx", "report", *runs, "-o", root / "runs.html")

    crops = TRAIN_IMAGES * CROPS
    return {
        "bytes_a_crop": labels.stat().st_size / crops,
        "fkd_bytes_a_crop": sum(f.stat().st_size for f in folder.rglob("*.tar")) / crops,
        "crops_a_second": loader_speed(train, labels),
        **{f"{name}_top1": last_top1(root / name) for name in ("teacher", "soft", "hard")},
    }


def empty(root: Path) -> None:
    """Removes an earlier demo's output; refuses any other folder that is not empty."""
    from fkdx.image import scenes

    if not root.exists():
        return
    if any(root.iterdir()) and not (root / "data/train" / scenes.CLASSES[0]).is_dir():
        raise SystemExit(f"demo: the output folder holds something else; choose a new one, {root}")
    shutil.rmtree(root)


def train_command(output: Path, processes: int, recipe: str, seed: int, *flags: object) -> Path:
    """Run the trainer; returns the path of the trained weights."""
    launch = ["torchrun", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    call(*launch, "-m", "fkdx.train", "--config", recipe, "--seed", seed, "--output", output, *flags)
    return output / "last.safetensors"


def call(*words: object) -> None:
    """Show a command, then run it with this Python's programs. Raises SystemExit where it fails."""
    command = [str(word) for word in words]
    print("$ " + shlex.join(command), flush=True)
    programs = {
        "fkdx": [sys.executable, "-m", "fkdx"],
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    }
    status = subprocess.run(programs[command[0]] + command[1:]).returncode
    if status:
        raise SystemExit(f"demo: the command above failed with exit code {status}")


def check_agreement(first: Path, second: Path) -> None:
    """Both label files must hold the same boxes, flips, ids and values of every image."""
    ours, theirs = LabelFile(first), LabelFile(second)
    if list(ours.keys) != list(theirs.keys):
        raise SystemExit(f"demo: {first} and {second} label different images")
    for key in ours.keys:
        for name in ("boxes", "flips", "ids", "values"):
            if not np.array_equal(getattr(ours[key], name), getattr(theirs[key], name)):
                raise SystemExit(f"demo: {name} of {key} differ between {first} and {second}")
    print(f"{first} and {second} agree in every crop of {len(ours)} images")


def loader_speed(images: Path, labels: Path) -> float:
    """Crops a second of the loader alone, one pass over the images with four crops each."""
    loader = CropLoader(images, labels, batch_size=128, crops_per_image=4, size=64)
    start, crops = time.perf_counter(), 0
    for batch in loader:
        crops += len(batch.images)
    return crops / (time.perf_counter() - start)


def last_top1(run: Path) -> float:
    """Top-1 (percent) of the last evaluation in a run's log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["top1"] for line in lines if "top1" in line][-1]


def heading(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def table(results: dict[str, float]) -> str:
    rows = [
        ("label bytes per crop, packed", f"{results['bytes_a_crop']:.1f}"),
        ("label bytes per crop, FKD folder", f"{results['fkd_bytes_a_crop']:.1f}"),
        ("crops per second, loader alone", f"{results['crops_a_second']:.0f}"),
        ("top-1 of the teacher", f"{results['teacher_top1']:.1f} %"),
        ("top-1 of the student, soft labels", f"{results['soft_top1']:.1f} %"),
        ("top-1 of the student, hard labels", f"{results['hard_top1']:.1f} %"),
        ("minutes in all", f"{results['minutes']:.1f}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>8}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
