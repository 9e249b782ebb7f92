"""The compiled ops, and the torch functions over them that all native training modules share."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nearsight.errors import ConfigError
from nearsight.neighbors import Graph

_LIBRARY = "libnearsight_ops.so"


@cache
def load_ops() -> Any:
    """Load the compiled ops once and return `torch.ops.nearsight`.

    Raises:
        ConfigError: the library was not built or does not fit this torch.
    """
    folder = Path(find_spec("nearsight").submodule_search_locations[0])  # type: ignore[union-attr,index]
    path = folder / "lib" / _LIBRARY
    if not path.exists():
        raise ConfigError(
            f"the native backend needs {_LIBRARY}, which was not built (torch was missing at build time): "
            "install nearsight again, or take backend torch"
        )
    try:
        torch.ops.load_library(path)
    except (OSError, ctypes.ArgumentError) as error:
        raise ConfigError(
            f"{_LIBRARY} does not load with torch {torch.__version__} ({error}): install nearsight again"
        ) from error
    return torch.ops.nearsight


def all_cores() -> int:
    """Number of cores that the process may use."""
    return len(os.sched_getaffinity(0))


class Neighborhoods(Protocol):
    """The descriptor G of given neighborhoods, with J = dG/dr: what `features_of` differentiates."""

    def forward(self) -> Tensor:
        """G [n, width]."""

    def reverse(self, cotangents: Tensor) -> Tensor:
        """Jᵀc [E, 3] of cotangents [n, width]."""

    def tangent(self, directions: Tensor) -> Tensor:
        """J v [n, width] of directions [E, 3]."""


class _Reverse(torch.autograd.Function):
    """cotangents [n, width] -> Jᵀc [E, 3]; its derivative along v is J v."""

    @staticmethod
    def forward(ctx: Any, cotangents: Tensor, neighborhoods: Neighborhoods) -> Tensor:
        ctx.neighborhoods = neighborhoods
        return neighborhoods.reverse(cotangents)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor, None]:
        return ctx.neighborhoods.tangent(directions), None


class _Features(torch.autograd.Function):
    """edge vectors [E, 3] -> features [n, width]."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, neighborhoods: Neighborhoods) -> Tensor:
        ctx.neighborhoods = neighborhoods
        return neighborhoods.forward()

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, None]:
        return _Reverse.apply(cotangents, ctx.neighborhoods), None


def features_of(vectors: Tensor, neighborhoods: Neighborhoods) -> Tensor:
    """Return G [n, width] of the neighborhoods with edge vectors [E, 3], twice differentiable by them."""
    return _Features.apply(vectors, neighborhoods)


def offsets_of(counts: Tensor) -> Tensor:
    """Where each of several runs of these lengths begins, and where the last one ends."""
    offsets = counts.new_zeros(counts.numel() + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


class ParameterGradients(torch.autograd.Function):
    """Adjoints of parameters, in functions of their own."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        """Refuse second derivatives, which these functions do not have."""
        raise NotImplementedError(
            "native training has no second derivatives by parameters: take training.backend torch"
        )


class _EdgeSums(torch.autograd.Function):
    """Gradients of the edges [E, 3] -> forces [n, 3] and virials [num_frames, 3, 3]; linear."""

    @staticmethod
    def forward(ctx: Any, gradients: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        ctx.arguments = graph.edge_index, graph.frame, graph.edge_vectors.detach().to(torch.float64)
        forces = gradients.new_zeros(graph.num_atoms, 3, dtype=torch.float64)
        virials = gradients.new_zeros(graph.num_frames, 3, 3, dtype=torch.float64)
        load_ops().edge_sums(*ctx.arguments, gradients.contiguous(), forces, virials)
        return forces, virials

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, forces: Tensor, virials: Tensor) -> tuple[Tensor, None]:
        gradients = torch.empty_like(ctx.arguments[2])
        load_ops().edge_differences(*ctx.arguments, forces.contiguous(), virials.contiguous(), gradients)
        return gradients, None


def edge_sums(gradients: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """See `nearsight.couple.edge_sums`."""
    return _EdgeSums.apply(gradients, graph)
