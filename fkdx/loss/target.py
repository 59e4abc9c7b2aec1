"""SparseTarget: every soft label as a floor and a few classes above it, never a (B, C) matrix.

All label kinds of FKD (Shen & Xing, ECCV 2022, section 3.2), ensembles and mixtures of them and any blend
with hard labels have one form, ``y = base + sum_k delta_k e[ids_k]``. A target keeps the labels as they are
stored; the loss recovers base and deltas itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fkdx import _C
from fkdx.errors import expect, refuse

_expect = partial(expect, "SparseTarget")

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}  # as csrc/loss/target.h
_INTS = {torch.int16: 0, torch.int32: 1, torch.int64: 2}
LabelKind = Literal["marginal_smoothing", "marginal_renorm", "smoothing", "hard"]
KINDS = get_args(LabelKind)
_SMALLEST = 1e-12  # a row whose values sum to less is divided by this


@dataclass(frozen=True, eq=False)
class Source:
    """One table of labels inside a target, times a weight.

    ids:    (N, K) int16, int32 or int64
    values: (N, K) floating, or None where all are 1
    tail:   True: what the values lack to 1 is spread evenly over the other C - K classes; False: they are
            divided by their sum
    rows:   (B,) int64, row b of the batch uses row ``rows[b]`` of the table; None: row b
    weight: factor of every row, or (B,) float32

    Rows and weights lie side by side in memory.
    """

    ids: Tensor
    values: Tensor | None
    tail: bool
    rows: Tensor | None = None
    weight: float | Tensor = 1.0
    _native: tuple[tuple[int, ...], _C.LossSource] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return (self.ids if self.rows is None else self.rows).shape[0]

    def native(self) -> _C.LossSource:
        """What csrc/loss reads; made once, and again if a tensor was moved (`Tensor.set_`, `resize_`)."""
        places = (
            self.ids.data_ptr(),
            0 if self.values is None else self.values.data_ptr(),
            0 if self.rows is None else self.rows.data_ptr(),
            self.weight.data_ptr() if isinstance(self.weight, Tensor) else 0,
        )
        native = self._native
        if native is None or native[0] != places:
            native = places, self._describe(*places)
            object.__setattr__(self, "_native", native)
        return native[1]

    def _describe(self, ids: int, values: int, rows: int, weights: int) -> _C.LossSource:
        table = self.values
        return _C.LossSource(
            ids=ids,
            ids_type=_INTS[self.ids.dtype],
            ids_stride=self.ids.stride()[0],
            values=values,
            values_type=0 if table is None else FLOATS[table.dtype],
            values_stride=0 if table is None else table.stride()[0],
            num_rows=self.ids.shape[0],
            k=self.ids.shape[1],
            rows=rows,
            weights=weights,
            weight=1.0 if isinstance(self.weight, Tensor) else self.weight,
            tail=self.tail,
        )


class SparseTarget:
    """Targets of B rows over ``num_classes`` classes: a weighted sum of `Source` tables.

    Made by `from_topk` and `from_classes`, composed by `ensemble`, `mix` and `blend_hard`. Two classes of
    one row that are named twice add up. Ids are not checked here but by the loss, which reads them anyway.

    Example:
        >>> import fkdx
        >>> import torch
        >>> ids = torch.tensor([[3, 1], [0, 2]])
        >>> values = torch.tensor([[0.75, 0.125], [0.5, 0.25]])
        >>> target = fkdx.SparseTarget.from_topk(ids, values, num_classes=4)
        >>> target.to_dense().tolist()  # what the top 2 leave is spread over the other classes
        [[0.0625, 0.125, 0.0625, 0.75], [0.5, 0.125, 0.25, 0.125]]
        >>> target.blend_hard(torch.tensor([3, 0]), alpha=0.5).to_dense()[0].tolist()
        [0.03125, 0.0625, 0.03125, 0.875]
    """

    def __init__(self, sources: Sequence[Source], num_classes: int, kind: str) -> None:
        self.sources = tuple(sources)
        self.num_classes = num_classes
        self.kind = kind
        self.shape = (len(self.sources[0]), num_classes)
        self.device = self.sources[0].ids.device
        self.entries = self.sources[0].ids.shape[1]  # classes that a row names
        for source in self.sources[1:]:
            there = source.ids.device
            _expect(there == self.device, "devices", (self.device, there), "one device")
            self.entries += source.ids.shape[1]

    # ---- making ----------------------------------------------------------------------------------------

    @classmethod
    def from_topk(
        cls,
        ids: Tensor | np.ndarray,
        values: Tensor | np.ndarray,
        num_classes: int,
        kind: LabelKind = "marginal_smoothing",
    ) -> SparseTarget:
        """Targets from stored top-K labels: ids (B, K) integers, values (B, K) teacher probabilities.

        ========================  ====================================================================
        kind                      target
        ========================  ====================================================================
        ``marginal_smoothing``    the K values as stored, (1 - their sum) / (C - K) for all others
        ``marginal_renorm``       the K values divided by their sum (at least 1e-12), 0 for all others
        ``smoothing``             the largest value p as stored, (1 - p) / (C - 1) for all others
        ``hard``                  1 for the class with the largest value (the first of equals)
        ========================  ====================================================================

        With K >= C no class is left for the missing mass, and it stays missing. ValueError for anything else
        than two matrices of one shape and device, for an unknown kind, and for `smoothing` or `hard` with K
        = 0.
        """
        ids, values = _integers(ids), _floats(values)
        _expect(kind in KINDS, "kind", repr(kind), f"one of {', '.join(KINDS)}")
        _expect(num_classes >= 1, "num_classes", num_classes, "at least 1")
        _expect(
            ids.ndim == 2 and ids.shape == values.shape,
            "shapes",
            (tuple(ids.shape), tuple(values.shape)),
            "ids and values (B, K)",
        )
        _expect(values.dtype in FLOATS, "values", values.dtype, "floats of 16, 32 or 64 bits")
        _expect(ids.device == values.device, "devices", (ids.device, values.device), "one device")
        if kind in ("smoothing", "hard"):
            _expect(ids.shape[1] >= 1, "K", 0, f"at least 1 for kind '{kind}'")
            if ids.shape[1] > 1:
                best = values.argmax(1, keepdim=True)
                ids, values = ids.gather(1, best), values.gather(1, best)
        tail = kind in ("marginal_smoothing", "smoothing")
        return cls(
            [Source(_rows_of(ids), None if kind == "hard" else _rows_of(values), tail)], num_classes, kind
        )

    @classmethod
    def from_classes(
        cls, classes: Tensor | np.ndarray, num_classes: int, smoothing: float = 0.0
    ) -> SparseTarget:
        """One-hot targets of classes (B,); with smoothing the class gets 1 - smoothing and each other class
        smoothing / (C - 1). ValueError for anything else than a row of integers, and for a smoothing outside
        [0, 1]."""
        ids = _integers(classes)
        _expect(num_classes >= 1, "num_classes", num_classes, "at least 1")
        _expect(0 <= smoothing <= 1, "smoothing", smoothing, "0 to 1")
        _expect(ids.ndim == 1, "classes", tuple(ids.shape), "(B,)")
        ids = ids[:, None]
        if smoothing == 0.0:
            return cls([Source(_rows_of(ids), None, False)], num_classes, "hard")
        values = torch.full(ids.shape, 1.0 - smoothing, device=ids.device)
        return cls.from_topk(ids, values, num_classes, "smoothing")

    # ---- composing -------------------------------------------------------------------------------------

    @classmethod
    def weighted_sum(
        cls, targets: Sequence[SparseTarget], weights: Sequence[float | Tensor | np.ndarray]
    ) -> SparseTarget:
        """``sum_i weights[i] * targets[i]``; a weight is a number or one a row, (B,)."""
        _expect(
            len(targets) >= 1 and len(targets) == len(weights),
            "targets and weights",
            (len(targets), len(weights)),
            "as many weights as targets, at least 1",
        )
        first = targets[0]
        sources = []
        for target, weight in zip(targets, weights):
            _expect(
                target.num_classes == first.num_classes, "num_classes", target.num_classes, first.num_classes
            )
            _expect(len(target) == len(first), "rows", len(target), len(first))
            sources += target._scaled(weight)
        return cls(sources, first.num_classes, "composed")

    @classmethod
    def ensemble(cls, targets: Sequence[SparseTarget]) -> SparseTarget:
        """The mean of several teachers' targets of the same crops (FerKD, section 3.4)."""
        return cls.weighted_sum(targets, [1.0 / max(len(targets), 1)] * len(targets))

    def mix(self, partners: Tensor | np.ndarray, lam: float | Tensor | np.ndarray) -> SparseTarget:
        """``lam * self + (1 - lam) * self[partners]``: Mixup, CutMix and SelfMix of targets.

        partners (B,) integers, rows of this target; lam a number or (B,); both on the target's device.
        """
        partners = _integers(partners).to(torch.int64).contiguous()
        _expect(partners.shape == (len(self),), "partners", tuple(partners.shape), (len(self),))
        _expect(partners.device == self.device, "partners' device", partners.device, self.device)
        other = [
            replace(
                source,
                rows=partners if source.rows is None else source.rows[partners],
                weight=source.weight[partners] if isinstance(source.weight, Tensor) else source.weight,
            )
            for source in self.sources
        ]
        lam = lam if isinstance(lam, (int, float)) else _floats(lam)
        mixed = SparseTarget(other, self.num_classes, self.kind)
        return SparseTarget.weighted_sum([self, mixed], [lam, 1 - lam])

    def blend_hard(self, classes: Tensor | np.ndarray, alpha: float | Tensor | np.ndarray) -> SparseTarget:
        """``alpha * one_hot(classes) + (1 - alpha) * self``; alpha a number or one a row, (B,)."""
        hard = SparseTarget.from_classes(classes, self.num_classes)
        alpha = alpha if isinstance(alpha, (int, float)) else _floats(alpha)
        return SparseTarget.weighted_sum([hard, self], [alpha, 1 - alpha])

    # ---- reading ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor | np.ndarray | list[int]) -> SparseTarget:
        """The targets of some rows. TypeError for one row alone, and so for a loop over rows."""
        if not isinstance(rows, (slice, Tensor, np.ndarray, list)) or getattr(rows, "ndim", 1) != 1:
            refuse("SparseTarget", "rows", repr(rows), "a slice, or numbers of rows (n,)", error=TypeError)
        sources = []
        for source in self.sources:
            weight = source.weight
            if isinstance(weight, Tensor):
                weight = weight[rows].contiguous()
            if source.rows is None:
                values = None if source.values is None else source.values[rows]
                sources.append(replace(source, ids=source.ids[rows], values=values, weight=weight))
            else:
                sources.append(replace(source, rows=source.rows[rows].contiguous(), weight=weight))
        return SparseTarget(sources, self.num_classes, self.kind)

    def __repr__(self) -> str:
        tables = ", ".join(f"{tuple(source.ids.shape)}" for source in self.sources)
        shape = (len(self), self.num_classes)
        return f"SparseTarget(kind={self.kind!r}, shape={shape}, ids {tables})"

    @property
    def ids(self) -> Tensor:
        """(B, K) ids of a target that is not composed; ValueError otherwise."""
        return self._only().ids

    @property
    def values(self) -> Tensor:
        """(B, K) values of a target that is not composed; ValueError otherwise."""
        source = self._only()
        return torch.ones(source.ids.shape, device=self.device) if source.values is None else source.values

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The target as a (B, C) matrix; for reference and for what has no sparse path.

        A class or row that does not exist is an error on the CPU and makes its row NaN on a GPU.
        """
        dense = torch.zeros(len(self), self.num_classes, dtype=dtype, device=self.device)
        for source in self.sources:
            dense += _dense(source, self.num_classes, dtype)
        return dense

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SparseTarget:
        """The same target on another device."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SparseTarget:
        """The same target in page-locked memory, from which `to` copies without waiting."""
        return self.mapped(Tensor.pin_memory)

    def _only(self) -> Source:
        _expect(
            len(self.sources) == 1 and self.sources[0].rows is None,
            "target",
            "a composed one",
            "one made by from_topk or from_classes",
        )
        return self.sources[0]

    def _scaled(self, weight: float | Tensor | np.ndarray) -> list[Source]:
        if not isinstance(weight, (int, float)):
            weight = _floats(weight).to(torch.float32).contiguous()
            _expect(weight.shape == (len(self),), "weight", tuple(weight.shape), (len(self),))
            _expect(weight.device == self.device, "weight's device", weight.device, self.device)
        return [replace(source, weight=source.weight * weight) for source in self.sources]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> SparseTarget:
        """The same target with every tensor changed."""
        changed: dict[int, Tensor] = {}  # tables that two sources share stay shared

        def once(tensor):
            if not isinstance(tensor, Tensor):
                return tensor
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        sources = [
            Source(once(s.ids), once(s.values), s.tail, once(s.rows), once(s.weight)) for s in self.sources
        ]
        return SparseTarget(sources, self.num_classes, self.kind)


