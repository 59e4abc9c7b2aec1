"""`fkdx verify`: check a label file, alone or against its images and its teacher; or check images alone."""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
from tqdm import tqdm

from fkdx.commands.image_faults import faults_text, match_images
from fkdx.commands.options import add_classes, at_least, progress
from fkdx.errors import refuse
from fkdx.facts import Facts, add_json
from fkdx.image import INTERPOLATIONS, decode_crops, decoder, image_size
from fkdx.image.crops import Interpolation
from fkdx.labels import LabelFile, boxes_from_ratios
from fkdx.labels.distributions import image_probabilities
from fkdx.labels.int8 import MOST
from fkdx.labels.similarity import cosines
from fkdx.loader.verify_images import verify_images
from fkdx.stores import FORMS, Store, match_labels, open_store

CLOSE = 0.99  # a cosine of embeddings that agree
FEATURES_OF = {("cls",): "cls", ("patches",): "patches", ("cls", "patches"): "both"}  # by their names
_INPUTS = ("size", "interpolation", "mean", "std")  # of a teacher: options here, facts in a label file
_PURPOSE = (
    "Check that a label file is undamaged, that it belongs to these images, and that this teacher gives the "
    "same labels. Without a label file: find the images that a loader cannot read."
)


@dataclass(frozen=True)
class Agreement:
    """How far a teacher agrees with stored labels: share of equal top classes, mean absolute difference of
    probabilities. Of embeddings: share of cosines of at least 0.99, mean of 1 - cosine; `gradient`, by what
    share the gradient of the cosine loss differs once dimensions are standardised, 0 of other labels."""

    top1: float
    difference: float
    gradient: float = 0.0


def verify_teacher(
    labels: LabelFile,
    root: "str | os.PathLike | Store",
    teacher: Callable[..., np.ndarray],
    size: int,
    interpolation: Interpolation = "bilinear",
    sample: int = 64,
    crops: int = 4,
    seed: int = 0,
) -> dict[str, Agreement]:
    """Runs a teacher again on a sample of crops: as they are stored, and as a faulty import would store them.

    Args:
        root: folder of the images.
        teacher: (n, size, size, 3) uint8 crops -> (n, C) probabilities, or embeddings (n, K); where crops
            are blended, a `Mix` is its second argument.
        sample, crops: images, and crops of each.

    Returns:
        Agreement by variant: `as stored`; `x and y swapped` (boxes read as left, top, width, height); `not
        flipped`. The first is the best unless boxes or flips are wrong. For mixed or augmented crops: `as
        stored`, and `left plain`, neither mixed nor augmented.
    """
    if labels.mix_size or labels.extra_operations:
        return _verify_changed(labels, root, teacher, size, interpolation, sample, crops, seed)
    chance = np.random.default_rng(seed)
    with_crops = np.flatnonzero(labels.crop_counts)
    store = match_labels(open_store(root), labels, "ignore")
    image_of = store.images_of_labels(len(labels))
    images = chance.permutation(with_crops[image_of[with_crops] >= 0])[:sample].tolist()
    sums = {name: np.zeros(4) for name in ("as stored", "x and y swapped", "not flipped")}
    for number in progress(images, len(images), "teacher"):
        image = labels[number]
        kept = chance.permutation(len(image.flips))[:crops]
        stored = image_probabilities(labels, image)[kept]
        data = store.encoded(int(image_of[number]))
        height, width = image_size(data)
        ratios = image.boxes[kept].astype(np.float64)
        if not labels.ratios:
            ratios /= [height, width, height, width]
        flips = image.flips[kept]
        for name, sum_ in sums.items():
            wanted = ratios[:, [1, 0, 3, 2]] if name == "x and y swapped" else ratios
            boxes = boxes_from_ratios(wanted, height, width)
            boxes[:, 2:] = boxes[:, 2:].clip(1)
            mirrored = np.zeros_like(flips) if name == "not flipped" else flips
            answer = teacher(decode_crops(data, boxes, mirrored, size, interpolation))
            sum_ += _agreement(labels, image.ids[kept].astype(np.int64), stored, answer)
    return {name: _mean(sum_) for name, sum_ in sums.items()}


