"""On a GPU: kernels equal to their CPU twins, capturable, on any stream, repeatable; and the trainer."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from draw_tensors import (
    CLASSES,
    MIXERS,
    ROUNDING,
    draw_mix,
    mixed_target,
    random_images,
    random_labels,
    random_logits,
)
from toy import environment, make_toy, steps_of, torchrun_words

from fkdx import SparseTarget, loss_and_grad, soft_cross_entropy
from fkdx.batch import prepare
from fkdx.batch.mix import Mix
from fkdx.batch.topk import topk_probabilities
from fkdx.commands.doctor import cuda_state
from fkdx.loss.cross_entropy import SOFTMAX, _native, binary_cross_entropy
from fkdx.loss.target import KINDS
from fkdx.train.loop import main as train

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
AUTO, WARP, BLOCK, LOOP = range(4)  # csrc/loss/loss_cuda.h


def assert_twins(on_gpu, logits, target, factor: float, link_loss=loss_and_grad, **options) -> None:
    """Loss and gradient of the GPU against the CPU's from the same logits in float32: one rounding apart."""
    loss, grad = (part.cpu() for part in on_gpu)
    want_loss, want = link_loss(logits.cpu().float(), target, **options)
    torch.testing.assert_close(loss, want_loss, rtol=1e-6, atol=1e-7)
    ulp = {torch.float32: 4 * 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[grad.dtype]
    smallest = 2.0**-25 if grad.dtype == torch.float16 else 0.0
    error = (grad.double() - want.double()).abs()
    assert (error <= 1.02 * ulp * want.double().abs() + smallest + 3e-7 * factor).all(), error.max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_every_kernel_equals_the_cpu(rng, classes, dtype):
    rows = 9
    logits = random_logits(rng, rows, classes, dtype).cuda()
    for kind in KINDS:
        target = SparseTarget.from_topk(*random_labels(rng, rows, classes, min(5, classes)), classes, kind)
        sources = target.to("cuda").sources
        for kernel in (AUTO, WARP, BLOCK, LOOP):
            result = _native(logits, sources, SOFTMAX, 2.0, None, 1.0 / rows, kernel=kernel)
            assert_twins(result, logits, target, 1 / rows, temperature=2.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [7, 1000, 1001, 5000, 21841])
def test_misaligned_padded_and_transposed_rows(rng, classes, dtype):
    rows = 4
    target = SparseTarget.from_topk(*random_labels(rng, rows, classes, 5), classes)
    plain = random_logits(rng, rows, classes, dtype).cuda()
    shapes = [plain.t().contiguous().t()]
    for padding in (1, 3, 8):
        wide = torch.empty(rows, classes + padding, dtype=dtype, device="cuda")
        shapes.append(wide[:, padding:].copy_(plain))
    for offset in range(1, 16 // plain.element_size()):
        flat = torch.empty(offset + plain.numel(), dtype=dtype, device="cuda")
        shapes.append(flat[offset:].view(rows, classes).copy_(plain))
    for logits in shapes:
        assert_twins(loss_and_grad(logits, target.to("cuda")), plain, target, 1 / rows)


def test_composed_targets_and_more_classes_than_the_kernel_holds(rng):
    logits = random_logits(rng, 8, 300).cuda()
    labels = random_labels(rng, 8, 300, 65)
    for target in (
        mixed_target(rng, 8, 300),
        mixed_target(rng, 8, 300).blend_hard(rng.integers(0, 300, 8), 0.3),
        SparseTarget.from_topk(*labels, 300),
        SparseTarget.from_topk(labels[0][:, :64], labels[1][:, :64], 300),
        SparseTarget.ensemble([mixed_target(rng, 8, 300) for _ in range(4)]),
        SparseTarget.from_topk(np.full((8, 3), 5), np.full((8, 3), 0.2, np.float32), 300),
        SparseTarget.from_topk(np.zeros((8, 0), int), np.zeros((8, 0), np.float32), 300),
    ):
        assert_twins(loss_and_grad(logits, target.to("cuda")), logits, target, 3 / 8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 128, 1001, 3000])
def test_dense_targets(rng, classes, dtype):
    logits = random_logits(rng, 5, classes, dtype).cuda()
    for teacher in (random_logits(rng, 5, classes, dtype), random_logits(rng, 5, classes)):
        options = {"temperature": 0.5, "teacher_temperature": 0.7}
        assert_twins(loss_and_grad(logits, teacher.cuda(), **options), logits, teacher, 2 / 5, **options)
        dense = torch.softmax(teacher, 1)
        assert_twins(loss_and_grad(logits, dense.cuda()), logits, dense, 1 / 5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_binary_cross_entropy(rng, dtype):
    def rows_and_grad(logits, target):
        logits = logits.detach().requires_grad_()
        loss = binary_cross_entropy(logits, target, reduction="none")
        return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]

    logits, target = random_logits(rng, 6, 1001, dtype).cuda(), mixed_target(rng, 6, 1001)
    for given in (target, target.to_dense()):
        assert_twins(rows_and_grad(logits, given.to("cuda")), logits, given, 1 / 1001, rows_and_grad)


@pytest.mark.parametrize("spread", [30.0, 0.01])
def test_large_flat_and_spoilt_logits(rng, spread):
    logits = random_logits(rng, 6, 1000, spread=spread, shift=1e4)
    logits[1, 7], logits[2, 3], logits[3, 4] = float("nan"), float("inf"), -float("inf")
    target = SparseTarget.from_topk(*random_labels(rng, 6, 1000, 5), 1000, "marginal_renorm")
    loss, grad = loss_and_grad(logits.cuda(), target.to("cuda"))
    want_loss, want = loss_and_grad(logits, target)
    torch.testing.assert_close(loss.cpu(), want_loss, rtol=1e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(grad.cpu(), want, rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("wrong", [-1, 100, 2**31, 2**32 + 5])
@pytest.mark.parametrize("k", [5, 65])
def test_a_class_that_does_not_exist_spoils_its_row_and_check_raises(rng, k, wrong):
    ids, values = random_labels(rng, 4, 100, k)
    ids[2, 3] = wrong
    target = SparseTarget.from_topk(ids, values, 100).to("cuda")
    logits = random_logits(rng, 4, 100).cuda()
    loss, grad = loss_and_grad(logits, target)
    assert torch.isnan(loss).tolist() == [False, False, True, False]
    assert torch.isnan(grad).all(1).tolist() == [False, False, True, False]
    with pytest.raises(IndexError, match="row 2"):
        soft_cross_entropy(logits, target, check=True)
    with pytest.raises(ValueError, match="device"):
        soft_cross_entropy(logits, target.to("cpu"))
    with pytest.raises(ValueError, match="float64"):
        soft_cross_entropy(logits.double(), target)


@pytest.mark.parametrize("k", [5, 65])
def test_a_row_that_does_not_exist_spoils_the_row_that_asks_for_it(rng, k):
    target = SparseTarget.from_topk(*random_labels(rng, 4, 100, k), 100)
    target = target.mix(np.array([0, 4, 2, -1]), 0.5).to("cuda")
    loss, grad = loss_and_grad(random_logits(rng, 4, 100).cuda(), target)
    assert torch.isnan(loss).tolist() == [False, True, False, True]
    assert torch.isnan(grad).all(1).tolist() == [False, True, False, True]


def test_graph_capture_and_replay(rng):
    rows, classes = 64, 1000
    logits = torch.empty(rows, classes, dtype=torch.bfloat16, device="cuda")
    target = SparseTarget.from_topk(*random_labels(rng, rows, classes, 5), classes).to("cuda")
    loss_and_grad(logits, target)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss_and_grad(logits, target)
    for _ in range(100):
        logits.copy_(random_logits(rng, rows, classes, torch.bfloat16))
        target.ids.copy_(torch.from_numpy(rng.integers(0, classes, (rows, 5))))
        graph.replay()
        for got, want in zip(captured, loss_and_grad(logits, target)):
            assert torch.equal(got, want)


def test_loss_and_gradient_are_one_launch(rng):
    logits = random_logits(rng, 64, 1000, torch.bfloat16).cuda()
    for target in (random_labels(rng, 64, 1000, 5), random_labels(rng, 64, 1000, 64)):
        target = SparseTarget.from_topk(*target, 1000).to("cuda")
        loss_and_grad(logits, target)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            loss_and_grad(logits, target)
            torch.cuda.synchronize()
        on_gpu = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        launched = [name for name in on_gpu if "Sync" not in name]
        assert len(launched) == 1, on_gpu
        assert "fkdx" in launched[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [*DTYPES, torch.float64])
@pytest.mark.parametrize(("classes", "first"), [(1000, 0), (1001, 0), (333, 3), (21841, 1)])
def test_dense_targets_of_every_type_and_place(rng, dtype, kind, classes, first):
    logits = random_logits(rng, 4, classes, dtype)
    wide = torch.softmax(random_logits(rng, 4, classes + 5), 1).to(kind)
    target = wide[:, first : first + classes]
    on_gpu = wide.cuda()[:, first : first + classes]
    for link_loss, options in ((loss_and_grad, {}), (loss_and_grad, {"teacher_temperature": 0.5})):
        got = link_loss(logits.cuda(), on_gpu, **options)
        assert_twins(got, logits, target, 0.25, **options)


def test_doctor_says_that_the_cuda_part_works():
    assert cuda_state() == "works"


def test_a_side_stream_waits_for_nobody_else(rng):
    logits = random_logits(rng, 2048, 1000, torch.bfloat16).cuda()
    target = SparseTarget.from_topk(*random_labels(rng, 2048, 1000, 5), 1000).to("cuda")
    side = torch.cuda.Stream()
    for stream in (torch.cuda.current_stream(), side):  # the second pass finds its memory already there
        with torch.cuda.stream(stream):
            want = loss_and_grad(logits, target)
    torch.cuda.synchronize()
    torch.cuda._sleep(int(1e9))  # half a second of the main stream
    with torch.cuda.stream(side):
        got = loss_and_grad(logits, target)
        done = side.record_event()
    done.synchronize()
    assert not torch.cuda.current_stream().query(), "the main stream should still be asleep"
    assert all(torch.equal(a, b) for a, b in zip(got, want))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_and_grad_scaler(rng, dtype):
    torch.manual_seed(0)
    models = [torch.nn.Linear(64, 500).cuda() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    scalers = [torch.amp.GradScaler("cuda", enabled=dtype == torch.float16) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in models]
    target = mixed_target(rng, 256, 500).to("cuda")
    dense = target.to_dense()
    x = torch.randn(256, 64, device="cuda")
    losses = [
        lambda z: soft_cross_entropy(z, target),
        lambda z: torch.nn.functional.cross_entropy(z.float(), dense),
    ]
    for _ in range(20):
        values = []
        for model, scaler, optimizer, loss_of in zip(models, scalers, optimizers, losses):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype):
                loss = loss_of(model(x))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            values.append(loss.detach())
        torch.testing.assert_close(*values, rtol=1e-3, atol=1e-3)


def test_the_scale_may_stay_on_the_device(rng):
    logits = random_logits(rng, 4096, 100, torch.float16).cuda()
    target = SparseTarget.from_topk(*random_labels(rng, 4096, 100, 5), 100)
    scale = torch.tensor(65536.0, device="cuda")
    result = loss_and_grad(logits, target.to("cuda"), scale=scale)
    assert_twins(result, logits, target, 16.0, scale=65536.0)


def test_1000_runs_give_the_same_bits(rng):
    logits = random_logits(rng, 300, 1001, torch.bfloat16).cuda()
    target = mixed_target(rng, 300, 1001).to("cuda")
    first = loss_and_grad(logits, target)
    for _ in range(1000):
        again = loss_and_grad(logits, target)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_more_than_2_31_logits(rng):
    rows, classes = 2_200_000, 1000
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GB of GPU memory")
    logits = torch.randn(rows, classes, dtype=torch.bfloat16, device="cuda")
    ids = torch.randint(0, classes, (rows, 1), dtype=torch.int16, device="cuda")
    target = SparseTarget.from_topk(ids, torch.full(ids.shape, 0.5, device="cuda"), classes)
    loss, grad = loss_and_grad(logits, target, scale=float(rows))
    last = SparseTarget.from_topk(ids[-5:].cpu(), torch.full((5, 1), 0.5), classes)
    assert_twins((loss[-5:], grad[-5:]), logits[-5:], last, 1.0, scale=5.0)


def test_compiled_in_one_graph(rng):
    model = torch.nn.Linear(64, 1001).cuda()
    target = mixed_target(rng, 32, 1001).to("cuda")
    x = torch.randn(32, 64, device="cuda")

    def step(x):
        return soft_cross_entropy(model(x), target)

    want = step(x)
    (want_grad,) = torch.autograd.grad(want, model.weight)
    for mode in ("default", "reduce-overhead"):
        compiled = torch.compile(step, fullgraph=True, mode=mode)
        for _ in range(3):
            loss = compiled(x)
            (grad,) = torch.autograd.grad(loss, model.weight)
        torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grad, want_grad, rtol=1e-4, atol=1e-6)


def test_the_last_device_while_the_first_is_current(rng):
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    logits, target = random_logits(rng, 5, 100), mixed_target(rng, 5, 100)
    with torch.cuda.device(0):
        result = loss_and_grad(logits.to(device), target.to(device))
        assert torch.cuda.current_device() == 0
    assert_twins(result, logits, target, 2 / 5)


# ---- batches and teachers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("mixer", MIXERS, ids=str)
def test_prepare_gives_the_same_bits_as_the_cpu(rng, mixer, dtype):
    for height, width in ((224, 224), (37, 21), (1, 1), (16, 48), (475, 475)):
        images = random_images(rng, 6, height, width)
        mix = draw_mix(mixer, images, rng)
        got = prepare(images.cuda(), dtype=dtype, mix=mix and mix.to("cuda"))
        assert torch.equal(got.cpu(), prepare(images, dtype=dtype, mix=mix))
        assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_partners_beside_the_batch_give_the_same_bits_as_the_cpu(rng, dtype):
    for height, width in ((224, 224), (37, 21)):
        images, others = random_images(rng, 6, height, width), random_images(rng, 9, height, width)
        drawn = MIXERS[2].draw(6, height, width, rng)
        rows = torch.from_numpy(rng.integers(0, 9, 6))
        mix = Mix(rows, drawn.boxes, torch.from_numpy(rng.random(6, np.float32)), None, others)
        for own in (mix, replace(mix, others=others[1:], partners=rows.clamp(max=7))):
            got = prepare(images.cuda(), dtype=dtype, mix=own.to("cuda"))
            assert torch.equal(got.cpu(), prepare(images, dtype=dtype, mix=own))


def test_a_channels_last_model_trains_on_a_prepared_batch(rng):
    images, mixer = random_images(rng, 8, 64, 64).cuda(), MIXERS[2]
    mix = mixer.draw(8, 64, 64, rng).to("cuda")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 50),
    ).to("cuda", memory_format=torch.channels_last)
    target = SparseTarget.from_topk(*random_labels(rng, 8, 50, 5), 50).to("cuda")
    target = target.mix(mix.partners, mix.lam)
    with torch.autocast("cuda", torch.bfloat16):
        loss = soft_cross_entropy(model(prepare(images, dtype=torch.bfloat16, mix=mix)), target)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 9, 100, 1000, 1001, 8000, 21841, 30000])
