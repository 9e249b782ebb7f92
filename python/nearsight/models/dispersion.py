"""Dispersion: section `dispersion` of the configuration, and the record that it makes of published tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nearsight.errors import ConfigError

PACKAGE = "tad-dftd3"

Length = Annotated[float, Field(gt=0)]


class DampingConfig(BaseModel):
    """Parameters of the damping of Becke and Johnson; a2 in bohr, as they are published."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    s6: float = 1.0
    s8: float
    a1: float
    a2: float


class DispersionConfig(BaseModel):
    """D3(BJ) beside a model; docs/dispersion.md.

    `labels` says whether the energies, forces and virials of the data contain it, with these parameters.
    `added_by` says who adds it in simulations: the exported model, or the host by a command of its own.
    Cutoffs in Å; both end smoothly over `smoothing`, 0: sharply.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    method: Literal["d3bj"] = "d3bj"
    functional: str
    labels: Literal["with", "without"]
    added_by: Literal["model", "host"] = "model"
    parameters: DampingConfig | None = None
    cutoff: Length = 30.0
    coordination_cutoff: Length = 20.0
    smoothing: Annotated[float, Field(ge=0)] = 2.0

    @model_validator(mode="after")
    def _cutoffs_leave_room(self) -> DispersionConfig:
        if self.smoothing >= min(self.cutoff, self.coordination_cutoff):
            raise ValueError(
                f"smoothing is {self.smoothing:g} Å, but it must be below cutoff and coordination_cutoff"
            )
        return self

    def record(self, species: Sequence[str]) -> dict[str, Any]:
        """Return the record of docs/file_format.md for these chemical symbols.

        Raises:
            ConfigError: the package with the tables is not installed, or knows neither the functional nor an
                element.
        """
        damping = self.parameters or _damping(self.functional)
        settings = self.model_dump(include={"method", "functional", "added_by", "labels"})
        cutoffs = self.model_dump(include={"cutoff", "coordination_cutoff", "smoothing"})
        return settings | damping.model_dump() | cutoffs | _tables(species)


def _package() -> Any:
    try:
        import tad_dftd3
    except ImportError:
        raise ConfigError(
            f"dispersion needs the published tables of D3, which are read from the package {PACKAGE}: "
            "pip install 'nearsight[dispersion]'"
        ) from None
    return tad_dftd3


def _damping(functional: str) -> DampingConfig:
    package = _package()
    try:
        found = package.param.get_functional_params(functional, damping="bj")
    except (KeyError, ValueError):
        raise ConfigError(
            f"dispersion.functional is {functional!r}, for which {PACKAGE} has no parameters of D3(BJ); take "
            "a name as pbe, revpbe, b3lyp, or give dispersion.parameters {s8, a1, a2}"
        ) from None
    return DampingConfig(**{name: round(float(found[name]), 10) for name in ("s6", "s8", "a1", "a2")})


def _tables(species: Sequence[str]) -> dict[str, Any]:
    """Return covalent radii (Å), √(½ √Z ⟨r⁴⟩/⟨r²⟩) (bohr), and of the reference systems coordination numbers
    and C6 (hartree bohr⁶)."""
    import torch
    from ase.data import atomic_numbers

    package = _package()
    from tad_mctc.data.radii import COV_D3
    from tad_mctc.units.length import AU2AA

    numbers = [atomic_numbers.get(symbol, 0) for symbol in species]
    reference = package.reference.Reference(dtype=torch.float64, device=torch.device("cpu"))
    for symbol, number in zip(species, numbers):
        if not 0 < number < len(reference.cn):
            raise ConfigError(f"dispersion: {symbol} is no element that the tables of {PACKAGE} have")
    references = [[n for n, cn in enumerate(reference.cn[z].tolist()) if cn >= 0] for z in numbers]
    radii, r4r2 = COV_D3(dtype=torch.float64) * AU2AA, package.data.R4R2(dtype=torch.float64)
    return {
        "radii": [round(float(radii[z]), 10) for z in numbers],
        "r4r2": [float(r4r2[z]) for z in numbers],
        "coordination": [reference.cn[z, some].tolist() for z, some in zip(numbers, references)],
        "c6": [
            [reference.c6[z, y][some][:, others].tolist() for y, others in zip(numbers, references)]
            for z, some in zip(numbers, references)
        ],
    }
