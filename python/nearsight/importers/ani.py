"""ANI models: what all their sources have in common, and how it becomes one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nearsight.errors import ConfigError
from nearsight.importers.imported import Imported
from nearsight.models.ani import ANI, AngularGrid, ANICutoffFunction, RadialGrid
from nearsight.models.bpnn import BPNN
from nearsight.models.networks import NetworkShape
from nearsight.units import HARTREE


@dataclass(frozen=True)
class Network:
    """Layers of one network: weights [out, in], biases [out], activations as `NetworkShape` names them."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    activations: tuple[str, ...]

    @property
    def widths(self) -> list[int]:
        """Return the number of outputs of every layer."""
        return [len(bias) for bias in self.biases]


@dataclass(frozen=True)
class Ensemble:
    """An ANI model; energies in hartree."""

    species: list[str]  # in the order of the environment vector
    radial: RadialGrid
    angular: AngularGrid
    cutoff_function: ANICutoffFunction
    self_energies: Mapping[str, float]
    members: Sequence[Mapping[str, Network]]  # for every species
    provenance: Mapping[str, Any]

    def imported(self) -> Imported:
        """Return the model with the mean over its members as energy, in eV.

        Raises:
            ConfigError: the members' networks are not of one shape, or do not fit the environment vector.
        """
        descriptor = ANI(self.radial, self.angular, self.species, self.cutoff_function)
        shapes = {symbol: self._shape(symbol, descriptor.columns(symbol).numel()) for symbol in self.species}
        model = BPNN(
            self.species,
            max(self.radial.cutoff, self.angular.cutoff),
            descriptor,
            shapes,
            members=len(self.members),
            whiten=False,
        )
        model.output_scale.fill_(HARTREE)
        with torch.no_grad():
            for symbol, network in zip(self.species, model.networks):
                for member, source in enumerate(self.members):
                    for k, layer in enumerate(network.layers):
                        layer.weight[member].copy_(torch.from_numpy(source[symbol].weights[k]))
                        layer.bias[member].copy_(torch.from_numpy(source[symbol].biases[k]))
        return Imported(
            model=model,
            reference_energies={s: HARTREE * self.self_energies[s] for s in self.species},
            provenance=self.provenance,
        )

    def _shape(self, symbol: str, inputs: int) -> NetworkShape:
        networks = [member[symbol] for member in self.members]
        first = networks[0]
        if any(n.widths != first.widths or n.activations != first.activations for n in networks):
            raise ConfigError(
                f"the networks of {symbol} are not of the same shape in all members: import them one by one "
                "(--members)"
            )
        found = [weight.shape[1] for weight in first.weights]
        expected = [inputs, *first.widths[:-1]]
        if found != expected or first.widths[-1] != 1:
            raise ConfigError(
                f"the network of {symbol} has layers with {found} inputs and {first.widths} outputs; "
                f"expected {expected} inputs, from an environment vector of {inputs} numbers, and 1 output "
                "at the end"
            )
        return NetworkShape(tuple(first.widths[:-1]), first.activations)
