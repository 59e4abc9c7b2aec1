"""A long job cut into shards that any number of processes claim, lose and finish, on one machine or many.

The folder of a job holds

    job.json       what the job is; a process with other settings is refused
    job.lock       held by rank 0 while the job runs, so that nobody starts it twice
    00012.lock     held by the process that works on shard 12
    0/00012.fkdl   labels of shard 12 in output 0: complete, or not there
    00012.json     its report, written last: a shard without one is done again

Locks are flock(2) locks: the kernel drops them when their process dies, however it dies. Processes never talk
to each other, so none hangs because another has died. What a shard holds depends on the job alone: should a
file system not keep locks across machines, a shard may be done twice, into the same bytes.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fkdx.labels.atomic import AtomicFile


@dataclass(frozen=True)
class Shard:
    """Images first ... last - 1 of a job's sorted keys."""

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


class Lock:
    """An exclusive lock on `path` for as long as this process lives, or until released.

    Raises BlockingIOError, naming the owner, where another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read() or "another process"
            self._file.close()
            raise BlockingIOError(f"held by {owner}, {path}") from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Job:
    """The folder of a job, which `begin` has made; `settings` decide what is written.

    Raises ValueError where it was begun with other settings, FileNotFoundError where there is none.
    """

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder = folder
        job = json.loads((folder / "job.json").read_text())
        self.settings, self.notes = job["settings"], job["notes"]
        for name in sorted(settings.keys() | self.settings.keys()):
            if settings.get(name) != self.settings.get(name):
                raise ValueError(
                    f"generate: {name}, got {settings.get(name)}, expected {self.settings.get(name)} as when "
                    f"this job was begun; repeat its options or remove its folder, {folder}"
                )

    @classmethod
    def begin(cls, folder: Path, settings: dict, notes: dict, outputs: int = 1) -> "Job":
        """Make the folder of a job of `outputs` label files, or go on with it; `notes` are kept beside."""
        for output in range(outputs):
            (folder / str(output)).mkdir(parents=True, exist_ok=True)
        if not (folder / "job.json").exists():
            job = {"settings": settings, "notes": notes, "whole_batches": True}
            write_json(folder / "job.json", job)
        return cls(folder, settings)

    @staticmethod
    def has_whole_batches(folder: Path) -> bool:
        """Whether shards hold whole batches: of a job that is begun now, but not of the first version's."""
        try:
            return json.loads((folder / "job.json").read_text()).get("whole_batches", False)
        except FileNotFoundError:
            return True

    def lock(self) -> Lock:
        try:
            return Lock(self.folder / "job.lock")
        except BlockingIOError as error:
            raise RuntimeError(f"generate: this job is running already, {error}") from None

    def labels_path(self, shard: Shard, output: int = 0) -> Path:
        return self.folder / str(output) / f"{shard.number:05d}.fkdl"

    def report_path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.number:05d}.json"

    def done(self, shard: Shard) -> bool:
        return self.report_path(shard).exists()

    def report(self, shard: Shard) -> dict:
        return json.loads(self.report_path(shard).read_text())

    def claim(self, shards: list[Shard]) -> Iterator[tuple[Shard, Lock]]:
        """Those of `shards` that are neither done nor held by another process, locked.

        Ends early where the job was finished, and its folder removed, meanwhile.
        """
        for shard in shards:
            if self.done(shard):
                continue
            try:
                lock = Lock(self.folder / f"{shard.number:05d}.lock")
            except BlockingIOError:
                continue
            except FileNotFoundError:
                return
            if self.done(shard):  # finished by its holder between the two looks
                lock.release()
            else:
                yield shard, lock


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def write_json(path: Path, value: object) -> None:
    """Whole or absent, as every AtomicFile; errors are its."""
    file = AtomicFile(path, overwrite=True)
    try:
        file.write(json.dumps(value, indent=1).encode())
        file.commit()
    finally:
        file.abort()
