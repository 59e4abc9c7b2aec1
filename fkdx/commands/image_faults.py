"""How images differ from those that were labelled: their names, their sizes in bytes and in pixels."""

import os
from dataclasses import dataclass, field

import numpy as np

from fkdx.commands.options import progress
from fkdx.labels import LabelFile, differing_sizes, fingerprint, same_fingerprint
from fkdx.stores import Keys, Store, composed_otherwise, find_images, keys_of_labels, open_store

_NAMED = 100  # images that differ, at most


@dataclass
class ImageFaults:
    """How the images of a store differ from those that were labelled; lists of keys, in order.

    An image that differs is as good as any other: another copy of the data may have encoded it again.
    `differing` are those with other bytes or another size in pixels; `of` is the number of labelled images.
    """

    of: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    fingerprint: bool | None = None  # whether it matches; None if the file has none
    named: bool = True  # whether the file says which images differ in bytes

    def __bool__(self) -> bool:
        lists = self.missing, self.extra, self.differing, self.unreadable
        return any(lists) or self.fingerprint is False


def match_images(labels: LabelFile, root: "str | os.PathLike | Store") -> ImageFaults:
    """Compares names, sizes in bytes and in pixels (from the headers), and the fingerprint."""
    store = open_store(root)
    keys, order = keys_of_labels(labels)
    found = find_images(store, labels, keys)
    known = np.zeros(len(store), bool)
    known[found[found >= 0]] = True
    extra = [store.keys[int(image)] for image in np.flatnonzero(~known)]
    missing = [keys[int(label)] for label in np.flatnonzero(found < 0)]
    faults = ImageFaults(len(keys), missing, extra)
    differing = _other_bytes(faults, labels, store, keys, found)
    pixels = labels.image_sizes if order is None else labels.image_sizes[order]
    label_of = {image: label for label, image in enumerate(found.tolist()) if image >= 0}
    for image in progress(store.reading_order.tolist(), len(store), "images"):
        if (label := label_of.get(image)) is None:
            continue
        try:
            size, expected = store.image_size(image), tuple(pixels[label].tolist())
        except (ValueError, OSError) as error:
            faults.unreadable.append(f"{keys[label]}: {error}")
            continue
        if any(expected) and tuple(size) != expected:
            differing[label] = f"{keys[label]}: got {tuple(size)}, expected {expected}"
    faults.differing = [differing[label] for label in sorted(differing)]
    return faults


def _other_bytes(
    faults: ImageFaults, labels: LabelFile, store: Store, keys: Keys, found: np.ndarray
) -> dict[int, str]:
    """Sets the fingerprint's verdict; labels of images whose sizes in bytes differ, in words."""
    dataset = labels.header.get("dataset")
    if dataset is None:
        return {}
    key_of = dict(zip(found.tolist(), keys))
    sizes = store.sizes()
    files = [
        (key_of.get(image, key), size) for image, (key, size) in enumerate(zip(store.keys, sizes.tolist()))
    ]
    faults.fingerprint = same_fingerprint(fingerprint(files), dataset)
    numbers = differing_sizes(dataset, np.where(found >= 0, sizes[found], -1))
    faults.named = numbers is not None
    if numbers is None:
        return {}
    there = numbers[found[numbers] >= 0]
    return {label: f"{key_of[int(found[label])]}: other bytes" for label in there.tolist()}


def faults_text(faults: ImageFaults) -> str:
    """One line a kind, and the images that differ."""
    lines = []
    for name in ("missing", "extra", "unreadable"):
        keys = getattr(faults, name)
        lines.append(f"{name:<12} {len(keys)}{', for example ' + keys[0] if keys else ''}")
    accented = next((key for key in faults.missing if not key.isascii()), "")
    if said := composed_otherwise(accented, faults.extra):
        lines.append(f"{'names':<12} {said}")
    differing = faults.differing
    lines.append(f"{'differs':<12} {len(differing):,} of {faults.of:,}")
    lines += [f"             {key}" for key in differing[:_NAMED]]
    if len(differing) > _NAMED:
        lines.append(f"             and {len(differing) - _NAMED:,} more")
    verdict = {None: "none in the file", True: "matches", False: "does not match: files differ"}[
        faults.fingerprint
    ]
    unknown = faults.fingerprint is False and not (faults.named or faults.missing or faults.extra)
    lines.append(f"{'fingerprint':<12} {verdict}{'; this label file does not say which' if unknown else ''}")
    return "\n".join(lines)
