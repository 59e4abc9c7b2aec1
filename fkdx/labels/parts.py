"""A label file on its way: a folder of parts that any number of processes claim, lose and finish.

    X.fkdl.parts/
        job.json       what the job is; a process with other settings is refused
        begin.lock     held while job.json is written
        job.lock       held while the job runs, so that nobody starts it twice
        00012.lock     held by the process that works on part 12
        0/00012.fkdl   labels of part 12 in output 0: complete, or not there
        00012.json     its report, written last: a part without one is done again

Processes never talk to each other, so none hangs because another has died. What a part holds depends on the
job alone, so the finished file is the same whoever works on it and however often it is interrupted.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fkdx.files import Lock, write_whole
from fkdx.labels.file import LabelFile
from fkdx.labels.moments import Moments
from fkdx.labels.shards import shard_path
from fkdx.labels.standard import Standard, standard_header
from fkdx.labels.writer import LabelWriter

VERSION = 2  # of job.json; in version 1, which has no number, shards of `fkdx generate` were cut otherwise


class Parts:
    """The folder of a job, which `begin` has made; `settings` (JSON values) decide what is written.

    `verb` is the program, for its messages. Raises ValueError if the folder was begun with other settings or
    by an earlier version, FileNotFoundError if there is none.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], verb: str) -> None:
        self.folder, self.verb = folder, verb
        job = json.loads((folder / "job.json").read_text())
        if "settings" not in job:
            raise ValueError(
                f"{verb}: {folder} holds unfinished work of an earlier version of fkdx; remove it and repeat "
                "the command"
            )
        self.settings, self.notes = job["settings"], job["notes"]
        for name in sorted(settings.keys() | self.settings.keys()):
            old, new = self.settings.get(name), settings.get(name)
            if new != old:
                raise ValueError(
                    f"{verb}: {folder} holds unfinished work for other settings ({name} was {_short(old)}, "
                    f"is now {_short(new)}); repeat the old command or remove it"
                )

    @classmethod
    def begin(
        cls, folder: Path, settings: dict[str, Any], verb: str, notes: dict | None = None, outputs: int = 1
    ) -> "Parts":
        """Make the folder of a job of `outputs` label files, or go on with it; `notes` are kept beside."""
        job, file = {"version": VERSION, "settings": settings, "notes": notes or {}}, folder / "job.json"
        while not file.exists():
            for output in range(outputs):
                (folder / str(output)).mkdir(parents=True, exist_ok=True)
            try:
                with Lock(folder / "begin.lock"):
                    if not file.exists():
                        write_json(file, job)
            except BlockingIOError:
                time.sleep(0.05)  # another process begins the job in this moment
        return cls(folder, settings, verb)

    def lock(self) -> Lock:
        """Held while the job runs. Raises RuntimeError if it runs already."""
        try:
            return Lock(self.folder / "job.lock")
        except BlockingIOError as error:
            raise RuntimeError(f"{self.verb}: this job is running already, {error}") from None

    def labels_path(self, number: int, output: int = 0) -> Path:
        return shard_path(self.folder / str(output), number)

    def is_done(self, number: int) -> bool:
        return self._report_path(number).exists()

    def report(self, number: int) -> dict[str, Any]:
        """What was said when the part was done."""
        return json.loads(self._report_path(number).read_text())

    def set_done(self, number: int, report: dict[str, Any]) -> None:
        """Say that all files of a part are in place."""
        write_json(self._report_path(number), report)

    def _report_path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"

    def claim(self, numbers: Iterable[int]) -> Iterator[tuple[int, Lock]]:
        """Those parts that are neither done nor held by another process, locked.

        Ends early if the job was finished, and its folder removed, meanwhile.
        """
        for number in numbers:
            if self.is_done(number):
                continue
            try:
                lock = Lock(self.folder / f"{number:05d}.lock")
            except BlockingIOError:
                continue
            except FileNotFoundError:
                return
            if self.is_done(number):  # finished by its holder between the two looks
                lock.release()
            elif not (self.folder / "job.json").exists():  # it was the last one, and all were joined
                lock.release()
                return
            else:
                yield number, lock

    def join(
        self,
        numbers: Iterable[int],
        target: Path,
        options: dict[str, Any],
        output: int = 0,
        standardise: bool = False,
    ) -> None:
        """Make one label file of the parts, whatever lies at `target`; `options` are those of LabelWriter.

        `standardise` their embeddings, by the means and deviations of all of them.
        """
        files = [LabelFile(self.labels_path(number, output)) for number in numbers]
        standard = None
        if standardise:
            options = {**options, "standardised": standard_header(_moments_of_all(files))}
            standard = Standard.from_header(options["standardised"], options["embeddings"])
        with LabelWriter(target, **options, overwrite=True) as writer:
            for file in files:
                _copy(file, writer, standard)

    def remove(self) -> None:
        """Remove the folder; half removed, it does not look like a job."""
        shutil.rmtree(self.folder.rename(_removed(self.folder)))


def version_of(folder: Path) -> int:
    """The version of the job in this folder, or of one that is begun now."""
    try:
        return json.loads((folder / "job.json").read_text()).get("version", 1)
    except FileNotFoundError:
        return VERSION


def clear_removed(folder: Path) -> None:
    """Remove what is left of the folder of a finished job whose removal was cut off."""
    shutil.rmtree(_removed(folder), ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Whole or absent."""
    write_whole(path, json.dumps(value, indent=1).encode())


def _copy(file: LabelFile, writer: LabelWriter, standard: Standard | None) -> None:
    for image in np.flatnonzero(file.crop_counts).tolist():  # the others are only partners of mixed crops
        if standard:
            own = file[image]
            writer.add_image(replace(own, values=standard.stored(own.values)))
        elif file.mix_size:  # its blocks number the partners by the part's own images
            writer.add_image(file[image])
        else:
            writer.copy_image(file, image)
    writer.add_counts(file, copied=not (file.mix_size or standard))


def _moments_of_all(files: Sequence[LabelFile]) -> dict[str, Moments]:
    """The moments of each embedding over all crops of several files."""
    sizes = files[0].embeddings
    return {
        name: sum((file.moments[name] for file in files), Moments.none(size)) for name, size in sizes.items()
    }


def _removed(folder: Path) -> Path:
    return folder.with_name(folder.name + ".done")  # X.fkdl.done may be a mark of somebody else's


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
