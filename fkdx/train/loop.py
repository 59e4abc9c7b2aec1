"""Train a student from stored crops and soft labels.

    torchrun --nproc_per_node=8 -m fkdx.train \
        --config fkd_resnet50 --data IMAGENET --labels labels.fkdl --output runs/a
    python -m fkdx.train --config my.yaml --data DIR --val DIR --output runs/b --hard    # the baseline

The first learns from stored labels, the second from the images' own classes. The same command resumes an
interrupted run at the step that it had reached. `--help` lists every key of a recipe.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fkdx.loader import Batch, CropLoader, ValidationLoader
from fkdx.models.embed import EmbeddingStudent
from fkdx.models.weights import trained_facts
from fkdx.train.augmented import AugmentedLoader
from fkdx.train.checks import check_batches, check_data
from fkdx.train.data import (
    Data,
    calibrated_files,
    known_images,
    open_data,
    training_loader,
    validation_loader,
)
from fkdx.train.differences import without_effect
from fkdx.train.distributed import Interrupted, Stop, World
from fkdx.train.embedding import Embeddings
from fkdx.train.evaluate import evaluate
from fkdx.train.frozen import evaluate_knn
from fkdx.train.lesson import Lesson, draw_mix, make_lesson, open_teachers
from fkdx.train.objective import fit, losses
from fkdx.train.read_recipe import read_recipe
from fkdx.train.recipe import Recipe
from fkdx.train.run import Run, begin, export, find_checkpoint, save
from fkdx.train.schedule import Pass, Settings, passes, settings_at
from fkdx.train.student import check_gradients, create_optimizer, create_student, freeze, set_training
from fkdx.train.temperature import read_temperature


def main(argv: list[str] | None = None) -> int:
    world = World()
    try:
        status = train(read_recipe(argv), world)
    except Exception as error:
        return world.fail(error)
    world.leave()
    return status


@contextmanager
def torch_as_found() -> Iterator[None]:
    """Undo in the end what `set_machine` does, for programs that go on after a training."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


