"""Linear maps of flat features, and trained tensors in their type: few nodes for many small products.

Features are those of `equivariant_native`: irreps one after another, each [atoms, components, columns] and
flat, atoms of a species together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nearsight.models.equivariant import Weight
from nearsight.models.equivariant_native import is_wanted
from nearsight.models.native_ops import ParameterGradients


@dataclass(frozen=True)
class Maps:
    """Which irreps of the argument are multiplied by which matrices to which irreps of the result.

    Attributes:
        sources, targets: components and columns of each irrep of the argument and of the result.
        routes: for each matrix, [out, in] or [species, out, in], the numbers of its source and its target;
            targets without one are zero.
    """

    sources: Sequence[tuple[int, int]]
    targets: Sequence[tuple[int, int]]
    routes: Sequence[tuple[int, int]]

    def __call__(self, x: Tensor, weights: Sequence[Tensor], counts: list[int]) -> Tensor:
        """Return the result, flat.

        Args:
            x: flat.
            weights: the matrices.
            counts: atoms of each species.
        """
        return _Mapped.apply(x.contiguous(), self, counts, *weights)

    def _blocks(
        self, x: Tensor, y: Tensor, weights: Sequence[Tensor], counts: list[int]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The rows of x and y that belong together, and their matrix."""
        parts = [_parts(x, self.sources, sum(counts)), _parts(y, self.targets, sum(counts))]
        for (source, target), weight in zip(self.routes, weights):
            of_x, of_y = parts[0][source], parts[1][target]
            if weight.dim() == 2:
                yield of_x, of_y, weight
                continue
            rows = [count * self.sources[source][0] for count in counts]
            for some_x, some_y, matrix in zip(
                of_x.split_with_sizes(rows), of_y.split_with_sizes(rows), weight.unbind(0)
            ):
                if some_x.size(0) > 0:
                    yield some_x, some_y, matrix

    def forward(self, x: Tensor, weights: Sequence[Tensor], counts: list[int]) -> Tensor:
        """y = W x."""
        y = _new(x, self.targets, {target for _, target in self.routes}, counts)
        for some_x, some_y, matrix in self._blocks(x, y, weights, counts):
            torch.mm(some_x, matrix.T, out=some_y)
        return y

    def transposed(self, y: Tensor, weights: Sequence[Tensor], counts: list[int]) -> Tensor:
        """x = Wᵀ y."""
        x = _new(y, self.sources, {source for source, _ in self.routes}, counts)
        for some_x, some_y, matrix in self._blocks(x, y, weights, counts):
            torch.mm(some_y, matrix, out=some_x)
        return x

    def by_weights(self, x: Tensor, y: Tensor, weights: Sequence[Tensor], counts: list[int]) -> list[Tensor]:
        """The derivatives of <y, W x> by the matrices."""
        # Species without atoms keep their zeros.
        gradients = [(x.new_empty if w.dim() == 2 else x.new_zeros)(w.shape) for w in weights]
        for some_x, some_y, gradient in self._blocks(x, y, gradients, counts):
            torch.mm(some_y.T, some_x, out=gradient)
        return gradients


def _parts(flat: Tensor, irreps: Sequence[tuple[int, int]], atoms: int) -> list[Tensor]:
    if len(irreps) == 1:
        return [flat.view(-1, irreps[0][1])]
    parts = flat.split_with_sizes([atoms * size * columns for size, columns in irreps])
    return [part.view(atoms * size, columns) for part, (size, columns) in zip(parts, irreps)]


def _new(like: Tensor, irreps: Sequence[tuple[int, int]], filled: set[int], counts: list[int]) -> Tensor:
    make = like.new_empty if len(filled) == len(irreps) else like.new_zeros
    return make(sum(counts) * sum(size * columns for size, columns in irreps))


class _Mapped(Function):
    """Bilinear in x and the matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: Maps, counts: list[int], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.maps, ctx.counts = maps, counts
        return maps.forward(x, weights, counts)

    @staticmethod
    def backward(ctx: Any, adjoints: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        adjoints = adjoints.contiguous()
        by_x, by_weights = None, [None] * len(weights)
        if is_wanted(ctx, 0):
            by_x = _Transposed.apply(adjoints, ctx.maps, ctx.counts, *weights)
        if is_wanted(ctx, 1):
            by_weights = _ByWeights.apply(adjoints, x, ctx.maps, ctx.counts, *weights)
        return by_x, None, None, *by_weights


class _Transposed(Function):
    """The adjoints of x, bilinear in those of the result and the matrices."""

    @staticmethod
    def forward(ctx: Any, adjoints: Tensor, maps: Maps, counts: list[int], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(adjoints, *weights)
        ctx.maps, ctx.counts = maps, counts
        return maps.transposed(adjoints, weights, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        adjoints, *weights = ctx.saved_tensors
        along = along.contiguous()
        by_weights = ctx.maps.by_weights(along, adjoints, weights, ctx.counts)
        return ctx.maps.forward(along, weights, ctx.counts), None, None, *by_weights


class _ByWeights(ParameterGradients):
    """Adjoints of the matrices."""

    @staticmethod
    def forward(
        ctx: Any, adjoints: Tensor, x: Tensor, maps: Maps, counts: list[int], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(maps.by_weights(x, adjoints, weights, counts))


class TrainedTensors:
    """The trained tensors of a model in the type of features: all at once, for there are many small ones.

    Args:
        modules: that hold them as values times a scale.
        dtype: of features.
    """

    def __init__(self, modules: Sequence[Weight], dtype: torch.dtype):
        self.modules, self.dtype = list(modules), dtype
        self._scales, self._versions = torch.empty(0), []

    def __call__(self) -> dict[Weight, Tensor]:
        """Return the tensors, differentiable by the values."""
        values = [module.values for module in self.modules]
        return dict(zip(self.modules, _Scaled.apply(self.dtype, self._flat_scales(), *values)))

    def _flat_scales(self) -> Tensor:
        """The scale of each number; scales change, in place, only before training."""
        versions = [(module.scale._version, module.scale.device) for module in self.modules]
        if versions != self._versions:
            expanded = [module.scale.expand_as(module.values).reshape(-1) for module in self.modules]
            self._scales, self._versions = torch.cat(expanded), versions
        return self._scales


class _Scaled(Function):
    """values times scales [all numbers], in another type."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, scales: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.scales, ctx.shapes = scales, [value.shape for value in values]
        return _split(_joined(values).mul_(scales).to(dtype), ctx.shapes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_split(_joined(gradients).to(ctx.scales.dtype).mul_(ctx.scales), ctx.shapes)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    parts = flat.split_with_sizes([shape.numel() for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes))
