"""Configuration of MACE models, and the canonical form that an untrained one begins with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nearsight.data.elements import atomic_numbers, covalent_radii
from nearsight.models.couplings import coupling
from nearsight.models.irreps import SCALAR, Irrep, in_order, irrep, parse_irreps
from nearsight.models.mace import MACE
from nearsight.models.polynomials import symmetric_polynomials

_READOUT_WIDTH = 16  # hidden layer of the last readout, for each column
_DENSITY_WIDTH = 64
_DEGREE_SIZE = 0.3  # of polynomials of a degree, relative to those of one degree less
_SILU_GAIN = 1.6765  # makes the mean square of silu of a normal variable 1


class RadialConfig(BaseModel):
    """Radial functions: dense networks on a basis.

    `envelope`: what the envelope multiplies, the basis or the radial functions.
    """

    model_config = ConfigDict(extra="forbid")

    basis: Literal["bessel", "chebyshev", "gaussian"] = "bessel"
    count: int = Field(8, ge=2)
    hidden: list[int] = [64, 64, 64]
    envelope: Literal["basis", "functions"] = "basis"
    envelope_order: int = Field(5, ge=3)
    transform: Literal["agnesi", "soft"] | None = None

    def record(self, cutoff: float, species: Sequence[str]) -> dict[str, Any]:
        """Return the object `radial` of the hyperparameters; cutoff in Å."""
        basis: dict[str, Any] = {"kind": self.basis, "count": self.count}
        if self.basis == "gaussian":
            basis["width"] = cutoff / (self.count - 1)
        if self.basis == "chebyshev":  # agnesi's distance goes from 1 to 0
            basis |= (
                {"shift": -1.0, "slope": 2.0}
                if self.transform == "agnesi"
                else {"shift": 1.0, "slope": -2.0 / cutoff}
            )
        constants = {"agnesi": {"q": 0.9183, "p": 4.5791, "a": 1.0805}, "soft": {"alpha": 4.0}}
        transform = None
        if self.transform:
            radii = covalent_radii(species)
            transform = {"kind": self.transform, **constants[self.transform], "radii": radii}
        return {
            "basis": basis,
            "envelope": self.envelope,
            "envelope_order": self.envelope_order,
            "transform": transform,
        }

    def initial_weights(self, outputs: int) -> dict[str, Tensor]:
        """Return random layers; functions that oscillate faster have smaller weights, so that these begin,
        and remain, smooth."""
        layers = _dense("radial", [self.count, *self.hidden, outputs])
        if self.basis != "gaussian":
            layers["radial.0.weight"] /= torch.arange(1, self.count + 1)
        return layers

    def tables(self, cutoff: float) -> dict[str, Tensor]:
        """Return the tensors of the basis."""
        if self.basis == "bessel":
            return {
                "radial.frequencies": torch.arange(1, self.count + 1, dtype=torch.float64) * math.pi / cutoff
            }
        if self.basis == "gaussian":
            return {"radial.centers": torch.linspace(0.0, cutoff, self.count, dtype=torch.float64)}
        return {}


class MACEConfig(BaseModel):
    """Configuration of a MACE model; cutoff in Å.

    With one interaction the model is strictly local, and `hidden`, the features between interactions, is not
    used.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    architecture: Literal["mace"] = "mace"
    cutoff: float = Field(5.0, gt=0.0)
    channels: int = Field(64, ge=1)
    l_max: int = Field(3, ge=0, le=6)
    hidden: str = "0e + 1o"
    correlation: int = Field(3, ge=1, le=3)
    num_interactions: int = Field(1, ge=1)
    radial: RadialConfig = RadialConfig()
    density: bool = False
    zbl: bool = False
    walls: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> MACEConfig:
        if SCALAR not in parse_irreps(self.hidden):
            raise ValueError(f"hidden needs the scalars 0e, found {self.hidden!r}")
        return self

    def build(self, species: list[str], readouts: Mapping[str, int] | None = None) -> MACE:
        """Return an untrained model, its weights drawn from torch's global random numbers; `readouts` as of
        `MACE`."""
        record, columns = self.record(species), 1 + sum((readouts or {}).values())
        weights = self.initial_weights(record, len(species), columns)
        return MACE(species, self.cutoff, record, weights, readouts)

    def record(self, species: Sequence[str]) -> dict[str, Any]:
        """Return the hyperparameters of the model file."""
        hidden = parse_irreps(self.hidden)
        messages = message_irreps(self.l_max, hidden)
        inputs, layers = (SCALAR,), []
        for t in range(self.num_interactions):
            last = t == self.num_interactions - 1
            outputs = (SCALAR,) if last else hidden
            readout = "mlp" if last else "linear"
            layers.append(
                layer_record(inputs, messages, outputs, self.l_max, self.correlation)
                | {"density": self.density, "readout": readout}
            )
            inputs = outputs
        zbl = None
        if self.zbl:
            numbers, radii = atomic_numbers(species), covalent_radii(species)
            zbl = {"p": 6, "a_exponent": 0.3, "a_prefactor": 0.4543, "numbers": numbers, "radii": radii}
            zbl["scale"] = 1.0
        return {
            "channels": self.channels,
            "l_max": self.l_max,
            "radial": self.radial.record(self.cutoff, species),
            "zbl": zbl,
            "walls": {"slope": 4.0, "repulsion": 100.0} if self.walls else None,
            "layers": layers,
        }

    def initial_weights(self, record: dict[str, Any], num_species: int, columns: int) -> dict[str, Tensor]:
        """Return random tensors for the record and so many columns of readouts, such that features of unit
        variance stay so."""
        tensors = {"embedding": _normal(num_species, self.channels), **self.radial.tables(self.cutoff)}
        for t, layer in enumerate(record["layers"]):
            tensors |= {
                f"layers.{t}.{name}": tensor
                for name, tensor in self._layer_weights(t, layer, num_species, columns).items()
            }
        return tensors

    def _layer_weights(
        self, t: int, layer: dict[str, Any], num_species: int, columns: int
    ) -> dict[str, Tensor]:
        k = self.channels
        hidden = [_READOUT_WIDTH * columns] if layer["readout"] == "mlp" else []
        source, message, output = (tuple(map(irrep, layer[part])) for part in ("input", "message", "output"))
        polynomials = symmetric_polynomials(message, output, self.correlation)
        counts = torch.tensor([polynomials.outputs.count(number) for number in polynomials.outputs])
        reached = [path[2] for path in layer["paths"]]
        tensors = {
            "couplings": torch.from_numpy(coupling_rows(layer["paths"])),
            "product.terms": torch.from_numpy(smaller_by_degree(polynomials.rows)),
            "product.weights": _normal(num_species, polynomials.num_paths, k) / counts.sqrt().unsqueeze(1),
            **self.radial.initial_weights(len(layer["paths"]) * k),
            **_dense("readout", [k, *hidden, columns]),
        }
        for which in message:
            inputs = reached.count(str(which)) * k
            tensors[f"message.{which}"] = _normal(k, inputs) / math.sqrt(inputs)
        for which in output:
            tensors[f"update.{which}"] = _normal(k, k) / math.sqrt(k)
        if self.density:
            tensors |= _dense("density", [self.radial.count, _DENSITY_WIDTH, 1])
        if t == 0:
            tensors["skip"] = _normal(num_species, k)
        else:
            tensors |= {f"up.{which}": _normal(k, k) / math.sqrt(k) for which in source}
            common = [which for which in output if which in source]
            tensors |= {f"skip.{which}": _normal(num_species, k, k) / math.sqrt(k) for which in common}
        return tensors