def test_topk_probabilities(rng, classes, dtype):
    logits = random_logits(rng, 7, classes, dtype)
    k = min(10, classes)
    for given in (logits.cuda(), torch.cat([logits, logits, logits], 1).cuda()[:, 1 : 1 + classes]):
        ids, values = topk_probabilities(given, k, temperature=1.5)
        wide = torch.softmax(given.cpu().double() / 1.5, 1)
        want = wide.topk(k).values
        torch.testing.assert_close(values.cpu().double(), want, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(wide.gather(1, ids.cpu().long()), want, rtol=1e-5, atol=1e-9)
        assert all(len(set(row)) == k for row in ids.tolist())
        half = topk_probabilities(given, k, temperature=1.5, dtype=torch.float16)[1]
        assert torch.equal(half, values.half())


# ---- the trainer -------------------------------------------------------------------------------------------


def gpu_run(data: list[str], output: Path, *more: str) -> list[str]:
    """Arguments of a run with batch statistics over all processes, in bf16 and channels-last."""
    student = ["--student", "test_resnet", "--size", "64", "--crops-per-image", "2", "--lr", "0.01"]
    how = ["--amp", "bf16", "--sync-bn", "--log-every", "1", "--deterministic", "--save-minutes", "1000"]
    return [*student, "--batch-size", "16", *how, *data, "--output", str(output), *more]


@pytest.mark.parametrize("compiled", [[], ["--compile"]], ids=["eager", "compiled"])
def test_the_trainer_learns_and_resumes(tmp_path, run_seed, compiled):
    data = make_toy(tmp_path, run_seed)
    assert train(gpu_run(data, tmp_path / "whole", *compiled)) == 0
    for cut in (["--max-steps", "5"], []):
        assert train(gpu_run(data, tmp_path / "cut", *compiled, *cut)) == 0
    whole, cut = (steps_of(tmp_path / name) for name in ("whole", "cut"))
    assert whole[-1]["loss"] < whole[0]["loss"]
    assert [line["loss"] for line in cut] == pytest.approx([line["loss"] for line in whole], abs=1e-3)
    first = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in first)


def test_the_trainer_on_every_gpu(tmp_path, run_seed):
    """One process a GPU: with batch statistics over all of them the losses are those of one process."""
    data = make_toy(tmp_path, run_seed)
    gpus = max(n for n in (1, 2, 4, 8) if n <= torch.cuda.device_count())
    assert train(gpu_run(data, tmp_path / "one", "--amp", "none")) == 0
    words = [*torchrun_words(gpus, "-m", "fkdx.train"), *gpu_run(data, tmp_path / "all", "--amp", "none")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    one, every = ([line["loss"] for line in steps_of(tmp_path / name)] for name in ("one", "all"))
    assert every == pytest.approx(one, abs=2e-3)
