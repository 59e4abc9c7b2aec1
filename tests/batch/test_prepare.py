"""Batches on the device: normalising and mixing equal the slow twin; the parameters of mixing are what they
say."""

import numpy as np
import pytest
import torch
from draw_tensors import MIXERS, ROUNDING, draw_mix, random_images

from fkdx import _C, reference
from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD, prepare
from fkdx.batch.mix import Mix, Mixer, neighbours
from fkdx.batch.topk import topk_probabilities


def expected(images, mix) -> np.ndarray:
    arguments = () if mix is None else (mix.partners.numpy(), mix.boxes.numpy(), mix.blend.numpy())
    return reference.batch.prepare(images.numpy(), IMAGENET_MEAN, IMAGENET_STD, *arguments)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("mixer", MIXERS, ids=str)
def test_prepare_equals_the_reference(rng, mixer, dtype):
    for height, width in ((37, 21), (1, 1), (224, 224), (16, 48)):
        images = random_images(rng, 6, height, width)
        mix = draw_mix(mixer, images, rng)
        batch = prepare(images, dtype=dtype, mix=mix)
        want = expected(images, mix)
        assert batch.dtype == dtype
        assert batch.shape == want.shape
        assert batch.is_contiguous(memory_format=torch.channels_last)
        tolerance = ROUNDING[dtype] * np.abs(want) + 1e-6
        assert (np.abs(batch.double().numpy() - want) <= tolerance).all()


@pytest.mark.parametrize("mixer", MIXERS, ids=str)
def test_every_cpu_variant_gives_the_same_bits(rng, mixer):
    images = random_images(rng, 6, 31, 29)
    mix = draw_mix(mixer, images, rng)
    batches = []
    for cpu in _C.supported_cpus():
        _C.force_cpu(cpu)
        batches.append(prepare(images, mix=mix))
    _C.force_cpu("")
    assert all(torch.equal(batch, batches[0]) for batch in batches)


def test_a_partner_outside_the_batch_is_an_error(rng):
    images = random_images(rng)
    mix = draw_mix(MIXERS[1], images, rng)
    mix.partners[4] = 6
    with pytest.raises(IndexError, match="partner of row 4, got 6"):
        prepare(images, mix=mix)


def test_partners_beside_the_batch(rng):
    images, others = random_images(rng, 4), random_images(rng, 9)
    drawn = MIXERS[2].draw(4, 37, 21, rng)
    rows = torch.tensor([8, 0, 5, 5])
    mix = Mix(rows, drawn.boxes, torch.rand(4), None, others)
    together = torch.cat([images, others])
    want = expected(together, Mix(rows + 4, drawn.boxes, mix.blend, None))[:4]
    np.testing.assert_allclose(prepare(images, mix=mix), want, atol=1e-5)
    assert mix.of(rows) is rows
    rows[1] = 9
    with pytest.raises(IndexError, match="partner of row 1, got 9, expected 0 <= entry < 9"):
        prepare(images, mix=mix)
    with pytest.raises(ValueError, match=r"mix\.others"):
        prepare(images[:, 1:], mix=mix)


