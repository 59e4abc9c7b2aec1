"""What a job is asked to do: the options of `fkdx generate`, typed and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fkdx.image.augment import augment_of
from fkdx.image.random_boxes import RATIO, SCALE

Pair = tuple[float, float]
Triple = tuple[float, float, float]

TOPK = 5  # classes kept of each crop where --topk is not given
TOPK_KINDS = ("topk", "topk_logits")  # the kinds of labels that keep the top K
POSITIVE = ("crops", "topk", "batch_size", "temperature", "size", "threads")


@dataclass(frozen=True)
class Settings:
    """One field for each option, by the option's name; `docs/generate.md` and `--help` say what they mean.

    `command` is the command line, which the label file's header keeps. Raises ValueError, naming the option,
    for values out of range and for options that do not fit together.
    """

    # files
    data: str | None = None
    output: Path | None = None
    classes: str | None = None
    evaluate: str | None = None
    dry_run: bool = False
    status: bool = False
    strict: bool = False
    allow_warnings: bool = False
    shards: tuple[int, int] = (0, 1)
    # crops
    crops: int = 200
    seed: int = 0
    scale: Pair = SCALE
    ratio: Pair = RATIO
    flip: float = 0.5
    crops_from: str | None = None
    policy: str | None = None
    augment: tuple[str, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0
    # labels
    kind: str = "topk"
    topk: int | None = None
    temperature: float = 1.0
    encoding: str = "plain"
    value_type: str | None = None
    standardise: bool = False
    features: str = "pooled"
    store: Literal["ensemble", "separate", "both"] = "ensemble"
    # teachers
    teacher: tuple[str, ...] = ()
    checkpoint: tuple[str, ...] = ()
    pretrained: bool = False
    head: str | None = None
    maps: bool = False
    size: int | None = None
    interpolation: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    # machine
    batch_size: int = 64
    device: str = "auto"
    precision: str | None = None
    compile: bool = False
    threads: int | None = None
    json: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"--{name.replace('_', '-')}: got {value}, expected more than 0")
        _expect(self.output is None or self.output.name, f"--output: got '{self.output}', expected a name")
        if self.status:
            _expect(self.output is not None, "--status needs --output")
            return
        _expect(self.output is not None or not self.is_item, "--shards needs --output")
        self._check_files()
        self._check_teachers()
        self._check_labels()
        self._check_crops()

    def _check_files(self) -> None:
        _expect(self.data and self.teacher, "--data and --teacher are required")
        _expect(
            self.output is not None or self.evaluate,
            "nothing to do: give --output FILE, --evaluate DIR, or both",
        )

    def _check_teachers(self) -> None:
        _expect(
            not self.checkpoint or len(self.checkpoint) == len(self.teacher),
            f"--checkpoint: got {len(self.checkpoint)}, expected {len(self.teacher)}, one a teacher "
            "('pretrained' where it has pretrained weights)",
        )
        _expect(
            not self.head or "logits" in self.kind,
            f"--head: its outputs are stored before the softmax, got --kind {self.kind}; use --kind "
            "dense_logits or topk_logits",
        )
        _expect(
            not self.head or not self.evaluate,
            "--head: its outputs are no classes, got --evaluate with it",
        )
        _expect(
            not self.maps or not (self.evaluate or self.dry_run),
            "--maps: teachers of maps only label, got --evaluate or --dry-run with it",
        )

    def _check_labels(self) -> None:
        embeds = self.kind == "embedding"
        _expect(
            self.topk is None or self.kind in TOPK_KINDS,
            f"--topk: of kinds {' and '.join(TOPK_KINDS)} only, got {self.topk} and --kind {self.kind}",
        )
        _expect(
            embeds or (self.features == "pooled" and self.value_type != "int8"),
            f"--features, --value-type int8: of embeddings only, got --kind {self.kind}",
        )
        one_file = self.output is None or self.output.suffix == ".fkdl"
        _expect(
            not self.standardise or (embeds and one_file),
            f"--standardise: of embeddings in one file, got --kind {self.kind} and --output {self.output}, "
            "expected embedding and NAME.fkdl",
        )
        small = self.encoding == "compact" and self.kind in ("topk", "smoothing")
        _expect(
            small or self.value_type != "log8",
            "--value-type log8: for compact topk and smoothing labels only",
        )
        bare = {"embedding": "embeddings", "dense_logits": "logits", "topk_logits": "logits"}.get(self.kind)
        _expect(
            not bare or self.temperature == 1,
            f"--temperature: {bare} have none, got {self.temperature}; give it to the training",
        )
        _expect(
            not embeds or not (self.maps or self.evaluate or self.classes),
            "--kind embedding: a teacher without classes, got --maps, --evaluate or --classes with it; `fkdx "
            "evaluate` measures embeddings",
        )

    def _check_crops(self) -> None:
        _expect(
            min(self.mixup, self.cutmix) >= 0,
            f"--mixup, --cutmix: got {self.mixup} and {self.cutmix}, expected no negative number",
        )
        _expect(
            not self.maps or not (self.mixed or self.augment),
            "--maps: the teacher sees whole images, got --mixup, --cutmix or --augment with it",
        )
        _expect(not (self.policy and self.crops_from), "--policy and --crops-from exclude each other")
        for word in self.augment:
            try:
                augment_of(word)
            except ValueError as error:
                raise ValueError(f"--augment: {str(error).removeprefix('augment: ')}") from None

    @property
    def k(self) -> int:
        """The most classes kept of each crop."""
        return TOPK if self.topk is None else self.topk

    @property
    def is_item(self) -> bool:
        """Whether only a part of the job's shards is asked for."""
        return self.shards[1] > 1

    @property
    def mixed(self) -> bool:
        """Whether crops are mixed with those of other images."""
        return bool(self.mixup or self.cutmix)

    @property
    def weights(self) -> list[tuple[str, str | None, bool]]:
        """Every teacher's name, checkpoint, and whether pretrained weights are meant."""
        files = self.checkpoint or (None,) * len(self.teacher)
        return [
            (name, None if file == "pretrained" else file, self.pretrained or file == "pretrained")
            for name, file in zip(self.teacher, files)
        ]

    @property
    def inputs(self) -> dict[str, Any]:
        """What is said of the teachers' inputs; the rest comes from their own configuration."""
        given = {"size": self.size, "interpolation": self.interpolation, "mean": self.mean, "std": self.std}
        return {name: value for name, value in given.items() if value is not None}


def _expect(ok: object, text: str) -> None:
    if not ok:
        raise ValueError(text)
