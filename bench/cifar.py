"""CIFAR-10 as JPEG files from start to end: a teacher, its stored labels, and four students of one kind.

    python bench/cifar.py --data CIFAR --output runs/cifar [--seeds 0 1 2]

CIFAR holds train/<class>/*.jpg and test/<class>/*.jpg. Trains a teacher, stores its labels (top 5)
of 8 crops of every image, and trains one kind of student from the stored labels, from the classes, and from
the teacher itself on the same crops. It first checks that both losses of a batch are the same.
"""

import argparse
import statistics
from pathlib import Path

import timm
import torch
import yaml
from safetensors.torch import load_file

from fkdx import CropLoader, soft_cross_entropy
from fkdx.batch import prepare
from fkdx.commands.demo import call, last_top1

RECIPES = Path(__file__).parent / "recipes"
CROPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--output", type=Path, default=Path("runs/cifar"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the students")
    args = parser.parse_args()
    data = ["--data", args.data / "train", "--val", args.data / "test"]
    train = ("python", "-m", "fkdx.train")
    teacher = args.output / "teacher"
    weights = teacher / "last.safetensors"
    call(*train, "--config", RECIPES / "cifar_teacher.yaml", *data, "--output", teacher)
    labels, dense = args.output / "topk.fkdl", args.output / "dense.fkdl"
    for images, kind, path in ((args.data / "train", "topk", labels), (args.data / "test", "dense", dense)):
        if not path.exists():
            generate(images, weights, kind, path)
        print(f"{kind}: stored and online loss of a batch differ by {loss_gap(images, weights, path):.1e}")

    pixels = {name: recipe()[name] for name in ("size", "mean", "std")}
    online = ["--teacher", "test_resnet", "--teacher-checkpoint", weights, "--teacher-input", pixels]
    ways = {
        "soft": ["--labels", labels],
        "hard": ["--hard"],
        "online": ["--labels", labels, *online],
    }
    print(f"\n{'teacher':<8} {last_top1(teacher):6.2f}")
    for way, flags in ways.items():
        runs = [args.output / f"{way}-{seed}" for seed in args.seeds]
        for seed, run in zip(args.seeds, runs):
            student = RECIPES / "cifar_student.yaml"
            call(*train, "--config", student, *data, *flags, "--seed", seed, "--output", run)
        top1 = [last_top1(run) for run in runs]
        spread = f" +- {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        print(f"{way:<8} {statistics.mean(top1):6.2f}{spread}", flush=True)


def recipe() -> dict:
    """The teacher's recipe; the students see the same pixels."""
    return yaml.safe_load((RECIPES / "cifar_teacher.yaml").read_text())


def generate(images: Path, weights: Path, kind: str, path: Path) -> None:
    colours = ["--mean", *recipe()["mean"], "--std", *recipe()["std"]]
    pixels = ["--size", 32, *colours, "--interpolation", "bilinear"]
    network = ["--teacher", "test_resnet", "--checkpoint", weights]
    policy = ["--crops", CROPS, "--scale", 0.25, 1, "--kind", kind]
    call("fkdx", "generate", "--data", images, *network, *pixels, *policy, "-o", path)


@torch.no_grad()
def loss_gap(images: Path, weights: Path, labels: Path) -> float:
    """|stored - online| soft cross-entropy of one batch of 512 crops, under an untrained student's logits."""
    teacher = timm.create_model("test_resnet", num_classes=10).eval()
    teacher.load_state_dict(load_file(weights))
    batch = next(iter(CropLoader(images, labels, batch_size=512, crops_per_image=4, size=32)))
    pixels = prepare(batch.images, recipe()["mean"], recipe()["std"])
    logits = timm.create_model("test_convnext", num_classes=10)(pixels)
    stored = soft_cross_entropy(logits, batch.target)
    online = soft_cross_entropy(logits, teacher(pixels).softmax(1))
    return abs(float(stored) - float(online))


if __name__ == "__main__":
    main()
