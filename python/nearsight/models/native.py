"""Training on native descriptors: the core's forward, reverse and tangent as a torch function.

Descriptors have no parameters, so a step needs G(r), the forces' part Jᵀc with J = dG/dr, and for the
gradient of the loss with respect to c the tangent J v. Each is linear in its last argument, and so they are
one another's derivatives. Second derivatives with respect to positions (Hessians) are not given: take
backend "torch".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.errors import ConfigError
from nearsight.models.bpnn import BPNN
from nearsight.models.mace import MACE
from nearsight.models.mace_native import NativeMACE
from nearsight.models.native_networks import NativeNetworks
from nearsight.models.native_ops import all_cores, edge_sums, features_of, load_ops, offsets_of
from nearsight.models.native_products import NativeProducts
from nearsight.models.network_inputs import NetworkInputs
from nearsight.neighbors import Graph

FEATURE_TYPES = {"mixed": torch.float32, "double": torch.float64}


@dataclass(frozen=True)
class _Evaluated:
    """Neighborhoods that the core evaluates; see csrc/torch_ops/descriptor_ops.cpp."""

    descriptor: Any  # _core.Descriptor
    species: Tensor
    offsets: Tensor
    neighbors: Tensor
    vectors: Tensor
    width: int
    padded: bool  # some atoms have fewer features
    num_threads: int

    def _call(self, name: str, given: Tensor, output: Tensor) -> Tensor:
        getattr(load_ops(), name)(
            self.descriptor.handle,
            self.species,
            self.offsets,
            self.neighbors,
            self.vectors,
            given.contiguous(),
            output,
            self.num_threads,
        )
        return output

    def _table(self) -> Tensor:
        make = self.vectors.new_zeros if self.padded else self.vectors.new_empty
        return make(self.species.numel(), self.width)

    def forward(self) -> Tensor:
        return self._call("descriptor_forward", self.vectors, self._table())

    def reverse(self, cotangents: Tensor) -> Tensor:
        return self._call("descriptor_reverse", cotangents, torch.zeros_like(self.vectors))

    def tangent(self, directions: Tensor) -> Tensor:
        return self._call("descriptor_tangent", directions, self._table())

    def jacobian(self) -> Tensor:
        """J itself, [E, 3, width] in float32; it costs as much as `width` reverse passes."""
        output = torch.zeros(self.vectors.size(0), 3, self.width, dtype=torch.float32)
        return self._call("descriptor_jacobian", self.vectors, output)


@dataclass(frozen=True)
class _Projected:
    """Neighborhoods with the inputs of networks in place of the features."""

    evaluated: _Evaluated
    inputs: NetworkInputs

    @property
    def species(self) -> Tensor:
        return self.evaluated.species

    def forward(self) -> Tensor:
        return self.inputs.of_features(self.evaluated.forward(), self.species)

    def reverse(self, cotangents: Tensor) -> Tensor:
        return self.evaluated.reverse(self.inputs.pull_back(cotangents, self.species))

    def tangent(self, directions: Tensor) -> Tensor:
        return self.inputs.project(self.evaluated.tangent(directions), self.species)

    def jacobian(self) -> Tensor:
        """J itself, [E, 3, inputs] in float32."""
        edges = torch.diff(self.evaluated.offsets)
        return self.inputs.project(self.evaluated.jacobian(), self.species.repeat_interleave(edges))


class NativeDescriptor(nn.Module):
    """A descriptor module evaluated by the core; a center's features come first in its row of the table.

    The core's threads are its own and sleep between calls; results do not depend on their number.
    """

    def __init__(self, descriptor: nn.Module, species: list[str], num_threads: int | None = None):
        super().__init__()
        load_ops()
        from nearsight.lib import _core

        self.inputs = descriptor if isinstance(descriptor, NetworkInputs) else None
        descriptor = self.inputs.descriptor if self.inputs else descriptor
        weights = {name: tensor.cpu().numpy() for name, tensor in descriptor.weights().items()}
        self.core = _core.Descriptor(json.dumps(descriptor.record()), species, weights)
        self.sizes = list(self.core.num_features)
        self.num_threads = num_threads or all_cores()

    def neighborhoods(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor
    ) -> _Evaluated | _Projected:
        """Return the neighborhoods of all atoms; arguments as in docs/model_contract.md."""
        evaluated = self._evaluated(species, edge_index, edge_vectors)
        return _Projected(evaluated, self.inputs) if self.inputs else evaluated

    def _evaluated(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> _Evaluated:
        return _Evaluated(
            descriptor=self.core,
            species=species.to(torch.int32),
            offsets=offsets_of(torch.bincount(edge_index[0], minlength=species.numel())),
            neighbors=edge_index[1].to(torch.int32),
            vectors=edge_vectors.detach().to(torch.float64).contiguous(),
            width=max(self.sizes),
            padded=min(self.sizes) < max(self.sizes),
            num_threads=self.num_threads,
        )

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, most features] in float64; all atoms must be owned."""
        neighborhoods = self.neighborhoods(species, edge_index, edge_vectors)
        return features_of(edge_vectors.to(torch.float64), neighborhoods)

    def design_rows(self, graph: Graph, num_threads: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what multiplies the coefficients of a linear model in energies [frames, columns], forces
        [3 * atoms, columns] and virials [6 * frames, columns] (xx yy zz xy xz yz).

        Columns are the features of the first species, then those of the second, and so on.
        """
        a = self._evaluated(graph.species, graph.edge_index, graph.edge_vectors)
        atoms = torch.bincount(graph.frame, minlength=graph.num_frames)
        shape = (len(self.sizes), a.width)
        energy, forces, virial = (
            torch.zeros(count, *shape, dtype=torch.float64)
            for count in (graph.num_frames, 3 * graph.num_atoms, 6 * graph.num_frames)
        )
        load_ops().descriptor_design(
            a.descriptor.handle,
            a.species,
            a.offsets,
            a.neighbors,
            a.vectors,
            offsets_of(atoms),
            energy,
            num_threads or a.num_threads,
            len(self.sizes),
            forces,
            virial,
        )
        own = torch.arange(a.width) < torch.tensor(self.sizes).unsqueeze(1)
        return energy[:, own], forces[:, own], virial[:, own]


class NativeBPNN(nn.Module):
    """A BPNN whose descriptor is evaluated by the core; it shares the networks of the given module."""

    def __init__(self, model: BPNN, num_threads: int | None = None):
        super().__init__()
        self.model = model
        self.trained = any(True for _ in model.descriptor.parameters())
        fixed = model.descriptor.fixed_part() if self.trained else model.descriptor
        self.descriptor = NativeDescriptor(fixed, model.species, num_threads)
        ops, threads = load_ops(), self.descriptor.num_threads
        self.networks = NativeNetworks(ops, model.networks, self.trained, threads)
        if self.trained:
            self.polynomials = NativeProducts(ops, model.descriptor.products(), threads)
        self.sizes = [network.columns.numel() for network in model.networks]

    def features(self, graph: Graph) -> list[Tensor]:
        """Return, per species, the features [n, functions] of its atoms in the graph, unscaled."""
        table = self.descriptor(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        table = self._features_of(table)
        return [table[graph.species == kind][:, :size] for kind, size in enumerate(self.sizes)]

    def _features_of(self, table: Tensor) -> Tensor:
        if not self.trained:
            return table
        descriptor = self.model.descriptor
        return descriptor.normalized(self.polynomials(descriptor.channels(table)))

    def readouts(self, species: Tensor, table: Tensor) -> dict[str, Tensor]:
        """Return the readouts of atoms species[n] with the descriptor's table [n, width]."""
        return self.model.readouts_of(self.networks(species, self._features_of(table)))

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """See docs/model_contract.md; all atoms must be owned."""
        return self.readouts(species, self.descriptor(species, edge_index, edge_vectors, num_owned))

    edge_sums = staticmethod(edge_sums)


def training_module(
    model: nn.Module, backend: str = "auto", num_threads: int | None = None, precision: str = "mixed"
) -> nn.Module:
    """Return a module with the model's parameters and forward, evaluated by `backend`.

    "torch" is the model itself; "native" takes the descriptor, or the edges and polynomials of message
    passing, from the compiled core (CPU, first derivatives with respect to positions only); "auto" is native
    where it exists. `num_threads` are those of the core, by default all cores that the process may use.
    `precision` is that of the features of native message passing, "mixed" (single) or "double"; distances,
    harmonics, energies and forces are in double, descriptors as well.

    Raises:
        ConfigError: native was asked for and is not available.
    """
    if backend == "torch":
        return model
    if backend not in ("auto", "native"):
        raise ConfigError(f"training backend is {backend!r}, expected auto, native or torch")
    if precision not in FEATURE_TYPES:
        raise ConfigError(f"training precision is {precision!r}, expected {' or '.join(FEATURE_TYPES)}")
    try:
        if isinstance(model, BPNN):
            return NativeBPNN(model, num_threads)
        if isinstance(model, MACE):
            return NativeMACE(model, num_threads, FEATURE_TYPES[precision])
    except ConfigError:
        if backend == "native":
            raise
        return model
    if backend == "native":
        raise ConfigError(
            f"there is no native training for {getattr(model, 'architecture', type(model).__name__)!r}: "
            "take backend torch"
        )
    return model
