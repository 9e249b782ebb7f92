"""Training of MACE on the core: the parameters, layers and formulas are those of the torch module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, silu

from nearsight.models.equivariant import Dense, EdgeNetwork, IrrepsLinear, PathLinear, Weight
from nearsight.models.equivariant_native import (
    ContractionTables,
    ConvolutionTables,
    Neighborhoods,
    dual_dense,
    edge_convolution,
    edge_harmonics,
    padded,
    symmetric_contraction,
)
from nearsight.models.irreps import irrep, starts
from nearsight.models.mace import MACE, Interaction
from nearsight.models.native_ops import all_cores, edge_sums, load_ops

Tensors = dict[Weight, Tensor]  # of the model, in the type of features
Features = list[Tensor]  # of each irrep, [atoms, components, K], atoms by species


def _flat(features: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in features])


def _widened(rows: Tensor, channels: int, width: int) -> Tensor:
    """Rows of channels with zeros behind them, in the same shape but the last dimension."""
    if channels == width:
        return rows
    wide = pad(rows.reshape(-1, channels), (0, width - channels))
    return wide.view(*rows.shape[:-1], rows.size(-1) // channels * width)


def _narrowed(flat: Tensor, channels: int, width: int) -> Tensor:
    return flat if channels == width else flat.view(-1, width)[:, :channels].reshape(-1)


def _split(flat: Tensor, atoms: int, sizes: Sequence[int], channels: int) -> Features:
    parts = flat.split([atoms * size * channels for size in sizes])
    return [part.view(atoms, size, channels) for part, size in zip(parts, sizes)]


def _mapped(features: Features, weights: list[Tensor], counts: list[int]) -> Features:
    """Each irrep times its matrix, [K', K] or [species, K', K]."""
    return [
        part @ weight.T if weight.dim() == 2 else _by_species(part, weight, counts)
        for part, weight in zip(features, weights)
    ]


def _by_species(x: Tensor, matrices: Tensor, counts: list[int]) -> Tensor:
    parts = [part @ matrix.T for part, matrix in zip(x.split(counts), matrices.unbind(0)) if part.size(0)]
    return torch.cat(parts)


class _Scaled(Function):
    """Trained tensors, values times scale, in another type: all at once, for there are many small ones."""

    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, scales: Sequence[Tensor], *values: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.scales = scales
        ctx.set_materialize_grads(False)
        return tuple((value * scale).to(dtype) for value, scale in zip(values, scales))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return (
            None,
            None,
            *(
                None if gradient is None else gradient * scale
                for gradient, scale in zip(gradients, ctx.scales)
            ),
        )


def _with_slopes(values: Tensor, r: Tensor) -> Tensor:
    """Values [n, m] of functions of r [n], each of its own row, and their derivatives: [2, n, m]."""
    weights = torch.zeros_like(values, requires_grad=True)
    (sums,) = torch.autograd.grad(values, r, weights, create_graph=True)  # linear in the weights
    return torch.stack([values.detach(), *torch.autograd.grad(sums.sum(), weights)])


class _Edges:
    """What all layers know of the edges: functions of distance and direction, without parameters."""

    def __init__(
        self, model: MACE, graph: Neighborhoods, species: Tensor, edge_index: Tensor, vectors: Tensor, dtype
    ):
        self.graph = graph
        self.rows = graph.places[edge_index[0].index_select(0, graph.order)]
        vectors = vectors.to(torch.float64).index_select(0, graph.order)
        self.distances = vectors.index_select(0, graph.firsts).square().sum(1).sqrt()
        self.harmonics = edge_harmonics(vectors, model.l_max, dtype)
        pairs = edge_index.index_select(1, graph.order[graph.firsts])
        with torch.enable_grad():
            r = self.distances.detach().requires_grad_(True)
            basis, envelope = model.basis(r, species, pairs)
            inputs = basis * envelope if model.layers[0].radial.first else basis
            self.inputs, self.envelope = (_with_slopes(x, r).to(dtype) for x in (inputs, envelope))

    def network(self, network: EdgeNetwork, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Values and slopes [pairs, n] of a network of the distance."""
        values, slopes = dual_dense(self.inputs, weights)
        if network.density:
            tanh = torch.tanh(values**2)
            values, slopes = tanh, (1.0 - tanh**2) * 2.0 * values * slopes
        if network.first:
            return values, slopes
        envelope, slope = self.envelope
        return values * envelope, slopes * envelope + values * slope

    def sums(self, values: Tensor, slopes: Tensor) -> Tensor:
        """Σ_j of a function of the distance [pairs, 1] of each atom, [atoms, 1]."""
        shift = (self.distances - self.distances.detach()).to(values.dtype).unsqueeze(1)
        of_pairs = values + slopes * shift
        zero = values.new_zeros(self.graph.num_atoms, 1)
        return zero.index_add(0, self.rows, of_pairs.index_select(0, self.graph.pairs))


