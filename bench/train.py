"""Measure whole training steps: python bench/train.py --images DIR [--student NAME] [--size 224]

By default the student is so tiny that a CPU measures more than the student; on a GPU, use `--student
resnet50`.

Three ways to feed the same student take turns, and the median of each is printed in crops per second:

    resident   the same batch again and again: what the student alone can do
    fkdx       stored crops through CropLoader, prepare and soft_cross_entropy
    fkd        FKD as published: one pickled label file per image, PIL, dense targets, a torch DataLoader

`waits` is the share of time that steps wait for their batch. The losses are compared first.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import timm
import torch
from loader import write_labels
from loader_systems import Work, reference
from torch import Tensor, nn

from fkdx import CropLoader, LabelFile, soft_cross_entropy
from fkdx.batch import prepare

Batches = Iterator[tuple[Tensor, Tensor]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, <class>/<name>")
    parser.add_argument("--student", metavar="NAME", help="timm model (default: test_vit, one block of it)")
    parser.add_argument("--size", type=int, default=224, help="side of a crop, a multiple of 7")
    parser.add_argument("--batch", type=int, default=128, help="crops of a batch")
    parser.add_argument("--m", type=int, default=4, help="crops of an image in a batch")
    parser.add_argument("--threads", type=int, default=1, help="of the loaders")
    parser.add_argument("--stored", type=int, default=200, help="stored crops of an image")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every way")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.backends.cudnn.benchmark = True  # as the trainer: a faster student asks more of its loader
    with tempfile.TemporaryDirectory() as folder:
        write_labels(args.images, Path(folder), args.stored)
        keys = list(LabelFile(Path(folder) / "labels.fkdl").keys)
        work = Work(args.images, Path(folder) / "labels.fkdl", Path(folder) / "tars", keys, 1000)
        work.size, work.batch, work.crops, work.threads, work.floats = (
            args.size,
            args.batch,
            args.m,
            args.threads,
            True,
        )
        ways = summary(measure(work, args, device, dtype))
    print(table(ways))
    if args.json:
        args.json.write_text(json.dumps(ways, indent=1))
    return 0


def measure(work: Work, args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict:
    """{way: [(crops a second, share of waiting), ...]} of all turns."""
    labels = LabelFile(work.labels)
    loader = CropLoader(
        work.root, labels, work.batch, work.crops, work.size, threads=work.threads, device=device
    )
    torch.manual_seed(0)
    tiny = {"img_size": args.size, "patch_size": args.size // 7, "embed_dim": 16, "depth": 1, "num_heads": 1}
    name, more = (args.student, {}) if args.student else ("test_vit", tiny)
    model = timm.create_model(name, num_classes=labels.num_classes, **more)
    step = make_step(model, device, dtype)
    one = next(iter(loader))
    check(prepare(one.images, dtype=dtype), one.target, step)
    ways: dict[str, Iterator] = {
        "resident": cycle([one]),
        "fkdx": (batch for _ in cycle([0]) for batch in loader),
        "fkd": reference(work),
    }
    turns = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, batches in ways.items():
            # FKD's workers go on in the others' turns: what they have ready, two batches each, is left out.
            for _ in range(2 * work.threads if name == "fkd" else 0):
                next(batches)
            turns[name].append(turn(batches, step, args.seconds, work.batch, device))
    return turns


def make_step(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    """One step of training on (images, target), normalised and dense, or on a Batch of fkdx."""
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(batch: object) -> Tensor:
        if isinstance(batch, tuple):
            images, target = (part.to(device, non_blocking=True) for part in batch)
        else:
            images, target = prepare(batch.images, dtype=dtype), batch.target
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images)
        if isinstance(target, Tensor):
            loss = -(target * logits.float().log_softmax(1)).sum(1).mean()
        else:
            loss = soft_cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def check(images: Tensor, target: object, step: Callable[..., Tensor]) -> None:
    """The dense and the fused loss of the same logits must be one number."""
    logits = torch.randn(len(images), target.num_classes, device=images.device)
    dense = -(target.to_dense() * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, target), dense, rtol=1e-5, atol=1e-5)


def turn(
    batches: Iterator, step: Callable[..., Tensor], seconds: float, crops: int, device: torch.device
) -> tuple[float, float]:
    for _ in range(2):
        step(next(batches)).item()
    steps, waited, begun = 0, 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        loss = step(batch)
        steps += 1
    loss.item()  # until the device is done
    spent = time.perf_counter() - begun
    return steps * crops / spent, waited / spent


def summary(turns: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Medians of every way's turns."""
    rates = {name: statistics.median(rate for rate, _ in rows) for name, rows in turns.items()}
    return {
        name: {
            "crops_per_second": rates[name],
            "of_resident": rates[name] / rates["resident"],
            "waits": statistics.median(wait for _, wait in rows),
        }
        for name, rows in turns.items()
    }


def table(ways: dict[str, dict[str, float]]) -> str:
    lines = ["| way | crops/s | of resident | waits |", "|---|---|---|---|"]
    for name, way in ways.items():
        rate, share, waits = way.values()
        lines.append(f"| {name} | {rate:.0f} | {share:.3f} | {waits:.1%} |")
    ratio = ways["fkdx"]["crops_per_second"] / ways["fkd"]["crops_per_second"]
    return "\n".join([*lines, "", f"fkdx / fkd: {ratio:.2f}"])


if __name__ == "__main__":
    raise SystemExit(main())
