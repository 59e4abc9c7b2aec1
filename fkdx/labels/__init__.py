"""The label file: a teacher's labels of stored crops of every image of a data set. See docs/format.md."""

from fkdx.labels.boxes import boxes_from_ratios
from fkdx.labels.dataset import check_key, differing_sizes, fingerprint, same_fingerprint, size_marks
from fkdx.labels.file import ImageLabels, LabelFile, Mixes
from fkdx.labels.layout import ENCODINGS, KINDS, VALUE_TYPES
from fkdx.labels.shards import shard_path, write_manifest
from fkdx.labels.writer import LabelWriter

__all__ = [
    "ENCODINGS",
    "KINDS",
    "VALUE_TYPES",
    "ImageLabels",
    "LabelFile",
    "LabelWriter",
    "Mixes",
    "boxes_from_ratios",
    "check_key",
    "differing_sizes",
    "fingerprint",
    "same_fingerprint",
    "shard_path",
    "size_marks",
    "write_manifest",
]
