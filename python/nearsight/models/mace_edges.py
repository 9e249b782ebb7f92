"""What all layers of a MACE model know of the edges: functions of distance and direction without parameters.

They are the same in every epoch, so a run makes them once for each frame and joins those of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nearsight.models.edge_functions import RadialBasis
from nearsight.models.equivariant_native import Neighborhoods, harmonics_of
from nearsight.models.native_ops import load_ops


@dataclass(frozen=True)
class Edges:
    """Edges of a frame or a batch in the order of its `Neighborhoods`; T is the type of features.

    Attributes:
        graph: the edges.
        vectors: [E, 3] Å, float64.
        distances, directions: [pairs] Å and [pairs, 3], of the first edge of each pair, float64.
        harmonics: T [E, (l_max + 1)²] in component normalization.
        inputs: T [2, pairs, n], basis functions of the distance, and their derivatives.
        envelope: T [2, pairs, 1], likewise.
    """

    graph: Neighborhoods
    vectors: Tensor
    distances: Tensor
    directions: Tensor
    harmonics: Tensor
    inputs: Tensor
    envelope: Tensor

    @classmethod
    def make(
        cls,
        graph: Neighborhoods,
        basis: RadialBasis,
        l_max: int,
        envelope_first: bool,
        species: Tensor,
        edge_index: Tensor,
        vectors: Tensor,
        dtype: torch.dtype,
    ) -> Edges:
        """Evaluate the functions.

        Args:
            graph: of the edges.
            basis: of the model.
            l_max: of the harmonics.
            envelope_first: whether the envelope multiplies the basis functions.
            species, edge_index, vectors: see docs/model_contract.md.
            dtype: T.
        """
        vectors = vectors.detach().to(torch.float64).index_select(0, graph.order)
        firsts = vectors.index_select(0, graph.firsts)
        distances = firsts.square().sum(1).sqrt()
        pairs = edge_index.index_select(1, graph.order[graph.firsts])
        with torch.enable_grad():
            r = distances.detach().requires_grad_(True)
            values, envelope = basis(r, species, pairs)
            inputs = values * envelope if envelope_first else values
            inputs, envelope = (_with_slopes(x, r).to(dtype) for x in (inputs, envelope))
        harmonics = harmonics_of(vectors, l_max, dtype)
        return cls(graph, vectors, distances, firsts / distances.unsqueeze(1), harmonics, inputs, envelope)

    @classmethod
    def join(cls, frames: Sequence[Edges], species: Tensor) -> Edges:
        """Those of a batch of frames, whose atoms have these species."""
        if len(frames) == 1:
            return frames[0]
        dims = {"inputs": 1, "envelope": 1}
        names = [field.name for field in fields(cls) if field.name != "graph"]
        joined = {
            name: torch.cat([getattr(frame, name) for frame in frames], dim=dims.get(name, 0))
            for name in names
        }
        return cls(Neighborhoods.join([frame.graph for frame in frames], species), **joined)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [value for part in (self, self.graph) for value in vars(part).values()]
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))

    def of(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances and harmonics as functions of the edge vectors [E, 3], which are those given."""
        return _Geometry.apply(vectors.to(torch.float64), self)


def _with_slopes(values: Tensor, r: Tensor) -> Tensor:
    """Values [n, m] of functions of r [n], each of its own row, and their derivatives: [2, n, m]."""
    weights = torch.zeros_like(values, requires_grad=True)
    (sums,) = torch.autograd.grad(values, r, weights, create_graph=True)  # linear in the weights
    return torch.stack([values.detach(), *torch.autograd.grad(sums.sum(), weights, retain_graph=True)])


class _Geometry(Function):
    """vectors [E, 3] -> distances [pairs] and harmonics, which are known already."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        ctx.edges = edges
        return edges.distances.detach(), edges.harmonics.detach()

    @staticmethod
    def backward(ctx: Any, distances: Tensor, harmonics: Tensor) -> tuple[Tensor, None]:
        return _GeometryReverse.apply(distances, harmonics, ctx.edges), None


class _GeometryReverse(Function):
    """Linear in the adjoints of distances and harmonics; its transpose is the tangent."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, harmonics: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        sorted_ = torch.empty_like(edges.vectors)
        l_max = round(harmonics.size(1) ** 0.5) - 1
        load_ops().edge_harmonics_reverse(edges.vectors, harmonics.contiguous(), sorted_, l_max)
        sorted_.index_add_(0, edges.graph.firsts, distances.unsqueeze(1) * edges.directions)
        return torch.empty_like(sorted_).index_copy_(0, edges.graph.order, sorted_)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, Tensor, None]:
        edges = ctx.edges
        along = along.index_select(0, edges.graph.order)
        distances = (along.index_select(0, edges.graph.firsts) * edges.directions).sum(1)
        harmonics = torch.empty_like(edges.harmonics)
        l_max = round(harmonics.size(1) ** 0.5) - 1
        load_ops().edge_harmonics_tangent(edges.vectors, along, harmonics, l_max)
        return distances, harmonics, None
