"""Behler-Parrinello networks: one multilayer perceptron per species on the features of a descriptor."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from nearsight.keys import READOUT_ENERGY, READOUT_HAMILTONIAN
from nearsight.models.descriptors import ACSFConfig, DescriptorConfig, default_tag
from nearsight.models.long_range import readout_scales
from nearsight.models.network_inputs import NetworkInputs
from nearsight.models.networks import NetworkShape, SpeciesNetwork
from nearsight.models.soap import SOAPConfig
from nearsight.neighbors import Graph

_DEFAULTS_OF_SOAP = {"hidden": [64, 64], "activation": "silu", "directions": 400}


class BPNNConfig(BaseModel):
    """Configuration of a BPNN; lengths in Å.

    The networks see the features decorrelated, or, with `directions`, so many principal directions of them:
    by default 400 of the fixed features of SOAP, whose networks also are larger by default.

    With `states` >= 2 the readout is a matrix of so many states, and the energy is its eigenvalue number
    `state`.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    architecture: Literal["bpnn"] = "bpnn"
    cutoff: float = Field(6.0, gt=0.0)
    descriptor: DescriptorConfig = ACSFConfig()
    hidden: list[int] = Field([25, 25], min_length=1)
    activation: Literal["tanh", "silu", "celu", "gelu"] = "tanh"
    directions: int | None = Field(None, ge=1)
    states: int = Field(1, ge=1)
    state: int = Field(0, ge=0)

    _default_kind = model_validator(mode="before")(default_tag("descriptor", "kind", "acsf"))

    @model_validator(mode="after")
    def _fit_the_descriptor(self) -> BPNNConfig:
        if isinstance(self.descriptor, SOAPConfig) and self.descriptor.species_channels is None:
            for name, value in _DEFAULTS_OF_SOAP.items():
                if name not in self.model_fields_set:
                    setattr(self, name, value)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> BPNNConfig:
        if self.state >= self.states:
            raise ValueError(
                f"state must be one of 0 to {self.states - 1} with {self.states} state(s), found {self.state}"
            )
        if min(self.hidden) < 1:
            raise ValueError(f"hidden layers need at least one node each, found {self.hidden}")
        self.descriptor.check(self.cutoff)
        return self

    def build(self, species: list[str], members: int = 1, readouts: Mapping[str, int] | None = None) -> BPNN:
        """Return an untrained model or committee; `readouts` beside the energy as of `BPNN`.

        Raises:
            ValueError: the descriptor does not fit the species, or states or members have other readouts.
        """
        if readouts and (self.states > 1 or members > 1):
            raise ValueError(
                "several states or members of a committee have no readouts beside their energies"
            )
        shape = NetworkShape.uniform(self.hidden, self.activation)
        return BPNN(
            species,
            self.cutoff,
            self.descriptor.build(self.cutoff, species),
            dict.fromkeys(species, shape),
            members=members,
            states=self.states,
            state=self.state,
            directions=self.directions,
            readouts=readouts,
        )


