"""Which image a label belongs to: by its key, or else by its canonical key."""

import os
from collections.abc import Iterable
from unicodedata import normalize

import numpy as np

from fkdx.labels import LabelFile, differing_sizes, fingerprint, same_fingerprint
from fkdx.stores.folder import ImageFolder
from fkdx.stores.keys import Keys, keys_of_labels
from fkdx.stores.selection import Selection
from fkdx.stores.store import Store

_GIVE_THEM = "give the images the labels were made for"
_OR_IGNORE = ", or set on_missing='ignore' (--on-missing ignore)"
_NAME_THEM = "name them in a file, DATA@FILE"
_FEW = 0.01  # of the images may have other bytes than those that were labelled: encoded again elsewhere
_PROBED = 256  # labels whose files are looked for before a folder is read that nobody has listed


class LabelledImages(Selection):
    """The images of a store that a label file names, in the order of the labels' keys and under these.

    Attributes:
        label_of: (N,) number of each image's labels; None: image i has labels i.
        unlabelled: images of the store without labels; None where nobody has listed it.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        images: np.ndarray | None,
        label_of: np.ndarray | None,
        unlabelled: int | None,
    ) -> None:
        super().__init__(store, keys, images)
        self.label_of, self.unlabelled = label_of, unlabelled

    def labels_of(self, images: np.ndarray) -> np.ndarray:
        """The numbers of the labels of these images."""
        return images if self.label_of is None else self.label_of[images]

    def images_of_labels(self, count: int) -> np.ndarray:
        """(count,) the image of every label, -1 where it has none."""
        if self.label_of is None:
            return np.arange(count)
        images = np.full(count, -1)
        images[self.label_of] = np.arange(len(self.label_of))
        return images


def match_labels(
    store: Store, labels: LabelFile, on_missing: str = "raise", check_images: bool = False
) -> LabelledImages:
    """The labelled images of a store. A folder is not listed if its labels name its files.

    Labels find the image with their own key first; those that are left, among the images that are left, the
    one with the same canonical key (docs/format.md).

    Args:
        on_missing: "raise" where labels have no image, or images of a store that is listed no labels;
            "ignore" them.
        check_images: list a folder all the same, so that every missing image is found now.

    Raises ValueError where images and labels do not match, or a canonical key is not clear.
    """
    keys, order = keys_of_labels(labels)
    unlisted = isinstance(store, ImageFolder) and on_missing == "raise" and not check_images
    if unlisted and _names_files(store, keys, order, labels):
        return LabelledImages(store.followed(keys), keys, None, order, None)
    found = find_images(store, labels, keys)
    has_image = found >= 0
    left_out = len(store) - int(has_image.sum())
    _check_match(store, labels, keys, order, found, on_missing)
    if _running_numbers(store):
        _check_numbers(store, labels, found)
    if has_image.all():
        return LabelledImages(store, keys, found, order, left_out)
    numbers = np.flatnonzero(has_image)
    label_of = numbers if order is None else order[numbers]
    return LabelledImages(store, keys.take(numbers), found[numbers], label_of, left_out)


def find_images(store: Store, labels: LabelFile, keys: Keys) -> np.ndarray:
    """(N,) int32 the image of every key of a label file, -1 where it has none; the store is listed.

    Raises ValueError where a canonical key is not clear.
    """
    found = keys.table.join(store.keys.table)
    if (found < 0).any() and store.aliases:
        _join_aliases(store, keys, found)
    if (found < 0).any():
        _join_canonical(store, labels, keys, found)
    return found


def images_of_labels(store: Store, labels: LabelFile) -> np.ndarray:
    """(N,) the image of every label of a file, by its number; -1 where it has none; the store is listed.

    Raises ValueError where a canonical key is not clear.
    """
    keys, order = keys_of_labels(labels)
    found = find_images(store, labels, keys)
    if order is None:
        return found
    images = np.full(len(labels), -1, found.dtype)
    images[order] = found
    return images


def under_labelled_names(store: Store, labels: LabelFile) -> Store:
    """The images of a store, those that labels name under the labels' keys."""
    names = list(store.keys)
    for key, image in zip(labels.keys, images_of_labels(store, labels).tolist()):
        if image >= 0:
            names[image] = key
    keys, images = Keys.sort(names, store.path)
    return store if keys == store.keys else Selection(store, keys, images)