@torch_as_found()
def train(recipe: Recipe, world: World) -> int:
    """One run from its recipe to its last checkpoint; returns the exit status."""
    if not (recipe.output or recipe.evaluate):
        raise ValueError("train: nowhere to write, expected --output DIR")
    device = set_machine(recipe, world)
    data = open_data(recipe)
    outputs = check_data(data, world)
    state = find_checkpoint(recipe)
    torch.manual_seed(recipe.seed)
    student, recipe = create_student(recipe, outputs, fresh=state is None)
    if recipe.sync_bn and world.size > 1:
        student = convert_sync_batchnorm(student)
    student.to(device, memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    data = [replace(stage_data, stage=stage) for stage_data, stage in zip(data, recipe.in_stages())]
    if recipe.evaluate:
        return examine(student, data, recipe, world)
    check_batches(data, world)
    if world.main and (idle := without_effect(recipe)):
        named = ", ".join(f"{name} (needs {needs})" for name, needs in idle.items())
        print(f"fkdx train: keys that have no effect here: {named}", file=sys.stderr)
    teachers = open_teachers(recipe, outputs.classes, device) if recipe.teacher else None

    with Stop(world) as stop:
        run = begin(recipe, world, stop, device, student, teachers, data, state)
        position = run.position
        try:
            for number in range(position.stage, len(data)):
                if not train_stage(run, data[number], state):
                    break
                position.stage, position.number, position.step, position.fitted = number + 1, 0, 0, None
                state = None
                if number + 1 < len(data) and data[number].by_knn != data[number + 1].by_knn:
                    position.best = -1.0  # k-NN and top-1 are not to be compared
        except Interrupted:
            run.watch.report(position.total)
            save(run)
            name = signal.Signals(stop.signal).name
            run.journal.write("event", position.total, text=f"stopped by {name}")
            return say_stopped(stop, "; the same command goes on from here")
    run.watch.check_end()
    if world.main:
        export(run, "last.safetensors", min(position.stage, len(data) - 1))  # `max_steps` may end it early
    run.journal.close()
    world.wait()
    return 0


def say_stopped(stop: Stop, then: str = "") -> int:
    """The exit status of a run that a signal has ended, once every process is here."""
    if stop.world.main:
        print(f"fkdx train: stopped by {signal.Signals(stop.signal).name}{then}", file=sys.stderr)
    stop.world.wait()
    return 128 + stop.signal


# ---- stage, pass, step ------------------------------------------------------------------------------------


def train_stage(run: Run, data: Data, state: dict[str, Any] | None) -> bool:
    """Every pass of a stage from the run's position on; False if `max_steps` ended it early."""
    stage, position, world = data.stage, run.position, run.world
    validation = validation_loader(data, world, run.device) if data.evaluates else None
    run.bare = run.teachers is not None or data.bare
    run.begin_stage(Embeddings.of(data.labels, stage.embedding_norm, run.device) if data.embeds else None)
    say_zeros(data, world)
    say_names(data, world)
    freeze(run.student, stage.freeze)
    run.optimizer = create_optimizer(stage, run.student)
    if state and (position.number or position.step):
        run.optimizer.load_state_dict(state["optimizer"])
    model = wrap(run, stage)

    plan = list(passes(stage))
    files = calibrated_files(data, world)
    loader = None
    while position.number < len(plan):
        this_pass = plan[position.number]
        if loader is None or loader.crops_per_image != this_pass.crops:
            loader = training_loader(data, files, this_pass.crops, world, run.device)
            world.wait()
        train_pass(run, stage, this_pass, model, loader)
        note_warned(run, loader)
        cut_short = 0 < stage.max_steps <= position.total
        last = cut_short or position.number == len(plan) - 1
        better = False
        if validation is not None and (last or (position.number + 1) % stage.eval_every == 0):
            better = score(run, data, this_pass, validation)
        if not cut_short:
            position.number, position.step = position.number + 1, 0
        save(run, better)
        if cut_short:
            return False
    return True


def say_names(data: Data, world: World) -> None:
    """A line about classes that validation images have named."""
    if data.classes != data.own_classes:
        pairs = [f"{own} is {name}" for own, name in zip(data.own_classes, data.classes)]
        world.say(f"classes have the names of validation folders, in order: {pairs[0]}, ..., {pairs[-1]}")


def say_zeros(data: Data, world: World) -> None:
    """A line about embeddings that have no direction."""
    for name, moments in data.labels.moments.items() if data.embeds else ():
        if moments.zeros:
            crops = moments.zeros + moments.crops
            world.say(f"{name}: {moments.zeros} of {crops} embeddings are zero vectors, kept out of the loss")


def train_pass(
    run: Run, stage: Recipe, this_pass: Pass, model: nn.Module, loader: CropLoader | AugmentedLoader
) -> None:
    """The steps of one pass from the run's position on, to its end or to `max_steps`."""
    position, watch = run.position, run.watch
    steps = len(loader)
    if stage.max_steps:
        steps = min(steps, position.step + stage.max_steps - position.total)
    loader.load_state_dict({"epoch": this_pass.epoch, "step": position.step})
    batches = iter(loader)
    candidates = read_temperature("temperature", stage.temperature).candidates()
    set_training(model)
    with watch.one_pass(f"epoch {this_pass.end}/{stage.epochs}", len(loader), position.step):
        while position.step < steps:
            with watch.waiting():
                batch = next(batches)
            now = settings_at(stage, this_pass, position.step / len(loader), position.fitted)
            to_fit = candidates if position.step == len(loader) - 1 else []
            watch.saw(train_step(run, stage, this_pass, model, batch, now, to_fit), batch.keys)
            position.step, position.total = position.step + 1, position.total + 1
            if position.total % stage.log_every == 0 or position.step == steps:
                watch.report(
                    position.total,
                    lr=now.lr,
                    **now.moving(stage),
                    epoch=this_pass.epoch + this_pass.crops * position.step / len(loader),
                )
                if time.monotonic() - run.saved_at > 60 * stage.save_minutes:
                    save(run)
            run.stop.check()


def note_warned(run: Run, loader: CropLoader | AugmentedLoader) -> None:
    """Write down how many images have files with faults that change no pixel."""
    images = set(run.world.gather(sorted(loader.warned))) if isinstance(loader, CropLoader) else ()
    if images:
        text = f"{len(images)} images have JPEG faults that change no pixel, such as {min(images)}"
        run.journal.write("event", run.position.total, text=text)


def train_step(
    run: Run,
    stage: Recipe,
    this_pass: Pass,
    model: nn.Module,
    batch: Batch,
    now: Settings,
    candidates: Sequence[float],
) -> Tensor:
    """One step of the optimiser; the loss of every crop of this process, (B,), still on the device.

    The one of `candidates`, if there are any, that fits its logits best is the student's next temperature.
    """
    # Drop-outs are a function of seed, step and process, so that a resumed run repeats them.
    torch.manual_seed(((stage.seed * 1_000_003 + run.position.total) * 4099 + run.world.rank) % 2**63)
    for group in run.optimizer.param_groups:
        group["lr"] = now.lr * group.get("lr_scale", 1.0)
    mix = None if batch.mix else draw_mix(stage, this_pass, batch.images, run.position.total, run.world.rank)
    lesson = make_lesson(stage, batch, mix, run.teachers, now, run.embeddings)

    parts, fits = [], []
    rows = len(batch.images) // stage.accumulate
    for first in range(0, len(batch.images), rows):
        last = first + rows == len(batch.images)
        with nullcontext() if last or run.world.size == 1 else model.no_sync():
            part = lesson[first : first + rows]
            values, logits = backward(run, stage, model, part, now)
        parts.append(values)
        if candidates:
            fits.append(fit(stage, now, logits, part.taught, run.bare, candidates))
    if candidates:
        total = run.world.sum(torch.stack(fits).sum(0).tolist())
        run.position.fitted = candidates[total.index(min(total))]

    if run.world.size > 1 and not run.optimizer.state:
        check_gradients(run.student)
    if stage.clip_grad:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), stage.clip_grad)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update(run.student, step=run.position.total + 1)
    return torch.cat(parts)