def _verify_changed(
    labels: LabelFile,
    root: "str | os.PathLike | Store",
    teacher: Callable[..., np.ndarray],
    size: int,
    interpolation: Interpolation,
    sample: int,
    crops: int,
    seed: int,
) -> dict[str, Agreement]:
    """As `verify_teacher`, for crops that only the loader can repeat."""
    from fkdx.loader import CropLoader

    counts = labels.crop_counts
    crops = min(crops, int(counts[counts > 0].min()))
    options = {"seed": seed, "interpolation": interpolation, "on_missing": "ignore"}
    loader = CropLoader(root, labels, crops, crops, size, **options)
    sums = {name: np.zeros(4) for name in ("as stored", "left plain")}
    for batch in progress(islice(loader, sample), min(sample, len(loader)), "teacher"):
        image, kept = labels[batch.keys[0]], batch.crops.numpy()
        shown, boxes = loader.pool.store, image.boxes[kept]
        data = shown.encoded(shown.keys.find(image.key))
        if labels.ratios:
            boxes = boxes_from_ratios(boxes, *image_size(data))
        plain = decode_crops(data, boxes, image.flips[kept], size, interpolation)
        mix = () if batch.mix is None else (batch.mix,)
        stored, ids = image_probabilities(labels, image)[kept], image.ids[kept].astype(np.int64)
        sums["as stored"] += _agreement(labels, ids, stored, teacher(batch.images.numpy(), *mix))
        sums["left plain"] += _agreement(labels, ids, stored, teacher(plain))
    loader.close()
    return {name: _mean(sum_) for name, sum_ in sums.items()}


def _mean(sums: np.ndarray) -> Agreement:
    return Agreement(*(sums[:-1] / sums[-1]).tolist())


