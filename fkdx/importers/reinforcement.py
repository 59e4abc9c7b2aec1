"""Apple's dataset reinforcement (ImageNet+): a few hundred views of each image with the top K of an ensemble.

    <root>/<i>.pth.tar      torch.save of (i, samples); i numbers the images of an image folder
    <root>/config.pth.tar   the settings of the run, a dict

A sample is {"params": [...], "prob": (probabilities, class ids)}, both of length K and unsorted. `params`
holds one entry for each operation of the settings, in a fixed order: the second image of a mix, the box
in pixels, the flip, RandAugment, erasing, mixup, cutmix. With a second image, entries before mixup are
pairs.

RandAugment and erasing are stored as they are; fkdx cannot apply them, so it refuses to train on such labels.
(Faghri et al., "Reinforce Data, Multiply Impact", ICCV 2023.)
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.importers.foreign_labels import ForeignLabels, Layout, Settings, number_samples
from fkdx.importers.torch_file import read_torch_file
from fkdx.labels import ImageLabels, Mixes
from fkdx.labels.layout import CUTMIX, MIXUP

_refuse = partial(refuse, "ReinforcementLabels", error=FormatError)

# In the order of `params`; other operations of a run (to_tensor, normalize, ...) have no parameters.
REPLAYED = ("random_resized_crop", "random_horizontal_flip")
KEPT = ("rand_augment", "random_erase")
MIXING = ("mixup", "cutmix")
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
        self.keys = self.images.keys
        self.sample_of = np.argsort(number_samples(self.images))
        self.classes = settings.classes or self.images.classes
        num_classes = settings.num_classes or len(self.classes)
        if len(self.classes) != num_classes:
            self.classes = None
        self.crops, self.k = _whole(config, "num_samples", path), _whole(config, "topk", path)
        self.layout = Layout(
            "topk",
            num_classes,
            self.k,
            self.crops,
            mix_size=settings.mix_size if self.mixed else 0,
            operations=tuple(name for name in KEPT if name in operations),
        )
        if self.layout.operations:
            self.notes = [f"labels need {' and '.join(self.layout.operations)}; training on them is refused"]
        self.provenance = {"source": {"format": self.name}, "tail": "uniform", "temperature": 1.0}

    def read_image(self, number: int) -> ImageLabels:
        path = self.root / f"{self.sample_of[number]}.pth.tar"
        value = read_torch_file(path)
        if type(value) is not tuple or len(value) != 2 or value[0] != self.sample_of[number]:
            _refuse("file", "another content", f"({self.sample_of[number]}, samples)", path)
        samples = value[1]
        if type(samples) is not list or len(samples) != self.crops:
            _refuse("samples", f"a {type(samples).__name__}", f"a list of {self.crops}", path)
        try:
            views = [self._view(sample) for sample in samples]
            ids, values = _sorted_labels(samples, self.k)
            mixes = self._mixes(views) if self.mixed else None
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            _refuse("sample", f"one of unknown form ({error})", "params and prob as its settings say", path)
        key = self.keys[number]
        boxes = np.array([view["random_resized_crop"][0] for view in views], np.int64).reshape(-1, 4)
        flips = np.array([view["random_horizontal_flip"][0] for view in views], bool)
        kept = [{name: view[name] for name in self.layout.operations} for view in views]
        extra = json.dumps(kept).encode() if self.layout.operations else b""
        return ImageLabels(key, boxes, flips, ids, values, self.images.size(key), mixes=mixes, extra=extra)

    def _view(self, sample: dict[str, Any]) -> dict[str, Any]:
        """{operation: (of the image, of its partner)}, with the partner's number under "partner"."""
        params = sample["params"]
        if type(params) is dict:
            if self.mixed:
                raise ValueError("params by name say no second image")
            return {name: (params[name][0], None) for name in self.operations} | {"partner": None}
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
        _refuse(name, f"a {type(value).__name__}", "a whole number", path / "config.pth.tar")
    return value
