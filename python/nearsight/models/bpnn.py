"""Behler-Parrinello networks: one multilayer perceptron per species on atom-centered symmetry functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from nearsight.keys import READOUT_ENERGY, READOUT_HAMILTONIAN
from nearsight.models.acsf import ACSF
from nearsight.models.cutoff_functions import CutoffFunction
from nearsight.models.symmetry_functions import Size, SymmetryFunction, automatic_functions
from nearsight.neighbors import Graph

_ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU}
_NOISE_FLOOR = 0.1  # variance of scaled functions below which a direction is not amplified
_SMALLEST_SPREAD = 1e-3  # a function that hardly varies in the training set is not amplified more than this


class BPNNConfig(BaseModel):
    """Configuration of a BPNN; lengths in Å.

    With `states` >= 2 the readout is a matrix of so many states, and the energy is its eigenvalue number
    `state`. Explicit `symmetry_functions` (per center species) take the place of the automatic ones of
    `size`.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    architecture: Literal["bpnn"] = "bpnn"
    cutoff: float = Field(6.0, gt=0.0)
    size: Size = "small"
    cutoff_function: CutoffFunction = "poly2"
    symmetry_functions: dict[str, list[SymmetryFunction]] | None = None
    hidden: list[int] = Field([25, 25], min_length=1)
    activation: Literal["tanh", "silu"] = "tanh"
    states: int = Field(1, ge=1)
    state: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> BPNNConfig:
        if self.state >= self.states:
            raise ValueError(
                f"state must be one of 0 to {self.states - 1} with {self.states} state(s), found {self.state}"
            )
        if min(self.hidden) < 1:
            raise ValueError(f"hidden layers need at least one node each, found {self.hidden}")
        for symbol, functions in (self.symmetry_functions or {}).items():
            if not functions:
                raise ValueError(f"species {symbol} has an empty list of symmetry functions")
            longest = max(f.cutoff for f in functions)
            if longest > self.cutoff:
                raise ValueError(
                    f"a symmetry function of {symbol} reaches {longest} Å, beyond the cutoff {self.cutoff} Å"
                )
        return self

    def functions(self, species: list[str]) -> dict[str, list[SymmetryFunction]]:
        """Return the symmetry functions of every center species.

        Raises:
            ValueError: explicit functions leave a species out or name one that is not in `species`.
        """
        if self.symmetry_functions is None:
            return automatic_functions(species, self.cutoff, self.size)
        named = set(self.symmetry_functions)
        named.update(
            n for functions in self.symmetry_functions.values() for f in functions for n in f.neighbors
        )
        missing = set(species) - set(self.symmetry_functions)
        if missing or named - set(species):
            raise ValueError(
                f"symmetry_functions must list every species of the data and no other: the data has "
                f"{', '.join(species)}, missing are {', '.join(sorted(missing)) or 'none'}, "
                f"unknown are {', '.join(sorted(named - set(species))) or 'none'}"
            )
        return {symbol: self.symmetry_functions[symbol] for symbol in species}


