"""A long job cut into shards: the parts of a `fkdx.labels.parts.Parts`, each of whole batches."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shard:
    """Images first ... last - 1 of a job's sorted keys; of parquet files, of their rows."""

    number: int
    first: int
    last: int


def plan_shards(
    images: int, crops: int, batch_size: int, shard_crops: int = 32768, whole_batches: bool = True
) -> list[Shard]:
    """Cut `images` into shards of about `shard_crops` crops each, or 64 shards if those are less.

    All shards but the last hold whole batches; without `whole_batches` only as many images as a batch, which
    is how the first version cut its jobs. Depends on the job alone, never on how many processes work on it.
    """
    group = max(1, batch_size // crops)
    size = max(min(shard_crops // crops, -(-images // 64)), group)
    if whole_batches:
        size = -(-size // group) * group
    return [Shard(n, first, min(first + size, images)) for n, first in enumerate(range(0, images, size))]


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
