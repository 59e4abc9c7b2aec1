"""The same loss and gradient as a hand-tuned Triton kernel: the opponent in bench/loss.py, not part of fkdx.

One program a row, the row in registers, sizes and strides as constants so that loads of even C vectorise, the
number of warps tuned for each shape.
"""

import torch
import triton
import triton.language as tl


def _sensible(configs, named, **more):
    """Numbers of warps that leave each thread 4 to 128 logits; others compile for minutes and lose."""
    block = {**named, **more}["BLOCK"]
    return [config for config in configs if 4 <= block / (32 * config.num_warps) <= 128]


@triton.autotune(
    [triton.Config({}, num_warps=n) for n in (1, 2, 4, 8, 16, 32)],
    key=["C", "TYPE"],
    prune_configs_by={"early_config_prune": _sensible},
)
@triton.jit
def _kernel(
    z_ptr,
    dz_ptr,
    loss_ptr,
    ids_ptr,
    values_ptr,
    scale,
    C: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    BLOCK: tl.constexpr,
    TYPE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    inside = c < C
    z = tl.load(z_ptr + row * C + c, mask=inside, other=float("-inf")).to(tl.float32)
    k = tl.arange(0, KP)
    stored = k < K
    ids = tl.load(ids_ptr + row * K + k, mask=stored, other=0).to(tl.int32)
    values = tl.load(values_ptr + row * K + k, mask=stored, other=0.0).to(tl.float32)
    named = tl.load(z_ptr + row * C + ids, mask=stored, other=0.0).to(tl.float32)
    base = (1.0 - tl.sum(values)) / (C - K)
    delta = tl.where(stored, values - base, 0.0)
    top = tl.max(z)
    e = tl.exp(z - top)
    total = tl.sum(e)
    linear = base * tl.sum(tl.where(inside, z - top, 0.0)) + tl.sum(delta * (named - top))
    tl.store(loss_ptr + row, tl.log(total) - linear)
    tl.store(dz_ptr + row * C + c, (e / total - base) * scale, mask=inside)
    tl.debug_barrier()
    tl.store(dz_ptr + row * C + ids, (tl.exp(named - top) / total - base - delta) * scale, mask=stored)


def triton_loss_and_grad(logits: torch.Tensor, ids: torch.Tensor, values: torch.Tensor):
    rows, classes = logits.shape
    k = ids.shape[1]
    loss = torch.empty(rows, device=logits.device)
    grad = torch.empty_like(logits)
    block = triton.next_power_of_2(classes)
    padded = triton.next_power_of_2(k)
    launch = _kernel[(rows,)]
    launch(logits, grad, loss, ids, values, 1.0 / rows, classes, k, padded, block, str(logits.dtype))
    return loss, grad
