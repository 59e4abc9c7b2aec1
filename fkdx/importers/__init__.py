"""Readers of foreign soft-label formats; one file a format, one interface (`source.Source`).

A new format is a `Source` in a file of its own and a line in `FORMATS`.
"""

from pathlib import Path

from fkdx._C import FormatError
from fkdx.importers.fkd import FkdSource
from fkdx.importers.g_vbsm import GVbsmSource
from fkdx.importers.label_maps import RelabelSource, TokenLabelingSource
from fkdx.importers.lpld import LpldSource
from fkdx.importers.reinforcement import ReinforcementSource
from fkdx.importers.source import Settings, Source
from fkdx.importers.sre2l import Sre2lSource
from fkdx.importers.tinyvit import TinyVitSource

FORMATS: dict[str, type[Source]] = {
    source.name: source
    for source in (
        FkdSource,
        Sre2lSource,
        LpldSource,
        GVbsmSource,
        TinyVitSource,
        ReinforcementSource,
        RelabelSource,
        TokenLabelingSource,
    )
}


def open_source(path: str | Path, settings: Settings, format: str = "auto") -> Source:
    """The label set at `path`, in the named format or the one it looks like.

    Raises FormatError where no format or more than one fits, or the set cannot be replayed; ValueError
    for an unknown name; OSError where the folder cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"open_source: labels, got nothing at {path}, expected a folder")
    if format == "auto":
        fitting = [source for source in FORMATS.values() if source.matches(path)]
        if len(fitting) != 1:
            got = " and ".join(source.name for source in fitting) or "none that fits"
            raise FormatError(
                f"open_source: format, got {got}, expected a folder of one of {', '.join(FORMATS)} "
                f"(`fkdx pack --help` says how they look); name it with --format, {path}"
            )
        return fitting[0](path, settings)
    if format not in FORMATS:
        raise ValueError(f"open_source: format, got '{format}', expected auto or one of {', '.join(FORMATS)}")
    return FORMATS[format](path, settings)
