"""`fkdx generate`: run a teacher over stored crops of every image and write its labels into one file."""

import argparse
import hashlib
import os
import shutil
import signal
import sys
import time
from importlib import metadata
from pathlib import Path

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset

from fkdx._version import __version__
from fkdx.generate.collect import merge_shards
from fkdx.generate.draw import RandomCrops
from fkdx.generate.feed import Feed
from fkdx.generate.loop import Labelling
from fkdx.generate.options import parse
from fkdx.generate.shards import Job, plan_shards, write_json
from fkdx.sources import open_source
from fkdx.teacher import Teacher
from fkdx.zoo import load_teacher

LIBRARIES = ("torch", "timm", "pillow", "numpy")  # whose versions may change a label


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        generate(args)
        return 0
    except KeyboardInterrupt:
        print("fkdx generate: stopped; repeat the command to go on where it was", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"fkdx generate: {str(error).removeprefix('generate: ')}", file=sys.stderr)
        return 1


def generate(args: argparse.Namespace) -> None:
    """Do the work that no other process does; the process of rank 0 also finishes the file."""
    source = open_source(args.data)
    folders = sorted({name for name in source.classes if name})
    teacher = pick_teacher(args, len(folders))
    classes = name_classes(teacher.num_outputs, folders, args)
    target = Path(args.output)
    if target.exists():
        raise FileExistsError(f"generate: the output exists; remove it or choose another, path {target}")
    args.topk = 1 if args.kind in ("hard", "smoothing") else min(args.topk, teacher.num_outputs)
    settings = describe(args, source.keys, teacher)
    job = Job(target.with_name(target.name + ".parts"), settings, {"command": args.command})
    shards = plan_shards(len(source), args.crops, args.batch_size)
    options = {
        "kind": args.kind,
        "num_classes": teacher.num_outputs,
        "k": args.topk,
        "encoding": args.encoding,
        "crops": args.crops,
        "classes": classes,
        "provenance": job.settings | job.notes,
    }
    draw = RandomCrops(args.crops, args.seed, args.scale, args.ratio, args.flip)
    shape = (teacher.preprocess.size, teacher.preprocess.interpolation)
    pinned = teacher.device.type == "cuda"
    with Feed(source, draw, args.crops, args.batch_size, [shape], args.threads, pinned) as feed:
        labelling = Labelling(job, feed, teacher, options, args.temperature, args.strict)
        if int(os.environ.get("RANK", 0)) != 0:
            labelling.run(shards)
            return
        with job.lock():
            while not labelling.run(shards):
                time.sleep(0.5)  # others hold what is left; should they die, it is ours
            failed = merge_shards(job, shards, target, options)
            shutil.rmtree(job.folder)
    report(target, failed, len(source))


def pick_teacher(args: argparse.Namespace, num_classes: int) -> Teacher:
    names = ("size", "interpolation", "mean", "std")
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    device = pick_device(args.device)
    return load_teacher(
        args.teacher,
        args.checkpoint,
        args.pretrained,
        num_classes,
        given,
        device,
        args.precision,
        args.compile,
    )


def pick_device(name: str) -> str:
    """The device by that name; of several GPUs the one that torchrun gives to this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"generate: device, got {name}, but torch sees no GPU; try --device cpu")
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name


def name_classes(outputs: int, folders: list[str], args: argparse.Namespace) -> list[str]:
    """The teacher's classes in its order: --classes, or ImageNet's if the folders are its, or the folders."""
    if args.classes:
        names, origin = Path(args.classes).read_text().split(), args.classes
    else:
        subset = infer_imagenet_subset({"num_classes": outputs})
        known = ImageNetInfo(subset).label_names() if subset else []
        names, origin = (known, subset) if set(folders) <= set(known) else (folders, args.data)
    if len(names) != outputs:
        raise ValueError(
            f"generate: {args.teacher} has {outputs} classes, got {len(names)} of {origin}; "
            "give its class names in order as --classes FILE"
        )
    strangers = sorted(set(folders) - set(names))
    if strangers:
        raise ValueError(
            f"generate: folders that are no class of it, got {len(strangers)} ({strangers[0]}, ...), "
            f"expected names of {origin}, path {args.data}"
        )
    return names


def describe(args: argparse.Namespace, keys: list[str], teacher: Teacher) -> dict:
    """All that decides the labels, as JSON values; a job goes on only where all of it is as it was."""
    return {
        "teacher": teacher.provenance(),
        "kind": args.kind,
        "k": args.topk,
        "encoding": args.encoding,
        "temperature": args.temperature,
        "crops": args.crops,
        "policy": "random resized crop",
        "scale": list(args.scale),
        "ratio": list(args.ratio),
        "flip": args.flip,
        "seed": args.seed,
        "resample": "pillow12",
        "batch_size": args.batch_size,
        "images": len(keys),
        "keys_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        "versions": {"fkdx": __version__, **{name: metadata.version(name) for name in LIBRARIES}},
    }


def report(target: Path, failed: list[dict], images: int) -> None:
    if failed:
        path = target.with_name(target.name + ".failed.json")
        write_json(path, failed)
        print(f"{len(failed)} of {images} images could not be read; reasons: {path}", file=sys.stderr)
    print(f"{target}: {target.stat().st_size:,} bytes, labels of {images - len(failed)} images")
