"""The state of a run: how it begins or resumes, and what it saves."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from fkdx.files import write_whole
from fkdx.models.embed import EmbeddingStudent
from fkdx.models.online import OnlineTeachers
from fkdx.models.weights import differing
from fkdx.train import checkpoint
from fkdx.train.data import Data
from fkdx.train.differences import differences
from fkdx.train.distributed import Stop, World
from fkdx.train.embedding import Embeddings
from fkdx.train.journal import Journal
from fkdx.train.recipe import Recipe
from fkdx.train.watch import Watch


@dataclass
class Position:
    """Where a run is; all before it is done. `step` counts within its pass, `total` over the whole run.

    `fitted` is the student's temperature, if the stage fits it and its first pass is over.
    """

    stage: int = 0
    number: int = 0
    step: int = 0
    total: int = 0
    best: float = -1.0
    fitted: float | None = None


@dataclass
class Run:
    """The state of a run. A checkpoint keeps all of it that changes."""

    recipe: Recipe
    world: World
    stop: Stop
    device: torch.device
    student: nn.Module
    ema: ModelEmaV3 | None
    scaler: torch.amp.GradScaler
    teachers: OnlineTeachers | None
    journal: Journal
    watch: Watch
    position: Position
    data: list[Data]  # of each stage
    optimizer: torch.optim.Optimizer | None = None
    bare: bool = False  # what is taught is logits, not probabilities
    embeddings: Embeddings | None = None  # what is taught, unless classes are
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def learned(self) -> nn.Module:
        """The weights that are evaluated and exported."""
        return self.ema.module if self.ema else self.student

    def begin_stage(self, embeddings: Embeddings | None) -> None:
        """Let the student give embeddings, or values for classes."""
        self.embeddings = embeddings
        for model in (self.student, self.learned):
            if isinstance(model, EmbeddingStudent):
                model.embeds = embeddings is not None


def begin(
    recipe: Recipe,
    world: World,
    stop: Stop,
    device: torch.device,
    student: nn.Module,
    teachers: OnlineTeachers | None,
    data: list[Data],
    state: dict[str, Any] | None,
) -> Run:
    """A run at its first step, or at the step of the checkpoint's `state`, with its folder and journal open.

    ValueError if the checkpoint is of another model, recipe or labels, or not the same for all processes.
    """
    ema = ModelEmaV3(student, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    scaled = any(stage.amp == "fp16" for stage in recipe.in_stages())
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    labels = [stage.identity for stage in data]
    position = resume(state, recipe, labels, student, ema, scaler) if state else Position()
    if not (Path(recipe.output) / "best.pt").exists():
        position.best = -1.0  # it was reached in another folder, which has the weights
    if world.max([position.total, -position.total]) != [position.total, -position.total]:
        raise ValueError(
            "resume: processes see different checkpoints; --output must be one folder for all of them"
        )
    if world.main:
        if Path(recipe.output).is_file():
            raise ValueError(f"output: got a file, expected a folder, {recipe.output}")
        Path(recipe.output).mkdir(parents=True, exist_ok=True)
    journal = Journal(recipe, position.total, position.step > 0, world.main)
    if world.main:
        write_whole(Path(recipe.output) / "args.yaml", recipe.save)
    watch = Watch(journal, world, recipe.nonfinite_limit)
    return Run(recipe, world, stop, device, student, ema, scaler, teachers, journal, watch, position, data)


def save(run: Run, better: bool = False) -> None:
    """Write the checkpoint under all its names, and export the best weights; only the main process does.

    last.pt comes last: a run that is killed before goes on from the old one and does all of this again.
    """
    run.saved_at = time.monotonic()
    if not run.world.main or not run.watch.healthy:
        return
    state = {
        "recipe": asdict(run.recipe),
        "position": asdict(run.position),
        "labels": [stage.identity for stage in run.data],
        "inputs": inputs_of(run, run.position.stage),
        "state_dict": run.student.state_dict(),
        "state_dict_ema": run.ema.module.state_dict() if run.ema else None,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
    }
    output, position = Path(run.recipe.output), run.position
    names = [output / "last.pt"]
    if run.recipe.save_every and position.step == 0 and position.number % run.recipe.save_every == 0:
        names.insert(0, output / f"step_{position.total}.pt")
    if better:
        export(run, "best.safetensors", position.stage)
        names.insert(0, output / "best.pt")
    checkpoint.save(names[0], state)
    for name in names[1:]:
        checkpoint.give_name(names[0], name)


def export(run: Run, name: str, number: int) -> None:
    """Write what was learned by the end of a stage, with the images and classes that it learned from."""
    model = run.learned.backbone if isinstance(run.learned, EmbeddingStudent) else run.learned
    checkpoint.save_weights(Path(run.recipe.output) / name, model, inputs_of(run, number))


def inputs_of(run: Run, number: int) -> dict[str, Any]:
    """The images of a stage and the names of its classes, which weights keep for `trained_facts`."""
    stage, classes = run.data[number].stage, run.data[number].class_names
    return {"size": stage.size, "mean": list(stage.mean), "std": list(stage.std), "classes": classes}


def find_checkpoint(recipe: Recipe) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None to start afresh."""
    if recipe.resume == "never" or recipe.evaluate:
        return None
    path = Path(recipe.output) / "last.pt" if recipe.resume == "auto" else Path(recipe.resume)
    if recipe.resume != "auto" and not path.is_file():
        raise FileNotFoundError(f"resume: no such checkpoint, expected auto, never or a file, {path}")
    return checkpoint.load(path) if recipe.resume != "auto" or path.exists() else None


def resume(
    state: dict[str, Any],
    recipe: Recipe,
    labels: list[str],
    student: nn.Module,
    ema: ModelEmaV3 | None,
    scaler: torch.amp.GradScaler,
) -> Position:
    """Restore a checkpoint's state and return its position. ValueError if it is of another run."""
    if changed := differences(state["recipe"], recipe):
        raise ValueError(
            f"resume: the checkpoint is of another recipe, {'; '.join(changed)}; "
            "choose another --output, or --resume never to start over"
        )
    for stage, old, new in zip(recipe.in_stages(), state["labels"], labels, strict=True):
        if old not in (new, "classes"):  # the latter is all that older checkpoints say of images
            what, where = ("images", stage.data) if new.startswith("images") else ("labels", stage.labels)
            raise ValueError(
                f"resume: the checkpoint is of other {what}, expected those it began with, {where}"
            )
    if names := differing(state["state_dict"], student):
        raise ValueError(
            f"resume: the checkpoint is of another model, {len(names)} weights differ, first {names[0]}"
        )
    student.load_state_dict(state["state_dict"])
    if ema:
        ema.module.load_state_dict(state["state_dict_ema"])
    scaler.load_state_dict(state["scaler"])
    return Position(**state["position"])