def _dense(source: Source, classes: int, dtype: torch.dtype) -> Tensor:
    ids = source.ids.to(torch.int64)
    values = torch.ones(ids.shape, device=ids.device) if source.values is None else source.values
    values = values.to(dtype)
    total = values.sum(1, keepdim=True)
    base = torch.zeros_like(total)
    if not source.tail:
        values = values / total.clamp(min=_SMALLEST)
    elif ids.shape[1] < classes:
        base = (1 - total) / (classes - ids.shape[1])
    ids, no_class = _existing(ids, classes)
    dense = base.repeat(1, classes).scatter_add_(1, ids, values - base)
    if no_class is not None:
        dense.masked_fill_(no_class.any(1, keepdim=True), torch.nan)
    if source.rows is not None:
        rows, no_row = _existing(source.rows, len(dense))
        dense = dense[rows]
        if no_row is not None:
            dense.masked_fill_(no_row[:, None], torch.nan)
    weight = source.weight
    return dense * (weight.to(dtype)[:, None] if isinstance(weight, Tensor) else weight)


def _existing(index: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
    """On a GPU, where an index outside [0, count) would end the process: such ones replaced, and which they
    were. Elsewhere the index itself: torch says what is wrong with it.
    """
    if not index.is_cuda:
        return index, None
    return index.clamp(0, count - 1), (index < 0) | (index >= count)


def _integers(x: Tensor | np.ndarray) -> Tensor:
    x = torch.as_tensor(x)
    _expect(
        not (x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool),
        "ids",
        x.dtype,
        "integers",
    )
    if x.dtype in _INTS:
        return x
    return x.to(torch.int32 if x.element_size() <= 2 else torch.int64)  # no large id becomes another


def _floats(x: Tensor | np.ndarray) -> Tensor:
    x = torch.as_tensor(x)
    _expect(x.dtype.is_floating_point, "values", x.dtype, "a floating dtype")
    return x.detach()


def _rows_of(x: Tensor) -> Tensor:
    return x if x.shape[1] <= 1 or x.stride(1) == 1 else x.contiguous()
