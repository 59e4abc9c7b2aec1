"""`fkdx generate`: run teachers over stored crops of every image and write what they say into label files."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from importlib import metadata
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from fkdx._version import __version__
from fkdx.generate.collect import Output, finish
from fkdx.generate.draw import CropsOfFile, Policy, RandomCrops
from fkdx.generate.feed import Feed
from fkdx.generate.forecast import evaluate, forecast, status
from fkdx.generate.loop import Labelling
from fkdx.generate.options import parse
from fkdx.generate.pairs import Pairs
from fkdx.generate.shards import Job, Shard, plan_shards, write_json
from fkdx.generate.stored import StoredAugment, StoredPairs
from fkdx.image.augment import Augment
from fkdx.labels import fingerprint
from fkdx.models.build import load_teacher
from fkdx.models.machine import pick_device
from fkdx.models.teacher import Teacher
from fkdx.stores.sources import Source, open_source, read_lines

Draw = RandomCrops | Policy | CropsOfFile
WAIT_SECONDS = 600  # that processes wait for the one of rank 0
LIBRARIES = ("torch", "timm", "pillow", "numpy")  # whose versions may change a label


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.status:
            print(status(Path(args.output)))
        else:
            run(args)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; repeat the command to go on where it was") from None
    return 0


def run(args: argparse.Namespace) -> None:
    source = open_source(args.data)
    folders = sorted({name for name in source.classes if name})
    teachers = load_teachers(args, len(folders))
    classes = None if args.head else name_classes(teachers, folders, args)
    if args.evaluate and rank() == 0:
        for teacher in teachers:
            print(evaluate(teacher, args.evaluate, classes, args.batch_size))
    if args.output:
        label(args, source, teachers, classes)


def label(
    args: argparse.Namespace, source: Source, teachers: list[Teacher], classes: list[str] | None
) -> None:
    """Do the work that no other process does; rank 0 also begins the job and finishes the files."""
    draw = pick_crops(args)
    pairs = pick_pairs(args, teachers, source, draw)
    outputs = plan_outputs(args, teachers, classes, draw, pairs)
    shards = plan_shards(len(source), draw.crops, args.batch_size)
    settings = describe(args, source, teachers, draw, pairs, len(shards))
    with make_feed(args, source, teachers, draw, pairs) as feed:
        if args.dry_run:
            print(forecast(teachers, feed, outputs, len(shards)))
            return
        job = find_job(args, outputs, settings)
        if job is None:
            print(f"{outputs[0].path}: finished already")
            return
        for output in outputs:
            own = [job.settings["teachers"][member] for member in output.members]
            told = {**job.settings, "teachers": own, **job.notes}
            output.options["dataset"] = told.pop("dataset")
            output.options["provenance"] = told
        labelling = Labelling(job, feed, teachers, outputs, args.temperature, args.strict, quiet=rank() != 0)
        if rank() != 0:
            labelling.run(shards)
            return
        with job.lock():
            while not labelling.run(shards):
                time.sleep(0.5)  # others hold what is left; should they die, it is ours
            conclude(job, shards, outputs)


def find_job(args: argparse.Namespace, outputs: list[Output], settings: dict) -> Job | None:
    """The job, begun by rank 0, for which the others wait; None where its outputs are there already."""
    folder = beside(outputs[0].path, ".parts")
    if rank() == 0:
        shutil.rmtree(beside(outputs[0].path, ".done"), ignore_errors=True)  # of an end that was cut off
        if not folder.exists() and already_made(outputs, settings):
            return None
        return Job.begin(folder, settings, {"command": args.command}, len(outputs))
    for _ in range(10 * WAIT_SECONDS):
        try:
            return Job(folder, settings)
        except FileNotFoundError:
            if already_made(outputs, settings):
                return None
            time.sleep(0.1)
    raise TimeoutError(f"generate: no job was begun by rank 0 within {WAIT_SECONDS} s, path {folder}")


def conclude(job: Job, shards: list[Shard], outputs: list[Output]) -> None:
    """Make the outputs and the report of a finished job, and remove its folder."""
    for number, output in enumerate(outputs):
        finish(job, shards, output, number)
    reports = [job.report(shard) for shard in shards]
    failed = [entry for report in reports for entry in report["failed"]]
    report = beside(outputs[0].path, ".report.json")
    write_json(report, {"settings": job.settings, **job.notes, "failed": failed, "shards": reports})
    done = job.folder.rename(beside(outputs[0].path, ".done"))  # half removed, it must not look like a job
    shutil.rmtree(done)
    if failed:
        print(f"{len(failed)} images could not be read; see {report}", file=sys.stderr)
    images = sum(report["images"] for report in reports)
    for output in outputs:
        print(f"{output.path}: labels of {images} images")


def already_made(outputs: list[Output], settings: dict) -> bool:
    """Whether these outputs are there. FileExistsError where a file of another origin has such a name."""
    report = beside(outputs[0].path, ".report.json")
    ours = report.exists() and json.loads(report.read_text())["settings"] == settings
    there = [output.path for output in outputs if output.path.exists()]
    if there and not (ours and len(there) == len(outputs)):
        raise FileExistsError(f"generate: the output exists; remove it or choose another, path {there[0]}")
    return bool(there)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def rank() -> int:
    return int(os.environ.get("RANK", 0))


# ---- what the options mean --------------------------------------------------------------------------


def load_teachers(args: argparse.Namespace, num_classes: int) -> list[Teacher]:
    given = {name: getattr(args, name) for name in ("size", "interpolation", "mean", "std")}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    device = pick_device(args.device)
    precision = args.precision or ("bfloat16" if device.type == "cuda" else "float32")
    checkpoints = [None if weights == "pretrained" else weights for weights in args.checkpoint or []]
    return [
        load_teacher(
            *(name, weights, args.pretrained, num_classes, given, device, precision, args.compile),
            head=args.head,
            maps=args.maps,
        )
        for name, weights in zip(args.teacher, checkpoints or [None] * len(args.teacher))
    ]


def name_classes(teachers: list[Teacher], folders: list[str], args: argparse.Namespace) -> list[str]:
    """The teachers' classes in order: --classes, or ImageNet's if the folders are its, or the folders."""
    outputs = teachers[0].num_outputs
    if args.classes:
        names, origin = read_lines(args.classes), args.classes
    else:
        subset = infer_imagenet_subset({"num_classes": outputs})
        known = ImageNetInfo(subset).label_names() if subset else []
        fits = known and set(folders) <= set(known)
        names, origin = (known, subset) if fits else (folders, f"the folders in {args.data}")
    for teacher in teachers:
        if teacher.num_outputs != len(names):
            raise ValueError(
                f"generate: {teacher.name} has {teacher.num_outputs} classes, got {len(names)} of {origin}; "
                "give its class names in order as --classes FILE"
            )
    strangers = sorted(set(folders) - set(names))
    if strangers:
        raise ValueError(
            f"generate: folders that are no class of it, got {len(strangers)} ({strangers[0]}, ...), "
            f"expected names of {origin}, path {args.data}"
        )
    return names


def pick_crops(args: argparse.Namespace) -> Draw:
    if args.crops_from:
        return CropsOfFile(args.crops_from)
    if args.policy:
        return Policy(args.policy, args.seed)
    return RandomCrops(args.crops, args.seed, tuple(args.scale), tuple(args.ratio), args.flip)


def pick_pairs(
    args: argparse.Namespace, teachers: list[Teacher], source: Source, draw: Draw
) -> Pairs | StoredPairs | None:
    """How crops are mixed with those of other images; None where they are not."""
    stored = isinstance(draw, CropsOfFile) and draw.labels.mix_size
    if not (args.mixup or args.cutmix or stored):
        return None
    sizes = {teacher.preprocess.size for teacher in teachers}
    if stored and (args.mixup or args.cutmix):
        raise ValueError(f"generate: crops that are mixed already, got --mixup or --cutmix, path {draw.path}")
    if len(sizes) > 1 or (stored and sizes != {stored}):
        got, expected = sorted(sizes), stored or "one"
        raise ValueError(f"generate: size of mixed crops, got {got}, expected {expected}; see --size")
    if stored:
        return StoredPairs(draw.labels, source)
    if len(source) < 2:
        raise ValueError("generate: images to mix, got 1, expected at least 2")
    partner = RandomCrops(args.crops, args.seed, tuple(args.scale), tuple(args.ratio), args.flip)
    return Pairs(args.mixup, args.cutmix, partner, sizes.pop())


def make_feed(
    args: argparse.Namespace,
    source: Source,
    teachers: list[Teacher],
    draw: Draw,
    pairs: Pairs | StoredPairs | None,
) -> Feed:
    shapes = [teacher.shape for teacher in teachers]
    pinned = teachers[0].device.type == "cuda"
    changes = pairs, pick_augment(args, draw)
    return Feed(source, draw, args.batch_size, shapes, args.threads, pinned, args.maps, *changes)


def pick_augment(args: argparse.Namespace, draw: Draw) -> Augment | StoredAugment | None:
    """How crops are changed further; None where they are not."""
    if isinstance(draw, CropsOfFile) and draw.labels.extra_operations:
        if args.augment:
            raise ValueError(f"generate: crops that are augmented already, got --augment, path {draw.path}")
        return StoredAugment(draw.labels)
    return Augment(tuple(args.augment), args.seed) if args.augment else None


def plan_outputs(
    args: argparse.Namespace,
    teachers: list[Teacher],
    classes: list[str] | None,
    draw: Draw,
    pairs: Pairs | StoredPairs | None,
) -> list[Output]:
    """The label files of a job: one for all teachers together, or one for each, or both."""
    path, every = Path(args.output), tuple(range(len(teachers)))
    plans = [(path, every)] if args.store != "separate" or len(teachers) == 1 else []
    if len(teachers) > 1 and args.store != "ensemble":
        plans += [(path.with_name(f"{path.stem}.{i}{path.suffix}"), (i,)) for i in every]
    if any(len(members) > 1 for _, members in plans) and "logits" in args.kind:
        raise ValueError(
            f"generate: an ensemble has probabilities, got --kind {args.kind}; use --store separate"
        )
    if pairs and path.suffix != ".fkdl":
        raise ValueError(f"generate: mixed crops go into one file, expected --output NAME.fkdl, path {path}")
    augment, outputs = pick_augment(args, draw), []
    for path, members in plans:
        num_classes = teachers[members[0]].num_outputs
        options = {
            "kind": args.kind,
            "num_classes": num_classes,
            "k": 1 if args.kind in ("hard", "smoothing") else min(args.topk, num_classes),
            "crops": draw.crops,
            "classes": classes,
            "encoding": args.encoding,
            "mix_size": pairs.size if pairs else 0,
            "extra": augment.extra() if augment else None,
        }
        outputs.append(Output(path, members, options))
    return outputs


def describe(
    args: argparse.Namespace,
    source: Source,
    teachers: list[Teacher],
    draw: Draw,
    pairs: Pairs | StoredPairs | None,
    shards: int,
) -> dict:
    """All that decides the labels, as JSON values; a job goes on only where all of it is as it was."""
    settings = {
        "teachers": [teacher.provenance() for teacher in teachers],
        "maps": args.maps,
        "store": args.store if len(teachers) > 1 else "one",
        "kind": args.kind,
        "k": args.topk,
        "encoding": args.encoding,
        "temperature": args.temperature,
        **draw.provenance(),
        **(pairs.provenance() if pairs else {}),
        **({"augment": args.augment} if args.augment else {}),
        "resample": "pillow12",
        "batch_size": args.batch_size,
        "shards": shards,
        "dataset": fingerprint(source.files()),
        "versions": {"fkdx": __version__, **{name: metadata.version(name) for name in LIBRARIES}},
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as in the job's folder
