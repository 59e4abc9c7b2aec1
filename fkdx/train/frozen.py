"""What features are worth without a classifier: k-NN and a linear probe, as in papers on self-supervision."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from fkdx.batch import prepare
from fkdx.errors import expect
from fkdx.loader import ValidationLoader
from fkdx.models.accuracy import as_percentages, count_right, guesses
from fkdx.models.embed import features_of
from fkdx.train.distributed import Stop, World
from fkdx.train.evaluate import Accuracy, laid_out, odd_images, set_evaluating
from fkdx.train.recipe import Recipe

TEMPERATURE = 0.07  # of a neighbour's vote, exp(cosine / temperature): DINO's
DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # weight decays that a probe tries
HELD_OUT = 5  # every fifth training image chooses among them
CHUNK = 4096  # rows at a time
COSINES = 1 << 28  # values at a time, of rows by all known images: 1 GB


@dataclass(frozen=True)
class Features:
    """Of N images in the order of their keys: rows (N, D) float32 and classes (N,) int64, on one device."""

    rows: Tensor
    classes: Tensor

    def __getitem__(self, part: slice | Tensor) -> "Features":
        return Features(self.rows[part], self.classes[part])


@torch.no_grad()
def extract(
    embed: Callable[[Tensor], Tensor], loader: ValidationLoader, world: World, stop: Stop | None = None
) -> Features:
    """The features of a loader's images over all processes, the same on each of them.

    embed: crops (n, size, size, 3) uint8 -> (n, D). Raises ValueError, naming an image, for features that are
    not finite; Interrupted on every process if one of them got a
    signal.
    """
    rows, classes, keys = [], [], []
    for batch in tqdm(
        loader, desc="features", unit="batch", disable=None if world.main else True, leave=False
    ):
        rows.append(embed(batch.images).float().cpu())
        classes.append(batch.classes.cpu())
        keys += batch.keys
        if stop and stop.signal:
            break
    if stop:
        stop.agree(int(world.max([stop.signal])[0]))
    width = int(world.max([rows[0].shape[1] if rows else 0])[0])  # a process may have no image at all
    every = world.join(torch.cat([torch.empty(0, width), *rows]))
    labels = world.join(torch.cat([torch.empty(0, dtype=torch.int64), *classes]))
    names = world.gather(keys)
    wrong = (~every.isfinite().all(dim=1)).nonzero()
    at = names[int(wrong[0])] if len(wrong) else ""
    expect("features", not len(wrong), "values", f"NaN or infinity ({len(wrong)} images)", "finite ones", at)
    order = torch.tensor(sorted(range(len(names)), key=names.__getitem__), dtype=torch.int64)
    return Features(every[order], labels[order])


def knn(
    known: Features, asked: Features, k: int, num_classes: int, temperature: float = TEMPERATURE
) -> Tensor:
    """The likeliest classes of each asked image, (n, at most 5), by the votes of its k nearest known images.

    A neighbour votes for its class with the weight exp(cosine / temperature) (Wu et al., CVPR 2018; DINO,
    Caron et al., ICCV 2021). Raises ValueError unless there are k known images and the temperature is
    positive.
    """
    check_neighbours(k, len(known.rows))
    expect("k-NN", temperature > 0, "temperature", temperature, "a positive number")
    wall = functional.normalize(known.rows, dim=1).T
    found, some = [], max(1, min(CHUNK, COSINES // len(known.rows)))
    for rows in functional.normalize(asked.rows, dim=1).split(some):
        cosines, nearest = (rows @ wall).topk(k, dim=1)
        votes = torch.zeros(len(rows), num_classes, device=rows.device)
        weights = ((cosines - cosines[:, :1]) / temperature).exp()  # the nearest one's is 1: no underflow
        votes.scatter_add_(1, known.classes[nearest], weights)
        found.append(guesses(votes))
    return torch.cat(found)


def check_neighbours(k: int, images: int) -> None:
    """ValueError if there are not k training images."""
    expect("k-NN", 1 <= k <= images, "k", k, f"1 to the {images} training images")


def probe(known: Features, asked: Features, num_classes: int) -> Tensor:
    """The likeliest classes of each asked image, (n, at most 5), by a linear classifier of the features.

    It is a logistic regression on standardised features, minimised by L-BFGS; of six weight decays the one
    that is right most often on a fifth of the known images is taken, and learned again from all of them.
    Raises ValueError if all known images are of one class.
    """
    classes = len(known.classes.unique())
    expect("probe", classes > 1, "classes of the training images", classes, "at least 2")
    mean, std = known.rows.mean(dim=0), known.rows.std(dim=0).clamp(min=1e-6)
    known, asked = (Features((each.rows - mean) / std, each.classes) for each in (known, asked))
    chooses = torch.arange(len(known.rows), device=known.rows.device) % HELD_OUT == 0
    learn, judge = known[~chooses], known[chooses]
    firsts = [_guessed(fit(learn, num_classes, decay), judge)[:, 0] for decay in DECAYS]
    right = [int((first == judge.classes).sum()) for first in firsts]
    best = max(zip(right, DECAYS))[1]  # the largest of those that are equally good
    return _guessed(fit(known, num_classes, best), asked)


def fit(known: Features, num_classes: int, decay: float, steps: int = 100) -> Tensor:
    """(D + 1, C) weights of a logistic regression, the last row its biases, which do not decay."""
    weights = torch.zeros(known.rows.shape[1] + 1, num_classes, device=known.rows.device, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        total = decay / 2 * weights[:-1].square().sum()
        total.backward()
        for start in range(0, len(known.rows), CHUNK):
            part = known[start : start + CHUNK]
            scores = torch.addmm(weights[-1], part.rows, weights[:-1])
            loss = functional.cross_entropy(scores, part.classes, reduction="sum") / len(known.rows)
            loss.backward()
            total = total.detach() + loss.detach()
        return total

    solver.step(closure)
    return weights.detach()


def _guessed(weights: Tensor, features: Features) -> Tensor:
    """The likeliest classes of each row, (n, at most 5)."""
    parts = features.rows.split(CHUNK)
    return torch.cat([guesses(torch.addmm(weights[-1], part, weights[:-1])) for part in parts])


def counted(found: Tensor, asked: Features, world: World) -> dict[str, float]:
    """{"top1", "top5" in percent, "images"} of guesses for this process's share of the asked images."""
    counts = world.sum(count_right(found == share(asked, world).classes[:, None]).tolist())
    return as_percentages(counts)


def share(features: Features, world: World) -> Features:
    """This process's part of the images, which every process has."""
    return features[world.rank :: world.size]


def evaluate_knn(
    student: nn.Module,
    known: ValidationLoader,
    asked: ValidationLoader,
    recipe: Recipe,
    world: World,
    stop: Stop,
) -> Accuracy:
    """The accuracy of k-NN on a student's features: `known` are the training images."""
    device, dtype = next(student.parameters()).device, recipe.dtype
    set_evaluating(student)

    def embed(crops: Tensor) -> Tensor:
        images = laid_out(prepare(crops, recipe.mean, recipe.std, dtype), recipe)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return features_of(student, images)

    near, far = extract(embed, known, world, stop), extract(embed, asked, world, stop)
    found = knn(near, share(far, world), recipe.knn, len(asked.classes))
    return Accuracy(counted(found, far, world) | odd_images(asked, world), None)