class _NativeInteraction(nn.Module):
    """`Interaction` of sorted atoms; it shares the parameters of the given one."""

    def __init__(self, layer: Interaction, paths: list, dtype: torch.dtype):
        super().__init__()
        self.layer = layer
        self.sizes = {
            part: [irrep(name).size for name in layer.names[part]] for part in ("input", "message", "output")
        }
        thirds = [layer.names["message"].index(three) for _, _, three in paths]
        first = starts([irrep(name) for name in layer.names["input"]])
        rows = [[first[path[0]], *path[1:], number] for path, number in zip(layer.paths, thirds)]
        self.paths_of = [thirds.count(number) for number in range(len(self.sizes["message"]))]
        self.tables = ConvolutionTables(torch.tensor(rows), layer.couplings.to(dtype, copy=True))
        self.polynomials = ContractionTables.make(layer.terms, self.sizes["message"], self.sizes["output"])
        self.coefficients = layer.coefficients[self.polynomials.order].to(dtype)
        self.kept = [layer.names["input"].index(name) for name in layer.common]
        self.kept_to = [layer.names["output"].index(name) for name in layer.common]

    def forward(self, h: Features, edges: _Edges, weights: Tensors, counts: list[int]) -> Features:
        """Return the new features of all atoms."""
        layer, graph, k = self.layer, edges.graph, self.layer.channels
        width = padded(k, h[0].dtype)
        sources = h
        if len(layer.up.weights) > 0:
            sources = _mapped(h, _of(layer.up, weights), counts)
        radial = edges.network(layer.radial, _of(layer.radial.network, weights))
        values, slopes = (_widened(part, k, width) for part in radial)
        flat = _flat(_widened(part, k, width) for part in sources)
        sums = edge_convolution(flat, values, slopes, edges.harmonics, edges.distances, graph, self.tables)
        sums = _narrowed(sums, k, width)
        m = self._messages(sums, graph.num_atoms, weights)
        if len(layer.density.network.layers) > 0:
            density = edges.network(layer.density, _of(layer.density.network, weights))
            divisor = 1.0 + edges.sums(*density).unsqueeze(2)
            m = [part / divisor for part in m]
        if len(layer.select.weights) > 0:
            m = _mapped(m, _of(layer.select, weights), counts)
        contracted = torch.matmul(self.coefficients, weights[layer.product])
        flat = _flat(_widened(part, k, width) for part in m)
        products = symmetric_contraction(flat, _widened(contracted, k, width), graph, self.polynomials)
        products = _narrowed(products, k, width)
        parts = _split(products, graph.num_atoms, self.sizes["output"], k)
        return self._updated(parts, h, weights, counts)

    def _messages(self, sums: Tensor, atoms: int, weights: Tensors) -> Features:
        sizes = [size * paths for size, paths in zip(self.sizes["message"], self.paths_of)]
        parts = _split(sums, atoms, sizes, self.layer.channels)
        return [
            part.view(atoms, size, -1) @ weight.T
            for part, size, weight in zip(parts, self.sizes["message"], _of(self.layer.message, weights))
        ]

    def _updated(self, products: Features, h: Features, weights: Tensors, counts: list[int]) -> Features:
        layer = self.layer
        new = _mapped(products, _of(layer.update, weights), counts)
        kept = _mapped([h[number] for number in self.kept], _of(layer.skip, weights), counts)
        for number, part in zip(self.kept_to, kept):
            new[number] = new[number] + part
        for start in layer.start:
            new[0] = new[0] + _of_species(weights[start], counts)
        return new

    def readout(self, h: Features, weights: Tensors) -> Tensor:
        """Return the outputs [atoms]."""
        x = h[0].squeeze(1)
        for number, weight in enumerate(_of(self.layer.readout, weights)):
            x = (silu(x) if number else x) @ weight.T
        return x.squeeze(1)


def _of(maps: IrrepsLinear | PathLinear | Dense, weights: Tensors) -> list[Tensor]:
    modules = maps.layers if isinstance(maps, Dense) else maps.weights
    return [weights[module] for module in modules]


def _of_species(table: Tensor, counts: list[int]) -> Tensor:
    """Rows of a table [species, K] for sorted atoms, [atoms, 1, K]."""
    return torch.cat([row.expand(count, -1) for row, count in zip(table, counts)]).unsqueeze(1)


class NativeMACE(nn.Module):
    """A MACE model whose edges and polynomials the core evaluates; it shares the parameters of the module.

    The energy has first derivatives by positions, and those have derivatives by parameters; sums over edges
    such as forces and virials are right, while gradients of single edges count both edges of a pair as one.

    Args:
        model: whose parameters are trained.
        num_threads: of the core, by default all cores that the process may use.
        dtype: of features; distances, energies and forces are always in double.

    Raises:
        ConfigError: the compiled ops are not there.
    """

    def __init__(self, model: MACE, num_threads: int | None = None, dtype: torch.dtype = torch.float64):
        super().__init__()
        load_ops()
        self.model, self.num_threads, self.dtype = model, num_threads or all_cores(), dtype
        self.trained = [module for module in model.modules() if isinstance(module, Weight)]
        self.layers = nn.ModuleList(
            _NativeInteraction(layer, record["paths"], dtype)
            for layer, record in zip(model.layers, model.hyperparameters["layers"])
        )

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """See docs/model_contract.md; all atoms must be owned. The energy is in double."""
        model = self.model
        graph = Neighborhoods.make(species, edge_index, edge_vectors, len(model.species), self.num_threads)
        counts = graph.counts.tolist()
        edges = _Edges(model, graph, species, edge_index, edge_vectors, self.dtype)
        weights = self.weights()
        h = [_of_species(weights[model.embedding], counts)]
        outputs = torch.zeros(species.numel(), dtype=torch.float64)
        for layer in self.layers:
            h = layer(h, edges, weights, counts)
            outputs = outputs + layer.readout(h, weights).to(torch.float64)
        outputs = outputs.index_select(0, graph.places)
        energy = model.scale * outputs + model.shift[species]
        if model.zbl.used:
            distances = edge_vectors.to(torch.float64).square().sum(1).sqrt()
            energy = energy + model.zbl(distances, species, edge_index, num_owned)
        return {"energy": energy}

    def weights(self) -> Tensors:
        """The trained tensors in the type of features."""
        scales, values = zip(*((module.scale, module.values) for module in self.trained))
        return dict(zip(self.trained, _Scaled.apply(self.dtype, scales, *values)))

    edge_sums = staticmethod(edge_sums)