def backward(
    run: Run, stage: Recipe, model: nn.Module, lesson: Lesson, now: Settings
) -> tuple[Tensor, Tensor]:
    """Forward and backward of some rows of a batch; their losses and logits."""
    with torch.autocast(run.device.type, stage.dtype, enabled=stage.dtype != torch.float32):
        logits = model(lesson.images)
    sizes = run.embeddings.sizes if run.embeddings else ()
    values = losses(stage, now, logits, lesson.taught, lesson.classes, run.bare, sizes)
    run.scaler.scale(values.mean() / stage.accumulate).backward()
    return values.detach(), logits.detach()


def score(run: Run, data: Data, this_pass: Pass, loader: ValidationLoader) -> bool:
    """Evaluate, write it down, and say whether it was the best so far."""
    stage, name = data.stage, "k-NN top-1" if data.by_knn else "top-1"
    if run.world.size > 1:
        distribute_bn(run.learned, run.world.size)  # to all the statistics that rank 0 would save
    if data.by_knn:
        known = known_images(data, run.world, run.device)
        found = evaluate_knn(run.learned, known, loader, stage, run.world, run.stop)
    else:
        found = evaluate(run.learned, loader, stage, run.world, run.stop)
    result = found.totals
    position, epoch = run.position, this_pass.end
    better = run.watch.healthy and result["top1"] > position.best
    if better:
        position.best = result["top1"]
    run.journal.write("evaluation", position.total, stage=position.stage, epoch=epoch, **result)
    if found.classes is not None:
        run.journal.write_classes(loader.classes, found.classes)
    run.world.say(f"epoch {epoch}: {name} {result['top1']:.2f}%, top-5 {result['top5']:.2f}%")
    return better


def examine(student: nn.Module, stages: list[Data], recipe: Recipe, world: World) -> int:
    """`--evaluate`: print the accuracy of given weights and do nothing else; of the last stage with classes,
    which such weights come from."""
    data = [data for data in stages if not data.embeds][-1]
    if not (data.stage.val and (recipe.init or recipe.pretrained)):
        raise ValueError("train: nothing to evaluate, expected --val DIR and --init FILE or --pretrained")
    if isinstance(student, EmbeddingStudent):
        student.embeds = False
    with Stop(world) as stop:
        loader = validation_loader(data, world, next(student.parameters()).device)
        try:
            result = evaluate(student, loader, data.stage, world, stop).totals
        except Interrupted:
            return say_stopped(stop)
    if world.main and recipe.init and trained_facts(recipe.init).get("classes"):
        names = ", ".join(data.classes[:4]) + (", ..." if len(data.classes) > 4 else "")
        print(f"fkdx train: classes as the weights name them: {names}", file=sys.stderr)
    world.say(json.dumps(result))
    return 0


# ---- what a run stands on ---------------------------------------------------------------------------------


def set_machine(recipe: Recipe, world: World) -> torch.device:
    """This process's device, with torch set to be fast, or to repeat itself."""
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every output of ours is written whole
    torch.backends.cudnn.benchmark = not recipe.deterministic
    device = world.device(recipe.device)
    if recipe.sync_bn and device.type == "cpu":
        raise ValueError("train: sync_bn, got a CPU, expected CUDA; leave it out")
    return device


def wrap(run: Run, stage: Recipe) -> nn.Module:
    """The student as a stage trains it: compiled, and one of many."""
    model = torch.compile(run.student) if stage.compile else run.student
    if run.world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[run.device] if run.device.type == "cuda" else None)
