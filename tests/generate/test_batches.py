"""How a job keeps its teachers busy: whole batches, and no wait between shards."""

import numpy as np
import pytest

from fkdx import cli
from fkdx.generate.feed import plan_chunks
from fkdx.generate.loop import RUNNING_AHEAD, Labelling, Stopwatch
from fkdx.generate.shards import plan_shards


def test_all_batches_but_the_last_are_whole(rng: np.random.Generator) -> None:
    for _ in range(200):
        images, crops = (int(n) for n in rng.integers(1, (5000, 100)))
        batch_size = crops * int(rng.integers(1, 9)) + int(rng.integers(crops))
        shards = plan_shards(images, crops, batch_size, shard_crops=2000)
        assert [shard.first for shard in shards[1:]] == [shard.last for shard in shards[:-1]]
        assert shards[-1].last == images
        sizes = [
            len(group) for one in shards for group, _ in plan_chunks(one.last - one.first, crops, batch_size)
        ]
        assert set(sizes[:-1]) <= {batch_size // crops}


def test_shards_of_the_first_version_can_still_be_planned() -> None:
    assert [len(plan_shards(400, 64, 256, whole_batches=whole)) for whole in (False, True)] == [58, 50]


def test_nothing_waits_for_the_teacher_between_shards(
    job_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, waited, ahead = [], [], []
    label, seconds = Labelling._label, Stopwatch.seconds

    def labelled(self: Labelling, *arguments: object) -> object:
        ahead.append(len(asked) - len(waited))
        asked.append(1)
        return label(self, *arguments)

    monkeypatch.setattr(Labelling, "_label", labelled)
    monkeypatch.setattr(Stopwatch, "seconds", lambda self: waited.append(1) or seconds(self))
    assert cli.run("generate", job_options) == 0
    assert len(asked) == len(waited) > RUNNING_AHEAD
    assert ahead == [min(n, RUNNING_AHEAD) for n in range(len(asked))]
