"""Label files written as one parquet table, a row a crop, for pandas, DuckDB and the like."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fkdx.errors import refuse
from fkdx.files import write_whole
from fkdx.labels import ImageLabels, LabelFile
from fkdx.labels.layout import WITHOUT_IDS

GROUP_BYTES = 64 << 20  # of values in a row group


def export_parquet(labels: LabelFile, images: Iterable[ImageLabels], path: str | Path) -> int:
    """Writes the labels of `images`, which are those of `labels`, to a parquet file; returns the rows.

    Columns:
        key: string.
        crop: int32, its number in its image.
        box: 4 x int32 top, left, height, width in pixels; 4 x float32 fractions of the image in files with
            ratios.
        flip: bool.
        ids: K x int32; not for dense kinds.
        values: K x float32 (C for dense kinds) probabilities or logits.
        tail: float32, for `topk_logits` only, see `ImageLabels`.
        partner, partner_box, partner_flip, operation, lambda, mix_box: in files of mixed crops only, see
            `Mixes`; partner is null in a crop that is not mixed.
        operations: string, for augmented crops only: the JSON of their parameters.

    The schema's metadata holds the kind, C, K, the side of mixed images and the label file's header as JSON
    under `fkdx`.

    Raises RuntimeError without pyarrow, ValueError for further operations that are not stored by crop,
    OSError if the file cannot be written.
    """
    pyarrow, parquet = _pyarrow()
    facts = {
        name: getattr(labels, name) for name in ("kind", "num_classes", "k", "ratios", "mix_size", "header")
    }
    metadata = {"fkdx": json.dumps(facts)}
    rows = 0

    def write(temporary: Path) -> None:
        nonlocal rows
        first = pyarrow.table(_columns(labels, []), metadata=metadata)
        with parquet.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
            for group in _groups(images):
                table = pyarrow.table(_columns(labels, group), schema=first.schema)
                writer.write_table(table)
                rows += table.num_rows

    write_whole(path, write)
    return rows


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise RuntimeError("export: parquet needs pyarrow; run: pip install 'fkdx[parquet]'") from error
    return pyarrow, parquet


def _groups(images: Iterable[ImageLabels]) -> Iterator[list[ImageLabels]]:
    """Images in lists of about GROUP_BYTES."""
    group: list[ImageLabels] = []
    size = 0
    for image in images:
        group.append(image)
        size += image.values.size * 4
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _columns(labels: LabelFile, images: list[ImageLabels]) -> dict[str, Any]:
    pyarrow, _ = _pyarrow()

    def joined(arrays: list[np.ndarray], dtype: Any, width: int | None = None) -> Any:
        """One column of all images' rows; `width` numbers a row."""
        flat = np.concatenate([np.empty(0, dtype), *(np.asarray(array, dtype).ravel() for array in arrays)])
        column = pyarrow.array(flat)
        return column if width is None else pyarrow.FixedSizeListArray.from_arrays(column, width)

    edge = np.float32 if labels.ratios else np.int32
    counts = [len(image.flips) for image in images]
    owners = joined([np.full(count, i) for i, count in enumerate(counts)], np.int32)
    columns = {
        "key": pyarrow.array([image.key for image in images], pyarrow.string()).take(owners),
        "crop": joined([np.arange(count) for count in counts], np.int32),
        "box": joined([image.boxes for image in images], edge, 4),
        "flip": joined([image.flips for image in images], bool),
    }
    if labels.kind not in WITHOUT_IDS:
        columns["ids"] = joined([image.ids for image in images], np.int32, labels.k)
    as_given = labels.standard.teachers if labels.embeddings else np.asarray
    columns["values"] = joined([as_given(image.values) for image in images], np.float32, labels.k)
    if labels.kind == "topk_logits":
        columns["tail"] = joined([image.tails for image in images], np.float32)
    if labels.mix_size:
        mixes = [image.mixes for image in images]
        names = [name for mix in mixes for name in mix.partners]
        columns |= {
            "partner": pyarrow.array(names, pyarrow.string()),
            "partner_box": joined([mix.boxes for mix in mixes], edge, 4),
            "partner_flip": joined([mix.flips for mix in mixes], bool),
            "operation": joined([mix.operations for mix in mixes], np.int32),
            "lambda": joined([mix.lambdas for mix in mixes], np.float32),
            "mix_box": joined([mix.mix_boxes for mix in mixes], np.int32, 4),
        }
    if labels.extra_operations:
        texts = [text for image in images for text in _operations(image, labels)]
        columns["operations"] = pyarrow.array(texts, pyarrow.string())
    return columns


def _operations(image: ImageLabels, labels: LabelFile) -> list[str]:
    """The parameters of further operations of every crop, as JSON."""
    try:
        crops = json.loads(image.extra) if len(image.flips) else []
    except ValueError:  # bytes of another form
        crops = None
    if not isinstance(crops, list) or len(crops) != len(image.flips):
        got = f"other than one for each crop of {image.key}"
        refuse("export", "further operations", got, "a list of them", labels.path)
    return [json.dumps(crop) for crop in crops]
