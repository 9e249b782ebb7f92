"""Models of torchani (2.7 and newer), as Python objects. torchani itself is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearsight.errors import ConfigError
from nearsight.importers.ani import Ensemble, Network
from nearsight.importers.imported import Imported
from nearsight.models.ani import AngularGrid, ANICutoffFunction, RadialGrid

_ACTIVATIONS = {"TightCELU": "celu", "GELU": "gelu", "SiLU": "silu", "Tanh": "tanh"}


def from_torchani(model: Any) -> Imported:
    """Take a model of torchani with its active members, for instance `torchani.models.ANI2x()`.

    Raises:
        ConfigError: the model has a part that nearsight does not know: repulsion, dispersion, charges.
    """
    if not type(model).__module__.startswith("torchani.") or not hasattr(model, "potentials"):
        raise ConfigError(
            f"expected a model of torchani 2.7 or newer such as torchani.models.ANI2x(), found "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    parts = {name: part for name, part in model.potentials.items() if getattr(part, "_enabled", True)}
    others = [f"{name} ({type(part).__name__})" for name, part in parts.items() if name != "nnp"]
    if others or type(model).__name__ != "ANI":
        raise ConfigError(
            f"a torchani model of type {type(model).__name__} with {' and '.join(others) or 'charges'} "
            "cannot be imported: only the neural network potential is known; take a model without them"
        )
    symbols = list(model.symbols)
    aev = _known(model.aev_computer, "environment vector", "AEVComputer")
    radial = _known(aev.radial, "radial term", "ANIRadial")
    angular = _known(aev.angular, "angular term", "ANIAngular")
    energies = model.energy_shifter.self_energies.tolist()
    return Ensemble(
        species=symbols,
        radial=RadialGrid(radial.cutoff, _number(radial.eta), _numbers(radial.shifts)),
        angular=AngularGrid(
            angular.cutoff,
            _number(angular.eta),
            _number(angular.zeta),
            _numbers(angular.shifts),
            _numbers(angular.sections),
        ),
        cutoff_function=_cutoff_function(radial.cutoff_fn, angular.cutoff_fn),
        self_energies=dict(zip(symbols, energies)),
        members=[
            {symbol: _network(member.atomics[symbol], symbol) for symbol in symbols}
            for member in _members(model.neural_networks)
        ],
        provenance={"imported_from": "torchani"},
    ).imported()


def _known(part: Any, what: str, *names: str) -> Any:
    if type(part).__name__ not in names:
        raise ConfigError(
            f"the torchani model has the {what} {type(part).__name__}, which is not known; expected "
            f"{' or '.join(names)}"
        )
    return part


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())


def _number(values: Tensor) -> float:
    return values.item()


def _cutoff_function(*functions: Any) -> ANICutoffFunction:
    kinds: set[ANICutoffFunction] = set()
    for function in functions:
        _known(function, "cutoff function", "CutoffCosine", "CutoffSmooth")
        smooth = type(function).__name__ == "CutoffSmooth"
        if smooth and function.order != 2:
            raise ConfigError(f"the torchani model has a smooth cutoff of order {function.order}, expected 2")
        kinds.add("exp" if smooth else "cos")
    if len(kinds) > 1:
        raise ConfigError(
            "the torchani model has two kinds of cutoff function, expected the same in all terms"
        )
    return kinds.pop()


def _members(networks: Any) -> list[Any]:
    _known(networks, "container of networks", "Ensemble", "ANINetworks")
    if type(networks).__name__ == "ANINetworks":
        return [networks]
    members = [networks.members[number] for number in networks.active_members_idxs]
    return [_known(member, "container of networks", "ANINetworks") for member in members]


def _network(network: Any, symbol: str) -> Network:
    _known(network, f"network of {symbol}", "AtomicNetwork")
    activation = _known(network.activation, f"activation in the network of {symbol}", *_ACTIVATIONS)
    if getattr(activation, "approximate", "none") != "none":
        raise ConfigError(f"the network of {symbol} has an approximate GELU, expected approximate='none'")
    layers = [*network.layers, network.final_layer]
    hidden = _ACTIVATIONS[type(activation).__name__]
    return Network(
        weights=[_array(layer.weight) for layer in layers],
        biases=[
            np.zeros(layer.out_features) if layer.bias is None else _array(layer.bias) for layer in layers
        ],
        activations=(hidden,) * len(network.layers) + ("linear",),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float64).numpy()
