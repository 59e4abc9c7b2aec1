"""The loop that keeps a teacher busy: chunks of crops in, answers out, shards written behind its back."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm

from fkdx.generate.collect import write_shard
from fkdx.generate.feed import Chunk, Feed
from fkdx.generate.shards import Job, Lock, Shard
from fkdx.teacher import Answer, Teacher, answer

RUNNING_AHEAD = 2  # batches that a GPU may be given before it is done with the one before


class Labelling:
    """Labels what nobody else labels.

    `options` are those of LabelWriter for every shard; `strict` makes an image that cannot be read an error.
    """

    def __init__(
        self, job: Job, feed: Feed, teacher: Teacher, options: dict, temperature: float, strict: bool = False
    ) -> None:
        self.job, self.feed, self.teacher = job, feed, teacher
        self.options, self.temperature, self.strict = options, temperature, strict
        self.busy = 0.0  # seconds in which the teacher worked
        self._started = time.perf_counter()
        self._locks: dict[Shard, Lock] = {}

    def run(self, shards: list[Shard]) -> bool:
        """Do all shards that can be claimed; whether every shard is done then, by whomever."""
        writing: deque[Future] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="fkdx-write") as writer, self._bar(shards) as bar:
            chunks = self.feed.chunks(self._claim(shards))
            for shard, own in groupby(chunks, key=lambda chunk: chunk.shard):
                writing.append(writer.submit(self._write, shard, list(self._answers(own, bar))))
                while len(writing) > 1:
                    writing.popleft().result()
            for task in writing:
                task.result()
        return all(map(self.job.done, shards))

    def _claim(self, shards: list[Shard]) -> Iterator[Shard]:
        for shard, lock in self.job.claim(shards):
            self._locks[shard] = lock
            yield shard

    def _write(self, shard: Shard, answers: list[tuple[Chunk, Answer]]) -> None:
        write_shard(self.job, shard, answers, self.options)
        self._locks.pop(shard).release()

    def _answers(self, chunks: Iterable[Chunk], bar: tqdm) -> Iterator[tuple[Chunk, Answer]]:
        under_way: deque[Stopwatch] = deque()
        for chunk in chunks:
            failure = next((view for view in chunk.views if view.failure), None)
            if failure and self.strict:
                raise ValueError(f"generate: {failure.failure}, {failure.key}")
            crops = self._on_device(chunk)
            with Stopwatch(self.teacher.device) as stopwatch:
                found = answer(self.teacher(crops), self.options["kind"], self.options["k"], self.temperature)
            chunk.crops.clear()
            yield chunk, found
            under_way.append(stopwatch)
            while len(under_way) > RUNNING_AHEAD:
                self.busy += under_way.popleft().seconds()
            bar.set_postfix_str(
                f"teacher busy {self.busy / (time.perf_counter() - self._started):.0%}", refresh=False
            )
            bar.update(len(crops))
        self.busy += sum(stopwatch.seconds() for stopwatch in under_way)

    def _on_device(self, chunk: Chunk) -> Tensor:
        """The chunk's crops where the teacher is; on a GPU copied beside the batch before."""
        preprocess = self.teacher.preprocess
        crops = chunk.crops[preprocess.size, preprocess.interpolation]
        if self.teacher.device.type != "cuda":
            return crops
        beside = torch.cuda.Stream(self.teacher.device)
        with torch.cuda.stream(beside):
            moved = crops.to(self.teacher.device, non_blocking=True)
        now = torch.cuda.current_stream(self.teacher.device)
        now.wait_stream(beside)
        moved.record_stream(now)
        return moved

    def _bar(self, shards: list[Shard]) -> tqdm:
        crops = self.feed.crops
        return tqdm(
            total=crops * sum(shard.last - shard.first for shard in shards),
            initial=crops * sum(shard.last - shard.first for shard in shards if self.job.done(shard)),
            unit=" crops",
            unit_scale=True,
            disable=True if int(os.environ.get("RANK", 0)) else None,
        )


class Stopwatch:
    """How long a device worked on what it was given inside the `with`; seconds() waits until it is done."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._stream = torch.cuda.current_stream(device) if cuda else None
        self._marks: list = []

    def _mark(self) -> None:
        if self._stream:
            self._marks.append(self._stream.record_event(torch.cuda.Event(enable_timing=True)))
        else:
            self._marks.append(time.perf_counter())

    def __enter__(self) -> "Stopwatch":
        self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._mark()

    def seconds(self) -> float:
        start, end = self._marks
        if not self._stream:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
