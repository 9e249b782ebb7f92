"""Training of MACE on the core: the parameters, layers and formulas are those of the torch module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, silu

from nearsight.models.equivariant import Dense, EdgeNetwork, IrrepsLinear, PathLinear, Weight
from nearsight.models.equivariant_native import (
    ContractionTables,
    ConvolutionTables,
    Neighborhoods,
    dual_dense,
    edge_convolution,
    padded,
    symmetric_contraction,
)
from nearsight.models.feature_maps import Maps, TrainedTensors
from nearsight.models.irreps import irrep, starts
from nearsight.models.mace import MACE, Interaction
from nearsight.models.mace_edges import Edges
from nearsight.models.native_ops import all_cores, edge_sums, load_ops
from nearsight.neighbors import Graph

Tensors = dict[Weight, Tensor]  # of the model, in the type of features


def _widened(rows: Tensor, channels: int, width: int) -> Tensor:
    """Rows of channels with zeros behind them, in the same shape but the last dimension."""
    if channels == width:
        return rows
    wide = pad(rows.reshape(-1, channels), (0, width - channels))
    return wide.view(*rows.shape[:-1], rows.size(-1) // channels * width)


def _narrowed(flat: Tensor, channels: int, width: int) -> Tensor:
    return flat if channels == width else flat.view(-1, width)[:, :channels].reshape(-1)


class _Step:
    """What the layers share in one evaluation.

    Args:
        edges: of the batch.
        vectors: [E, 3], by which they are differentiated.
        species: [atoms].
        weights: of the model.
    """

    def __init__(self, edges: Edges, vectors: Tensor, species: Tensor, weights: Tensors):
        self.graph, self.edges, self.weights = edges.graph, edges, weights
        self.counts: list[int] = edges.graph.counts.tolist()
        self.distances, self.harmonics = edges.of(vectors)
        ordered = torch.empty_like(species).index_copy_(0, self.graph.places, species)
        self.kinds = one_hot(ordered, len(self.counts)).to(edges.inputs.dtype).view(-1)  # flat

    def of(self, module: IrrepsLinear | PathLinear | Dense) -> list[Tensor]:
        """Its weights."""
        return [self.weights[one] for one in (module.layers if isinstance(module, Dense) else module.weights)]

    def map(self, maps: Maps, x: Tensor, module: IrrepsLinear | PathLinear) -> Tensor:
        """The features x mapped with the weights of a module."""
        return maps(x, self.of(module), self.counts)

    def network(self, network: EdgeNetwork) -> tuple[Tensor, Tensor]:
        """Values and slopes [pairs, n] of a network of the distance."""
        values, slopes = dual_dense(self.edges.inputs, self.of(network.network))
        if network.density:
            tanh = torch.tanh(values**2)
            values, slopes = tanh, (1.0 - tanh**2) * 2.0 * values * slopes
        if network.first:
            return values, slopes
        envelope, slope = self.edges.envelope
        return values * envelope, slopes * envelope + values * slope

    def sums(self, values: Tensor, slopes: Tensor) -> Tensor:
        """Σ_j of a function of the distance [pairs, 1] of each atom, [atoms, 1]."""
        shift = (self.distances - self.distances.detach()).to(values.dtype).unsqueeze(1)
        of_pairs = values + slopes * shift
        centers = torch.repeat_interleave(self.graph.places, torch.diff(self.graph.offsets))
        zero = values.new_zeros(self.graph.num_atoms, 1)
        return zero.index_add(0, centers, of_pairs.index_select(0, self.graph.pairs))


class _NativeInteraction(nn.Module):
    """`Interaction` of sorted atoms; it shares the parameters of the given one."""

    def __init__(self, layer: Interaction, paths: list, num_species: int, dtype: torch.dtype):
        super().__init__()
        self.layer = layer
        source, message, output = (
            [irrep(name).size for name in layer.names[part]] for part in ("input", "message", "output")
        )
        thirds = [layer.names["message"].index(three) for _, _, three in paths]
        first = starts([irrep(name) for name in layer.names["input"]])
        rows = [[first[path[0]], *path[1:], number] for path, number in zip(layer.paths, thirds)]
        self.tables = ConvolutionTables(torch.tensor(rows), layer.couplings.to(dtype, copy=True))
        self.polynomials = ContractionTables.make(layer.terms, message, output)
        self.coefficients = layer.coefficients.cpu()[self.polynomials.order].to(dtype)
        self._set_maps(source, message, output, [thirds.count(n) for n in range(len(message))], num_species)

    def _set_maps(
        self, source: list[int], message: list[int], output: list[int], paths: list[int], num_species: int
    ) -> None:
        """Set which irreps are mapped to which."""
        names, k = self.layer.names, self.layer.channels
        inputs, messages, outputs = ([(size, k) for size in part] for part in (source, message, output))
        sums = [(size, count * k) for size, count in zip(message, paths)]
        self.message_sizes = message
        self.up, self.select, self.update = (
            Maps(part, part, [(n, n) for n in range(len(part))]) for part in (inputs, messages, outputs)
        )
        self.message = Maps(sums, messages, [(n, n) for n in range(len(messages))])
        kept = [(names["input"].index(name), names["output"].index(name)) for name in self.layer.common]
        self.skip = Maps(inputs, outputs, kept)
        self.start = Maps([(1, num_species)], outputs, [(0, 0)])

    def _move_tables(self, device: torch.device) -> None:
        """To where the features are; tables are no buffers, which files would have."""
        if self.coefficients.device != device:
            self.tables, self.polynomials = self.tables.on(device), self.polynomials.on(device)
            self.coefficients = self.coefficients.to(device)

    def forward(self, h: Tensor, step: _Step) -> Tensor:
        """Return the new features of all atoms; features are flat."""
        self._move_tables(h.device)
        layer, k = self.layer, self.layer.channels
        width = padded(k, h.dtype)
        sources = step.map(self.up, h, layer.up) if len(layer.up.weights) > 0 else h
        values, slopes = (_widened(part, k, width) for part in step.network(layer.radial))
        sums = edge_convolution(
            _widened(sources.view(-1, k), k, width).view(-1),
            values,
            slopes,
            step.harmonics,
            step.distances,
            step.graph,
            self.tables,
        )
        m = step.map(self.message, _narrowed(sums, k, width), layer.message)
        if len(layer.density.network.layers) > 0:
            m = self._divided(m, 1.0 + step.sums(*step.network(layer.density)))
        if len(layer.select.weights) > 0:
            m = step.map(self.select, m, layer.select)
        contracted = torch.matmul(self.coefficients, step.weights[layer.product])
        wide = _widened(m.view(-1, k), k, width).view(-1)
        products = symmetric_contraction(wide, _widened(contracted, k, width), step.graph, self.polynomials)
        return self._updated(_narrowed(products, k, width), h, step)

    def _divided(self, m: Tensor, divisor: Tensor) -> Tensor:
        """Messages over a number [atoms, 1] for each atom."""
        atoms = divisor.size(0)
        parts = m.split([atoms * size * self.layer.channels for size in self.message_sizes])
        return torch.cat([(part.view(atoms, -1) / divisor).view(-1) for part in parts])

    def _updated(self, products: Tensor, h: Tensor, step: _Step) -> Tensor:
        layer = self.layer
        new = step.map(self.update, products, layer.update)
        if len(layer.skip.weights) > 0:
            new = new + step.map(self.skip, h, layer.skip)
        for start in layer.start:
            new = new + self.start(step.kinds, [step.weights[start].T], step.counts)
        return new

    def readout(self, h: Tensor, step: _Step) -> Tensor:
        """Return the outputs [atoms, columns]."""
        atoms, k = step.graph.num_atoms, self.layer.channels
        x = h[: atoms * k].view(atoms, k)
        for number, weight in enumerate(step.of(self.layer.readout)):
            x = (silu(x) if number else x) @ weight.T
        return x


class NativeMACE(nn.Module):
    """A MACE model whose edges and polynomials the core evaluates; it shares the parameters of the module.

    The energy has first derivatives by positions, and those have derivatives by parameters; sums over edges
    such as forces and virials are right, while gradients of single edges count both edges of a pair as one:
    take `of_single_edges` for those.

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
        trained = [module for module in model.modules() if isinstance(module, Weight)]
        self.weights = TrainedTensors(trained, dtype)
        self.layers = nn.ModuleList(
            _NativeInteraction(layer, record["paths"], len(model.species), dtype)
            for layer, record in zip(model.layers, model.hyperparameters["layers"])
        )
        self.embedding = Maps([(1, len(model.species))], [(1, model.layers[0].channels)], [(0, 0)])

    def edges(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Edges:
        """What does not depend on parameters; see docs/model_contract.md for the arguments."""
        graph = Neighborhoods.make(
            species, edge_index, edge_vectors, len(self.model.species), self.num_threads
        )
        first = self.model.layers[0].radial.first
        model, arguments = self.model, (species, edge_index, edge_vectors, self.dtype)
        return Edges.make(graph, model.basis, model.l_max, first, *arguments)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """See docs/model_contract.md; all atoms must be owned. Readouts are in double."""
        edges = self.edges(species, edge_index, edge_vectors)
        return self.readouts(edges, species, edge_index, edge_vectors)

    def readouts(
        self, edges: Edges, species: Tensor, edge_index: Tensor, vectors: Tensor
    ) -> dict[str, Tensor]:
        """Return the readouts of atoms whose edges are known."""
        model = self.model
        step = _Step(edges, vectors, species, self.weights())
        h = self.embedding(step.kinds, [step.weights[model.embedding].T], step.counts)
        outputs = vectors.new_zeros(species.numel(), model.scale.numel(), dtype=torch.float64)
        for layer in self.layers:
            h = layer(h, step)
            outputs = outputs + layer.readout(h, step).to(torch.float64)
        found = model.readouts_of(outputs.index_select(0, edges.graph.places), species)
        if model.zbl.used or model.walls.used:
            distances = vectors.to(torch.float64).square().sum(1).sqrt()
            pairs = model.pair_energies(distances, species, edge_index, species.numel())
            found["energy"] = found["energy"] + pairs
        return found

    @property
    def of_single_edges(self) -> MACE:
        """The module whose readouts have a gradient of each edge."""
        return self.model

    def stored(self, graph: Graph) -> Edges:
        """What a run keeps of a frame."""
        return self.edges(graph.species, graph.edge_index, graph.edge_vectors)

    def with_stored(self, frames: Sequence[Edges]) -> StoredMACE:
        """The module for one batch of frames."""
        return StoredMACE(self, frames)

    edge_sums = staticmethod(edge_sums)


class StoredMACE:
    """The training module of one batch whose edges are known; see docs/model_contract.md.

    Args:
        native: of the model.
        frames: edges of the batch's frames, in order.
    """

    def __init__(self, native: NativeMACE, frames: Sequence[Edges]):
        self.native, self.frames = native, frames
        self.of_single_edges = native.of_single_edges

    def __call__(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readouts."""
        edges = Edges.join(self.frames, species)
        return self.native.readouts(edges, species, edge_index, edge_vectors)

    edge_sums = staticmethod(edge_sums)
