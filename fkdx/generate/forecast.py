"""What can be known before, beside and without a run: the teacher's accuracy, a job's cost, how far it is."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

from fkdx.files import is_held
from fkdx.generate.collect import Output
from fkdx.generate.feed import Feed
from fkdx.generate.shards import Shard
from fkdx.image.steps import encode
from fkdx.labels import LabelFile
from fkdx.labels.layout import TWO_VIEWS, record_dtype
from fkdx.labels.writer import default_value_type
from fkdx.loader import ValidationLoader
from fkdx.models.accuracy import accuracy_text, as_percentages, count_right, guesses
from fkdx.models.teacher import Teacher
from fkdx.stores import Store

TRIALS = 3  # batches timed for a forecast


Told = tuple[str, dict[str, Any]]  # facts in words, and by name


def evaluate(
    teacher: Teacher, store: Store, classes: list[str] | None, batch_size: int, **options: Any
) -> Told:
    """Top-1 and top-5 of a teacher on validation images, with the centre crops of its configuration.

    options: of a ValidationLoader.
    """
    wants = teacher.preprocess
    crops = (wants.size, wants.crop_ratio)
    loader = ValidationLoader(
        store, batch_size, *crops, classes, interpolation=wants.interpolation, **options
    )
    found = [(guesses(teacher(batch.images)).cpu(), batch.classes.cpu()[:, None]) for batch in loader]
    score = as_percentages(sum(count_right(ids == classes) for ids, classes in found).tolist())
    text = f"{teacher.name}: {accuracy_text(score)}, {store.path}"
    return text, {"teacher": teacher.name, **score, "data": str(store.path)}


def forecast(teachers: list[Teacher], feed: Feed, outputs: list[Output], shards: int) -> Told:
    """What a job would do and cost, from a few batches: images that are there, and synthetic ones."""
    images, crops = len(feed.source), feed.crops
    batches = list(itertools.islice(feed.chunks([Shard(0, 0, images)]), TRIALS))  # also warms the teachers up
    sizes = [len(next(iter(batch.crops.values()))) for batch in batches]
    started = time.perf_counter()
    for batch in batches:
        for teacher in teachers:
            teacher(batch.crops[teacher.shape]).cpu()
    rate = sum(sizes) / (time.perf_counter() - started)
    lines = [
        f"{images:,} images x {crops} crops = {images * crops:,} crops in {shards:,} shards",
        *(f"teacher {t.name}: {t.num_outputs} outputs, {t.preprocess.size} px, {t.device}" for t in teachers),
        f"{rate:,.1f} crops/s a process, measured on {sum(sizes)} crops of your images",
        f"about {duration(images * crops / rate)} in one process, divided by the number of processes",
    ]
    files = {str(output.path): label_bytes(output, images, feed) for output in outputs}
    for output, size in zip(outputs, files.values()):
        about = "about" if output.options["encoding"] == "plain" else "less than"
        lines.append(f"{output.path}: {about} {size:,} bytes")
    return "\n".join(lines), {
        "images": images,
        "crops": images * crops,
        "shards": shards,
        "crops_per_s": rate,
        "seconds": images * crops / rate,
        "bytes": files,
    }


def label_bytes(output: Output, images: int, feed: Feed) -> int:
    """Bytes of a label file in the plain encoding, without header and keys."""
    options = output.options
    value_type = options["value_type"] or default_value_type(options["kind"], options["encoding"])
    value_type = "float16" if value_type == "log8" else value_type
    required = TWO_VIEWS if options["mix_size"] else 0
    classes = next(iter(options.get("embeddings", {}).values()), options["num_classes"])
    dtype = record_dtype(options["kind"], value_type, classes, options["k"], required)
    block = feed.crops * dtype.itemsize + -(-feed.crops // 8)
    if feed.augment:
        block += len(encode(feed.augment.draw("", feed.crops)))
    return images * (-(-block // 64) * 64 + 24)


def status(output: Path) -> Told:
    """How far the job of `output` is: shards done, being done and to do, failed images, time to go.

    Raises FormatError where something else lies there.
    """
    folder = output.with_name(output.name + ".parts")
    if not folder.exists():
        state = "finished" if output.exists() else "no such job"
        if state == "finished":
            LabelFile(output)
        return f"{output}: {state}", {"state": state}
    total = json.loads((folder / "job.json").read_text())["settings"]["shards"]
    reports = [json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")]
    running = sum(is_held(path) for path in folder.glob("[0-9]*.lock"))
    failed = [entry for report in reports for entry in report["failed"]]
    lines = [
        f"{output}: {len(reports)} of {total} shards done, {running} being done, {len(failed)} images failed"
    ]
    lines += [f"  {entry['key']}: {entry['reason']}" for entry in failed[:10]]
    found = {"state": "under way", "shards": total, "shards_done": len(reports), "shards_being_done": running}
    if reports and running:
        seconds = sum(report["seconds"] for report in reports) / len(reports)
        found["seconds_to_go"] = seconds * (total - len(reports)) / running
        lines.append(f"  about {duration(found['seconds_to_go'])} to go")
    return "\n".join(lines), {**found, "failed": failed}


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
