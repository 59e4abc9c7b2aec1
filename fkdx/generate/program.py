"""`fkdx generate`: run teachers over stored crops of every image and write what they say into label files."""

import json
import os
import signal
import sys
import time

from fkdx.facts import Facts
from fkdx.generate.collect import Output, finish
from fkdx.generate.forecast import evaluate, forecast, status
from fkdx.generate.loop import Labelling
from fkdx.generate.options import parse
from fkdx.generate.plan import Plan, load_teachers, make_plan, name_classes
from fkdx.generate.settings import Settings
from fkdx.generate.shards import Shard, beside
from fkdx.image import decoder
from fkdx.labels import size_marks
from fkdx.labels.int8 import Change, together
from fkdx.labels.parts import Parts, clear_removed, write_json
from fkdx.stores import class_numbers, open_store

WAIT_SECONDS = 600  # that processes wait for the one of rank 0 ...
EVALUATION_SECONDS = 86_400  # ... and as long as this while it evaluates the teachers


def main(argv: list[str] | None = None) -> int:
    settings = parse(argv)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):  # batch systems and terminals send these
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        with Facts(settings.json, quiet=rank() != 0) as facts:
            if settings.status:
                text, found = status(settings.output)
                facts.say(text, **found)
            else:
                run(settings, facts)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; repeat the command to go on where it was") from None
    return 0


def run(settings: Settings, facts: Facts) -> None:
    source = open_store(settings.data, settings.classes)
    len(source)  # raises FileNotFoundError where there are none, before a teacher is loaded
    folders, _ = class_numbers(source, None)  # every class is among those of --classes
    teachers = load_teachers(settings, len(folders))
    bare = settings.head or settings.kind == "embedding"
    classes = None if bare else name_classes(settings, teachers, folders)
    if settings.evaluate and rank() == 0:
        validation = open_store(settings.evaluate, settings.classes)
        scores: list[dict] = []
        options = {"threads": settings.threads, "allow_warnings": settings.allow_warnings}
        for teacher in teachers:
            text, score = evaluate(teacher, validation, classes, settings.batch_size, **options)
            scores.append(score)
            facts.say(text, evaluation=scores)
    if settings.output:
        label(make_plan(settings, source, teachers, classes), facts)


def label(plan: Plan, facts: Facts) -> None:
    """Do the work that no other process does; rank 0 also begins the job and, unless it was asked for a part
    of the shards only, finishes the files."""
    outputs, settings = plan.outputs, plan.settings
    item, items = settings.shards
    shards = plan.shards[item::items]
    with plan.feed() as feed:
        if settings.dry_run:
            text, found = forecast(plan.teachers, feed, outputs, len(plan.shards))
            facts.say(text, forecast=found)
            return
        wait = WAIT_SECONDS + (EVALUATION_SECONDS if settings.evaluate else 0)
        job = find_job(outputs, plan.facts(), {"command": settings.command, "decoder": decoder()}, wait)
        if job is None:
            state, files = "finished already", [str(output.path) for output in outputs]
            facts.say(f"{outputs[0].path}: {state}", state=state, files=files)
            return
        for output in outputs:
            own = [job.settings["teachers"][member] for member in output.members]
            told = {"allow_warnings": False, **job.settings, "teachers": own, **job.notes}
            output.options["dataset"] = told.pop("dataset")
            output.options["provenance"] = told
        labelling = Labelling(
            job, feed, plan.teachers, outputs, settings.temperature, settings.strict, quiet=rank() != 0
        )
        if rank() != 0:
            labelling.run(shards)
            return
        if settings.is_item:
            finish_shards(labelling, shards)
            facts.say(
                f"{outputs[0].path}: shards {item}/{items} are done: {len(shards)} of {len(plan.shards)}",
                **{"state": "item done", "shards": len(plan.shards), "shards_done": len(shards)},
            )
            return
        with job.lock():
            finish_shards(labelling, shards)
            conclude(job, shards, outputs, size_marks(plan.source.sizes()), facts)


def finish_shards(labelling: Labelling, shards: list[Shard]) -> None:
    while not labelling.run(shards):
        time.sleep(0.5)  # others hold what is left; should they die, it is ours


def find_job(outputs: list[Output], facts: dict, notes: dict, seconds: int) -> Parts | None:
    """The job, begun by rank 0, for which the others wait that long; None if its outputs are there already.

    `notes` are kept beside it; a job goes on with those that it was begun with.
    """
    folder = beside(outputs[0].path, ".parts")
    if rank() == 0:
        clear_removed(folder)
        if not folder.exists() and already_made(outputs, facts):
            return None
        return Parts.begin(folder, facts, "generate", notes, len(outputs))
    for _ in range(10 * seconds):
        try:
            return Parts(folder, facts, "generate")
        except FileNotFoundError:
            if already_made(outputs, facts):
                return None
            time.sleep(0.1)
    raise TimeoutError(f"generate: no job was begun by rank 0 within {seconds} s, {folder}")


def conclude(job: Parts, shards: list[Shard], outputs: list[Output], sizes: str, facts: Facts) -> None:
    """Make the outputs and the report of a finished job, and remove its folder."""
    for number, output in enumerate(outputs):
        finish(job, shards, output, number, sizes)
    reports = [job.report(shard.number) for shard in shards]
    failed = [entry for report in reports for entry in report["failed"]]
    warned = sum(report.get("warned", 0) for report in reports)  # older parts do not say
    report = beside(outputs[0].path, ".report.json")
    done = {"settings": job.settings, **job.notes, "failed": failed, "warned": warned}
    write_json(report, {**done, "shards": reports})
    job.remove()
    if failed:
        print(f"{len(failed)} images could not be read; see {report}", file=sys.stderr)
    if warned:
        print(f"{warned} images have JPEG faults that change no pixel; they were labelled", file=sys.stderr)
    changed = together(Change(**one) for report in reports for one in report.get("int8", []))
    if changed and not changed.small:
        print(f"{changed}; for embeddings like these see --standardise, or float16", file=sys.stderr)
    images = sum(report["images"] for report in reports)
    text = "\n".join(f"{output.path}: labels of {images} images" for output in outputs)
    counts = {"images": images, "failed": len(failed), "warned": warned}
    facts.say(text, state="finished", files=[str(o.path) for o in outputs], report=str(report), **counts)


def already_made(outputs: list[Output], settings: dict) -> bool:
    """Whether these outputs are there. FileExistsError where a file of another origin has such a name."""
    report = beside(outputs[0].path, ".report.json")
    ours = report.exists() and json.loads(report.read_text())["settings"] == settings
    there = [output.path for output in outputs if os.path.lexists(output.path)]  # a link to nothing, too
    if there and not (ours and len(there) == len(outputs)):
        raise FileExistsError(f"generate: the output exists; remove it or choose another, {there[0]}")
    return bool(there)


def rank() -> int:
    return int(os.environ.get("RANK", 0))
