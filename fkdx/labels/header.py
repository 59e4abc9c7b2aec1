"""The JSON header of a label file: what it holds, and whether those of several files belong together."""

import json
from collections.abc import Sequence
from typing import Any

from fkdx import _C

_OBJECTS = ("dataset", "embeddings", "extra", "moments", "provenance", "repairs", "standardised")
_ALIKE = ("classes", "embeddings", "extra", "standardised")  # in all shards of a set


def read_header(file: dict[str, Any]) -> dict[str, Any]:
    """The header of one of the files that `_C.LabelSet.files` gives. FormatError where it is none."""
    try:
        header = json.loads(file["header"])
    except (ValueError, RecursionError) as error:
        raise _C.FormatError(f"LabelFile: header, expected JSON ({error}), {file['path']}") from None
    if not isinstance(header, dict):
        raise _C.FormatError(f"LabelFile: header, expected a JSON object, {file['path']}")
    for name in _OBJECTS:
        if not isinstance(header.get(name, {}), dict):
            got = f"got {header[name]!r:.80}, expected an object"
            raise _C.FormatError(f"LabelFile: {name} in the header, {got}, {file['path']}")
    classes = header.get("classes") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        got = f"got {classes!r:.80}, expected a list of names"
        raise _C.FormatError(f"LabelFile: classes in the header, {got}, {file['path']}")
    return header


def check_same_labels(files: Sequence[dict[str, Any]]) -> None:
    """Raises FormatError where the headers of files, as `_C.LabelSet.files` gives them, differ in their
    classes, or in something else by which labels are read."""
    first = read_header(files[0])
    for file in files[1:]:
        header = read_header(file)
        other = next((name for name in _ALIKE if header.get(name) != first.get(name)), None)
        if other is not None:
            got = f"got others than in {files[0]['path']}, expected the same"
            raise _C.FormatError(f"LabelFile: {other} in the header, {got}, {file['path']}")
