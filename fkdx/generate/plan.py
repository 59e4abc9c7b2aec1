"""What the settings of a job come to: its images, teachers and crops, and the label files that it makes."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from timm.data import ImageNetInfo, infer_imagenet_subset

from fkdx._version import __version__
from fkdx.generate.collect import Output
from fkdx.generate.draw import CropsOfFile, Draw, Policy, RandomCrops
from fkdx.generate.feed import Feed
from fkdx.generate.pairs import Pairs
from fkdx.generate.settings import Settings
from fkdx.generate.shards import Shard, beside, plan_shards
from fkdx.generate.stored import StoredAugment, StoredPairs
from fkdx.image.augment import Augment
from fkdx.labels import check_key, fingerprint
from fkdx.labels.parts import version_of
from fkdx.models.build import load_teacher
from fkdx.models.embed import EmbeddingTeacher
from fkdx.models.machine import pick_device
from fkdx.models.teacher import Teacher
from fkdx.stores import Store, numbers_among, read_classes, under_labelled_names

MEANS = ("topk", "hard", "smoothing", "dense")  # kinds of probabilities, which have a mean
LIBRARIES = ("torch", "timm", "pillow", "numpy")  # whose versions may change a label


@dataclass(frozen=True)
class Plan:
    """All parts of a job. `classes` are None where the teachers' outputs are no classes."""

    settings: Settings
    source: Store
    teachers: list[Teacher]
    classes: list[str] | None
    draw: Draw
    pairs: Pairs | StoredPairs | None
    augment: Augment | StoredAugment | None
    outputs: list[Output]
    shards: list[Shard]

    def feed(self) -> Feed:
        """The crops for the teachers; close it with a `with`."""
        return Feed(
            self.source,
            self.draw,
            self.settings.batch_size,
            shapes=[teacher.shape for teacher in self.teachers],
            threads=self.settings.threads,
            pinned=self.teachers[0].device.type == "cuda",
            whole=self.settings.maps,
            pairs=self.pairs,
            augment=self.augment,
            allow_warnings=self.settings.allow_warnings,
        )

    def facts(self) -> dict:
        """All that decides the labels, as JSON values; a job goes on only where all of it is as it was."""
        settings = self.settings
        facts = {
            "teachers": [teacher.provenance() for teacher in self.teachers],
            "maps": settings.maps,
            "store": settings.store if len(self.teachers) > 1 else "one",
            "kind": settings.kind,
            "k": settings.k,
            "encoding": settings.encoding,
            **({"value_type": settings.value_type} if settings.value_type else {}),
            **({"standardise": True} if settings.standardise else {}),
            "temperature": settings.temperature,
            **self.draw.provenance(),
            **(self.pairs.provenance() if self.pairs else {}),
            **({"augment": settings.augment} if settings.augment else {}),
            "resample": "pillow12",
            **({"allow_warnings": True} if settings.allow_warnings else {}),
            "batch_size": settings.batch_size,
            "shards": len(self.shards),
            "dataset": fingerprint(checked_files(self.source)),
            "versions": {"fkdx": __version__, **{name: metadata.version(name) for name in LIBRARIES}},
        }
        return json.loads(json.dumps(facts))  # tuples become lists, as in the job's folder


def make_plan(settings: Settings, source: Store, teachers: list[Teacher], classes: list[str] | None) -> Plan:
    """Raises ValueError where the settings do not fit the images, the teachers or each other."""
    draw = pick_crops(settings)
    if isinstance(draw, CropsOfFile):
        source = under_labelled_names(source, draw.labels)
    pairs = pick_pairs(settings, teachers, source, draw)
    augment = pick_augment(settings, draw)
    outputs = plan_outputs(settings, teachers, classes, draw)
    say_what_is_cut(settings, teachers[0].num_outputs)
    say_what_is_idle(settings, draw.crops)
    for output in outputs:
        output.options["mix_size"] = pairs.size if pairs else 0
        output.options["extra"] = augment.extra() if augment else None
    whole_batches = version_of(beside(outputs[0].path, ".parts")) > 1
    shards = plan_shards(len(source), draw.crops, settings.batch_size, whole_batches=whole_batches)
    return Plan(settings, source, teachers, classes, draw, pairs, augment, outputs, shards)


def checked_files(source: Store) -> Iterator[tuple[str, int]]:
    """`source.files()`; raises ValueError for a name that a label file cannot hold."""
    for key, size in source.files():
        check_key(key)
        yield key, size


def load_teachers(settings: Settings, num_classes: int) -> list[Teacher]:
    device = pick_device(settings.device)
    return [
        load_teacher(
            name,
            checkpoint,
            pretrained,
            num_classes,
            settings.inputs,
            device,
            settings.precision or ("bfloat16" if device.type == "cuda" else "float32"),
            settings.compile,
            head=settings.head,
            maps=settings.maps,
            features=settings.features if settings.kind == "embedding" else None,
        )
        for name, checkpoint, pretrained in settings.weights
    ]


