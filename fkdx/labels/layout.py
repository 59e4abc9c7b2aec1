"""The names and numbers of docs/format.md that Python needs."""

import struct
from typing import Literal, get_args

import numpy as np

# The names in the order of their numbers.
Kind = Literal["topk", "hard", "smoothing", "dense", "dense_logits", "topk_logits", "embedding"]
KINDS = get_args(Kind)
Encoding = Literal["plain", "compact"]
ENCODINGS = get_args(Encoding)
ValueType = Literal["none", "float16", "float32", "log8", "int8"]
VALUE_TYPES = get_args(ValueType)
WITHOUT_IDS = ("dense", "dense_logits", "embedding")
CLASS_KINDS = tuple(kind for kind in KINDS if kind != "embedding")

MAGIC = b"\x89FKDX\r\n\x1a"
END_MAGIC = b"DXKF"
VERSION = (1, 0)
MAX_CROPS = 65_535
MAX_SIDE = 65_535  # pixels
MAX_HEADER = 64 << 20
MAX_KEY_BYTES = 2**32 - 1  # where each begins is a u32
MAX_EMBEDDING = 8192  # values

RATIO_BOXES, TWO_VIEWS, EXTRA_OPERATIONS = 1, 2, 4  # bits of what a reader must support
MIXUP, CUTMIX, PARTNER_FLIPPED = 1, 2, 4  # bits of a record's operation
MIXED = MIXUP | CUTMIX

# magic, major, minor, required, optional, kind, encoding, value type, 0, C, K, crops, mix size, id, 0; then
# the CRC
PREAMBLE = struct.Struct("<8sHHIIBBBBIIII16sI")
# offset, crops, height, width, extra; then the CRC
ENTRY = struct.Struct("<QIHHI")
INDEX = np.dtype([("offset", "<u8"), ("crops", "<u4"), ("size", "<u2", 2), ("extra", "<u4"), ("crc", "<u4")])
# header, header bytes, index, images, keys, keys bytes, three CRCs, 0, digest, id, length; then the CRC and
# the magic
FOOTER = struct.Struct("<QQQQQQIIII32s16sQ")
FOOTER_SIZE = 128


def align64(size: int) -> int:
    return (size + 63) // 64 * 64


def record_dtype(kind: str, value_type: str, num_classes: int, k: int, required: int) -> np.dtype:
    """A record of the plain encoding as a numpy type."""
    edge = "<f4" if required & RATIO_BOXES else "<u2"
    fields: list[tuple] = [("box", edge, 4)]
    if kind not in WITHOUT_IDS:
        fields.append(("ids", "<u4" if num_classes > 65_536 else "<u2", (k,)))
    if kind != "hard":
        if value_type == "int8":
            fields.append(("scales", "<u2", (1 + (k > num_classes),)))
        fields.append(("values", {"float16": "<f2", "float32": "<f4", "int8": "i1"}[value_type], (k,)))
    if kind == "topk_logits":
        fields.append(("tail", "<f4"))
    if required & TWO_VIEWS:
        fields += [("partner", "<u4"), ("partner_box", edge, 4), ("operation", "u1"), ("lambda", "<f4")]
        fields.append(("mix_box", "<u2", 4))
    return np.dtype(fields, align=True)
