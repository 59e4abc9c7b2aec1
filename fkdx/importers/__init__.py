"""Readers of other projects' soft-label formats: one file per format, one interface (`ForeignLabels`).

A new format is a subclass of `ForeignLabels` in a new file, and a line in `FORMATS`.
"""

import os
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.fkd import FkdLabels
from fkdx.importers.foreign_labels import ForeignLabels, Settings
from fkdx.importers.g_vbsm import GVbsmLabels
from fkdx.importers.label_maps import RelabelMaps, TokenLabelingMaps
from fkdx.importers.lpld import LpldLabels
from fkdx.importers.lpqld import LpqldLabels
from fkdx.importers.reinforcement import ReinforcementLabels
from fkdx.importers.sre2l import Sre2lLabels
from fkdx.importers.tinyvit import TinyVitLabels
from fkdx.stores import are_sorted, follows_folders
from fkdx.stores.store import is_image

FORMATS: dict[str, type[ForeignLabels]] = {
    labels.name: labels
    for labels in (
        FkdLabels,
        Sre2lLabels,
        LpldLabels,
        LpqldLabels,
        GVbsmLabels,
        TinyVitLabels,
        ReinforcementLabels,
        RelabelMaps,
        TokenLabelingMaps,
    )
}


def open_foreign(path: str | Path, settings: Settings, format: str = "auto") -> ForeignLabels:
    """Opens the labels at `path`, in the named format or the one they look like.

    Raises FormatError if no format or more than one fits, or if the crops cannot be replayed; ValueError for
    an unknown format; OSError if the folder cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"open_foreign: no such folder of labels, {path}")
    labels = _reader(path, format)(path, settings)
    labels.origin = _origin(path, settings)
    if labels.classes and not settings.classes and not _are_sure(labels):
        some = ", ".join(labels.classes[:3])
        note = f"classes are left without names: these labels need not count as the images do ({some}, ...)"
        labels.classes, labels.notes = None, [*labels.notes, f"{note}; name them with --classes FILE"]
    return labels


def _origin(path: Path, settings: Settings) -> list[tuple[str, Any]]:
    images = settings.images and str(settings.images.root.resolve())
    said = [(one.name, getattr(settings, one.name)) for one in fields(settings) if one.name != "images"]
    return [("folder", str(path.resolve())), ("images", images), *said]


def _are_sure(labels: ForeignLabels) -> bool:
    """Whether class names that nobody gave stand in the order of sorted folders for sure, as labels count."""
    images = getattr(labels, "images", None)
    return follows_folders(images.store) if images else are_sorted(labels.classes)


def _reader(path: Path, format: str) -> type[ForeignLabels]:
    """What reads the labels at `path`."""
    if format == "auto":
        fitting = [labels for labels in FORMATS.values() if labels.matches(path)]
        if len(fitting) != 1:
            got = " and ".join(labels.name for labels in fitting) or _what_it_is(path)
            raise FormatError(
                f"open_foreign: format, got {got}, expected a folder of one of {', '.join(FORMATS)} "
                f"(`fkdx pack --help` describes them); name it with --format, {path}"
            )
        return fitting[0]
    if format not in FORMATS:
        refuse("open_foreign", "format", f"'{format}'", f"auto or one of {', '.join(FORMATS)}")
    return FORMATS[format]


def _what_it_is(path: Path) -> str:
    """In words, of what is in no known format."""
    if path.is_file():
        return "a label file, which is packed already" if path.suffix == ".fkdl" else "a file"
    if not path.is_dir():
        return "a device or a pipe"
    found = [name for _, _, names in islice(os.walk(path), 100) for name in names]
    if not found:
        return "an empty folder"
    if all(map(is_image, found)):
        return "images without labels"
    inside = [
        f"{labels.name} labels in {folder.name}"
        for folder in sorted(path.iterdir())
        if folder.is_dir()
        for labels in FORMATS.values()
        if labels.matches(folder)
    ]
    return f"a folder with {' and '.join(inside[:3])}" if inside else "none that fits"