def name_classes(settings: Settings, teachers: list[Teacher], folders: list[str]) -> list[str]:
    """The teachers' classes in order: --classes, or ImageNet's if the folders are its, or the folders."""
    outputs = teachers[0].num_outputs
    if settings.classes:
        names, origin = read_classes(settings.classes), settings.classes
    else:
        subset = infer_imagenet_subset({"num_classes": outputs})
        known = ImageNetInfo(subset).label_names() if subset else []
        fits = known and (numbers_among(folders, known) >= 0).all()
        names, origin = (known, subset) if fits else (folders, f"the folders in {settings.data}")
    for teacher in teachers:
        if teacher.num_outputs != len(names):
            some = f" ({', '.join(names[:3])}{', ...' * (len(names) > 3)})" if names else ""
            raise ValueError(
                f"generate: {teacher.name} has {teacher.num_outputs} classes, got {len(names)}{some} of "
                f"{origin}; give its class names in order as --classes FILE, or as --data the folder that "
                "holds its class folders"
            )
    strangers = [folder for folder, number in zip(folders, numbers_among(folders, names)) if number < 0]
    if strangers:
        some = f"{strangers[0]}, ..." if len(strangers) > 1 else strangers[0]
        raise ValueError(
            f"generate: class folders that the teacher does not know: {len(strangers)} ({some}); its classes "
            f"are those of {origin}; numbers need --classes FILE, {settings.data}"
        )
    return names


def say_what_is_cut(settings: Settings, outputs: int) -> None:
    """A line where fewer classes are kept than were asked for."""
    if settings.topk is not None and outputs < settings.topk:
        print(
            f"fkdx generate: --topk {settings.topk}: the teacher has {outputs} outputs, and all are kept",
            file=sys.stderr,
        )


def say_what_is_idle(settings: Settings, crops: int) -> None:
    """A line about options of random crops where a file says which crops there are, `crops` of each image."""
    file = settings.crops_from or settings.policy
    names = ["crops"] if settings.mixed else ["crops", "scale", "ratio", "flip"]  # which partners have, too
    given = [name for name in names if getattr(settings, name) not in (getattr(Settings, name), crops)]
    if file and given:
        options = ", ".join(f"--{name}" for name in given)
        print(
            f"fkdx generate: {options} without effect: {crops} crops of each image are those of {file}",
            file=sys.stderr,
        )


def pick_crops(settings: Settings) -> Draw:
    """Raises ValueError for empty ranges, and where a file of crops or a policy cannot be used."""
    if settings.crops_from:
        return CropsOfFile(settings.crops_from)
    if settings.policy:
        return Policy(settings.policy, settings.seed)
    return _random_crops(settings)


def _random_crops(settings: Settings) -> RandomCrops:
    return RandomCrops(settings.crops, settings.seed, settings.scale, settings.ratio, settings.flip)


def pick_pairs(
    settings: Settings, teachers: list[Teacher], source: Store, draw: Draw
) -> Pairs | StoredPairs | None:
    """How crops are mixed with those of other images; None where they are not."""
    stored = isinstance(draw, CropsOfFile) and draw.labels.mix_size
    if not (settings.mixed or stored):
        return None
    sizes = {teacher.preprocess.size for teacher in teachers}
    if stored and settings.mixed:
        raise ValueError(f"generate: crops that are mixed already, got --mixup or --cutmix, {draw.path}")
    if len(sizes) > 1 or (stored and sizes != {stored}):
        got, expected = sorted(sizes), stored or "one"
        raise ValueError(f"generate: size of mixed crops, got {got}, expected {expected}; see --size")
    if stored:
        return StoredPairs(draw.labels, source)
    if len(source) < 2:
        raise ValueError("generate: images to mix, got 1, expected at least 2")
    return Pairs(settings.mixup, settings.cutmix, _random_crops(settings), sizes.pop())


def pick_augment(settings: Settings, draw: Draw) -> Augment | StoredAugment | None:
    """How crops are changed further; None where they are not."""
    if isinstance(draw, CropsOfFile) and draw.labels.extra_operations:
        if settings.augment:
            raise ValueError(f"generate: crops that are augmented already, got --augment, {draw.path}")
        return StoredAugment(draw.labels)
    return Augment(settings.augment, settings.seed) if settings.augment else None


def plan_outputs(
    settings: Settings, teachers: list[Teacher], classes: list[str] | None, draw: Draw
) -> list[Output]:
    """The label files of a job: one for all teachers together, or one for each, or both."""
    path, every = settings.output, tuple(range(len(teachers)))
    plans = [(path, every)] if settings.store != "separate" or len(teachers) == 1 else []
    if len(teachers) > 1 and settings.store != "ensemble":
        plans += [(path.with_name(f"{path.stem}.{i}{path.suffix}"), (i,)) for i in every]
    if any(len(members) > 1 for _, members in plans) and settings.kind not in MEANS:
        raise ValueError(
            f"generate: an ensemble has probabilities, got --kind {settings.kind}; use --store separate"
            + (", then `fkdx merge`" if settings.kind == "embedding" else "")
        )
    return [
        Output(
            path, members, _label_options(settings, teachers[members[0]], classes, draw), settings.standardise
        )
        for path, members in plans
    ]


def _label_options(settings: Settings, teacher: Teacher, classes: list[str] | None, draw: Draw) -> dict:
    """The options of LabelWriter that are known before the job is begun."""
    options: dict = {
        "kind": settings.kind,
        "crops": draw.crops,
        "classes": classes,
        "encoding": settings.encoding,
        "value_type": settings.value_type,
    }
    num_classes = teacher.num_outputs
    if isinstance(teacher, EmbeddingTeacher):
        return {**options, "num_classes": 0, "k": num_classes, "embeddings": teacher.sizes}
    k = 1 if settings.kind in ("hard", "smoothing") else min(settings.k, num_classes)
    return {**options, "num_classes": num_classes, "k": k}
