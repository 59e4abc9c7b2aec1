"""Encoded images in parquet files, read a row group at a time; the last few groups are kept."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.stores.store import Stamp, changed, stamp_of

_KEPT_GROUPS = 4  # in memory, for threads that read in the order of rows
_BINARY_NAMES = ("image", "img", "jpg", "jpeg", "image_bytes", "bytes")
_PATH_NAMES = ("path", "filename", "file_name", "key", "__key__", "image_path")
_LABEL_NAMES = ("label", "labels", "class", "cls", "fine_label")


class RowGroups:
    """Images by file and row. Threads may share it."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}  # of every file when it was first looked at
        self._starts: dict[str, np.ndarray] = {}  # of every file, the first row of each group
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        """For a worker process that is not a fork: what was read stays here."""
        return {"_stamps": self._stamps, "_starts": self._starts}

    def __setstate__(self, state: dict) -> None:
        self.__init__()
        self.__dict__.update(state)

    def read(self, path: str, row: int) -> bytes:
        """The bytes in a row. ValueError where there are none."""
        if path not in self._starts:
            self._starts[path] = group_starts(open_parquet(path))
        starts = self._starts[path]
        group = int(np.searchsorted(starts, row, side="right")) - 1
        column = self._group(path, group)
        if row - int(starts[group]) >= len(column):
            raise FormatError(f"ParquetFiles: row, got {row}, expected one that is there, {path}")
        found = column[row - int(starts[group])].as_py()
        if found is None:
            raise no_bytes(path, f"row {row}")
        return found

    def check(self, path: str) -> None:
        """Notes a file's size and time. RuntimeError where they are not what they were."""
        now = stamp_of(path)
        if self._stamps.setdefault(path, now) != now:
            raise changed(path)

    def _group(self, path: str, number: int) -> Any:
        with self._lock:
            if (path, number) in self._kept:
                self._kept.move_to_end((path, number))
                return self._kept[path, number]
        self.check(path)
        file = open_parquet(path)
        image, leaf, _ = image_columns(file, path)
        column = file.read_row_group(number, columns=[leaf]).column(image).combine_chunks()
        column = column.field("bytes") if leaf != image else column
        with self._lock:
            self._kept[path, number] = column
            if len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
        return column


def open_parquet(path: str) -> Any:
    """A pyarrow ParquetFile. ValueError where pyarrow is missing, or the file is not whole."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ModuleNotFoundError:
        raise ValueError(
            f"ParquetFiles: reading parquet needs pyarrow; run: pip install 'fkdx[parquet]', {path}"
        ) from None
    try:
        return parquet.ParquetFile(path, page_checksum_verification=True)  # of pages that have one
    except ArrowInvalid as error:
        raise ValueError(f"ParquetFiles: not a whole parquet file ({error}), {path}") from None


def group_starts(file: Any) -> np.ndarray:
    """The first row of every row group."""
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return np.cumsum([0, *rows])[:-1]


def image_columns(file: Any, path: str) -> tuple[str, str, str | None]:
    """The column of images, the leaf of it that holds their bytes, and the leaf of their paths, if any.

    Images are a struct of `bytes` and `path`, as Hugging Face keeps them, or bytes under a usual name.
    """
    import pyarrow

    schema = file.schema_arrow
    structs = [field.name for field in schema if _is_image(field.type)]
    structs = [name for name in structs if name in _BINARY_NAMES] or structs
    if len(structs) == 1:
        if pyarrow.types.is_null(schema.field(structs[0]).type.field("bytes").type):
            raise no_bytes(path, "all rows")
        return structs[0], f"{structs[0]}.bytes", f"{structs[0]}.path"
    binary = [field.name for field in schema if _is_binary(field.type) and field.name in _BINARY_NAMES]
    if structs or len(binary) != 1:
        got = ", ".join(f"{field.name} {field.type}" for field in schema)[:300]
        raise ValueError(
            f"ParquetFiles: columns, got {got}, expected one of images, a struct of bytes and path, {path}"
        )
    texts = [field.name for field in schema if _is_text(field.type)]
    return binary[0], binary[0], next((name for name in _PATH_NAMES if name in texts), None)


def label_column(file: Any) -> str | None:
    """The column of class numbers or class names."""
    import pyarrow

    field = _label_field(file)
    return field.name if field and (pyarrow.types.is_integer(field.type) or _is_text(field.type)) else None


def odd_label_type(file: Any) -> str | None:
    """The type of labels that are neither numbers nor names of classes; None where there are none."""
    field = _label_field(file)
    return str(field.type) if field and label_column(file) is None else None


def _label_field(file: Any) -> Any:
    schema = file.schema_arrow
    return next((schema.field(name) for name in _LABEL_NAMES if name in schema.names), None)


def count_without_bytes(file: Any, group: int, leaf: str) -> int:
    """Rows of a group that hold no bytes, as far as the file's statistics tell."""
    row_group = file.metadata.row_group(group)
    for i in range(row_group.num_columns):
        column = row_group.column(i)
        if column.path_in_schema == leaf and column.statistics and column.statistics.has_null_count:
            return column.statistics.null_count
    return 0


def no_bytes(path: str, where: str) -> ValueError:
    """What to raise where a file holds paths instead of images."""
    return ValueError(
        f"ParquetFiles: {where}, got no bytes, expected an image: this file holds paths instead of images; "
        f"write it again with the images in it, or give a list of these paths, {path}"
    )


def _is_image(kind: Any) -> bool:
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return False
    return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: Any) -> bool:
    """Of pandas' categories their values count."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