def test_no_rows(rng):
    assert prepare(random_images(rng, 0, 4, 4)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("mixer", MIXERS[1:], ids=str)
def test_lam_is_the_share_of_own_pixels(rng, mixer):
    height, width = 48, 32
    mix = mixer.draw(60, height, width, rng, crops_per_image=4)
    pixels = np.zeros((60, height, width, 3), np.uint8)
    own = reference.batch.prepare(pixels, [0] * 3, [1] * 3)  # black stays, white comes from the partner
    assert own.max() == 0
    for row in range(60):
        pixels[:] = 255
        pixels[row] = 0
        partner = mix.partners.numpy().copy()
        mixed = reference.batch.prepare(
            pixels, [0] * 3, [1] * 3, partner, mix.boxes.numpy(), mix.blend.numpy()
        )
        share = 1 - mixed[row].mean() if partner[row] != row else mix.lam[row]
        np.testing.assert_allclose(mix.lam[row], share, atol=1e-6)


def test_selfmix_stays_inside_the_image(rng):
    partners = neighbours(40, 8, rng)
    assert (partners // 8 == np.arange(40) // 8).all()
    assert (partners != np.arange(40)).all()
    assert sorted(partners) == list(range(40))
    with pytest.raises(ValueError, match="divisor of 10"):
        neighbours(10, 4, rng)


def test_a_mixer_repeats_itself_and_takes_each_kind():
    mixer = Mixer(mixup=0.2, cutmix=1.0, probability=0.5)
    draws = [mixer.draw(4, 8, 8, np.random.default_rng(seed)) for seed in range(200)]
    again = [mixer.draw(4, 8, 8, np.random.default_rng(seed)) for seed in range(200)]
    for first, second in zip(draws, again):
        assert (first is None) == (second is None)
        assert first is None or all(
            torch.equal(getattr(first, name), getattr(second, name))
            for name in ("partners", "boxes", "blend", "lam")
        )
    mixed = [mix for mix in draws if mix is not None]
    assert 60 < len(mixed) < 140
    mixups = sum(bool((mix.boxes == torch.tensor([0, 0, 8, 8])).all()) for mix in mixed)
    assert 0.25 * len(mixed) < mixups < 0.75 * len(mixed)
    assert Mixer().draw(4, 8, 8, np.random.default_rng(0)) is None


def test_refusals(rng):
    images = random_images(rng)
    mix = MIXERS[1].draw(5, 37, 21, rng)
    larger, before = Mixer(mixup=1.0).draw(6, 38, 21, rng), Mixer(mixup=1.0).draw(6, 37, 21, rng)
    before.boxes[2, 0] = -1
    cases = [
        (lambda: prepare(images.float()), "uint8"),
        (lambda: prepare(images[..., :2]), "uint8"),
        (lambda: prepare(images, mean=(0.5, 0.5)), "mean"),
        (lambda: prepare(images, std=(0.5, 0.0, 0.5)), "std"),
        (lambda: prepare(images, std=(0.5, float("nan"), 0.5)), "finite"),
        (lambda: prepare(images, mean=(0.5, float("inf"), 0.5)), "finite"),
        (lambda: prepare(images.to("meta")), "device, got meta, expected cpu or cuda"),
        (lambda: prepare(images, dtype=torch.float64), "dtype"),
        (
            lambda: prepare(images, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
            r"mean, got .* of \[0, 1\]: div",
        ),
        (lambda: prepare(images, mean=0.5, std=0.5), r"mean and std, got \(0.5, 0.5\), expected 3"),
        (lambda: prepare(images, mix=mix), "mix"),
        (lambda: prepare(images, mix=larger), r"mix.boxes of row 0, got \[0, 0, 38, 21\], .* 37 x 21 pixels"),
        (
            lambda: prepare(images, mix=before),
            r"mix.boxes of row 2, got \[-1, 0, 37, 21\], expected one inside",
        ),
        (lambda: mix.of(torch.zeros(5, dtype=torch.int64)), "Mix.of: target, .*int64"),
        (lambda: mix.of(torch.zeros(4, 3)), r"expected a SparseTarget .* \(5, C\)"),
        (lambda: Mixer(mixup=-1.0), "Mixer"),
        (lambda: Mixer(mixup=float("nan")), "Mixer"),
        (lambda: Mixer(cutmix=float("inf")), "Mixer"),
        (lambda: Mixer(probability=1.5), "probability"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("shape", [(1, 1, 2**30), (1, 1, 2**32 + 4), (1, 2**32 + 4, 1)], ids=str)
def test_images_whose_bytes_are_more_than_an_int_counts(shape):
    with pytest.raises(ValueError, match=r"prepare: images, got 1 of .*, expected at most 2\^29 pixels"):
        _C.prepare_cpu(0, 0, (0, 0, 0), shape, [1.0] * 3, [0.0] * 3, 0, 1)  # refused before it is read


@pytest.mark.skipif(not hasattr(_C, "topk_cuda"), reason="built without CUDA")
def test_what_the_kernels_cannot_do_is_refused_before_a_gpu_is_asked_for():
    for shape in ((2**31, 1, 1), (1, 2**14, 2**16)):
        with pytest.raises(ValueError, match=r"prepare: images, got .*, expected fewer or smaller ones"):
            _C.prepare_cuda(0, 0, (0, 0, 0), shape, [1.0] * 3, [0.0] * 3, 0, 0, 0)
    for rows, classes, k, words in (
        (2**31, 5, 1, "rows, got 2147483648"),
        (1, 5, 6, "k and classes, got 6 of 5"),
        (1, 100, 17, "expected at most 16 of 22528"),
        (1, 22529, 1, "k and classes, got 1 of 22529"),
    ):
        with pytest.raises(ValueError, match=f"topk: .*{words}"):
            _C.topk_cuda(0, 0, rows, classes, classes, k, 1.0, 0, 0, False, 0, 0)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_topk_probabilities(rng, dtype):
    logits = torch.from_numpy(rng.normal(scale=3, size=(5, 100))).to(dtype)
    ids, values = topk_probabilities(logits, 7, temperature=1.5)
    wide = np.exp(logits.double().numpy() / 1.5)
    wide /= wide.sum(1, keepdims=True)
    np.testing.assert_allclose(values, -np.sort(-wide, 1)[:, :7], rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(wide, ids.numpy().astype(int), 1), values, rtol=1e-5)
    assert ids.dtype == torch.int32
    assert topk_probabilities(logits, 7, dtype=torch.float16)[1].dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(5), 1), "logits"),
        ((torch.zeros(2, 5, dtype=torch.int64), 1), "logits"),
        ((torch.zeros(2, 5), 6), "k, got 6"),
        ((torch.zeros(2, 5), 0), "k, got 0"),
        ((torch.zeros(2, 5), 1, 0.0), "temperature"),
        ((torch.zeros(2, 5), 1, 1.0, torch.bfloat16), "dtype"),
    ],
)
def test_topk_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        topk_probabilities(*arguments)
