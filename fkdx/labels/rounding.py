"""How a label file would store values, without writing one."""

import numpy as np

from fkdx import _C
from fkdx.labels import layout
from fkdx.labels.file import LabelFile
from fkdx.labels.writer import default_value_type


def stored_values(
    labels: LabelFile, values: np.ndarray, tails: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What values come back as after being stored as `labels` stores its own.

    Args:
        labels: a file of soft labels.
        values: (M, K) probabilities or logits, the largest of a row first; (M, C) for dense kinds.
        tails: (M,) for `topk_logits`.

    Returns:
        (M, K) float32 and (M,) float32; None instead of tails for the other kinds.

    Raises ValueError for values that such a file cannot hold.
    """
    codec = _codec(labels, labels.encoding, labels.value_type)
    crops = len(values)
    arrays = {
        "boxes": np.tile(np.array([0, 0, 1, 1], np.int32), (crops, 1)),
        "flips": np.zeros(crops, np.uint8),
        "values": np.array(values, np.float32, order="C"),
    }
    if not labels.kind.startswith("dense"):
        arrays["ids"] = np.tile(np.arange(labels.k, dtype=np.int32), (crops, 1))
    if tails is not None:
        arrays["tails"] = np.array(tails, np.float32, order="C")
    block, _ = codec.encode(height=1, width=1, arrays=arrays, extra=b"", repair=False)
    return codec.decode_values(height=1, width=1, block=block, crops=crops)


def record_bytes(labels: LabelFile, encoding: layout.Encoding) -> float | None:
    """Bytes that a crop of the first image would take in this encoding, with its flip and without headers.

    None for crops of two images and embeddings, which hold more than boxes, classes and values.
    """
    if labels.mix_size or labels.kind == "embedding" or not len(labels):
        return None
    codec = _codec(labels, encoding, default_value_type(labels.kind, encoding), labels._required)
    height, width = labels[0].image_size or (1, 1)  # boxes that are parts of an image take no other place
    return (codec.stride(height, width) + 1) / 8


def _codec(
    labels: LabelFile, encoding: layout.Encoding, value_type: layout.ValueType, required: int = 0
) -> _C.LabelCodec:
    return _C.LabelCodec(
        kind=layout.KINDS.index(labels.kind),
        encoding=layout.ENCODINGS.index(encoding),
        value_type=layout.VALUE_TYPES.index(value_type),
        num_classes=labels.num_classes,
        k=labels.k,
        required=required,
        mix_size=0,
        images=0,
    )
