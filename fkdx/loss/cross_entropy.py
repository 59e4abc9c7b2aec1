"""Soft cross-entropy straight from stored labels: no (B, C) target, loss and gradient in one pass.

csrc/loss has one entry for the CPU and one for CUDA. Eager mode reaches it through `torch.autograd.Function`,
`torch.compile` through the custom operators ``fkdx::loss`` and ``fkdx::loss_and_grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fkdx import _C
from fkdx.errors import refuse
from fkdx.loss.target import FLOATS, Source, SparseTarget

Target = tuple[Source, ...] | Tensor  # checked: the sources of a SparseTarget, or dense

SOFTMAX, SIGMOID = 0, 1
Reduction = Literal["mean", "sum", "none"]
REDUCTIONS: tuple[str, ...] = get_args(Reduction)
# A target travels through the operators as a list of tensors, one layout and one constant a source.
_IDS, _VALUES, _ROWS, _WEIGHTS, _TAIL, _DENSE = 1, 2, 4, 8, 16, 32
_LEAST_INVERSE = 2.0**-126  # of a teacher's temperature, in float32: 0 would mean that there is none
_FUSED_ENTRIES, _FUSED_SOURCES = 64, 8  # more on CUDA: the target is made dense first; the answer is the same


def soft_cross_entropy(
    logits: Tensor,
    target: SparseTarget | Tensor,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    *,
    teacher_temperature: float | None = None,
    check: bool = False,
) -> Tensor:
    """``-sum_c y[b, c] * log_softmax(logits[b] / temperature)[c]`` of every row b, reduced.

    Args:
        logits: (B, C) float32, bfloat16, float16 or (CPU only) float64, on the CPU or a CUDA device.
        target: a `SparseTarget`, or (B, C) probabilities of any floating dtype, on the same device. It gets
            no gradient.
        temperature: divides the student's logits. No factor temperature**2 is applied (FKD uses none).
        reduction: "mean" over rows, "sum", or "none" for (B,).
        teacher_temperature: the dense target holds a teacher's logits, to be divided by this and softmaxed
            (self-supervised FKD).
        check: on CUDA, look for class ids outside [0, C) and raise; this waits for the device. Without it
            such a row's loss and gradient are NaN. On the CPU they are always an error.

    Returns:
        The loss in float32 (float64 for float64 logits). Its gradient has the logits' dtype; what flows in
        from above (1 / B, a GradScaler's factor) is multiplied in before rounding to it.

    Raises:
        ValueError: wrong dtype, shape, device, temperature or reduction.
        IndexError: a class id outside [0, C), naming the row.

    Example:
        >>> import fkdx, torch
        >>> ids, values = torch.tensor([[3, 1], [0, 2]]), torch.tensor([[0.75, 0.125], [0.5, 0.25]])
        >>> logits = torch.zeros(2, 4, requires_grad=True)
        >>> loss = fkdx.soft_cross_entropy(logits, fkdx.SparseTarget.from_topk(ids, values, 4))
        >>> loss.backward()
        >>> print(f"{loss.item():.4f} {logits.grad[0].tolist()}")
        1.3863 [0.09375, 0.0625, 0.09375, -0.25]
    """
    checked = _checked("soft_cross_entropy", logits, target, temperature, teacher_temperature, check)
    return _loss(logits, checked, (SOFTMAX, temperature, teacher_temperature), reduction)


def binary_cross_entropy(
    logits: Tensor, target: SparseTarget | Tensor, reduction: Reduction = "mean", *, check: bool = False
) -> Tensor:
    """Binary cross-entropy with logits of every (row, class); a row's loss is the mean over its classes.

    So "mean" equals ``F.binary_cross_entropy_with_logits(logits, target.to_dense())``. Arguments and errors
    are those of `soft_cross_entropy`.

    Example:
        >>> import fkdx, torch
        >>> target = fkdx.SparseTarget.from_classes(torch.tensor([2, 0]), num_classes=3, smoothing=0.1)
        >>> round(fkdx.binary_cross_entropy(torch.zeros(2, 3), target).item(), 4)
        0.6931
    """
    checked = _checked("binary_cross_entropy", logits, target, 1.0, None, check)
    return _loss(logits, checked, (SIGMOID, 1.0, None), reduction)


def loss_and_grad(
    logits: Tensor,
    target: SparseTarget | Tensor,
    temperature: float = 1.0,
    scale: float | Tensor | None = None,
    *,
    teacher_temperature: float | None = None,
    check: bool = False,
) -> tuple[Tensor, Tensor]:
    """The loss of every row, (B,), and the gradient of ``scale * loss.mean()``, (B, C) in the logits' dtype.

    Each logit is read once and each gradient written once, in one launch on CUDA. scale is a number or a
    one-element float32 tensor on the logits' device, such as a GradScaler's (`scaler._scale`); None is 1.
    Other arguments and errors are those of `soft_cross_entropy`. Continue with ``logits.backward(grad)``.

    Example:
        >>> import fkdx, torch
        >>> target = fkdx.SparseTarget.from_classes(torch.tensor([2, 0]), num_classes=4)
        >>> losses, grad = fkdx.loss_and_grad(torch.zeros(2, 4), target)
        >>> grad[0].tolist()
        [0.125, 0.125, -0.375, 0.125]
    """
    checked = _checked("loss_and_grad", logits, target, temperature, teacher_temperature, check)
    factor = 1.0 / max(logits.shape[0], 1)
    if isinstance(scale, Tensor):
        want = (_loss_dtype(logits), logits.device)
        if scale.numel() != 1 or (scale.dtype, scale.device) != want:
            got = (tuple(scale.shape), scale.dtype, scale.device)
            refuse("loss_and_grad", "scale", got, f"one element of {want}")
        scales = scale.reshape(1).expand(len(logits))
    else:
        factor, scales = factor * (1.0 if scale is None else scale), None
    if torch.compiler.is_compiling():
        flat = _flat(checked, teacher_temperature)
        return _operator_with_grad(logits.detach(), *flat, SOFTMAX, temperature, factor, scales)
    return _native(logits, checked, SOFTMAX, temperature, teacher_temperature, factor, scales)


# ---- the ways to the native part ---------------------------------------------------------------------------


def _loss(logits: Tensor, target: Target, how: tuple, reduction: str) -> Tensor:
    """how: (link, temperature, teacher_temperature)"""
    if reduction not in REDUCTIONS:
        refuse("loss", "reduction", repr(reduction), f"one of {', '.join(REDUCTIONS)}")
    if torch.compiler.is_compiling():
        link, temperature, teacher_temperature = how
        flat = _flat(target, teacher_temperature)
        return _reduced(_operator(logits, *flat, link, temperature), reduction)
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return _reduced(_native(logits, target, *how)[0], reduction)
    if logits.is_cpu and (reduction != "none" or logits.element_size() > 2):
        return _OnePass.apply(logits, target, how, reduction)
    return _reduced(_Rows.apply(logits, target, how), reduction)


class _Rows(torch.autograd.Function):
    """Losses of rows. The gradient waits for the factors from above, and so is rounded only once."""

    @staticmethod
    def forward(ctx, logits, target, how):
        _save(ctx, logits, target)
        ctx.how = how
        return _native(logits, target, *how)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_rows):
        logits, target = _saved(ctx)
        return _native(logits, target, *ctx.how, 1.0, grad_rows, want_loss=False)[1], None, None


class _OnePass(torch.autograd.Function):
    """The reduced loss on the CPU. Its gradient is made with it, for a factor of 1 from above, and given away
    at the first backward.

    Another factor is multiplied into float32 and float64. 16 bits would be rounded a second time, and what
    float16 lost below its smallest number would stay lost: there the gradient is computed again, as it is
    for a second backward.
    """

    @staticmethod
    def forward(ctx, logits, target, how, reduction):
        _save(ctx, logits, target)
        ctx.how, ctx.share = how, 1.0 / max(len(logits), 1) if reduction == "mean" else 1.0
        rows, ctx.grad = _native(logits, target, *how, ctx.share)
        return _reduced(rows, reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, factor):
        grad, ctx.grad = ctx.grad, None
        one = factor.ndim == 0 and factor.item() == 1
        if grad is None or (not one and grad.element_size() == 2):
            logits, target = _saved(ctx)
            factors = factor.expand(len(logits))
            _, grad = _native(logits, target, *ctx.how, ctx.share, factors, want_loss=False)
        elif not one:
            grad.mul_(factor.unsqueeze(-1))
        return grad, None, None, None


def _save(ctx, logits: Tensor, target: Target) -> None:
    """Keep both for the backward pass; autograd then refuses tensors that were written to in between."""
    ctx.target = target
    ctx.save_for_backward(logits, *_flat(target, None)[0])


def _saved(ctx) -> tuple[Tensor, Target]:
    return ctx.saved_tensors[0], ctx.target


def _native(
    logits: Tensor,
    target: Target,
    link: int,
    temperature: float,
    teacher_temperature: float | None = None,
    factor: float | None = None,
    scales: Tensor | None = None,
    want_loss: bool = True,
    kernel: int = 0,
) -> tuple[Any, Any]:
    """(loss rows or None, gradient or None); there is a gradient where there is a factor for it.

    kernel: which CUDA kernel, as csrc/loss/loss_cuda.h numbers them; 0 lets the shape decide.
    """
    logits = _row_major(logits)
    rows, classes = logits.shape
    loss = logits.new_empty(rows, dtype=_loss_dtype(logits)) if want_loss else None
    grad = None if factor is None else _empty_grad(logits)
    if rows == 0:
        return loss, grad
    dense: Any = None
    sources: Sequence[_C.LossSource] = ()
    if isinstance(target, Tensor):
        inverse = max(1.0 / teacher_temperature, _LEAST_INVERSE) if teacher_temperature else 0.0
        dense = _C.LossDense(target.data_ptr(), FLOATS[target.dtype], target.stride()[0], inverse)
    else:
        sources = [source.native() for source in target]
    run: Callable[..., None]
    where: tuple[int, ...]
    if logits.is_cuda:
        device = logits.get_device()
        run, where = _C.loss_cuda, (device, torch._C._cuda_getCurrentRawStream(device), kernel)
    else:
        run, where = _C.loss_cpu, (torch.get_num_threads(),)
    run(  # by place, because names would cost a microsecond
        logits.data_ptr(),
        FLOATS[logits.dtype],
        rows,
        classes,
        logits.stride()[0],
        sources,
        dense,
        link,
        1.0 / temperature,
        0.0 if factor is None else factor,
        0 if scales is None else scales.data_ptr(),
        0 if scales is None else scales.stride()[0],
        0 if loss is None else loss.data_ptr(),
        0 if grad is None else grad.data_ptr(),
        0 if grad is None else grad.stride()[0],
        *where,
    )
    return loss, grad


def _row_major(logits: Tensor) -> Tensor:
    """The logits with neighbouring classes side by side and rows that do not overlap."""
    if logits.is_contiguous():
        return logits
    rows, classes = logits.shape
    apart = (classes <= 1 or logits.stride(1) == 1) and (rows <= 1 or logits.stride(0) >= classes)
    return logits if apart else logits.contiguous()


def _empty_grad(logits: Tensor) -> Tensor:
    """Uninitialised (B, C) whose rows start at the same place within 16 bytes as the logits' rows do."""
    if logits.is_contiguous():
        return torch.empty_like(logits)
    rows, classes = logits.shape
    stride = classes + (logits.stride(0) - classes) % (16 // logits.element_size())
    return logits.new_empty_strided((rows, classes), (stride, 1))


def _loss_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


# ---- custom operators, for torch.compile -------------------------------------------------------------------


@torch.library.custom_op("fkdx::loss", mutates_args=())
def _operator(
    logits: Tensor,
    tensors: Sequence[Tensor],
    layouts: Sequence[int],
    constants: Sequence[float],
    link: int,
    temperature: float,
) -> Tensor:
    target, teacher_temperature = _unflat(tensors, layouts, constants)
    return _native(logits, target, link, temperature, teacher_temperature)[0]


@torch.library.custom_op("fkdx::loss_and_grad", mutates_args=())
def _operator_with_grad(
    logits: Tensor,
    tensors: Sequence[Tensor],
    layouts: Sequence[int],
    constants: Sequence[float],
    link: int,
    temperature: float,
    factor: float,
    scales: Tensor | None,
) -> tuple[Tensor, Tensor]:
    target, teacher_temperature = _unflat(tensors, layouts, constants)
    return _native(logits, target, link, temperature, teacher_temperature, factor, scales)


@_operator.register_fake
def _(logits, tensors, layouts, constants, link, temperature):
    return logits.new_empty(logits.shape[0], dtype=_loss_dtype(logits))


@_operator_with_grad.register_fake
def _(logits, tensors, layouts, constants, link, temperature, factor, scales):
    return logits.new_empty(logits.shape[0], dtype=_loss_dtype(logits)), _empty_grad(_row_major(logits))


def _setup_context(ctx, inputs, output):
    logits, tensors, *ctx.rest = inputs
    ctx.save_for_backward(logits, *tensors)


def _backward(ctx, grad_rows):
    logits, *tensors = ctx.saved_tensors
    grad = _operator_with_grad(logits, tensors, *ctx.rest, 1.0, grad_rows)[1]
    return grad, [None for _ in tensors], None, None, None, None


_operator.register_autograd(_backward, setup_context=_setup_context)


def _flat(target: Target, teacher_temperature: float | None) -> tuple[list, list, list]:
    """A target as tensors, layouts and constants."""
    if isinstance(target, Tensor):
        return [target], [_DENSE], [teacher_temperature or 0.0]
    tensors, layouts, constants = [], [], []
    for source in target:
        weights = source.weight if isinstance(source.weight, Tensor) else None
        layout = _TAIL if source.tail else 0
        parts = ((_IDS, source.ids), (_VALUES, source.values), (_ROWS, source.rows), (_WEIGHTS, weights))
        for bit, tensor in parts:
            if tensor is not None:
                tensors.append(tensor)
                layout |= bit
        layouts.append(layout)
        constants.append(1.0 if weights is not None else float(source.weight))
    return tensors, layouts, constants


def _unflat(
    tensors: Sequence[Tensor], layouts: Sequence[int], constants: Sequence[float]
) -> tuple[Target, float | None]:
    """The target and the teacher's temperature of `_flat`."""
    if layouts[0] == _DENSE:
        return tensors[0], constants[0] or None
    waiting, sources = iter(tensors), []
    for layout, constant in zip(layouts, constants):
        bits = (_IDS, _VALUES, _ROWS, _WEIGHTS)
        parts: list[Any] = [next(waiting) if layout & bit else None for bit in bits]
        ids, values, rows, weights = parts
        weight = constant if weights is None else weights
        sources.append(Source(ids, values, bool(layout & _TAIL), rows, weight))
    return tuple(sources), None


# ---- arguments ---------------------------------------------------------------------------------------------


def _checked(name, logits, target, temperature, teacher_temperature, check) -> Target:
    """The target, after all checks that need no look at the data."""
    if objection := _objection(logits, target, temperature, teacher_temperature):
        refuse(name, *objection)
    cuda = logits.is_cuda
    if isinstance(target, Tensor):
        if cuda and target.dtype not in (torch.float32, logits.dtype):
            target = target.float()
        return target if target.stride()[1] == 1 else target.contiguous()
    if cuda:
        if check:
            _check_ids(name, target)
        if len(target.sources) > _FUSED_SOURCES or target.entries > _FUSED_ENTRIES:
            return target.to_dense()
    return target.sources


def _objection(logits, target, temperature, teacher_temperature) -> tuple[str, object, object] | None:
    """What is wrong with the arguments, as (what, got, expected)."""
    if _kind(logits) not in FLOATS:
        return "logits", _kind(logits), "a float32, bfloat16, float16 or float64 tensor"
    shape, device = logits.shape, logits.device
    if len(shape) != 2 or shape[1] < 1:
        return "logits' shape", tuple(shape), "(B, C), C >= 1"
    if logits.is_cuda:
        if logits.dtype == torch.float64:
            return "logits' dtype", logits.dtype, "float32, bfloat16 or float16 on CUDA"
        if not hasattr(_C, "loss_cuda"):
            return "logits' device", device, "cpu: fkdx was built without CUDA"
    elif not logits.is_cpu:
        return "logits' device", device, "cpu or cuda"
    if not temperature > 0:
        return "temperature", temperature, "a positive number"
    if isinstance(temperature, Tensor) and temperature.requires_grad:
        return "temperature", "one that requires a gradient", "a number; to learn it, divide the logits"
    if isinstance(target, SparseTarget):
        if teacher_temperature is not None:
            return "teacher_temperature", teacher_temperature, "None: a SparseTarget holds probabilities"
        there = target.device
    else:
        if _kind(target) not in FLOATS:
            expected = "a SparseTarget (from_classes makes one of classes) or a floating (B, C) tensor"
            return "target", _kind(target), expected
        if target.requires_grad:
            return "target", "a tensor that requires a gradient", "target.detach()"
        if teacher_temperature is not None and not teacher_temperature > 0:
            return "teacher_temperature", teacher_temperature, "a positive number or None"
        there = target.device
    if shape != target.shape:
        return "shapes", (tuple(shape), tuple(target.shape)), "equal"
    if there != device:
        return "target's device", there, device
    return None


def _kind(value: object) -> torch.dtype | type:
    return value.dtype if isinstance(value, Tensor) else type(value)


def _check_ids(name: str, target: SparseTarget) -> None:
    for source in target.sources:
        wrong = ((source.ids < 0) | (source.ids >= target.num_classes)).any(1).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise IndexError(
                f"{name}: class id in row {row}, got {source.ids[row].tolist()}, "
                f"expected 0 <= id < {target.num_classes}"
            )


def _reduced(rows: Tensor, reduction: str) -> Tensor:
    return rows.mean() if reduction == "mean" else rows.sum() if reduction == "sum" else rows
