"""Label files written as FKD's folder of one `.tar` per image, for tools that read those."""

import io
import json
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fkdx.errors import refuse
from fkdx.files import write_whole

FKD_KINDS = ("topk", "smoothing", "hard", "dense")  # the kinds of label files that FKD has too
FACTS = "crops.json"  # beside `train`: what no file of FKD says of all of them
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that the same labels give the same bytes


def fkd_name(key: str) -> str:
    """Where FKD looks for the labels of an image: its path up to the first dot."""
    return key.split(".")[0] + ".tar"


def fkd_bytes(
    kind: str,
    boxes: np.ndarray,
    flips: np.ndarray,
    ids: np.ndarray | None,
    values: np.ndarray | None,
    image_size: tuple[int, int] | None,
) -> bytes:
    """One image's `.tar` file, as `torch.save` would write [coords, flip, label]; see `fkd` for the arrays.

    `boxes` (M, 4) are pixels, or ratios if `image_size` is None. `ids` (M, K) and `values` (M, K) are those
    of the label file's `kind`: hard has no values; dense has no ids, and values (M, C). Raises ValueError for
    other kinds.
    """
    if image_size is not None:
        height, width = image_size
        boxes = boxes / np.array([height, width, height, width], np.float64)
    if kind == "hard":
        label = ids[:, 0].astype(np.int64)
    elif kind == "smoothing":
        label = np.concatenate([ids, values], axis=1, dtype=np.float32)
    elif kind == "topk":
        label = np.stack([ids, values], axis=1, dtype=np.float32)
    elif kind == "dense":
        label = values.astype(np.float32)
    else:
        refuse("fkd_bytes", "kind", kind, "one of " + ", ".join(FKD_KINDS))
    arrays = [boxes.astype(np.float32), np.ascontiguousarray(flips, np.bool_), label]
    return _torch_zip(pickle.dumps(arrays, 2))


def export_fkd(images: Iterable, kind: str, folder: str | Path) -> int:
    """Writes every image of a label file under `folder/train`; returns how many.

    `images` are its `ImageLabels`, `kind` its kind. Where images have different numbers of crops, as after a
    calibration, `folder/crops.json` says so: elsewhere that is a sign of damage. Raises ValueError for a kind
    that FKD does not have, and if two images would share a file.
    """
    owners: dict[str, str] = {}
    counts: set[int] = set()
    for image in images:
        name = fkd_name(image.key)
        if name in owners:
            got = f"'{owners[name]}' and '{image.key}'"
            refuse("export_fkd", f"images for '{name}'", got, "one", folder)
        owners[name] = image.key
        data = fkd_bytes(kind, image.boxes, image.flips, image.ids, image.values, image.image_size)
        path = Path(folder, "train", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        counts.add(len(image.flips))
    if len(counts) > 1:
        write_whole(Path(folder, FACTS), json.dumps({"crops": sorted(counts)}).encode())
    return len(owners)


def _torch_zip(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", _EPOCH), data)
    return file.getvalue()
