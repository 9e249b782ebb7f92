"""Descriptors that do not depend on trained parameters, stored once for all epochs.

Of every training frame the features G are kept, and where it is asked for their derivatives dG/dr, in single
precision and without zeros: the edges of a frame are divided by the species of both ends, and then into near
and far ones if some features end before the cutoff, and each of these blocks holds the columns that are not
zero in it. The forces' Jᵀc and the tangent J v of their gradient then are products with stored numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearsight.models.native import NativeBPNN, Neighborhoods, features_of, load_ops
from nearsight.neighbors import Graph

_SHORT = 0.9  # a feature that ends before this part of the longest one's reach is worth a block of near edges


@dataclass(frozen=True)
class Derivatives:
    """dG/dr of one frame in blocks, as csrc/torch_ops/stored_ops.cpp takes them.

    Attributes:
        values: float32, [edges, 3, columns] of all blocks one after the other.
        edges: int32, edges of all blocks, ascending in each; an edge is in exactly one block.
        columns: int32, columns of the table of all blocks.
        sizes: [blocks, 2] number of edges and of columns.
        centers: int32, center of every edge of the frame.
    """

    values: Tensor
    edges: Tensor
    columns: Tensor
    sizes: Tensor
    centers: Tensor

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Edges [e] and columns [c], int64, and values [e, 3, c] of each block."""
        edges, columns = (part.split(self.sizes[:, k].tolist()) for k, part in enumerate(self._numbers()))
        shapes = self.sizes.tolist()
        values = self.values.split([3 * e * c for e, c in shapes])
        for some, those, numbers, (e, c) in zip(edges, columns, values, shapes):
            yield some, those, numbers.view(e, 3, c)

    def _numbers(self) -> tuple[Tensor, Tensor]:
        return self.edges.to(torch.int64), self.columns.to(torch.int64)

    def apply(self, name: str, given: Tensor, output: Tensor, num_threads: int) -> None:
        """Call stored_reverse or stored_tangent."""
        arguments = (self.values, self.edges, self.columns, self.sizes, self.centers)
        getattr(load_ops(), name)(*arguments, given, output, num_threads)


@dataclass(frozen=True)
class Stored:
    """The descriptor of one frame: features [n, width] in double, and derivatives where they are kept."""

    features: Tensor
    derivatives: Derivatives | None


def compress(jacobian: Tensor, graph: Graph) -> Derivatives:
    """dG/dr [E, 3, width] without zeros."""
    center, neighbor = graph.edge_index
    distances = graph.edge_vectors.norm(dim=1)
    present = jacobian[:, 0].logical_or(jacobian[:, 1]).logical_or(jacobian[:, 2])
    kinds = graph.species[center] * (int(graph.species.max()) + 1) + graph.species[neighbor]
    parts = []
    for kind in torch.unique(kinds):
        for edges in _shells(torch.nonzero(kinds == kind).squeeze(1), distances, present):
            columns = torch.nonzero(present[edges].any(0)).squeeze(1)
            if len(columns):
                parts.append((edges, *_in_fours(columns, jacobian.index_select(0, edges))))
    return Derivatives(
        values=torch.cat([values.view(-1) for _, _, values in parts]),
        edges=torch.cat([edges for edges, _, _ in parts]).to(torch.int32),
        columns=torch.cat([columns for _, columns, _ in parts]).to(torch.int32),
        sizes=torch.tensor([[len(edges), len(columns)] for edges, columns, _ in parts]),
        centers=center.to(torch.int32),
    )


def _in_fours(columns: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """The columns and their values, up to the next multiple of four the last column again with zeros."""
    padded = torch.cat([columns, columns[-1:].expand(-len(columns) % 4)])
    values = jacobian[:, :, padded]
    values[:, :, len(columns) :] = 0
    return padded, values


def _shells(edges: Tensor, distances: Tensor, present: Tensor) -> list[Tensor]:
    """The edges as one block, or as those which the features with the shorter reach see, and the others.

    Args:
        edges: numbers of edges.
        distances: [E] of all edges.
        present: [E, width] where a derivative of a feature by an edge is not zero.
    """
    reach = (distances[edges].unsqueeze(1) * present[edges]).amax(0)
    short = reach[reach < _SHORT * reach.max()]
    if len(short) == 0:
        return [edges]
    near = distances[edges] <= short.max()
    return [edges[near], edges[~near]]


class _StoredFeatures:
    """Neighborhoods whose features are stored; products with their derivatives are evaluated."""

    def __init__(self, frames: Sequence[Stored], evaluated: Neighborhoods):
        self.frames, self.reverse, self.tangent = frames, evaluated.reverse, evaluated.tangent

    def forward(self) -> Tensor:
        return torch.cat([frame.features for frame in self.frames])


class _StoredProducts:
    """Neighborhoods whose features and derivatives are stored."""

    def __init__(self, frames: Sequence[Stored], num_threads: int):
        self.frames, self.num_threads = frames, num_threads
        self.atoms = [len(frame.features) for frame in frames]
        self.edges = [len(frame.derivatives.centers) for frame in frames]
        self.width = frames[0].features.size(1)

    def forward(self) -> Tensor:
        return torch.cat([frame.features for frame in self.frames])

    def reverse(self, cotangents: Tensor) -> Tensor:
        output = torch.empty(sum(self.edges), 3, dtype=torch.float64)
        self._apply("stored_reverse", cotangents.contiguous().split(self.atoms), output.split(self.edges))
        return output

    def tangent(self, directions: Tensor) -> Tensor:
        output = torch.zeros(sum(self.atoms), self.width, dtype=torch.float64)
        self._apply("stored_tangent", directions.contiguous().split(self.edges), output.split(self.atoms))
        return output

    def _apply(self, name: str, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for frame, some, output in zip(self.frames, given, outputs):
            frame.derivatives.apply(name, some, output, self.num_threads)


class StoredModule:
    """The training module of one batch whose descriptor is stored; see docs/model_contract.md.

    Args:
        native: of the model.
        frames: descriptors of the batch's frames, in order.
    """

    def __init__(self, native: NativeBPNN, frames: Sequence[Stored]):
        self.native, self.frames = native, frames
        self.edge_sums = native.edge_sums

    def __call__(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readouts."""
        descriptor = self.native.descriptor
        if all(frame.derivatives for frame in self.frames):
            neighborhoods = _StoredProducts(self.frames, descriptor.num_threads)
        else:
            evaluated = descriptor.neighborhoods(species, edge_index, edge_vectors)
            neighborhoods = _StoredFeatures(self.frames, evaluated)
        return self.native.readouts(species, features_of(edge_vectors, neighborhoods))
