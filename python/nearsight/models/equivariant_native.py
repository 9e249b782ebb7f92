"""The heavy steps of equivariant message passing on the core, with the derivatives that force losses need.

Forces are derivatives by positions, and the gradient of a loss of forces is one by parameters of those. So
the functions here are differentiable by positions once, and then, or at once, by parameters; nothing is kept
of edges but inputs and results. Second derivatives by positions (Hessians) or by parameters are not given:
take backend "torch".

How an edge depends on its distance is given by two tensors, values R and slopes dR/dr, both functions of the
parameters. With r held at the present distance r0 the function is R + (r - r0) dR/dr, which has the right
value and first derivative for all parameters; so networks of the distance are differentiated by parameters
only, and their derivative by the distance goes through them beside the value (`dual_dense`).

Features have the layout of csrc/core/models/equivariant: irreps one after another, each
[atoms, component, channels] and flat; atoms of a species stand together. Channels come in whole runs of
64 bytes (`padded`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nearsight.models.native_ops import ParameterGradients, load_ops, offsets_of


@dataclass(frozen=True)
class Neighborhoods:
    """Edges in an order by centers in which each center has those first that are the first of their pair.

    Attributes:
        order: [E] numbers of the edges before.
        offsets, middles: where the edges of each center begin [M + 1], and those that are second.
        neighbors, pairs: int32 [E].
        firsts: [pairs] first edge of each.
        places: [M] row of each atom in features.
        counts: [species] atoms of each.
        num_threads: of the core.
    """

    order: Tensor
    offsets: Tensor
    middles: Tensor
    neighbors: Tensor
    pairs: Tensor
    firsts: Tensor
    places: Tensor
    counts: Tensor
    num_threads: int

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return self.places.numel()

    @classmethod
    def make(
        cls, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_species: int, num_threads: int
    ) -> Neighborhoods:
        """Pair the edges, which are sorted by center, and sort the atoms by species."""
        atoms = species.numel()
        offsets = offsets_of(torch.bincount(edge_index[0], minlength=atoms))
        neighbors = edge_index[1].contiguous()
        order, firsts = torch.empty_like(edge_index).unbind(0)
        pairs = torch.empty_like(neighbors, dtype=torch.int32)
        middles, count = offsets.new_empty(atoms), offsets.new_empty(1)
        vectors = edge_vectors.detach().to(torch.float64).contiguous()
        load_ops().edge_pairs(offsets, neighbors, vectors, order, middles, pairs, firsts, count)
        return cls(
            order=order,
            offsets=offsets,
            middles=middles,
            neighbors=neighbors[order].to(torch.int32),
            pairs=pairs,
            firsts=firsts[: int(count)],
            places=_sorted_places(species),
            counts=torch.bincount(species, minlength=num_species),
            num_threads=num_threads,
        )

    @classmethod
    def join(cls, frames: Sequence[Neighborhoods], species: Tensor) -> Neighborhoods:
        """Those of several frames as one, whose atoms have these species; all with as many threads."""
        edges = list(accumulate((len(frame.neighbors) for frame in frames), initial=0))
        atoms = list(accumulate((frame.num_atoms for frame in frames), initial=0))
        pairs = list(accumulate((len(frame.firsts) for frame in frames), initial=0))

        def moved(tensors: Iterable[Tensor], by: list[int]) -> Tensor:
            return torch.cat([tensor + start for tensor, start in zip(tensors, by)])

        ends = [frame.offsets[1:] for frame in frames]
        return cls(
            order=moved((frame.order for frame in frames), edges),
            offsets=torch.cat([frames[0].offsets[:1], moved(ends, edges)]),
            middles=moved((frame.middles for frame in frames), edges),
            neighbors=moved((frame.neighbors for frame in frames), atoms),
            pairs=moved((frame.pairs for frame in frames), pairs),
            firsts=moved((frame.firsts for frame in frames), edges),
            places=_sorted_places(species),
            counts=sum(frame.counts for frame in frames),
            num_threads=frames[0].num_threads,
        )


def _sorted_places(species: Tensor) -> Tensor:
    """The row of each atom where atoms are sorted by species."""
    places = torch.empty_like(species)
    places[torch.argsort(species, stable=True)] = torch.arange(species.numel(), device=species.device)
    return places


def padded(channels: int, dtype: torch.dtype) -> int:
    """Number of channels in whole runs of 64 bytes."""
    run = 64 // torch.finfo(dtype).bits * 8
    return -(-channels // run) * run


def is_wanted(ctx: Any, number: int) -> bool:
    """Whether the present backward pass goes on through the tensor input with this number.

    `ctx.needs_input_grad` tells of the forward pass only: weights are inputs also where forces are wanted.
    """
    node = ctx.next_functions[number][0]
    if node is None or node.name() == "torch::autograd::AccumulateGrad":
        return node is not None
    return torch._C._will_engine_execute_node(node)


def harmonics_of(vectors: Tensor, l_max: int, dtype: torch.dtype) -> Tensor:
    """Return Y [E, (l_max + 1)²] in component normalization (√4π times the orthonormal ones).

    Args:
        vectors: [E, 3] Å, float64.
        l_max: of the harmonics.
        dtype: of the result.
    """
    output = vectors.new_empty(vectors.size(0), (l_max + 1) ** 2, dtype=dtype)
    load_ops().edge_harmonics(vectors.contiguous(), output, l_max)
    return output


class _DualDense(Function):
    """x [2, n, in] and weights -> outputs and their derivatives, [n, out] each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        inputs, sums = [x], []
        for weight in weights[:-1]:
            sums.append((inputs[-1].flatten(0, 1) @ weight.T).view(2, x.size(1), weight.size(0)))
            inputs.append(torch.empty_like(sums[-1]))
            load_ops().dual_silu(sums[-1], inputs[-1])
        ctx.save_for_backward(*inputs, *sums, *weights)
        outputs = inputs[-1].flatten(0, 1) @ weights[-1].T
        return outputs.view(2, x.size(1), weights[-1].size(0)).unbind(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, values: Tensor, slopes: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = (len(saved) + 1) // 3
        inputs, sums, weights = saved[:count], saved[count:-count], saved[-count:]
        by_weights = [torch.addmm(values.T @ inputs[-1][0], slopes.T, inputs[-1][1])]
        adjoints = torch.empty_like(inputs[-1])
        torch.mm(values, weights[-1], out=adjoints[0])
        torch.mm(slopes, weights[-1], out=adjoints[1])
        for n in reversed(range(count - 1)):
            by_sums = torch.empty_like(sums[n])
            load_ops().dual_silu_reverse(sums[n], adjoints, by_sums)
            by_weights.append(by_sums.flatten(0, 1).T @ inputs[n].flatten(0, 1))
            if n > 0:
                adjoints = (by_sums.flatten(0, 1) @ weights[n]).view_as(inputs[n])
        return None, *reversed(by_weights)


def dual_dense(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return outputs [n, out] of dense layers with silu between them, and the outputs' derivatives.

    Args:
        x: [2, n, in] inputs, and their derivatives; contiguous, not differentiated by.
        weights: [out, in] of each layer.
    """
    return _DualDense.apply(x, *weights)


@dataclass(frozen=True)
class ConvolutionTables:
    """Paths and couplings of a convolution.

    Attributes:
        paths: int64 [P, 4]: first component and 2 l1 + 1 of irrep1, 2 l3 + 1 and number of irrep3.
        couplings: [(l_max + 1)², Φ], of the type of the features.
    """

    paths: Tensor
    couplings: Tensor

    def on(self, device: torch.device) -> ConvolutionTables:
        """With the couplings there; the host reads the paths."""
        return replace(self, couplings=self.couplings.to(device))

    def num_sums(self) -> int:
        """Σ over paths of 2 l3 + 1."""
        return int(self.paths[:, 2].sum())


class _Convolution(Function):
    """Sums [flat] of sources [flat], values and slopes [pairs, P * K], harmonics and distances."""

    @staticmethod
    def forward(
        ctx: Any,
        sources: Tensor,
        values: Tensor,
        slopes: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        graph: Neighborhoods,
        tables: ConvolutionTables,
    ) -> Tensor:
        ctx.save_for_backward(sources, values, slopes, harmonics)
        ctx.graph, ctx.tables = graph, tables
        channels = values.size(1) // tables.paths.size(0)
        output = values.new_empty(graph.num_atoms * tables.num_sums() * channels)
        tensors = sources, values, slopes, harmonics
        load_ops().edge_convolution(*_arguments(graph, tables, tensors), output)
        return output

    @staticmethod
    def backward(ctx: Any, adjoints: Tensor) -> tuple[Tensor | None, ...]:
        sources, values, slopes, harmonics = ctx.saved_tensors
        adjoints = adjoints.contiguous()
        by_sources = by_values = by_harmonics = by_distances = None
        if is_wanted(ctx, 1):
            by_sources, by_values = _ByParameters.apply(adjoints, ctx)
        if is_wanted(ctx, 3) or is_wanted(ctx, 4):
            by_sources, by_distances, by_harmonics = _ByGeometry.apply(
                adjoints,
                sources,
                values,
                slopes,
                harmonics.detach(),
                ctx.graph,
                ctx.tables,
                is_wanted(ctx, 0),
            )
        return by_sources, by_values, None, by_harmonics, by_distances, None, None


def _arguments(graph: Neighborhoods, tables: ConvolutionTables, tensors: tuple[Tensor, ...]) -> list[Any]:
    """What all ops of a convolution begin with; the tensors are sources, values, slopes and harmonics."""
    index = [graph.offsets, graph.middles, graph.places, graph.neighbors, graph.pairs]
    return [*index, tables.paths, tables.couplings, *tensors, graph.num_threads]


class _ByParameters(ParameterGradients):
    """Adjoints of sources and values."""

    @staticmethod
    def forward(ctx: Any, adjoints: Tensor, convolution: Any) -> tuple[Tensor, Tensor]:
        tensors = convolution.saved_tensors
        by_sources, by_values = torch.zeros_like(tensors[0]), torch.empty_like(tensors[1])
        arguments = _arguments(convolution.graph, convolution.tables, tensors)
        load_ops().edge_convolution_by_parameters(*arguments, adjoints, by_sources, by_values)
        return by_sources, by_values


class _ByGeometry(Function):
    """Adjoints of sources, distances and harmonics."""

    @staticmethod
    def forward(
        ctx: Any,
        adjoints: Tensor,
        sources: Tensor,
        values: Tensor,
        slopes: Tensor,
        harmonics: Tensor,
        graph: Neighborhoods,
        tables: ConvolutionTables,
        with_sources: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        ctx.save_for_backward(adjoints, sources, values, slopes, harmonics)
        ctx.graph, ctx.tables = graph, tables
        ctx.set_materialize_grads(False)
        by_sources = torch.zeros_like(sources) if with_sources else sources.new_empty(0)
        by_harmonics = torch.empty_like(harmonics)
        by_distances = values.new_empty(values.size(0), dtype=torch.float64)
        arguments = _arguments(graph, tables, (sources, values, slopes, harmonics))
        load_ops().edge_convolution_by_geometry(*arguments, adjoints, by_sources, by_distances, by_harmonics)
        return by_sources if with_sources else None, by_distances, by_harmonics

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        along_sources: Tensor | None,
        along_distances: Tensor | None,
        along_harmonics: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        adjoints, sources, values, slopes, harmonics = ctx.saved_tensors
        if along_sources is None:
            along_sources = sources.new_empty(0)
        if along_distances is None:
            along_distances = values.new_zeros(values.size(0), dtype=torch.float64)
        if along_harmonics is None:
            along_harmonics = torch.zeros_like(harmonics)
        output, by_sources = torch.zeros_like(adjoints), torch.zeros_like(sources)
        by_values, by_slopes = torch.empty_like(values), torch.empty_like(slopes)
        along = [along_sources.contiguous(), along_distances.contiguous(), along_harmonics.contiguous()]
        arguments = _arguments(ctx.graph, ctx.tables, (sources, values, slopes, harmonics))
        load_ops().edge_convolution_of_tangent(
            *arguments, adjoints, *along, output, by_sources, by_values, by_slopes
        )
        return output, by_sources, by_values, by_slopes, None, None, None, None


def edge_convolution(
    sources: Tensor,
    values: Tensor,
    slopes: Tensor,
    harmonics: Tensor,
    distances: Tensor,
    graph: Neighborhoods,
    tables: ConvolutionTables,
) -> Tensor:
    """Return the sums of `equivariant.edge_convolution`, of message irreps one after another, each
    [atoms, 2 l3 + 1, paths, channels] and flat.

    Args:
        sources: flat features.
        values, slopes: R and dR/dr [pairs, P * K] at the distances.
        harmonics: Y [E, (l_max + 1)²] in the order of the graph.
        distances: [pairs] Å, float64: only its gradient is used.
        graph: of the edges.
        tables: of the paths.
    """
    return _Convolution.apply(sources, values, slopes, harmonics, distances, graph, tables)


@dataclass(frozen=True)
class ContractionTables:
    """Polynomials as sums over monomials, see csrc/core/models/equivariant/kernels.hpp.

    Attributes:
        nodes: int32 [nodes + 1, 4]: factors of products, first term, first leaf.
        leaves: int32 [leaves + 1, 2]: component (node 1 is the first), first term.
        targets: int32 [terms] component of the result that a term adds to.
        order: [terms] their numbers in the list they were made from.
        sizes, target_sizes: int64 components of each irrep of the variables and of the results.
    """

    nodes: Tensor
    leaves: Tensor
    targets: Tensor
    order: Tensor
    sizes: Tensor
    target_sizes: Tensor

    def on(self, device: torch.device) -> ContractionTables:
        """With what kernels read there; the host reads the sizes."""
        moved = {name: getattr(self, name).to(device) for name in ("nodes", "leaves", "targets")}
        return replace(self, **moved)

    @classmethod
    def make(cls, terms: Tensor, sizes: list[int], target_sizes: list[int]) -> ContractionTables:
        """Tables of terms [T, 4]: component of the result, and the components of the monomial in order, with
        -1 for a factor of 1. Monomials of degree two are nodes, those of degree three leaves.
        """
        terms = terms.cpu()
        factors = [tuple(f + 1 for f in row if f >= 0) for row in terms[:, 1:].tolist()]
        cubic = sorted({m for m in factors if len(m) == 3})
        pairs = {m for m in factors if len(m) == 2}
        for a, b, c in cubic:
            if not pairs & {(a, b), (a, c), (b, c)}:
                pairs.add((a, b))
        components = [(c,) for c in range(1, 1 + sum(sizes))]
        place: dict[tuple[int, ...], int] = {m: n for n, m in enumerate([(), *components, *sorted(pairs)])}
        products = [(0, 0)] * (1 + len(components)) + sorted(pairs)  # factors of every node

        def of_leaf(a: int, b: int, c: int) -> tuple[int, int]:
            """The first pair in it that is a node, and the component that is left."""
            choices = (((a, b), c), ((a, c), b), ((b, c), a))
            pair, rest = next(choice for choice in choices if choice[0] in pairs)
            return place[pair], rest

        leaves = sorted((*of_leaf(*m), m) for m in cubic)
        place |= {m: len(products) + number for number, (_, _, m) in enumerate(leaves)}
        of_terms = torch.tensor([place[m] for m in factors], dtype=torch.int64)
        order = torch.argsort(of_terms, stable=True)
        first_terms = offsets_of(torch.bincount(of_terms, minlength=len(place)))
        of_leaves = torch.tensor([node for node, _, _ in leaves], dtype=torch.int64)
        first_leaves = offsets_of(torch.bincount(of_leaves, minlength=len(products)))
        ends = first_terms[: len(products) + 1], first_leaves
        rest = torch.tensor([*(component for _, component, _ in leaves), 0])
        return cls(
            nodes=torch.cat([torch.tensor([*products, (0, 0)]), torch.stack(ends, 1)], 1).to(torch.int32),
            leaves=torch.stack([rest, first_terms[len(products) :]], 1).to(torch.int32),
            targets=terms[order, 0].to(torch.int32),
            order=order,
            sizes=torch.tensor(sizes),
            target_sizes=torch.tensor(target_sizes),
        )


class _Contraction(Function):
    """Products [flat] of messages [flat] and weights [species, terms, K]."""

    @staticmethod
    def forward(
        ctx: Any, messages: Tensor, weights: Tensor, graph: Neighborhoods, tables: ContractionTables
    ) -> Tensor:
        ctx.save_for_backward(messages, weights)
        ctx.graph, ctx.tables = graph, tables
        size = graph.num_atoms * int(tables.target_sizes.sum()) * weights.size(2)
        output = messages.new_empty(size)
        load_ops().message_contraction(*_polynomials(graph, tables, messages, weights), output)
        return output

    @staticmethod
    def backward(ctx: Any, adjoints: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _ContractionReverse.apply(
            adjoints.contiguous(), *ctx.saved_tensors, ctx.graph, ctx.tables, is_wanted(ctx, 1)
        )
        return *gradients, None, None


def _polynomials(
    graph: Neighborhoods, tables: ContractionTables, messages: Tensor, weights: Tensor
) -> list[Any]:
    """What all ops of a contraction begin with."""
    sizes = [tables.sizes, tables.target_sizes, graph.counts]
    return [tables.nodes, tables.leaves, tables.targets, *sizes, messages, weights, graph.num_threads]


class _ContractionReverse(Function):
    """Adjoints of messages and weights."""

    @staticmethod
    def forward(
        ctx: Any,
        adjoints: Tensor,
        messages: Tensor,
        weights: Tensor,
        graph: Neighborhoods,
        tables: ContractionTables,
        with_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(adjoints, messages, weights)
        ctx.graph, ctx.tables = graph, tables
        ctx.set_materialize_grads(False)
        by_messages = torch.empty_like(messages)
        by_weights = torch.zeros_like(weights) if with_weights else weights.new_empty(0)
        arguments = _polynomials(graph, tables, messages, weights)
        load_ops().message_contraction_reverse(*arguments, adjoints, by_messages, by_weights)
        return by_messages, by_weights if with_weights else None

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, along_messages: Tensor | None, along_weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        adjoints, messages, weights = ctx.saved_tensors
        along = [
            messages.new_empty(0) if tensor is None else tensor.contiguous()
            for tensor in (along_messages, along_weights)
        ]
        output, by_messages = torch.empty_like(adjoints), torch.empty_like(messages)
        by_weights = torch.zeros_like(weights)
        arguments = _polynomials(ctx.graph, ctx.tables, messages, weights)
        load_ops().message_contraction_tangent(*arguments, adjoints, *along, output, by_messages, by_weights)
        return output, by_messages, by_weights, None, None, None


def symmetric_contraction(
    messages: Tensor, weights: Tensor, graph: Neighborhoods, tables: ContractionTables
) -> Tensor:
    """Return the products of `equivariant.symmetric_contraction`, flat.

    Args:
        messages: flat.
        weights: [species, terms, K], contracted with the coefficients of the terms in their `order`.
        graph: whose atoms are counted by species.
        tables: of the polynomials.
    """
    return _Contraction.apply(messages, weights, graph, tables)
