"""The fused loss against the usual ways to write it; answers are checked first.

    python bench/loss.py [--device cpu|cuda] [--threads N] [--json FILE]

CPU: wall time of loss and gradient, called in turns and many times in a row.
CUDA: GPU time (graph replay over buffers beyond the L2 cache, median of 100), and wall time
of a step from labels in host memory. The opponents: FKD's recovery of a dense target and the dense loss in
eager torch, the same under torch.compile, a tuned Triton kernel, a copy of the bytes.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from timing import gpu_time, host_time, wall
from torch import Tensor

from fkdx import SparseTarget, loss_and_grad, soft_cross_entropy

CPU_CASES = [(1024, 1000, 5, torch.float32), (1024, 1000, 5, torch.bfloat16), (128, 21841, 10, torch.float32)]
GPU_CASES = [  # rows, classes, K, dtype, microseconds that we want of an H200
    (1024, 1000, 5, torch.bfloat16, 3.5),
    (4096, 1000, 5, torch.float32, 10.5),
    (4096, 21841, 10, torch.bfloat16, 95.0),
    (4096, 21848, 10, torch.bfloat16, 95.0),
]
DENSE_CASES = [
    (1024, 1000, torch.bfloat16, "probabilities"),
    (1024, 1000, torch.bfloat16, "teacher's logits"),
    (4096, 21841, torch.bfloat16, "probabilities"),
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device)
    parser.add_argument("--threads", type=int, help="CPU threads for all (default: torch's own number)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    results = []
    for result in cpu_results() if args.device == "cpu" else cuda_results():
        results.append(result)
        if args.json:  # after each, so that a run that is cut off has what it measured
            args.json.write_text(json.dumps(results, indent=1))
    return any(result.get("failed") for result in results)


# ---- the systems: each gives the loss of the batch and the gradient of the logits ------------------------


def recovered(ids: Tensor, values: Tensor, classes: int) -> Tensor:
    """FKD's marginal smoothing: the dense target."""
    rest = (1 - values.sum(1, keepdim=True)) / (classes - ids.shape[1])
    return rest.expand(-1, classes).contiguous().scatter_(1, ids, values)


