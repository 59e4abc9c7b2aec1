"""The plan of an epoch: a pure function, the same for every world size, fair to images and crops."""

import numpy as np
import pytest

from fkdx import reference
from fkdx.loader.sampler import CHOICES, Sampler, permutations, stream


def sampler(images: int = 100, stored: int = 10, batch: int = 8, m: int = 4, **options: object) -> Sampler:
    return Sampler(np.full(images, stored), batch, m, **options)


def planned(plan: Sampler, epoch: int, step: int) -> list[tuple[int, list[int]]]:
    laps, places = np.divmod(plan.positions(step), len(plan.stored))
    images = plan.order(epoch)[places]
    return list(zip(images.tolist(), plan.crops(epoch, images, laps).tolist()))


@pytest.mark.parametrize("choice", CHOICES)
def test_equals_reference(rng: np.random.Generator, choice: str) -> None:
    for _ in range(10):
        stored = rng.integers(3, 19, int(rng.integers(5, 40)))
        seed, epoch = int(rng.integers(-(2**62), 2**62)), int(rng.integers(50))
        window, epochs = tuple(np.sort(rng.random(2)).tolist()), int(rng.integers(1, 50))
        plan = Sampler(stored, 4, 3, seed, choice, drop_last=False, window=window, epochs=epochs)
        for step in range(plan.steps):
            expected = reference.loader.planned_batch(
                stored.tolist(), 4, 3, seed, epoch, step, choice, window, epochs
            )
            assert planned(plan, epoch, step) == expected


def test_every_image_once_an_epoch() -> None:
    plan = sampler(images=101, batch=8, drop_last=False)
    shown = [image for step in range(plan.steps) for image, _ in planned(plan, 3, step)]
    assert plan.steps == 13
    assert sorted(shown[:101]) == list(range(101))
    assert shown[101:] == shown[:3], "the last batch wraps"
    assert sampler(images=101, batch=8, drop_last=True).steps == 12
    assert sampler(images=104, batch=8, drop_last=False).steps == 13


def test_wrapped_images_show_other_crops() -> None:
    plan = sampler(images=9, stored=50, batch=8, drop_last=False)
    crops: dict[int, list] = {}
    for step in range(plan.steps):
        for image, chosen in planned(plan, 0, step):
            crops.setdefault(image, []).append(chosen)
    assert all(len(np.unique(chosen, axis=0)) == len(chosen) for chosen in crops.values())


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(sampler(seed=seed).order(epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert sampler(shuffle=False).order(3).tolist() == list(range(100))


def test_independent_choice_is_uniform() -> None:
    plan = sampler(images=500, stored=7, m=3)
    images = np.arange(500)
    counts = np.zeros((7, 7))
    for epoch in range(40):
        for row in plan.crops(epoch, images, np.zeros_like(images)):
            assert len(set(row)) == 3, "without replacement"
            counts[np.ix_(row, row)] += 1
    expected = 40 * 500 * 3 / 7
    assert np.abs(np.diag(counts) - expected).max() < 5 * np.sqrt(expected)
    pairs = counts[~np.eye(7, dtype=bool)]
    expected = 40 * 500 * 3 * 2 / (7 * 6)
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("stored", "m"), [(12, 4), (10, 4), (7, 7), (5, 1)])
def test_cycle_shows_every_crop_before_any_again(stored: int, m: int) -> None:
    plan = sampler(images=6, stored=stored, batch=6, m=m, choice="cycle")
    images = np.arange(6)
    shown = np.concatenate([plan.crops(m * n, images, np.zeros(6)) for n in range(3 * stored)], axis=1)
    for row in shown:
        for start in range(0, len(row), stored):
            assert sorted(row[start : start + stored]) == list(range(stored))
    assert len(np.unique(shown[:, :stored], axis=0)) > 1


def test_curricula_move_from_one_end_to_the_other() -> None:
    plan = sampler(choice="easy_to_hard", window=(0, 0.2), epochs=101)
    assert plan.window_at(0) == (0, 0.2)
    assert plan.window_at(50) == pytest.approx((0.4, 0.6))
    assert plan.window_at(100) == pytest.approx((0.8, 1))
    assert plan.window_at(200) == plan.window_at(100)
    back = sampler(choice="hard_to_easy", window=(0, 0.2), epochs=101)
    assert [back.window_at(e) for e in (0, 30, 100)] == [plan.window_at(e) for e in (100, 70, 0)]
    still = sampler(choice="range", window=(0.3, 0.8))
    assert still.window_at(0) == still.window_at(77) == (0.3, 0.8)


def test_a_window_shows_its_crops_alike_and_no_others() -> None:
    plan = sampler(images=300, stored=20, m=2, choice="range", window=(0.25, 0.5))
    images = np.arange(300)
    shown = np.concatenate([plan.crops(epoch, images, np.zeros_like(images)) for epoch in range(20)])
    assert (shown[:, 0] != shown[:, 1]).all()
    ranks, counts = np.unique(shown, return_counts=True)
    assert ranks.tolist() == [5, 6, 7, 8, 9]
    assert np.abs(counts - 2400).max() < 5 * np.sqrt(2400)
    narrow = sampler(images=300, stored=20, m=4, choice="range", window=(0.9, 0.95))
    assert set(np.unique(narrow.crops(0, images, np.zeros_like(images)))) == {16, 17, 18, 19}, (
        "wide enough for m"
    )


def test_permutations_are_uniform() -> None:
    rows = permutations(stream(5, np.arange(24000)), 4)
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_crops_may_differ_in_number() -> None:
    stored = np.array([4, 9, 4, 6])
    for choice in ("independent", "cycle"):
        plan = Sampler(stored, 4, 4, choice=choice)
        for epoch in range(20):
            crops = plan.crops(epoch, np.arange(4), np.zeros(4, int))
            assert (crops < stored[:, None]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"choice": "best"}, "choice"),
        ({"images": 0}, "no images"),
        ({"m": 11}, "100 of 100 images have fewer"),
        ({"images": 7}, "needs 8 images, but there are only 7"),
        ({"choice": "range", "window": (0.5, 0.5)}, "window"),
        ({"choice": "range", "window": (0.5, 1.5)}, "window"),
        ({"choice": "range", "window": (0.5,)}, "window"),
        ({"choice": "easy_to_hard"}, "epochs, got 0"),
    ],
)
def test_bad_arguments(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        sampler(**options)
