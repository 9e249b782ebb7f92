"""Descriptors that do not depend on trained parameters, stored once for all epochs.

Of every training frame the features G are kept, and where it is asked for their derivatives dG/dr, in single
precision and without zeros: the edges of a frame are divided by the species of both ends, and then into near
and far ones if some features end before the cutoff, and each of these blocks holds the columns that are not
zero in it. The forces' Jᵀc and the tangent J v of their gradient then are products with stored numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from nearsight.errors import NearsightError
from nearsight.models.mace_edges import Edges
from nearsight.models.mace_native import NativeMACE
from nearsight.models.native import NativeBPNN
from nearsight.models.native_ops import Neighborhoods, features_of, load_ops
from nearsight.neighbors import Graph

STRAINS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
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

    @property
    def count(self) -> int:
        """Number of values."""
        return int(3 * self.sizes.prod(1).sum())

    def apply(self, name: str, given: Tensor, output: Tensor, num_threads: int) -> None:
        """Call one of the ops."""
        arguments = (self.values, self.edges, self.columns, self.sizes, self.centers)
        getattr(load_ops(), name)(*arguments, given, output, num_threads)


@dataclass(frozen=True)
class Stored:
    """The descriptor of one frame.

    Attributes:
        features: [n, width] in double.
        derivatives: dG/dr, where it is kept.
        in_memory: whether `derivatives` is; products with it then are faster than an evaluation. From a file
            it is read in parts only.
        collective: float32 [n, 9, width], where it is kept: derivatives of an atom's features by its own
            position, and by the symmetric `STRAINS`.
    """

    features: Tensor
    derivatives: Derivatives | None = None
    in_memory: bool = True
    collective: Tensor | None = None

    def with_values(self, values: Tensor) -> Stored:
        """With the values of the derivatives elsewhere than in memory."""
        return replace(self, derivatives=replace(self.derivatives, values=values), in_memory=False)


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
    nothing = torch.empty(0, dtype=torch.int64)
    return Derivatives(
        values=torch.cat([jacobian.new_empty(0), *(values.view(-1) for _, _, values in parts)]),
        edges=torch.cat([nothing, *(edges for edges, _, _ in parts)]).to(torch.int32),
        columns=torch.cat([nothing, *(columns for _, columns, _ in parts)]).to(torch.int32),
        sizes=torch.tensor([[len(edges), len(columns)] for edges, columns, _ in parts]).view(-1, 2),
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
        output = torch.zeros(sum(self.edges), 3, dtype=torch.float64)
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
        if all(frame.derivatives and frame.in_memory for frame in self.frames):
            neighborhoods = _StoredProducts(self.frames, descriptor.num_threads)
        else:
            evaluated = descriptor.neighborhoods(species, edge_index, edge_vectors)
            neighborhoods = _StoredFeatures(self.frames, evaluated)
        return self.native.readouts(species, features_of(edge_vectors, neighborhoods))


def with_stored(module: NativeBPNN | NativeMACE, frames: Sequence[Stored | Edges]) -> Any:
    """The training module of one batch, with what is stored of the batch's frames, in order."""
    return StoredModule(module, frames) if isinstance(module, NativeBPNN) else module.with_stored(frames)


def store_edges(native: NativeMACE, graphs: Iterable[Graph], bound: float) -> list[Edges]:
    """What message passing knows of the edges without its parameters; nothing if it were more than `bound`
    bytes."""
    kept, size = [], 0
    for graph in graphs:
        kept.append(native.stored(graph))
        size += kept[-1].nbytes
        if size > bound:
            return []
    return kept


def store_frame(native: NativeBPNN, graph: Graph, derivatives: bool, collective: bool = False) -> Stored:
    """The descriptor of one frame; `collective` needs derivatives."""
    neighborhoods = native.descriptor.neighborhoods(graph.species, graph.edge_index, graph.edge_vectors)
    features = neighborhoods.forward()
    kept = compress(neighborhoods.jacobian(), graph) if derivatives else None
    return Stored(
        features, kept, collective=_collective(kept, graph, features.size(1)) if collective else None
    )


def _collective(derivatives: Derivatives, graph: Graph, width: int) -> Tensor:
    """See `Stored`. An atom that moves shortens its own edges: dr/dR = -1."""
    vectors = graph.edge_vectors
    directions = torch.zeros(3 + len(STRAINS), *vectors.shape, dtype=torch.float64)
    for axis in range(3):
        directions[axis, :, axis] = -1.0
    for direction, (a, b) in zip(directions[3:], STRAINS):
        direction[:, a] += 0.5 * vectors[:, b]
        direction[:, b] += 0.5 * vectors[:, a]
    output = torch.zeros(len(directions), graph.num_atoms, width, dtype=torch.float64)
    for direction, tangents in zip(directions, output):
        derivatives.apply("stored_tangent", direction, tangents, num_threads=1)
    return output.transpose(0, 1).to(torch.float32).contiguous()


def store_frames(
    native: NativeBPNN,
    graphs: Sequence[Graph],
    collective: bool,
    bound: float,
    folder: Path | None,
    threads: int,
) -> list[Stored]:
    """Descriptors of frames with derivatives: in memory up to a bound, then in a file.

    The file has no name, so that it is gone when the process is.

    Args:
        native: training module of one thread.
        graphs: of the frames.
        collective: see `Stored`.
        bound: bytes of derivatives in memory.
        folder: for the file; the system's for temporary files where None.
        threads: that work on frames.

    Raises:
        NearsightError: the file cannot be written.
    """
    store = partial(store_frame, native, derivatives=True, collective=collective)
    kept: list[Stored] = []
    places: dict[int, int] = {}  # frame → where its values begin in the file
    in_memory, in_file = 0, 0
    with tempfile.TemporaryFile(dir=folder) as file, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(graphs), threads):  # no more than the threads are working on
            for stored in pool.map(store, graphs[start : start + threads]):
                values = stored.derivatives.values
                if in_memory + values.nbytes <= bound:
                    in_memory += values.nbytes
                    kept.append(stored)
                else:
                    _write(values, file)
                    places[len(kept)] = in_file
                    in_file += values.numel()
                    kept.append(stored.with_values(values[:0]))
        if not places:
            return kept
        file.flush()
        mapped = torch.from_numpy(np.memmap(file, np.float32, mode="c"))
    for number, start in places.items():
        kept[number] = kept[number].with_values(mapped[start : start + kept[number].derivatives.count])
    return kept


def _write(values: Tensor, file: IO[bytes]) -> None:
    try:
        values.numpy().tofile(file)
    except OSError as error:
        raise NearsightError(
            "Derivatives of the descriptors cannot be written to a file in the run directory "
            f"({error.strerror}); free some space, or raise training.cache_gb."
        ) from error
