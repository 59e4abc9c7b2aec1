"""Readers of foreign soft-label formats; one file a format, one interface (`ForeignLabels`).

A new format is a `ForeignLabels` in a file of its own and a line in `FORMATS`.
"""

from pathlib import Path

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.fkd import FkdLabels
from fkdx.importers.foreign_labels import ForeignLabels, Settings
from fkdx.importers.g_vbsm import GVbsmLabels
from fkdx.importers.label_maps import RelabelMaps, TokenLabelingMaps
from fkdx.importers.lpld import LpldLabels
from fkdx.importers.reinforcement import ReinforcementLabels
from fkdx.importers.sre2l import Sre2lLabels
from fkdx.importers.tinyvit import TinyVitLabels

FORMATS: dict[str, type[ForeignLabels]] = {
    labels.name: labels
    for labels in (
        FkdLabels,
        Sre2lLabels,
        LpldLabels,
        GVbsmLabels,
        TinyVitLabels,
        ReinforcementLabels,
        RelabelMaps,
        TokenLabelingMaps,
    )
}


def open_foreign(path: str | Path, settings: Settings, format: str = "auto") -> ForeignLabels:
    """The label set at `path`, in the named format or the one it looks like.

    Raises FormatError where no format or more than one fits, or the set cannot be replayed; ValueError
    for an unknown name; OSError where the folder cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"open_foreign: labels, got nothing at {path}, expected a folder")
    if format == "auto":
        fitting = [labels for labels in FORMATS.values() if labels.matches(path)]
        if len(fitting) != 1:
            got = " and ".join(labels.name for labels in fitting) or "none that fits"
            raise FormatError(
                f"open_foreign: format, got {got}, expected a folder of one of {', '.join(FORMATS)} "
                f"(`fkdx pack --help` says how they look); name it with --format, {path}"
            )
        return fitting[0](path, settings)
    if format not in FORMATS:
        refuse("open_foreign", "format", f"'{format}'", f"auto or one of {', '.join(FORMATS)}")
    return FORMATS[format](path, settings)
