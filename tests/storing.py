"""Stores that tests write, and what is in one."""

import io
import os
import tarfile
from pathlib import Path

from fkdx.stores import Store


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def touch(path: Path) -> None:
    """Its time of change is another one, however coarse the clock of the file system."""
    os.utime(path, (1, 1))


def contents(store: Store) -> dict[str, bytes]:
    found = {}
    for i, key in enumerate(store.keys):
        path, offset, length = store.place(i)
        with open(path, "rb") as file:
            file.seek(offset)
            found[key] = file.read(length)
    return found


def names(store: Store) -> list[str | None]:
    """The name of every image's class."""
    return [store.class_names[number] if number >= 0 else None for number in store.class_of]
