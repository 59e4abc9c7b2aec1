"""Apple's dataset reinforcement (ImageNet+): a few hundred views of each image with the top K of an ensemble.

    <root>/<i>.pth.tar      torch.save of (i, samples); i numbers the images of an image folder
    <root>/config.pth.tar   the settings of the run, a dict

A sample is {"params": [...], "prob": (probabilities, class ids)}, both of length K and unsorted. `params`
holds one entry for each operation of the settings, in a fixed order: the second image of a mix, the box
in pixels, the flip, RandAugment, erasing, mixup, cutmix. With a second image, entries before mixup are
pairs.

RandAugment and erasing become stored steps, in mixed sets those of the partner, too; the loader repeats them
with Pillow (the labels were made with tensors on a GPU, which differ from it in the last digit). (Faghri et
al., "Reinforce Data, Multiply Impact", ICCV 2023.)
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.image.steps import NAMES, Step, encode
from fkdx.importers.batch_files import check_mix_size
from fkdx.importers.foreign_labels import ForeignLabels, Layout, Settings, number_samples
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels, Mixes
from fkdx.labels.layout import CUTMIX, MIXUP

_refuse = partial(refuse, "ReinforcementLabels", error=FormatError)

# In the order of `params`; other operations of a run (to_tensor, normalize, ...) have no parameters.
REPLAYED = ("random_resized_crop", "random_horizontal_flip")
KEPT = ("rand_augment", "random_erase")
MIXING = ("mixup", "cutmix")
OPERATIONS_OF_RAND_AUGMENT = (  # by their number; the names of `fkdx.image.steps`
    "identity",
    "shear x",
    "shear y",
    "translate x",
    "translate y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
PROBED = 16  # files that are looked at for the size of mixed crops
SILENT = ("uint8", "center_crop", "to_tensor", "normalize")


class ReinforcementLabels(ForeignLabels):
    name = "reinforcement"
    about = "Apple dataset reinforcement: <number>.pth.tar and config.pth.tar"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / "config.pth.tar").exists()

    def __init__(self, path: Path, settings: Settings) -> None:
        if settings.images is None:
            _refuse(
                "labels", "no images", "--images: files are numbers in the order of an image folder", path
            )
        self.root, self.images = path, settings.images
        config = _reinforce(path / "config.pth.tar")
        operations = config["image_augmentation"]
        self.operations = [name for name in (*REPLAYED, *KEPT, *MIXING) if name in operations]
        unknown = sorted(set(operations) - {*REPLAYED, *KEPT, *MIXING, *SILENT})
        if unknown or REPLAYED[0] not in operations:
            got = f"{', '.join(unknown) or 'no random_resized_crop'}"
            _refuse("operations", got, f"{', '.join((*REPLAYED, *KEPT, *MIXING))}", path / "config.pth.tar")
        self.mixed = any(name in operations for name in MIXING)
        self.kept = tuple(name for name in KEPT if name in operations)
        told = settings.mix_size or (operations[REPLAYED[0]] or {}).get("size")
        if told is not None and type(told) is not int:
            _refuse("size", f"a {type(told).__name__}", "a whole number; give --mix-size", path)
        self.keys = self.images.keys
        self.sample_of = np.argsort(number_samples(self.images))
        self.classes = settings.classes or self.images.classes
        num_classes = settings.num_classes or len(self.classes)
        if len(self.classes) != num_classes:
            self.classes = None
        self.crops, self.k = _whole(config, "num_samples", path), _whole(config, "topk", path)
        self.size, self.notes = self._mix_size(told)
        self.layout = Layout(
            "topk",
            num_classes,
            self.k,
            self.crops,
            mix_size=self.size if self.mixed else 0,
            operations=tuple(NAMES) if self.kept else (),
            form="paired steps" if self.mixed else "steps",
        )
        self.provenance = {"source": {"format": self.name}, "tail": "uniform", "temperature": 1.0}

    def _mix_size(self, told: int | None) -> tuple[int, list[str]]:
        """The side of the crops, checked against the CutMix boxes of a few files, and what to say of it."""
        largest = 0
        for number in np.unique(np.linspace(0, len(self.keys) - 1, PROBED).astype(int)) if self.mixed else ():
            try:
                _, samples = self._samples(number)
                boxes = [
                    view["cutmix"] for view in map(self._view, samples) if view.get("cutmix") is not None
                ]
                largest = max([largest, *(int(edge) for box in boxes for edge in box[3:])])
            except (OSError, KeyError, TypeError, ValueError, IndexError):
                continue  # said when the image's labels are read
        if told and largest > told:
            expected = f"boxes inside {told} pixels, the size of the run's settings (or --mix-size)"
            _refuse("CutMix box", f"one that reaches to {largest}", expected, self.root)
        return check_mix_size(told, largest, self.mixed)

    def _samples(self, number: int) -> tuple[Path, list]:
        """The file of an image, and what it holds of each view."""
        path = self.root / f"{self.sample_of[number]}.pth.tar"
        value = read_torch_file(path)
        if type(value) is not tuple or len(value) != 2 or value[0] != self.sample_of[number]:
            _refuse("file", "another content", f"({self.sample_of[number]}, samples)", path)
        samples = value[1]
        if type(samples) is not list or len(samples) != self.crops:
            _refuse("samples", f"a {type(samples).__name__}", f"a list of {self.crops}", path)
        return path, samples

    def read_image(self, number: int) -> ImageLabels:
        path, samples = self._samples(number)
        try:
            views = [self._view(sample) for sample in samples]
            ids, values = _sorted_labels(samples, self.k)
            mixes = self._mixes(views) if self.mixed else None
            extra = self._extra(views) if self.kept else b""
            boxes = np.array([view["random_resized_crop"][0] for view in views], np.int64).reshape(-1, 4)
            flips = np.array([view["random_horizontal_flip"][0] for view in views], bool)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            _refuse("sample", f"one of unknown form ({error})", "params and prob as its settings say", path)
        key = self.keys[number]
        return ImageLabels(key, boxes, flips, ids, values, self.images.size(key), mixes=mixes, extra=extra)

    def _view(self, sample: dict[str, Any]) -> dict[str, Any]:
        """{operation: (of the image, of its partner)}, with the partner's number under "partner"."""
        params = sample["params"]
        if type(params) is dict:
            return {name: params[name] for name in self.operations} | {
                "partner": params["id2"] if self.mixed else None
            }
        partner, *entries = params if self.mixed else (None, *params)
        if len(entries) != len(self.operations):
            raise ValueError(f"{len(entries)} entries of params")
        view = {"partner": partner, "random_horizontal_flip": (False, False)}
        for name, entry in zip(self.operations, entries):
            if name in MIXING:
                view[name] = entry
            else:
                view[name] = (entry[0], entry[1]) if partner is not None else (entry, None)
        return view

    def _extra(self, views: list[dict[str, Any]]) -> bytes:
        """RandAugment and erasing of every crop."""
        if self.mixed:
            return encode([[_steps(view, self.size), _steps(view, self.size, 1)] for view in views])
        return encode([_steps(view, self.size) for view in views])

    def _mixes(self, views: list[dict[str, Any]]) -> Mixes:
        partners, boxes, flips, operations, lambdas, mix_boxes = [], [], [], [], [], []
        for view in views:
            mixup, cutmix = view.get("mixup"), view.get("cutmix")
            top, left, bottom, right = cutmix[1:] if cutmix is not None else (0, 0, 0, 0)
            pasted = bottom > top and right > left
            operation = MIXUP * (mixup is not None) + CUTMIX * pasted
            if operation and view["partner"] is None:
                raise ValueError("a mix without a second image")
            partners.append(self.images.samples[view["partner"]] if operation else None)
            boxes.append(view["random_resized_crop"][1] if operation else (0, 0, 0, 0))
            flips.append(view["random_horizontal_flip"][1] if operation else False)
            operations.append(operation)
            lambdas.append(1.0 if mixup is None else float(mixup))
            mix_boxes.append((top, left, bottom - top, right - left) if pasted else (0, 0, 0, 0))
        return Mixes(
            partners=partners,
            boxes=np.array(boxes, np.int64).reshape(-1, 4),
            flips=np.array(flips, bool),
            operations=np.array(operations, np.int64),
            lambdas=np.array(lambdas, np.float32) * (np.array(operations) > 0),
            mix_boxes=np.array(mix_boxes, np.int64).reshape(-1, 4),
        )


