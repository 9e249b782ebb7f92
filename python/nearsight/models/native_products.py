"""Polynomials of moments on the core, twice differentiable: for channels whose weights are trained.

Where the moments of the channels depend on trained weights, the features P(A) are no constants of a training
run. The core evaluates P, the reverse P'(A)ᵀc, and for the gradient of the latter along v both P'(A) v and
d/dA (c · P'(A) v); see csrc/torch_ops/product_ops.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearsight.models.couplings import Products


class NativeProducts:
    """The features of a table of products.

    Args:
        ops: `load_ops()`.
        products: the table.
        num_threads: of the core.
    """

    def __init__(self, ops: Any, products: Products, num_threads: int):
        first_product = products.num_moments + 1
        counts = np.bincount(products.rows[:, 0].astype(np.int64) - first_product)
        self.ops, self.num_threads = ops, num_threads
        self.table = [
            torch.from_numpy(array)
            for array in (
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
                np.ascontiguousarray(products.rows[:, 1:3].astype(np.int32)),
                products.rows[:, 3].copy(),
                products.features.astype(np.int32),
            )
        ]
        self.num_features = len(products.features)

    def __call__(self, moments: Tensor) -> Tensor:
        """Moments [n, moments] -> features [n, features], both in float64."""
        return _Features.apply(moments, self)

    def forward(self, moments: Tensor) -> Tensor:
        """P(A)."""
        output = moments.new_empty(len(moments), self.num_features)
        self.ops.products_forward(*self.table, moments, self.num_threads, output)
        return output

    def reverse(self, moments: Tensor, cotangents: Tensor) -> Tensor:
        """P'(A)ᵀc."""
        output = torch.empty_like(moments)
        self.ops.products_reverse(*self.table, moments, self.num_threads, cotangents, output)
        return output

    def second(self, moments: Tensor, cotangents: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """P'(A) v and d/dA (c · P'(A) v)."""
        outputs = torch.empty_like(cotangents), torch.empty_like(moments)
        self.ops.products_second(*self.table, moments, self.num_threads, cotangents, directions, *outputs)
        return outputs


class _Features(torch.autograd.Function):
    """Moments -> features."""

    @staticmethod
    def forward(ctx: Any, moments: Tensor, products: NativeProducts) -> Tensor:
        ctx.products = products
        moments = moments.contiguous()
        ctx.save_for_backward(moments)
        return products.forward(moments)

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, None]:
        return _Reverse.apply(cotangents, *ctx.saved_tensors, ctx.products), None


class _Reverse(torch.autograd.Function):
    """Cotangents and moments -> P'(A)ᵀc."""

    @staticmethod
    def forward(ctx: Any, cotangents: Tensor, moments: Tensor, products: NativeProducts) -> Tensor:
        ctx.products = products
        cotangents, moments = cotangents.contiguous(), moments.contiguous()
        ctx.save_for_backward(moments, cotangents)
        return products.reverse(moments, cotangents)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.products.second(*ctx.saved_tensors, directions.contiguous()), None