def _names_files(store: ImageFolder, keys: Keys, order: np.ndarray | None, labels: LabelFile) -> bool:
    """Whether labels name the files of a folder by their own keys, judged by some of them.

    Raises ValueError where some are there and some are not.
    """
    probed = np.unique(np.linspace(0, len(keys) - 1, _PROBED).astype(np.int64)) if len(keys) else []
    if (
        labels.mix_size
    ):  # partners of mixed crops have no crops of their own, and are missed when they are read
        counts = labels.crop_counts if order is None else labels.crop_counts[order]
        probed = [i for i in probed if counts[i]]
    absent = [keys[i] for i in probed if not os.path.exists(f"{store.path}/{keys[i]}")]
    if absent and len(absent) < len(probed):
        forms = (normalize(form, absent[0]) for form in ("NFC", "NFD"))
        there = [form for form in forms if os.path.exists(f"{store.path}/{form}")]
        raise ValueError(
            f"CropLoader: images and labels do not match: of {len(probed)} labels that were looked at, "
            f"{len(absent)} have no image (such as {absent[0]}) in {store.path}, {labels.path}; "
            f"{_or(composed_otherwise(absent[0], there))}{_GIVE_THEM}{_OR_IGNORE}"
        )
    return len(absent) == 0


def _join_aliases(store: Store, keys: Keys, found: np.ndarray) -> None:
    """Fills in `found` by the names that images have in their shards."""
    names, image_of = store.aliases
    at = keys.table.join(names.table)
    taken = np.zeros(len(store), bool)
    taken[found[found >= 0]] = True
    images = image_of[at]
    free = (found < 0) & (at >= 0) & ~taken[images]
    found[free] = images[free]


def _join_canonical(store: Store, labels: LabelFile, keys: Keys, found: np.ndarray) -> None:
    """Fills in `found` by canonical keys. Raises ValueError, with two examples, where they are not clear."""
    clashes = keys.table.join_canonical(store.keys.table, store.class_names, store.class_of, found)
    if not clashes:
        return
    examples = []
    for wanted, other_wanted, there, other_there in clashes[:2]:
        both = [keys[wanted]] + [keys[other_wanted]] * (other_wanted != wanted)
        images = [store.keys[there]] + [store.keys[other_there]] * (other_there != there)
        examples.append(f"labels {' and '.join(both)} against images {' and '.join(images)}")
    raise ValueError(
        f"CropLoader: {len(clashes)} names fit more than one label or more than one image: "
        f"{'; '.join(examples)}; give the images under the names that were labelled, "
        f"{store.path}, {labels.path}"
    )


def _check_match(
    store: Store, labels: LabelFile, keys: Keys, order: np.ndarray | None, found: np.ndarray, on_missing: str
) -> None:
    counts = np.asarray(labels.crop_counts)
    wanted = counts > 0 if order is None else counts[order] > 0
    absent = np.flatnonzero(wanted & (found < 0))  # partners of mixed crops are missed when they are needed
    has_label = np.zeros(len(store), bool)
    has_label[found[found >= 0]] = True
    unknown = np.flatnonzero(~has_label)
    if (found >= 0).any() and (on_missing == "ignore" or not (len(absent) or len(unknown))):
        return
    example = store.keys[int(unknown[0])] if len(unknown) else None
    lost = keys[int(absent[0])] if len(absent) else None
    remedy = _GIVE_THEM + (_OR_IGNORE if (found >= 0).any() else "")
    raise ValueError(
        f"CropLoader: images and labels do not match: {len(unknown)} of {len(store)} images have no label "
        f"(such as {example}), {len(absent)} of {int(wanted.sum())} labels have no image (such as {lost}), "
        f"{store.path}, {labels.path}; {_or(composed_otherwise(lost or '', store.keys))}{remedy}"
        f"{_advice(store)}"
    )


def _or(remedy: str) -> str:
    return f"{remedy}, or " if remedy else ""


def composed_otherwise(name: str, others: Iterable[str]) -> str:
    """What to say where another name has other code points for letters such as \u00fc, and looks the same;
    else nothing."""
    composed = normalize("NFC", name)
    alike = (other for other in others if other != name and normalize("NFC", other) == composed)
    if name.isascii() or (other := next(alike, None)) is None:
        return ""
    return (
        f"{name!a} and {other!a} look the same but are two names: one has composed letters, the other "
        "letters and accents apart, as macOS writes them; rename the files (convmv --nfc or --nfd)"
    )


def _advice(store: Store) -> str:
    return f"; these images' names are numbers: {_NAME_THEM}" if _running_numbers(store) else ""


def _running_numbers(store: Store) -> bool:
    """Whether the images' names say nothing but their order."""
    return all(os.path.splitext(key)[0].isdecimal() for key in (store.keys[0], store.keys[-1]))


def _check_numbers(store: Store, labels: LabelFile, found: np.ndarray) -> None:
    """Raises ValueError where numbers fit and images do not: another store counts in another order."""
    dataset = labels.header.get("dataset")
    if dataset is None or store.sequential or (found < 0).any() or len(found) != len(store):
        return
    sizes = store.sizes()
    differing = differing_sizes(dataset, sizes[found])
    if differing is None:
        same = same_fingerprint(fingerprint(zip(store.keys, sizes.tolist())), dataset)
    else:
        same = len(differing) <= _FEW * len(store)
    if not same:
        raise ValueError(
            "CropLoader: images and labels have the same numbers for names, but by their sizes in bytes "
            f"these are not the images that were labelled; {_NAME_THEM}, {store.path}, {labels.path}"
        )