def _steps(view: dict[str, Any], size: int, which: int = 0) -> list[Step]:
    """RandAugment and erasing of a crop of `size` pixels as steps of `fkdx.image.augment`.

    `which`: 0, the crop itself, or 1, the one that it is mixed with.
    """
    drawn = view.get("rand_augment", (None, None))[which] or []
    steps = [step for number, magnitude in drawn for step in _rand_augment(number, float(magnitude), size)]
    top, left, height, width = view.get("random_erase", (None, None))[which] or (-1, 0, 0, 0)
    if top >= 0:
        steps.append(["erase", *(edge / size for edge in map(int, (top, left, height, width)))])
    return steps


def _rand_augment(number: int, magnitude: float, size: int) -> list[Step]:
    """One operation of torchvision's RandAugment, whose magnitude has its sign already."""
    name, _, axis = OPERATIONS_OF_RAND_AUGMENT[number].partition(" ")
    if name == "identity":
        return []
    if name in ("autocontrast", "equalize"):
        return [[name]]
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return [[name, 1 + magnitude]]
    if name == "posterize":
        return [[name, int(magnitude)]]
    if name == "translate":  # whole pixels, kept as the middle of the range that gives them
        pixels = int(magnitude)
        magnitude = (pixels + 0.5 * (pixels > 0) - 0.5 * (pixels < 0)) / size
    if axis:
        return [[name, magnitude, 0] if axis == "x" else [name, 0, magnitude]]
    return [[name, magnitude]]


def _sorted_labels(samples: list, k: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([sample["prob"][0] for sample in samples], np.float32)
    ids = np.array([sample["prob"][1] for sample in samples])
    if values.shape != (len(samples), k) or ids.shape != values.shape or ids.dtype.kind != "i":
        raise ValueError(f"labels of shape {values.shape}")
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def _reinforce(path: Path) -> dict[str, Any]:
    config = read_torch_file(path)
    reinforce = config.get("reinforce") if type(config) is dict else None
    if type(reinforce) is not dict or type(reinforce.get("image_augmentation")) is not dict:
        _refuse("config", "no settings of the run", 'config["reinforce"]["image_augmentation"]', path)
    return reinforce


def _whole(config: dict[str, Any], name: str, path: Path) -> int:
    value = config.get(name)
    if type(value) is not int or not 1 <= value <= 65_535:
        _refuse(name, repr(value), "a whole number from 1 to 65,535", path / "config.pth.tar")
    return value