def dense_loss(logits: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    target = recovered(ids, values, logits.shape[1])
    return -(target * torch.log_softmax(logits.float(), 1)).sum(1).mean()


def with_gradient(loss: Callable, logits: Tensor, *labels) -> tuple[Tensor, Tensor]:
    value = loss(logits, *labels)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def fused(logits: Tensor, target: SparseTarget) -> tuple[Tensor, Tensor]:
    rows, grad = loss_and_grad(logits, target)
    return rows, grad


class Labels:
    """Random teacher labels of one batch as they are stored, and widened for the systems that need it."""

    def __init__(self, rows: int, classes: int, k: int, device: str) -> None:
        values, ids = torch.softmax(3 * torch.randn(rows, classes), 1).topk(k)
        self.ids, self.values = ids.to(torch.int16), values.half()
        self.wide = (ids.to(device), self.values.float().to(device))
        self.target = SparseTarget.from_topk(self.ids, self.values, classes).to(device)


def check(name: str, got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    """A benchmark of a wrong answer is worthless."""
    loss, grad = got[0].double().mean(), got[1].double() * len(got[1])
    torch.testing.assert_close(loss, want[0].double(), rtol=1e-4, atol=1e-6, msg=lambda m: f"{name}: {m}")
    tolerance = 2e-2 if got[1].dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(
        grad, want[1].double() * len(got[1]), rtol=tolerance, atol=1e-5, msg=lambda m: f"{name}: {m}"
    )


def truth(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    wide = logits.detach().double().requires_grad_()
    value = -(labels.target.to_dense(torch.float64) * torch.log_softmax(wide, 1)).sum(1).mean()
    return value.detach(), torch.autograd.grad(value, wide)[0]


# ---- CPU -------------------------------------------------------------------------------------------------


def cpu_results() -> Iterator[dict]:
    for rows, classes, k, dtype in CPU_CASES:
        labels = Labels(rows, classes, k, "cpu")
        logits = (3 * torch.randn(rows, classes)).to(dtype).requires_grad_()
        systems = {
            "fkdx loss_and_grad": lambda z=logits, t=labels.target: fused(z, t),
            "fkdx autograd": lambda z=logits, t=labels.target: with_gradient(soft_cross_entropy, z, t),
            "torch dense": lambda z=logits, w=labels.wide: with_gradient(dense_loss, z, *w),
        }
        want = truth(logits, labels)
        for name, system in systems.items():
            check(name, system(), want)
        threads = f"{torch.get_num_threads()} threads"
        yield report(rows, classes, dtype, wall(systems, 60), "torch dense", f"{threads}, in turns")
        times = wall(systems, 8, in_a_row=20, pause=0.02)
        yield report(rows, classes, dtype, times, "torch dense", f"{threads}, 20 calls in a row")


# ---- CUDA ------------------------------------------------------------------------------------------------


def cuda_results() -> Iterator[dict]:
    yield host_result()  # first: it is quick, and nothing else measures it
    for case in GPU_CASES:
        yield from sparse_results(*case)
    for case in DENSE_CASES:
        yield dense_result(*case)


def sparse_results(rows: int, classes: int, k: int, dtype: torch.dtype, goal: float) -> Iterator[dict]:
    """One case of GPU_CASES: time on the GPU, fkdx and the copy first, then wall time of a step."""
    compiled = torch.compile(dense_loss, dynamic=False)
    labels = Labels(rows, classes, k, "cuda")
    size = rows * classes * torch.empty((), dtype=dtype).element_size()

    logits_of = partial(random_logits, rows, classes, dtype)
    one = torch.ones((), device="cuda")
    systems = {
        "fkdx": lambda z: fused(z, labels.target),
        "copy of the same bytes": lambda z: z.detach().clone(),
        "fkdx, backward()": lambda z: with_gradient(soft_cross_entropy, z, labels.target),
        "fkdx, scale=tensor": lambda z: loss_and_grad(z, labels.target, scale=one),
        "torch dense": lambda z: with_gradient(dense_loss, z, *labels.wide),
        "torch.compile dense": lambda z: with_gradient(compiled, z, *labels.wide),
    }
    if importlib.util.find_spec("triton"):
        from triton_loss import triton_loss_and_grad

        systems["triton"] = lambda z: triton_loss_and_grad(
            z.detach(), labels.target.ids, labels.target.values
        )
    want = truth(logits_of(0), labels)
    times, failed = {}, {}
    for name, system in systems.items():

        def make(i: int, system=system):
            logits = logits_of(i)
            return lambda: system(logits)

        try:  # one that fails shall not take the others' numbers along
            if "copy" not in name:
                check(name, system(logits_of(0)), want)
            times[name] = gpu_time(make, 2 * size)
        except Exception as error:
            failed[name] = str(error)
    for name, kernel in (("fkdx, warp a row", 1), ("fkdx, block a row", 2), ("fkdx, loop", 3)):
        call = partial(forced, labels, kernel, logits_of)
        times[name] = gpu_time(call, 2 * size)
    del want
    held = live_bytes(partial(fused, logits_of(1), labels.target)) / (rows * classes)
    print(f"goal {goal} us on an H200; loss and gradient need {held:.2f} bytes a logit")
    for name, reason in failed.items():
        print(f"    {name} FAILED: {reason}")
    yield {**report(rows, classes, dtype, times, "fkdx", "GPU time"), "bytes": held, "failed": failed}
    times = step_times(labels, logits_of(0))
    yield report(rows, classes, dtype, times, "fkdx", "wall, labels on the host")


def dense_result(rows: int, classes: int, dtype: torch.dtype, kind: str) -> dict:
    """GPU time against a dense target: probabilities of the student's dtype, or a teacher's logits."""
    teacher = 3 * torch.randn(rows, classes, device="cuda")
    target = teacher if kind == "teacher's logits" else torch.softmax(teacher, 1).to(dtype)
    more = {"teacher_temperature": 1.0} if kind == "teacher's logits" else {}

    def eager(logits: Tensor) -> tuple[Tensor, Tensor]:
        soft = torch.softmax(target, 1) if more else target
        return with_gradient(lambda z: -(soft * torch.log_softmax(z.float(), 1)).sum(1).mean(), logits)

    logits = random_logits(rows, classes, dtype, 0)
    got, want = loss_and_grad(logits, target, **more), eager(logits)
    check("dense", (got[0].mean(), got[1]), want)
    moved = 2 * logits.numel() * logits.element_size() + target.numel() * target.element_size()
    half = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
    calls = {
        "fkdx": lambda i: partial(loss_and_grad, random_logits(rows, classes, dtype, i), target, **more),
        "torch dense": lambda i: partial(eager, random_logits(rows, classes, dtype, i)),
        "copy of the same bytes": lambda i: half.clone,
    }
    times = {name: gpu_time(make, moved) for name, make in calls.items()}
    return report(rows, classes, dtype, times, "fkdx", f"GPU time, dense {kind}")


def random_logits(rows: int, classes: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    logits = torch.randn(rows, classes, device="cuda", generator=generator) * 3
    return logits.to(dtype).requires_grad_()


def forced(labels: Labels, kernel: int, logits_of: Callable[[int], Tensor], i: int) -> Callable[[], object]:
    """The fused call with a kernel of our choice (csrc/loss/loss_cuda.h)."""
    from fkdx.loss.cross_entropy import SOFTMAX, _native

    logits, sources = logits_of(i).detach(), labels.target.sources
    return lambda: _native(logits, sources, SOFTMAX, 1.0, None, 1.0 / len(logits), kernel=kernel)


def step_times(labels: Labels, logits: Tensor) -> dict[str, float]:
    """From labels in host memory to the gradient: FKD recovers on the CPU and copies a dense target."""
    ids, values = labels.ids.to(torch.int64), labels.values.float()
    classes = logits.shape[1]
    host = SparseTarget.from_topk(labels.ids, labels.values, classes).pin_memory()

    def fkd():
        target = recovered(ids, values, classes).cuda()
        loss = -(target * torch.log_softmax(logits.float(), 1)).sum(1).mean()
        return torch.autograd.grad(loss, logits)

    systems = {"fkdx": lambda: fused(logits, host.to("cuda", non_blocking=True)), "FKD": fkd}
    return wall(systems, 100 if logits.numel() < 1 << 23 else 8, sync=True)


def live_bytes(call: Callable[[], object]) -> int:
    """The most device memory that a call needs, results included; its inputs are made before counting."""
    call()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def host_result() -> dict:
    """Time of the host for one eager call, and for autograd forward and backward."""
    labels = Labels(8, 16, 5, "cuda")
    logits = torch.randn(8, 16, device="cuda", requires_grad=True)
    calls = {
        "loss_and_grad": lambda: loss_and_grad(logits, labels.target),
        "forward only": lambda: soft_cross_entropy(logits.detach(), labels.target),
        "autograd": lambda: with_gradient(soft_cross_entropy, logits, labels.target),
        "two torch.empty": lambda: (torch.empty(8, device="cuda"), torch.empty(8, 16, device="cuda")),
    }
    us = {name: 1e6 * host_time(call) for name, call in calls.items()}
    print("host time of a call:", ", ".join(f"{name} {time:.1f} us" for name, time in us.items()))
    return {"what": "host time of a call", "us": us}


def report(
    rows: int, classes: int, dtype: torch.dtype, times: dict[str, float], base: str, what: str
) -> dict:
    """Print the times, and give them as they are kept."""
    print(f"B = {rows}, C = {classes}, {str(dtype)[6:]}: {what}")
    for name, seconds in sorted(times.items(), key=lambda item: item[1]):
        ratio = f"{seconds / times[base]:>7.2f} x {base}" if base in times else ""
        print(f"    {name:<24} {1e6 * seconds:>10.1f} us   {ratio}")
    us = {name: 1e6 * seconds for name, seconds in times.items()}
    return {"rows": rows, "classes": classes, "dtype": str(dtype), "what": what, "us": us}


if __name__ == "__main__":
    sys.exit(main())
