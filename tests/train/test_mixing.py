"""Mixing in the trainer: a function of recipe, pass, step and process, in which targets follow the pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import COMMON, draw_images, steps_of, write_labels

from fkdx import reference
from fkdx.batch import prepare
from fkdx.batch.mix import Mix, Mixer
from fkdx.loss.target import SparseTarget
from fkdx.train.lesson import draw_mix, mixer_of
from fkdx.train.loop import main
from fkdx.train.read_recipe import read_recipe
from fkdx.train.recipe import Recipe
from fkdx.train.schedule import Pass

MIXED = Recipe(mixup=0.2, cutmix=1.0, selfmix=1.0, crops_per_image=4)
EVERY = [Mixer(mixup=0.8), Mixer(cutmix=1.0), Mixer(selfmix=1.0)]


def same(a: Mix, b: Mix) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("partners", "boxes", "blend", "lam"))


@pytest.fixture
def images(rng) -> torch.Tensor:
    return torch.from_numpy(rng.integers(0, 256, (8, 20, 24, 3), dtype=np.uint8))


@pytest.mark.parametrize("mixer", EVERY, ids=str)
def test_targets_and_pixels_equal_the_reference(images, rng, mixer):
    """A class a row: the target of a mixed row says which rows its pixels come from, and how many of each."""
    mix = mixer.draw(*images.shape[:3], rng, crops_per_image=4)
    target = mix.of(SparseTarget.from_classes(np.arange(8), 8)).to_dense()
    pixels = np.broadcast_to(np.eye(8, 3)[:, None, None] * 255, images.shape)  # rows 0, 1, 2 in a colour each
    for first in range(0, 8, 3):
        colours = np.roll(pixels, first, axis=0).astype(np.uint8)
        shares = reference.batch.prepare(
            colours, [0] * 3, [1] * 3, mix.partners.numpy(), mix.boxes.numpy(), mix.blend.numpy()
        ).mean((2, 3))
        rows = [row for row in (first, first + 1, first + 2) if row < 8]
        np.testing.assert_allclose(target[:, rows], shares[:, : len(rows)], atol=1e-6)
        prepared = prepare(torch.from_numpy(colours), [0] * 3, [1] * 3, mix=mix).mean((2, 3))
        np.testing.assert_allclose(target[:, rows], prepared[:, : len(rows)], atol=1e-5)


@pytest.mark.parametrize("mixer", EVERY, ids=str)
def test_sparse_and_dense_targets_mix_alike(images, rng, mixer):
    mix = mixer.draw(*images.shape[:3], rng, crops_per_image=4)
    ids = np.argsort(rng.random((8, 10)))[:, :3]
    target = SparseTarget.from_topk(ids, rng.dirichlet(np.ones(4), 8)[:, :3].astype(np.float32), 10)
    torch.testing.assert_close(mix.of(target).to_dense(), mix.of(target.to_dense()), rtol=0, atol=1e-6)


def test_a_step_repeats_itself_and_differs_from_others(images):
    at = Pass(8, 4)
    draws = {(step, rank): draw_mix(MIXED, at, images, step, rank) for step in range(20) for rank in range(2)}
    for (step, rank), mix in draws.items():
        assert same(mix, draw_mix(MIXED, at, images, step, rank))
        others = [other for place, other in draws.items() if place != (step, rank)]
        assert not any(same(mix, other) for other in others)
    other_seed = draw_mix(replace(MIXED, seed=-1), at, images, 0, 0)
    assert not same(other_seed, draws[0, 0])


def test_selfmix_rests_in_single_crop_passes():
    assert mixer_of(MIXED, Pass(4, 4)) == Mixer(0.2, 1.0, 1.0)
    assert mixer_of(MIXED, Pass(299, 1)) == Mixer(0.2, 1.0, 0.0)


def test_mixing_ends_at_its_epoch(images):
    recipe = replace(MIXED, mixup_off_epoch=12)
    assert draw_mix(recipe, Pass(11, 1), images, 5, 0) is not None
    assert draw_mix(recipe, Pass(12, 4), images, 5, 0) is None


def test_probabilities_are_those_of_timm(rng):
    mixer = Mixer(mixup=0.2, cutmix=1.0, selfmix=1.0, probability=0.8, switch_probability=0.75)
    draws = [mixer.draw(8, 16, 16, rng, 4) for _ in range(1500)]
    mixed = [mix for mix in draws if mix is not None]
    cut = [mix for mix in mixed if bool((mix.blend == 1).all())]
    own = [mix for mix in cut if bool((mix.partners // 4 == torch.arange(8) // 4).all())]
    inside = 1 / 70  # of the permutations of two images' four crops each
    assert likely(len(mixed), 1500, 0.8)
    assert likely(len(cut), len(mixed), 0.75)
    assert likely(len(own), len(cut), 0.5 + 0.5 * inside)


def likely(hits: int, draws: int, probability: float) -> bool:
    """Within six standard deviations of the expected number: a right program fails once in 500 million."""
    return abs(hits - draws * probability) <= 6 * (draws * probability * (1 - probability)) ** 0.5


@pytest.fixture
def run(tmp_path, rng) -> list[str]:
    draw_images(tmp_path / "train", 8, rng)
    write_labels(tmp_path / "labels.fkdl", tmp_path / "train", rng)
    data = ["--data", str(tmp_path / "train"), "--labels", str(tmp_path / "labels.fkdl")]
    return [*COMMON, *data, "--epochs", "4", "--max-steps", "3"]


def test_rows_mix_across_the_parts_of_an_accumulated_step(run, tmp_path):
    mixing = ["--mixup", "0.8", "--cutmix", "1.0", "--selfmix", "1.0"]
    losses = {}
    for parts in ("1", "4"):
        output = tmp_path / parts
        assert main([*run, *mixing, "--accumulate", parts, "--output", str(output)]) == 0
        losses[parts] = [line["loss"] for line in steps_of(output)]
    assert losses["4"] == pytest.approx(losses["1"], rel=1e-5)
    assert main([*run, "--output", str(tmp_path / "plain")]) == 0
    assert losses["1"] != [line["loss"] for line in steps_of(tmp_path / "plain")]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--selfmix", "1.0", "--crops-per-image", "1"],
            "it needs crops_per_image 2 or more",
        ),
        (["--mixup", "-0.1"], "mixup, got -0.1"),
        (["--mixup-prob", "1.5"], "mixup_prob, got 1.5"),
        (["--mixup-switch-prob", "-1"], "mixup_switch_prob, got -1.0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(flags, words):
    with pytest.raises(ValueError, match="recipe: ") as error:
        read_recipe(flags)
    assert words in str(error.value)


def test_bare_logits_are_not_mixed(run, tmp_path, rng, capsys):
    write_labels(tmp_path / "logits.fkdl", tmp_path / "train", rng, "dense_logits", 12)
    flags = ["--labels", str(tmp_path / "logits.fkdl"), "--output", str(tmp_path / "run"), "--mixup", "0.2"]
    assert main([*run, *flags]) == 1
    assert "bare logits" in capsys.readouterr().err


def test_selfmix_of_single_crops_is_refused(rng):
    with pytest.raises(ValueError, match="selfmix, got 1 crop"):
        Mixer(selfmix=1.0).draw(8, 16, 16, rng, 1)