def _agreement(labels: LabelFile, ids: np.ndarray, stored: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Sums over crops of: same top class, mean |dp| over the kept classes, 0, 1; see `Agreement`."""
    if labels.embeddings:
        return _likeness(labels, stored, answer)
    if answer.shape[1] != labels.num_classes:
        refuse("verify", "classes of the teacher", answer.shape[1], labels.num_classes, labels.path)
    if labels.kind.startswith("dense"):
        ids = np.broadcast_to(np.arange(labels.num_classes), stored.shape)
    best = np.take_along_axis(ids, stored.argmax(axis=1)[:, None], axis=1)[:, 0]
    difference = np.abs(np.take_along_axis(answer, ids, axis=1) - stored).mean(axis=1)
    return np.array([(answer.argmax(axis=1) == best).sum(), difference.sum(), 0, len(ids)])


def _likeness(labels: LabelFile, stored: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The same of embeddings (n, K); of two, the mean of both cosines. Two zero vectors are alike."""
    if answer.shape[1] != labels.k:
        refuse("verify", "size of the teacher's embeddings", answer.shape[1], labels.k, labels.path)
    ends = np.cumsum(list(labels.embeddings.values()))[:-1]
    stored = labels.standard.teachers(stored)
    parts = list(zip(np.split(stored, ends, axis=1), np.split(answer, ends, axis=1)))
    alike = [np.where(np.isnan(c := cosines(a, b)), ~(a.any(1) | b.any(1)), c) for a, b in parts]
    cosine = np.mean(alike, axis=0)
    return np.array([(cosine >= CLOSE).sum(), (1 - cosine).sum(), _turned(labels, parts).sum(), len(cosine)])


def _turned(labels: LabelFile, parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(n,) by what share the gradient of the cosine loss differs, dimensions standardised; of two embeddings,
    the mean."""
    moments = labels.teachers_moments.values()
    cosine = [cosines(*((x - each.mean) / each.divisor for x in part)) for each, part in zip(moments, parts)]
    return np.nan_to_num(np.sqrt(np.maximum(2 - 2 * np.mean(cosine, axis=0), 0)))


def load(args: argparse.Namespace, labels: LabelFile) -> tuple[Callable, int, str]:
    """The teacher of the command line as (probabilities or embeddings of crops, size, interpolation)."""
    import torch

    from fkdx.batch import prepare
    from fkdx.batch.mix import Mix
    from fkdx.models.build import load_teacher
    from fkdx.models.machine import pick_device

    options = {name: getattr(args, name) for name in _INPUTS if getattr(args, name) is not None}
    inputs = stored_inputs(args.teacher, labels) | options
    pretrained = args.checkpoint is None
    device = pick_device()
    features = None
    if labels.embeddings:
        named = FEATURES_OF.get(tuple(labels.embeddings), "pooled")
        features = stored_facts(args.teacher, labels).get("features", named)
    facts = (args.teacher, args.checkpoint, pretrained, labels.num_classes, inputs, device)
    teacher = load_teacher(*facts, features=features)

    def answers(crops: np.ndarray, mix: Mix | None = None) -> np.ndarray:
        seen = torch.from_numpy(crops)
        if mix is not None:
            seen = prepare(seen, teacher.preprocess.mean, teacher.preprocess.std, mix=mix)
        logits = teacher(seen)
        if labels.embeddings:
            return logits.cpu().numpy()
        return torch.softmax(logits / args.temperature, dim=1).cpu().numpy()

    return answers, teacher.preprocess.size, teacher.preprocess.interpolation


def stored_inputs(teacher: str, labels: LabelFile) -> dict:
    """This teacher's inputs as the label file records them; empty if another teacher made the labels."""
    facts = stored_facts(teacher, labels)
    return {name: facts[name] for name in _INPUTS if facts.get(name) is not None}


def stored_facts(teacher: str, labels: LabelFile) -> dict:
    """What the label file records of this teacher; empty if another one made the labels."""
    provenance = labels.header.get("provenance")
    if not isinstance(provenance, dict):
        return {}
    teachers = [provenance.get("teacher"), *provenance.get("teachers", [])]
    return next((t for t in teachers if isinstance(t, dict) and t.get("name") == teacher), {})


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.labels is None:
        return verify_images_alone(args)
    labels = LabelFile(args.labels)
    with tqdm(total=labels.size, unit="B", unit_scale=True, desc="checksums", disable=None) as bar:
        labels.verify(bar.update)
    with Facts(args.json) as facts:
        return verify_labels(args, labels, facts)


def verify_labels(args: argparse.Namespace, labels: LabelFile, facts: Facts) -> int:
    """A label file whose checksums are right beside its images and its teacher."""
    images, crops = len(labels), int(labels.crop_counts.sum())
    facts.say(
        f"{args.labels}: all checksums are right: {images} images, {crops} crops",
        **{"labels": args.labels, "images": images, "crops": crops, "match": None, "teacher": {}},
    )
    store = open_store(args.images, args.classes) if args.images else None
    match = match_images(labels, store) if store is not None else None
    if match is not None:
        facts.say(faults_text(match), match=asdict(match))
    agreements: dict[str, Agreement] = {}
    if args.teacher:
        if not args.images:
            raise ValueError("verify: --teacher needs --images, the folder of the labelled images")
        answers, size, interpolation = load(args, labels)
        agreements = verify_teacher(labels, store, answers, size, interpolation, args.sample, args.crops)
        teacher = {name: asdict(agreement) for name, agreement in agreements.items()}
        facts.say(teacher_text(agreements, bool(labels.embeddings)), teacher=teacher)
        stored = agreements["as stored"]
        if labels.value_type == "int8" and not doubts(agreements) and stored.gradient > MOST:
            facts.say(
                f"int8 is coarse for these embeddings: the gradient of the cosine loss, dimensions "
                f"standardised, is {stored.gradient:.1%} off; see fkdx convert --standardise"
            )
    wrong = bool(match) or bool(agreements and doubts(agreements))
    facts.found["right"] = not wrong
    return 1 if wrong else 0


def verify_images_alone(args: argparse.Namespace) -> int:
    """Every image of `--images`, decoded whole, and unless --fast compared with Pillow's pixels."""
    if not args.images or args.teacher:
        raise ValueError("verify: there is nothing to verify; give a label file, or --images FOLDER alone")
    bad: list[str] = []
    other: list[str] = []
    images = open_store(args.images, args.classes)
    with Facts(args.json) as facts:
        for image in verify_images(images, args.threads, args.allow_warnings, compare=not args.fast):
            (other if image.differs else bad).append(image.reason)
            with tqdm.external_write_mode():
                facts.say(image.reason)
        facts.say(
            f"{args.images}: {len(bad) or 'no'} unreadable image{'s' * (len(bad) != 1)}",
            **{"images": args.images, "unreadable": bad, "other_pixels": other, "right": not bad},
        )
        if other:
            facts.say(f"{len(other)} with other pixels than Pillow's; what decodes here: {decoder()}")
    return 1 if bad else 0


def teacher_text(agreements: dict[str, Agreement], embeddings: bool = False) -> str:
    share, difference = (
        (f"cosine >= {CLOSE}", "1 - cosine") if embeddings else ("same top class", "mean |dp|")
    )
    lines = ["", f"{'':<18} {share:>15} {difference:>10}"]
    for name, agreement in agreements.items():
        lines.append(f"{name:<18} {agreement.top1:>15.1%} {agreement.difference:>10.4f}")
    return "\n".join([*lines, *doubts(agreements)])


def doubts(agreements: dict[str, Agreement]) -> list[str]:
    """What speaks against the labels, as sentences."""
    stored = agreements["as stored"]
    better = [
        name for name, agreement in agreements.items() if agreement.difference < 0.9 * stored.difference
    ]
    if not better and stored.top1 < 0.5:
        return [
            "The teacher disagrees with the labels: is it the right one, with the right --size, --mean, "
            "--std?"
        ]
    return [
        f"The teacher agrees better with crops {name}: were these labels imported with the wrong convention?"
        for name in better
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx verify",
        description=_PURPOSE,
        epilog=FORMS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("labels", nargs="?", help="label file or folder of shards")
    add(
        "--images",
        metavar="DATA",
        help="with a label file: compare names, sizes and fingerprint; without one: decode every image of "
        "DATA and report those that are broken",
    )
    add_classes(parser)
    add("--threads", type=at_least(1), metavar="N", help="number of decoding threads (default: all cores)")
    add(
        "--allow-warnings",
        action="store_true",
        help="accept damaged images that libjpeg decodes with a warning",
    )
    add_json(parser)
    add("--fast", action="store_true", help="do not compare every image's pixels with Pillow's")
    add("--teacher", metavar="NAME", help="run this teacher again on a sample of crops")
    add("--checkpoint", metavar="FILE", help="weights of the teacher (default: timm's pretrained ones)")
    add(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the teacher's input (default: as recorded in the label file)",
    )
    add("--interpolation", choices=INTERPOLATIONS, help="interpolation of the crops")
    add("--mean", type=float, nargs=3, metavar="X", help="mean of the pixels, in [0, 1]")
    add("--std", type=float, nargs=3, metavar="X", help="standard deviation of the pixels, in [0, 1]")
    add(
        "--temperature",
        type=float,
        default=1.0,
        help="temperature of the stored labels (default: %(default)s)",
    )
    add(
        "--sample",
        type=at_least(1),
        default=64,
        metavar="N",
        help="number of images to try (default: %(default)s)",
    )
    add(
        "--crops",
        type=at_least(1),
        default=4,
        metavar="N",
        help="crops to try of each image (default: %(default)s)",
    )
    return parser