def message_irreps(l_max: int, hidden: Sequence[Irrep]) -> tuple[Irrep, ...]:
    """Return the irreps of messages: natural ones, and all if any of the hidden ones is not natural."""
    parities = (1, -1)
    everything = [Irrep(l, p) for l in range(l_max + 1) for p in parities]  # noqa: E741
    if all(which.natural for which in hidden):
        everything = [which for which in everything if which.natural]
    return in_order(everything)


def layer_record(
    inputs: Sequence[Irrep], messages: Sequence[Irrep], outputs: Sequence[Irrep], l_max: int, correlation: int
) -> dict[str, Any]:
    """Return irreps and paths of a layer; message irreps that no path reaches are left out."""
    paths = [
        [str(one), l2, str(three)]
        for three in messages
        for one in inputs
        for l2 in range(l_max + 1)
        if one.p * (-1) ** l2 == three.p and abs(one.l - l2) <= three.l <= one.l + l2
    ]
    reached = {path[2] for path in paths}
    return {
        "input": [str(which) for which in inputs],
        "message": [str(which) for which in messages if str(which) in reached],
        "output": [str(which) for which in outputs],
        "paths": paths,
        "correlation": correlation,
    }


def smaller_by_degree(rows: np.ndarray) -> np.ndarray:
    """Return the terms of polynomials (docs/file_format.md), with smaller coefficients for higher degrees.

    A step of the optimizer then changes the model less by them: of the models that fit the data, training
    finds smoother ones, which extrapolate better.
    """
    degrees = (rows[:, 2:5] >= 0).sum(axis=1)
    return np.column_stack([rows[:, :5], rows[:, 5] * _DEGREE_SIZE ** (degrees - 1.0)])


def coupling_rows(paths: Sequence[tuple[str, int, str]]) -> np.ndarray:
    """Return the table of couplings of paths, [rows, 3]: (index into Φ, index of Y, coefficient)."""
    rows, begin = [], 0
    for one, l2, three in paths:
        tensor = coupling(irrep(one).l, l2, irrep(three).l).transpose(2, 0, 1)  # m3, m1, m2
        place, m2 = np.nonzero(tensor.reshape(-1, 2 * l2 + 1))
        values = tensor.reshape(-1, 2 * l2 + 1)[place, m2]
        rows.append(np.stack([begin + place, l2 * l2 + m2, values], axis=1))
        begin += tensor.shape[0] * tensor.shape[1]
    return np.concatenate(rows)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _dense(name: str, widths: Sequence[int]) -> dict[str, Tensor]:
    """Random dense layers of these widths, with silu between them."""
    return {
        f"{name}.{n}.weight": _normal(b, a) * (_SILU_GAIN if n else 1.0) / math.sqrt(a)
        for n, (a, b) in enumerate(pairwise(widths))
    }