class BPNN(nn.Module):
    """Networks on a descriptor; keeps docs/model_contract.md.

    Args:
        species: chemical symbols; their order numbers the species.
        cutoff: Å.
        descriptor: see `nearsight.models.descriptors`.
        networks: shape of the networks of each species.
        members: of a committee, side by side in the readout `energy`; others have no members.
        states: with two or more the readout is a `hamiltonian`.
        state: the eigenvalue that is the energy.
        architecture: name in the model file.
        whiten: give the networks a matrix that `fit_statistics` sets; imported models need none.
        directions: see `SpeciesNetwork`.
        readouts: columns of readouts beside the energy, by name: further outputs of the same networks.
    """

    def __init__(
        self,
        species: list[str],
        cutoff: float,
        descriptor: nn.Module,
        networks: Mapping[str, NetworkShape],
        *,
        members: int = 1,
        states: int = 1,
        state: int = 0,
        architecture: str = "bpnn",
        whiten: bool = True,
        directions: int | None = None,
        readouts: Mapping[str, int] | None = None,
    ):
        super().__init__()
        first = READOUT_ENERGY if states == 1 else READOUT_HAMILTONIAN
        widths = {first: states * (states + 1) // 2, **(readouts or {})}
        columns = sum(widths.values())
        self.architecture = architecture
        self.species = list(species)
        self.cutoff = cutoff
        self.num_interactions = 1
        self.names, self.widths = list(widths), [members * width for width in widths.values()]
        self.readouts = [{"name": n, "columns": width} for n, width in zip(self.names, self.widths)]
        self.couple = {"kind": "sum"}
        if members > 1:
            self.couple["members"] = members
        if states > 1:
            self.couple = {"kind": "eigenstate", "states": states, "state": state}
        self.hyperparameters = {
            "descriptor": descriptor.record(),
            "networks": {symbol: networks[symbol].record() for symbol in species},
            "members": members,
        }
        self.members = members
        self.descriptor = descriptor
        self.networks = nn.ModuleList(
            SpeciesNetwork(descriptor.columns(symbol), networks[symbol], columns, members, whiten, directions)
            for symbol in species
        )
        self.register_buffer("output_scale", torch.ones(columns, dtype=torch.float64))

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readouts: `energy` [num_owned] or [num_owned, members], or `hamiltonian`, in eV, and
        others [num_owned, columns]."""
        table = self.descriptor(species, edge_index, edge_vectors, num_owned)
        columns = self.members * self.output_scale.numel()
        outputs = torch.zeros(num_owned, columns, dtype=table.dtype, device=table.device)
        for kind, network in enumerate(self.networks):
            atoms = torch.nonzero(species[:num_owned] == kind).squeeze(1)
            features = table.index_select(0, atoms).index_select(1, network.columns)
            outputs = outputs.index_add(0, atoms, network(features))
        return self.readouts_of(outputs)

    def readouts_of(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the readouts of atoms with these outputs of the networks, [n, members * columns]."""
        outputs = outputs * self.output_scale.repeat(self.members)
        found: dict[str, Tensor] = {}
        start = 0
        for name, width in zip(self.names, self.widths):
            found[name] = outputs[:, start : start + width]
            start += width
        if "energy" in found:
            found["energy"] = found["energy"].squeeze(1)
        return found

    @torch.jit.unused
    def features(self, graph: Graph) -> list[Tensor]:
        """Return, per species, the features [n, functions] of its atoms in the graph, unscaled."""
        table = self.descriptor(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        return [
            table[graph.species == kind][:, network.columns] for kind, network in enumerate(self.networks)
        ]

    @torch.jit.unused
    def on_inputs(self) -> BPNN:
        """Return the model with these layers for training, where the networks see a part of the directions of
        fixed features: its descriptor is `NetworkInputs`, with the statistics that the model has now."""
        trained = any(True for _ in self.descriptor.parameters())
        if trained or not any(network.principal for network in self.networks):
            return self
        alike = copy.copy(self)
        alike._modules = self._modules | {
            "descriptor": NetworkInputs(self.descriptor, list(self.networks)),
            "networks": nn.ModuleList(network.on_inputs() for network in self.networks),
        }
        return alike

    @torch.jit.unused
    @torch.no_grad()
    def fit_statistics(
        self, graphs: Iterable[Graph], output_scale: float, source: nn.Module | None = None
    ) -> None:
        """Set shift, scale and mixing so that the networks' inputs have mean 0 and are hardly correlated.

        `output_scale` (eV) multiplies the networks' energies. A species that `graphs` lacks keeps its values.
        `source`, a training module of this model, evaluates the features faster.
        """
        source = source or self
        parts: list[list[Tensor]] = [[] for _ in self.networks]
        for graph in graphs:
            for part, x in zip(parts, source.features(graph)):
                part.append(x.double())
        for network, part in zip(self.networks, parts):
            if any(len(x) for x in part):
                network.set_statistics(torch.cat(part))
        first = self.widths[0] // self.members
        self.output_scale[:first] = output_scale
        self.output_scale[first:] = readout_scales(self.readouts[1:])

    @torch.jit.unused
    @torch.no_grad()
    def fit_ranges(self, graphs: Iterable[Graph], source: nn.Module | None = None) -> None:
        """Set the ranges of the features from all graphs of the training set; `source` as above.

        A species that `graphs` lacks has none.
        """
        for network in self.networks:
            network.minimum.fill_(torch.inf)
            network.maximum.fill_(-torch.inf)
        for graph in graphs:
            for network, x in zip(self.networks, (source or self).features(graph)):
                if x.size(0):
                    network.minimum.copy_(torch.minimum(network.minimum, x.amin(0)))
                    network.maximum.copy_(torch.maximum(network.maximum, x.amax(0)))

    @torch.jit.unused
    @torch.no_grad()
    def set_mean_energies(self, energies: Mapping[str, float]) -> None:
        """Let untrained networks start at a mean energy per species, in eV: the bias of their last layer.

        Of a hamiltonian the diagonal starts there. Call it after `fit_statistics`.
        """
        columns = self.widths[0] // self.members
        states = math.isqrt(2 * columns)
        diagonal = torch.eye(states, dtype=torch.float64)[tuple(torch.triu_indices(states, states))]
        for symbol, network in zip(self.species, self.networks):
            bias = network.layers[-1].bias[:, :columns]
            bias.copy_(diagonal * energies[symbol] / self.output_scale[:columns])

    @torch.jit.unused
    def labels(self) -> dict[str, list[str]]:
        """Return a readable name for each feature of every species."""
        return {symbol: self.descriptor.labels(symbol) for symbol in self.species}

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of weights.safetensors by their names in docs/file_format.md."""
        tensors = {"output_scale": self.output_scale, **self.descriptor.weights()}
        for symbol, network in zip(self.species, self.networks):
            tensors |= {f"{symbol}.{name}": tensor for name, tensor in network.weights().items()}
        return {
            name: tensor.detach().to("cpu", torch.float64).contiguous() for name, tensor in tensors.items()
        }
