"""Batches on the GPU against eager torch, a teacher's top K against softmax + topk; answers checked first.

python bench/batch.py [--device cpu|cuda] [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from timing import gpu_time, wall
from torch import Tensor

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD, prepare
from fkdx.batch.mix import Mix, Mixer
from fkdx.batch.topk import topk_probabilities

MIXERS = {"plain": Mixer(), "Mixup": Mixer(mixup=0.2), "CutMix": Mixer(cutmix=1.0)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args(argv)
    results = []
    for result in chain(prepare_results(args.device), topk_results() if args.device == "cuda" else ()):
        results.append(result)
        if args.json:  # after each, so that a run that is cut off has what it measured
            args.json.write_text(json.dumps(results, indent=1))
    return 0


def eager(
    images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype, kind: str, mix: Mix | None
) -> Tensor:
    """What a training script does without fkdx."""
    pixels = images.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
    if kind == "Mixup":
        pixels = torch.lerp(pixels, pixels[mix.partners], mix.blend[:, None, None, None])
    elif kind == "CutMix":
        y = torch.arange(images.shape[1], device=images.device)[:, None]
        x = torch.arange(images.shape[2], device=images.device)
        top, left, height, width = (part[:, None, None, None] for part in mix.boxes.unbind(1))
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        pixels = torch.where(inside, pixels[mix.partners], pixels)
    return pixels.to(dtype, memory_format=torch.channels_last)


def prepare_results(device: str) -> Iterator[dict]:
    rows, size = (1024, 224) if device == "cuda" else (64, 224)
    dtype = torch.bfloat16
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=device)[:, :, None, None]
    for name, mixer in MIXERS.items():
        mix = mixer.draw(rows, size, size, np.random.default_rng(0))
        mix = mix and mix.to(device)

        def images_of(seed: int, mix=mix) -> Tensor:
            generator = torch.Generator(device).manual_seed(seed)
            shape = (rows, size, size, 3)
            return torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)

        systems = {
            "fkdx": lambda images, mix=mix: prepare(images, dtype=dtype, mix=mix),
            "torch eager": lambda images, name=name, mix=mix: eager(images, mean, std, dtype, name, mix),
        }
        images = images_of(0)
        got, want = (system(images) for system in systems.values())
        torch.testing.assert_close(got, want, rtol=0.01, atol=0.01)
        del got, want
        if device == "cuda":
            moved = 3 * images.numel()
            times = {
                system: gpu_time(lambda i, call=call: bound(call, images_of(i)), moved)
                for system, call in systems.items()
            }
            half = torch.empty(moved // 2, dtype=torch.uint8, device=device)
            times["copy of the same bytes"] = gpu_time(lambda i, half=half: half.clone, moved)
        else:
            times = wall({system: bound(call, images) for system, call in systems.items()}, 20)
        yield report(f"prepare {rows} x {size} x {size} bf16, {name}", times)


def topk_results() -> Iterator[dict]:
    for rows, classes in ((1024, 1000), (4096, 21841)):

        def logits_of(seed: int, rows=rows, classes=classes) -> Tensor:
            generator = torch.Generator("cuda").manual_seed(seed)
            return torch.randn(rows, classes, device="cuda", generator=generator).mul_(3).half()

        systems = {
            "fkdx": lambda z: topk_probabilities(z, 5, dtype=torch.float16),
            "torch softmax + topk": lambda z: torch.softmax(z.float(), 1).topk(5),
        }
        want = torch.softmax(logits_of(0).float(), 1).topk(5).values
        torch.testing.assert_close(topk_probabilities(logits_of(0), 5)[1], want, rtol=1e-5, atol=1e-8)
        times = {
            system: gpu_time(lambda i, call=call: bound(call, logits_of(i)), 2 * rows * classes)
            for system, call in systems.items()
        }
        yield report(f"teacher top 5 of {rows} x {classes} fp16", times)


def bound(call, *arguments):
    return lambda: call(*arguments)


def report(what: str, times: dict[str, float]) -> dict:
    """Print the times, and give them as they are kept."""
    print(what)
    for name, seconds in sorted(times.items(), key=lambda item: item[1]):
        print(f"    {name:<24} {1e6 * seconds:>10.1f} us   {seconds / times['fkdx']:>7.2f} x fkdx")
    return {"what": what, "us": {name: 1e6 * seconds for name, seconds in times.items()}}


if __name__ == "__main__":
    sys.exit(main())
