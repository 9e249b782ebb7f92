"""Charges of atoms: section `long_range` of the configuration, and what it makes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nearsight.data.elements import covalent_radii
from nearsight.errors import ConfigError
from nearsight.keys import READOUT_CHARGE, READOUT_CHARGE_WEIGHT, READOUT_ELECTRONEGATIVITY

_LATENT_WIDTH = 1.0  # Å
_HARDNESS = 12.0  # eV/e², where training of a learned one begins
_SCALES = {READOUT_CHARGE: 0.1}  # e, of untrained networks with outputs of order 1; others 1

Width = Annotated[float, Field(ge=0)]


class LongRangeConfig(BaseModel):
    """Charges that interact by PME, or by the direct sum in open systems; docs/electrostatics.md.

    `fixed`: a number for each species. `environment`: readouts of the model, whose sum is the total charge of
    the frame. `latent`: the same, of Gaussians, and not to be compared with charges of the data; `channels`
    of them, which do not see each other. `equilibrated`: those of least energy for electronegativities from
    the model and a `hardness` (eV/e²) of each species, null: learned, to the relative `residual`. Widths in Å
    are those of Gaussians, null: points, of equilibrated charges learned.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    charges: Literal["fixed", "environment", "latent", "equilibrated"]
    values: dict[str, float] | None = None
    hardness: dict[str, float] | None = None
    channels: Annotated[int, Field(ge=1)] = 1
    widths: Width | dict[str, Width] | None = None
    weighted: bool = False
    rtol: Annotated[float, Field(ge=1e-10, le=1e-2)] = 1e-4
    residual: Annotated[float, Field(ge=1e-13, le=1e-2)] = 1e-6

    @model_validator(mode="after")
    def _consistent(self) -> LongRangeConfig:
        if (self.charges == "fixed") != (self.values is not None):
            raise ValueError("values {H: 0.4, …} are needed for fixed charges, and for them alone")
        if self.charges in ("fixed", "equilibrated") and self.weighted:
            raise ValueError(
                f"{self.charges} charges are not projected to a total charge; leave weighted out"
            )
        if self.charges != "latent" and self.channels > 1:
            raise ValueError(
                f"only latent charges have several channels, found {self.channels} of {self.charges} charges"
            )
        if self.charges == "latent" and "widths" not in self.model_fields_set:
            self.widths = _LATENT_WIDTH
        return self._check_equilibrated()

    def _check_equilibrated(self) -> LongRangeConfig:
        if self.charges != "equilibrated":
            for name in ("hardness", "residual"):  # a checkpoint's configuration has the defaults
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of equilibrated charges alone; leave it out")
        widths = self.widths.values() if isinstance(self.widths, dict) else [self.widths]
        if self.charges == "equilibrated" and 0.0 in widths:
            raise ValueError("equilibrated charges are Gaussians: give widths above 0, or null: learned")
        return self

    @property
    def learned(self) -> list[str]:
        """Numbers of the species in the couple's record that are only where training begins."""
        names = ("hardness", "widths") if self.charges == "equilibrated" else ()
        return [name for name in names if getattr(self, name) is None]

    def couple(self, species: list[str]) -> dict[str, Any]:
        """Return the couple of docs/file_format.md for a model of these species, with the numbers where
        training begins of what is `learned`: of widths covalent radii.

        Raises:
            ConfigError: a species without a charge or a width, or one that the model does not have.
        """
        record: dict[str, Any] = {"kind": "coulomb", "charges": self.charges, "channels": self.channels}
        if self.values is not None:
            record["values"] = _by_species("values", self.values, species)
        widths = dict.fromkeys(species, self.widths) if isinstance(self.widths, float) else self.widths
        record["widths"] = None if widths is None else _by_species("widths", widths, species)
        if self.charges != "equilibrated":
            return record | {"weighted": self.weighted, "rtol": self.rtol}
        hardness = self.hardness or dict.fromkeys(species, _HARDNESS)
        record["hardness"] = _by_species("hardness", hardness, species)
        record["widths"] = record["widths"] or [float(radius) for radius in covalent_radii(species)]
        return record | {"rtol": self.rtol, "residual": self.residual}

    def readouts(self) -> dict[str, int]:
        """Return the columns of the readouts that a model needs beside its energy."""
        if self.charges == "fixed":
            return {}
        if self.charges == "equilibrated":
            return {READOUT_ELECTRONEGATIVITY: 1}
        return {READOUT_CHARGE: self.channels} | ({READOUT_CHARGE_WEIGHT: 1} if self.weighted else {})


def readout_scales(readouts: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return what multiplies the outputs that are these readouts of a model, [columns]."""
    scales = [_SCALES.get(readout["name"], 1.0) for readout in readouts for _ in range(readout["columns"])]
    return torch.tensor(scales, dtype=torch.float64)


def _by_species(name: str, numbers: dict[str, float], species: list[str]) -> list[float]:
    if set(numbers) != set(species):
        raise ConfigError(
            f"long_range.{name} has numbers for {', '.join(sorted(numbers))}, but the species of "
            f"the training set are {', '.join(species)}."
        )
    return [float(numbers[symbol]) for symbol in species]