class SpeciesNetwork(nn.Module):
    """The network of one center species, on its columns of the table of symmetry functions."""

    def __init__(self, columns: Tensor, hidden: list[int], activation: str, outputs: int):
        super().__init__()
        self.register_buffer("columns", columns)
        self.register_buffer("shift", torch.zeros(columns.numel(), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(columns.numel(), dtype=torch.float64))
        self.register_buffer("mixing", torch.eye(columns.numel(), dtype=torch.float64))
        widths = [columns.numel(), *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(widths))
        self.activation = _ACTIVATIONS[activation]()
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map symmetry functions [n, functions] to [n, outputs], without the output scale."""
        x = ((features - self.shift) * self.scale) @ self.mixing
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.activation(x))
        return x

    def set_statistics(self, moments: _Moments) -> None:
        """Take shift, scale and mixing from the symmetry functions of the training set.

        Symmetry functions overlap, so they are strongly correlated, and a network on them trains slowly. The
        mixing (ZCA whitening, Kessy, Lewin and Strimmer, Am. Stat. 72, 309, 2018) undoes that; the floor
        leaves directions that hardly vary small.
        """
        covariance = moments.square / moments.count
        spread = torch.sqrt(covariance.diagonal()).clamp(min=_SMALLEST_SPREAD)
        self.shift.copy_(moments.mean)
        self.scale.copy_(1.0 / spread)
        variance, directions = torch.linalg.eigh(covariance / spread / spread.unsqueeze(1))
        self.mixing.copy_(directions / torch.sqrt(variance.clamp(min=0.0) + _NOISE_FLOOR) @ directions.T)

    def weights(self) -> dict[str, Tensor]:
        """Return shift, scale and layers by their names in the file; the first layer takes in the mixing."""
        tensors = {"shift": self.shift, "scale": self.scale}
        for i, layer in enumerate(self.layers):
            tensors[f"{i}.weight"] = layer.weight.double() @ self.mixing.double() if i == 0 else layer.weight
            tensors[f"{i}.bias"] = layer.bias
        return tensors


class _Moments:
    """Count, mean and sum of squared deviations of rows that come in parts (Chan's formula)."""

    def __init__(self, columns: int):
        self.count = 0
        self.mean = torch.zeros(columns, dtype=torch.float64)
        self.square = torch.zeros(columns, columns, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        n = x.size(0)
        if n == 0:
            return
        centered = x - x.mean(0)
        step = x.mean(0) - self.mean
        total = self.count + n
        self.square += centered.T @ centered + torch.outer(step, step) * (self.count * n / total)
        self.mean += step * (n / total)
        self.count = total


class BPNN(nn.Module):
    """Behler-Parrinello neural network; keeps docs/model_contract.md."""

    def __init__(self, config: BPNNConfig, species: list[str]):
        super().__init__()
        functions = config.functions(species)
        columns = config.states * (config.states + 1) // 2
        self.architecture = config.architecture
        self.species = list(species)
        self.cutoff = config.cutoff
        self.num_interactions = 1
        self.readout = READOUT_ENERGY if config.states == 1 else READOUT_HAMILTONIAN
        self.readouts = [{"name": self.readout, "columns": columns}]
        self.couple = {"kind": "sum"}
        if config.states > 1:
            self.couple = {"kind": "eigenstate", "states": config.states, "state": config.state}
        self.hyperparameters = {
            "cutoff_function": config.cutoff_function,
            "hidden": list(config.hidden),
            "activation": config.activation,
            "symmetry_functions": {symbol: [f.record() for f in functions[symbol]] for symbol in species},
        }
        self.descriptor = ACSF(functions, species, config.cutoff_function)
        self.networks = nn.ModuleList(
            SpeciesNetwork(
                self.descriptor.columns(functions[symbol]), config.hidden, config.activation, columns
            )
            for symbol in species
        )
        self.register_buffer("output_scale", torch.ones(columns, dtype=torch.float64))

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readout `energy` [num_owned] or `hamiltonian` [num_owned, columns] in eV."""
        table = self.descriptor(species, edge_index, edge_vectors, num_owned)
        outputs = torch.zeros(num_owned, self.output_scale.numel(), dtype=table.dtype, device=table.device)
        for kind, network in enumerate(self.networks):
            atoms = torch.nonzero(species[:num_owned] == kind).squeeze(1)
            features = table.index_select(0, atoms).index_select(1, network.columns)
            outputs = outputs.index_add(0, atoms, network(features) * self.output_scale)
        if self.readout == "energy":
            return {"energy": outputs.squeeze(1)}
        return {"hamiltonian": outputs}

    def features(self, graph: Graph) -> list[Tensor]:
        """Return, per species, the symmetry functions [n, functions] of its atoms in the graph, unscaled."""
        table = self.descriptor(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        return [
            table[graph.species == kind][:, network.columns] for kind, network in enumerate(self.networks)
        ]

    @torch.no_grad()
    def fit_statistics(
        self, graphs: Iterable[Graph], output_scale: float, source: nn.Module | None = None
    ) -> None:
        """Set shift, scale and mixing so that the networks' inputs have mean 0 and are hardly correlated.

        `output_scale` (eV) multiplies the networks' outputs. A species that `graphs` lacks keeps its values.
        `source`, a training module of this model, evaluates the functions faster.
        """
        source = source or self
        moments = [_Moments(network.columns.numel()) for network in self.networks]
        for graph in graphs:
            for total, x in zip(moments, source.features(graph)):
                total.add(x.double())
        for network, total in zip(self.networks, moments):
            if total.count:
                network.set_statistics(total)
        self.output_scale.fill_(output_scale)

    @torch.no_grad()
    def set_mean_energies(self, energies: Mapping[str, float]) -> None:
        """Let untrained networks start at a mean energy per species, in eV: the bias of their last layer.

        Of a hamiltonian the diagonal starts there. Call it after `fit_statistics`.
        """
        states = math.isqrt(2 * self.output_scale.numel())
        diagonal = torch.eye(states, dtype=torch.float64)[tuple(torch.triu_indices(states, states))]
        for symbol, network in zip(self.species, self.networks):
            network.layers[-1].bias.copy_(diagonal * energies[symbol] / self.output_scale)

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of weights.safetensors by their names in docs/file_format.md."""
        tensors = {"output_scale": self.output_scale}
        for symbol, network in zip(self.species, self.networks):
            tensors |= {f"{symbol}.{name}": tensor for name, tensor in network.weights().items()}
        return {
            name: tensor.detach().to("cpu", torch.float64).contiguous() for name, tensor in tensors.items()
        }
