"""`fkdx evaluate`: measure a model's features, without a classifier: by k-NN and a linear probe."""

import argparse
from pathlib import Path

import yaml

from fkdx.commands.options import at_least, purpose
from fkdx.errors import expect
from fkdx.facts import Facts, add_json
from fkdx.loader import ValidationLoader
from fkdx.models.accuracy import accuracy_text
from fkdx.models.build import load_teacher
from fkdx.models.embed import FEATURES, EmbeddingTeacher
from fkdx.models.machine import PRECISIONS, pick_device
from fkdx.stores import class_numbers, open_store
from fkdx.train.distributed import World
from fkdx.train.frozen import Features, check_neighbours, counted, extract, knn, probe, share

_EXAMPLES = """
examples:
  fkdx evaluate --model vit_small_patch16_224 --checkpoint runs/a/last.safetensors --knn DATA --probe DATA
  torchrun --nproc_per_node 8 -m fkdx evaluate --model vit_base_patch16_dinov3 --features cls --knn DATA
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if not (args.knn or args.probe):
        raise ValueError("evaluate: nothing to measure, expected --knn DATA, --probe DATA or both")
    world = World()
    with Facts(args.json, quiet=not world.main) as facts:
        evaluate(args, world, facts)
    world.leave()
    return 0


def evaluate(args: argparse.Namespace, world: World, facts: Facts) -> None:
    """What `--knn` and `--probe` ask for."""
    for folder in filter(None, (args.knn, args.probe)):  # before a model is loaded
        there = all((Path(folder) / name).exists() for name in ("train", "val"))
        expect("evaluate", there, "data", "a folder without them", "train/ and val/ in it", folder)
    expect("evaluate", args.temperature > 0, "--temperature", args.temperature, "a positive number")
    model = load_teacher(
        args.model,
        args.checkpoint,
        args.checkpoint is None,
        overrides={"size": args.size} if args.size else {},
        device=pick_device(args.device),
        precision=args.precision,
        features=args.features,
        arguments=model_arguments(args.model_args),
    )
    features: dict[str, tuple[Features, Features, int]] = {}
    for name, folder in (("knn", args.knn), ("probe", args.probe)):
        if folder:
            if folder not in features:
                features[folder] = measure(model, folder, args, world)
            known, asked, classes = features[folder]
            own = share(asked, world)
            is_knn = name == "knn"
            votes = (
                knn(known, own, args.k, classes, args.temperature) if is_knn else probe(known, own, classes)
            )
            score = counted(votes, asked, world)
            how = "k-NN" if is_knn else "linear probe"
            facts.say(f"{how}: {accuracy_text(score)}, {folder}", **{name: score})


def model_arguments(text: str) -> dict:
    """`--model-args`, a YAML mapping."""
    try:
        arguments = yaml.safe_load(text)
    except yaml.YAMLError as error:
        arguments = " ".join(str(error).split())
    expect("evaluate", isinstance(arguments, dict), "--model-args", arguments, "YAML such as {img_size: 32}")
    return arguments


def measure(
    model: EmbeddingTeacher, folder: str, args: argparse.Namespace, world: World
) -> tuple[Features, Features, int]:
    """Features of the training and of the validation images in a folder, and the number of its classes."""
    stores = [open_store(Path(folder) / part) for part in ("train", "val")]
    classes, _ = class_numbers(stores[0], None)
    expect("evaluate", len(classes) > 0, "data", "no class folders", "train/CLASS/NAME", folder)
    if folder == args.knn:
        check_neighbours(args.k, len(stores[0]))
    found = []
    for store in stores:
        wants = model.preprocess
        loader = ValidationLoader(
            store,
            args.batch_size,
            wants.size,
            wants.crop_ratio,
            classes,
            threads=args.threads,
            rank=world.rank,
            world_size=world.size,
            interpolation=wants.interpolation,
            device=model.device,
        )
        features = extract(model, loader, world)
        loader.close()
        found.append(Features(features.rows.to(model.device), features.classes.to(model.device)))
    return found[0], found[1], len(classes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx evaluate",
        description=purpose(__doc__),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="timm model, torchvision:NAME, or module:function")
    add(
        "--model-args",
        default="{}",
        metavar="YAML",
        help="further arguments of the model, as a recipe's student_args",
    )
    add("--checkpoint", metavar="FILE", help="weights (default: the pretrained ones)")
    add("--features", choices=FEATURES, default="pooled", help="features (default: %(default)s)")
    add(
        "--knn",
        metavar="DATA",
        help="k-NN top-1: validation images (DATA/val) by their nearest training images (DATA/train)",
    )
    add("--probe", metavar="DATA", help="top-1 of a linear classifier learned on DATA/train, for DATA/val")
    add(
        "-k", "--neighbours", type=at_least(1), default=20, dest="k", help="neighbours (default: %(default)s)"
    )
    add("--temperature", type=float, default=0.07, metavar="T", help="of the votes (default: %(default)s)")
    add("--size", type=at_least(1), metavar="PIXELS", help="side of the crops (default: the model's)")
    add(
        "--batch-size",
        type=at_least(1),
        default=64,
        metavar="N",
        help="crops in a batch (default: %(default)s)",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="float32", help="of the model (default: %(default)s)")
    add("--threads", type=at_least(1), metavar="N", help="decoding threads (default: its share of the cores)")
    add_json(parser)
    return parser
