"""The loop that keeps teachers busy: chunks of crops in, answers out, shards written behind their back."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm

from fkdx.batch import prepare
from fkdx.batch.mix import Mix
from fkdx.files import Lock
from fkdx.generate.collect import Output, write_shard
from fkdx.generate.cut import Shape
from fkdx.generate.feed import Chunk, Feed
from fkdx.generate.shards import Shard
from fkdx.labels.parts import Parts
from fkdx.models.teacher import Answer, Teacher, answer, combined

RUNNING_AHEAD = 2  # batches that a GPU may be given before it is done with the one before
WRITING_BEHIND = 4  # shards that may wait to be written


class Labelling:
    """Labels what nobody else labels.

    `temperature` divides the logits; `strict` makes an image that cannot be read an error; `quiet` hides the
    progress bar.
    """

    def __init__(
        self,
        job: Parts,
        feed: Feed,
        teachers: list[Teacher],
        outputs: list[Output],
        temperature: float,
        strict: bool = False,
        quiet: bool = False,
    ) -> None:
        self.job, self.feed, self.teachers, self.outputs = job, feed, teachers, outputs
        self.temperature, self.strict, self.quiet = temperature, strict, quiet
        self.device = teachers[0].device
        self._beside = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.busy = 0.0  # seconds in which teachers worked
        self._locks: dict[Shard, Lock] = {}
        self._under_way: deque[Stopwatch] = deque()

    def run(self, shards: list[Shard]) -> bool:
        """Do all shards that can be claimed; whether every shard is done then, by whomever."""
        writing: deque[Future] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="fkdx-write") as writer, self._bar(shards) as bar:
            self._started, self.busy = time.perf_counter(), 0.0
            chunks = self.feed.chunks(self._claim(shards))
            for shard, own in groupby(chunks, key=lambda chunk: chunk.shard):
                before = time.perf_counter()
                batches = [self._label(chunk, bar) for chunk in own]
                facts = {"seconds": round(time.perf_counter() - before, 3), "device": self._device_name()}
                writing.append(writer.submit(self._write, shard, batches, facts))
                while len(writing) > WRITING_BEHIND:
                    writing.popleft().result()
            for task in writing:
                task.result()
            self._wait_until_left(0)
        return all(self.job.is_done(shard.number) for shard in shards)

    def _claim(self, shards: list[Shard]) -> Iterator[Shard]:
        by_number = {shard.number: shard for shard in shards}
        for number, lock in self.job.claim(by_number):
            self._locks[by_number[number]] = lock
            yield by_number[number]

    def _write(self, shard: Shard, batches: list["Labelled"], facts: dict) -> None:
        for batch in batches:
            batch.stopwatch.wait()
        answers = [(batch.chunk, batch.answers) for batch in batches]
        write_shard(self.job, shard, self.outputs, answers, facts)
        self._locks.pop(shard).release()

    def _label(self, chunk: Chunk, bar: tqdm) -> "Labelled":
        """Give the device a chunk, and wait until it is done with all but the last few, of whatever shard."""
        failure = next((image for image in chunk.images if image.failure), None)
        if failure and self.strict:
            raise ValueError(f"generate: {failure.failure}, {failure.key}")
        crops = {shape: self._on_device(crops) for shape, crops in chunk.crops.items()}
        mixes = {shape: mix and mix.to(self.device, True) for shape, mix in chunk.mixes.items()}
        chunk.crops.clear()
        chunk.mixes.clear()
        with Stopwatch(self.device) as stopwatch:
            answers = [one.on_host() for one in self._ask(crops, mixes, chunk.places, bar)]
        self._under_way.append(stopwatch)
        self._wait_until_left(RUNNING_AHEAD)
        bar.set_postfix_str(f"teacher busy {self.busy_share():.0%}", refresh=False)
        bar.update(len(chunk.images) * (chunk.last - chunk.first))
        return Labelled(chunk, answers, stopwatch)

    def _wait_until_left(self, batches: int) -> None:
        while len(self._under_way) > batches:
            self.busy += self._under_way.popleft().seconds()

    def busy_share(self) -> float:
        """The part of the time so far in which teachers worked."""
        return self.busy / (time.perf_counter() - self._started)

    def _ask(
        self, crops: dict[Shape, Tensor], mixes: dict[Shape, Mix | None], places: Tensor | None, bar: tqdm
    ) -> list[Answer]:
        """One answer an output."""
        where = () if places is None else (places,)
        logits = []
        for teacher in self.teachers:
            limit, seen = teacher.limit, crops[teacher.shape]
            if mix := mixes.get(teacher.shape):
                seen = prepare(seen, teacher.preprocess.mean, teacher.preprocess.std, mix=mix)
            logits.append(teacher(seen, *where))
            if teacher.limit != limit:
                bar.write(f"{teacher.name}: out of memory; goes on with batches of {teacher.limit} crops")
        answers = []
        for output in self.outputs:
            kind, k = output.options["kind"], output.options["k"]
            if len(output.members) == 1:
                answers.append(answer(logits[output.members[0]], kind, k, self.temperature))
            else:
                mean = combined([logits[member] for member in output.members], self.temperature)
                answers.append(answer(mean, kind, k, 1.0))
        return answers

    def _on_device(self, crops: Tensor) -> Tensor:
        """Crops where the teachers are; on a GPU copied beside the batch before."""
        if self._beside is None:
            return crops
        with torch.cuda.stream(self._beside):
            moved = crops.to(self.device, non_blocking=True)
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self._beside)
        moved.record_stream(now)
        return moved

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def _bar(self, shards: list[Shard]) -> tqdm:
        def crops(some: list[Shard]) -> int:
            return self.feed.crops * sum(shard.last - shard.first for shard in some)

        done = crops([shard for shard in shards if self.job.is_done(shard.number)])
        hidden = True if self.quiet else None  # None: shown on a terminal only
        return tqdm(total=crops(shards), initial=done, unit=" crops", unit_scale=True, disable=hidden)


class Stopwatch:
    """How long a device worked on what it was given inside the `with`; seconds() waits until it is done."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
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

    def wait(self) -> None:
        if self._stream:
            self._marks[1].synchronize()

    def seconds(self) -> float:
        self.wait()
        start, end = self._marks
        return start.elapsed_time(end) / 1000 if self._stream else end - start


@dataclass(frozen=True)
class Labelled:
    """A batch, the answers to it in host memory, and the stopwatch that says when they are there."""

    chunk: Chunk
    answers: list[Answer]
    stopwatch: Stopwatch
