"""A teacher: a model, the images that it expects, and its answers for a batch of crops.

`fkdx.models.build` makes the model; here is what every teacher has in common.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD, prepare
from fkdx.batch.topk import topk_probabilities
from fkdx.models.machine import PRECISIONS


@dataclass(frozen=True)
class Preprocess:
    """The images that a model expects: square crops of `size` pixels, normalised by `mean` and `std`.

    These are in units of [0, 1]. `crop_ratio` is the part of the resized image that the centre crop of an
    evaluation keeps.
    """

    size: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_ratio: float = 0.875


class Teacher:
    """A frozen model on its device. Calling it maps uint8 crops (n, size, size, 3), or floating images
    (n, 3, size, size) that are normalised as it expects them, to float32 logits (n, C).

    Batches that do not fit into the memory of the GPU are halved, and stay halved: `limit` is the largest
    batch that fits, None as long as every batch did.
    """

    answers = "(crops, classes)"

    def __init__(
        self,
        name: str,
        model: nn.Module,
        preprocess: Preprocess,
        origin: dict,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        self.name, self.preprocess, self.origin = name, preprocess, origin
        self.device, self.precision = torch.device(device), precision
        model = model.to(self.device, memory_format=torch.channels_last)
        self._features, self._classify = self._halves(model)
        if compiled:
            self._features = torch.compile(self._features)
        self.limit: int | None = None
        self.num_outputs = self._probe()

    @property
    def shape(self) -> tuple[int, str]:
        """(size, interpolation) of the crops that it takes."""
        return self.preprocess.size, self.preprocess.interpolation

    def provenance(self) -> dict:
        """This teacher's entry in a label file's header."""
        return {"name": self.name, **self.origin, **asdict(self.preprocess), "precision": self.precision}

    def __call__(self, crops: Tensor) -> Tensor:
        return self.run(crops)

    @torch.inference_mode()
    def run(self, crops: Tensor) -> Tensor:
        """All crops through the model, as many at once as fit."""
        images = crops.to(self.device)
        step = min(self.limit or len(images), len(images))
        while True:
            try:
                return torch.cat([self._rows(part) for part in images.split(step)])
            except torch.OutOfMemoryError:
                if step == 1:
                    raise
                step = self.limit = (step + 1) // 2
                torch.cuda.empty_cache()

    def _rows(self, images: Tensor) -> Tensor:
        """One row an image. ValueError for a model that gives another number of them."""
        rows = self._forward(images)
        if rows.ndim and len(rows) != len(images):
            raise ValueError(
                f"teacher: {self.name} gave {len(rows)} rows for {len(images)} crops, expected one each"
            )
        return rows

    def _forward(self, images: Tensor) -> Tensor:
        return self._classify(self._encode(images))

    def _encode(self, images: Tensor) -> Tensor:
        raw = images.dtype == torch.uint8
        pixels = prepare(images, self.preprocess.mean, self.preprocess.std) if raw else images
        if self.precision == "float32":
            pixels = pixels.float()  # a student's images may have 16 bits
        with torch.autocast(self.device.type, PRECISIONS[self.precision], self.precision != "float32"):
            return self._features(pixels).float()

    def _halves(self, model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The part that runs at the chosen precision, and the part that follows in float32.

        16 bits would leave 8 or 11 bits of a logit, and timm's classifiers are cheap enough to be exact.
        """
        if (
            self.precision != "float32"
            and hasattr(model, "forward_features")
            and hasattr(model, "forward_head")
        ):
            return model.forward_features, model.forward_head
        return model, nn.Identity()

    def _probe(self) -> int:
        """The number of outputs, found with one gray crop. ValueError if the model cannot take it."""
        size = self.preprocess.size
        try:
            logits = self.run(torch.full((1, size, size, 3), 127, dtype=torch.uint8))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"teacher: {self.name} failed on one RGB crop of {size} x {size} pixels "
                f"({str(error).splitlines()[0]}); see --size"
            ) from error
        if logits.ndim != len(self.answers.split(",")):
            shape = tuple(logits.shape)
            raise ValueError(f"teacher: {self.name} gave shape {shape}, expected {self.answers}")
        return logits.shape[1]


@dataclass
class Answer:
    """What is stored of a teacher's logits (n, C) for n crops, on the device of the logits.

    ids (n, K) and values (n, K), or values (n, C) of dense kinds; tails (n,) of `topk_logits`; None if the
    kind has none. `finite` (n,) says whether a crop's logits were all finite.
    """

    ids: Tensor | None
    values: Tensor | None
    tails: Tensor | None
    finite: Tensor

    def on_host(self) -> "Answer":
        """The same in host memory; from a GPU a copy that comes after all work it was given so far."""
        parts = (self.ids, self.values, self.tails, self.finite)
        return Answer(*(part if part is None else part.to("cpu", non_blocking=True) for part in parts))


def answer(logits: Tensor, kind: str, k: int, temperature: float) -> Answer:
    """What a label file of `kind` stores of logits (n, C). The temperature divides logits before the softmax.

    topk: the K largest probabilities; smoothing: the largest; hard: its class; dense: all; dense_logits: all
    logits; embedding: all values; topk_logits: the K largest logits and the log of the sum of exp over the
    others.
    """
    finite = logits.isfinite().all(dim=1)
    if kind in ("dense_logits", "embedding"):
        return Answer(None, logits, None, finite)
    if kind == "dense":
        return Answer(None, torch.softmax(logits / temperature, dim=1), None, finite)
    if kind == "topk_logits":
        values, ids = logits.topk(k, dim=1)
        return Answer(ids, values, logits.scatter(1, ids, -torch.inf).logsumexp(dim=1), finite)
    ids, values = topk_probabilities(logits, k if kind == "topk" else 1, temperature)
    return Answer(ids, None if kind == "hard" else values, None, finite)


def combined(logits: list[Tensor], temperature: float) -> Tensor:
    """Logits (n, C) whose softmax is the mean of softmax(logits / temperature) of several teachers."""
    rows = torch.stack([torch.log_softmax(each / temperature, dim=1) for each in logits])
    return rows.logsumexp(dim=0) - math.log(len(logits))
