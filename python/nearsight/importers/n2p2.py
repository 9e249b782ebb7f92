"""Potentials of n2p2 and RuNNer: a folder with input.nn, scaling.data and weights.NNN.data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from nearsight.errors import ConfigError
from nearsight.export.elements import atomic_number
from nearsight.importers.imported import Imported
from nearsight.importers.n2p2_settings import Settings, read_settings
from nearsight.models.acsf import ACSF
from nearsight.models.bpnn import BPNN
from nearsight.models.networks import NetworkShape
from nearsight.models.symmetry_functions import SymmetryFunction

_FUNCTION: TypeAdapter[SymmetryFunction] = TypeAdapter(SymmetryFunction)


@dataclass(frozen=True)
class _Scaling:
    """Scaling of the symmetry functions of one element: x = (G - shift) · scale, and the range of G."""

    shift: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


def import_n2p2(folder: str | Path, cflength: float, cfenergy: float) -> Imported:
    """Read a potential.

    Args:
        folder: has input.nn, scaling.data and weights.NNN.data.
        cflength: the potential's length units per Å, as n2p2's LAMMPS interface names it.
        cfenergy: the potential's energy units per eV.

    Raises:
        ConfigError: a file is missing or damaged, or asks for what nearsight cannot do.
    """
    folder = Path(folder)
    settings = read_settings(folder / "input.nn")
    functions = {
        symbol: [_function(record, cflength) for record in settings.functions[symbol]]
        for symbol in settings.elements
    }
    cutoff = max(f.cutoff for members in functions.values() for f in members)
    descriptor = ACSF(functions, settings.elements, settings.cutoff_function, settings.inner_fraction)
    shapes = {
        symbol: NetworkShape(tuple(network.hidden), (*network.activations, "linear"))
        for symbol, network in settings.networks.items()
    }
    model = BPNN(settings.elements, cutoff, descriptor, shapes)
    model.output_scale.fill_(1.0 / (settings.conv_energy * cfenergy))
    labels = {symbol: descriptor.labels(symbol) for symbol in settings.elements}
    scaling, notes = _read_scaling(folder / "scaling.data", settings, labels)
    with torch.no_grad():
        for symbol, network in zip(settings.elements, model.networks):
            for name in ("shift", "scale", "minimum", "maximum"):
                getattr(network, name).copy_(torch.from_numpy(getattr(scaling[symbol], name)))
            path = folder / f"weights.{atomic_number(symbol):03d}.data"
            _fill_layers(network, path, settings.normalize_nodes)
    return Imported(
        model=model,
        reference_energies={
            symbol: (settings.mean_energy + settings.atom_energies[symbol]) / cfenergy
            for symbol in settings.elements
        },
        provenance={
            "imported_from": "n2p2",
            "folder": folder.resolve().name,
            "cflength": cflength,
            "cfenergy": cfenergy,
        },
        notes=[*settings.notes, *notes],
    )


def _function(record: dict[str, Any], cflength: float) -> SymmetryFunction:
    """Return the symmetry function of a record in the potential's length unit."""
    lengths = {name: record[name] / cflength for name in ("cutoff", "r_shift", "inner") if name in record}
    widths = {"eta": record["eta"] * cflength**2} if "eta" in record else {}
    try:
        return _FUNCTION.validate_python(record | lengths | widths)
    except ValidationError as error:
        first = error.errors()[0]
        name = " ".join(str(part) for part in first["loc"][1:])
        raise ConfigError(f"symmetry function {record}: {name} {first['msg']}") from None


# ---- scaling.data


def _rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _read_scaling(
    path: Path, settings: Settings, labels: dict[str, list[str]]
) -> tuple[dict[str, _Scaling], list[str]]:
    """Return the scaling of every element, and notes on functions whose statistics look wrong."""
    rows = iter(_rows(path))
    scaling, notes = {}, []
    for number, symbol in enumerate(settings.elements, 1):
        statistics = np.array([_statistics(path, rows, symbol, number, k) for k in _count(labels[symbol])])
        scaling[symbol] = _scaling_of(statistics, settings)
        notes += _check_statistics(path, statistics, scaling[symbol], symbol, labels[symbol])
    return scaling, notes


def _count(names: list[str]) -> Iterable[int]:
    return range(1, len(names) + 1)


def _statistics(path: Path, rows: Any, symbol: str, element: int, function: int) -> list[float]:
    """Return min, max, mean and sigma (NaN where the file has none, as RuNNer's) of the next row."""
    words = next(rows, [])
    try:
        if [int(word) for word in words[:2]] != [element, function]:
            raise ValueError
        numbers = [float(word) for word in words[2:6]]
        if len(numbers) < 3:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{path}: expected the statistics of function {function} of {symbol} ({element} {function} …), "
            f"found {' '.join(words) or 'the end of the file'}; does it belong to this input.nn?"
        ) from None
    return [*numbers, math.nan][:4]


def _scaling_of(statistics: np.ndarray, settings: Settings) -> _Scaling:
    """Return n2p2's scaling types: none, scale, center, scale and center, scale by sigma."""
    low, high, mean, sigma = statistics.T
    bottom, top = settings.scaling_range
    scale, center = (
        "scale_symmetry_functions" in settings.scaling,
        "center_symmetry_functions" in settings.scaling,
    )
    by_sigma = "scale_symmetry_functions_sigma" in settings.scaling and not scale and not center
    with np.errstate(divide="ignore", invalid="ignore"):
        if not (scale or by_sigma):
            return _Scaling(mean if center else np.zeros_like(mean), np.ones_like(mean), low, high)
        factor = (top - bottom) / (sigma if by_sigma else high - low)
        return _Scaling((low if scale and not center else mean) - bottom / factor, factor, low, high)


def _check_statistics(
    path: Path, statistics: np.ndarray, scaling: _Scaling, symbol: str, labels: list[str]
) -> list[str]:
    """Return notes on functions that are constant or have no range; raise if their scaling is impossible."""
    low, high = statistics[:, 0], statistics[:, 1]
    impossible = ~np.isfinite(scaling.shift) | ~np.isfinite(scaling.scale)
    if impossible.any():
        names = "; ".join(f"{symbol} {labels[k]}" for k in np.flatnonzero(impossible))
        raise ConfigError(
            f"{path}: these functions are constant or have no statistics to scale with: {names}"
        )
    empty = ~((low <= high) & np.isfinite(low) & np.isfinite(high))
    wrong = [("constant in the training set", (low == high) & ~empty), ("without a range", empty)]
    return [
        f"symmetry functions {text}: " + "; ".join(f"{symbol} {labels[k]}" for k in np.flatnonzero(which))
        for text, which in wrong
        if which.any()
    ]


# ---- weights.NNN.data


def _fill_layers(network: Any, path: Path, normalize_nodes: bool) -> None:
    """Set weights and biases: per layer all weights by input node, then the biases."""
    try:
        values = [float(words[0]) for words in _rows(path)]
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    expected = sum(layer.weight.numel() + layer.bias.numel() for layer in network.layers)
    if len(values) != expected:
        raise ConfigError(
            f"{path} has {len(values)} weights, expected {expected} for the symmetry functions and nodes of "
            "input.nn"
        )
    remaining = torch.tensor(values, dtype=torch.float64)
    for layer in network.layers:
        _, outputs, inputs = layer.weight.shape
        weight, bias, remaining = remaining.split(
            [inputs * outputs, outputs, remaining.numel() - (inputs + 1) * outputs]
        )
        divisor = inputs if normalize_nodes else 1
        layer.weight.copy_(weight.view(inputs, outputs).T / divisor)
        layer.bias.copy_(bias / divisor)
