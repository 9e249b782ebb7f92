"""The atomic cluster expansion: invariants of the moments by body order.

Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454, 110946 (2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from nearsight.models.couplings import Function, MomentLayout, build_products, functions_by_degree
from nearsight.models.moments import MomentDescriptor, RadialTables
from nearsight.models.radial_basis import distance_polynomials, tabulate

Size = Literal["small", "medium", "large"]
_PRESETS: dict[Size, tuple[int, ...]] = {  # largest degree of the functions of one, two and three moments
    "small": (12, 10, 8),
    "medium": (16, 14, 12),
    "large": (18, 16, 14),
}
_REACH = 1.2  # nearest-neighbor distance of the radial functions over the sum of covalent radii


class ACEConfig(BaseModel):
    """Functions of one to three moments (body order two to four) up to a total degree Σ (n + l_weight · l).

    `size` gives 264, 979 or 1750 functions for one species, and lower degrees for several, so that there are
    at most so many for each of them. `max_degree`, one number for each order, replaces it. The radial
    functions are finest around `nearest` (Å), by default 1.2 times the sum of the covalent radii of a pair.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["ace"] = "ace"
    size: Size = "medium"
    max_degree: list[float] | None = Field(None, min_length=1, max_length=3)
    l_max: int = Field(6, ge=0, le=8)
    l_weight: float = Field(1.0, gt=0.0)
    nearest: float | None = Field(None, gt=0.0)

    @field_validator("max_degree")
    @classmethod
    def _not_negative(cls, degrees: list[float] | None) -> list[float] | None:
        if degrees is not None and min(degrees) < 0:
            raise ValueError(f"max_degree needs numbers from 0 on, found {degrees}")
        return degrees

    def check(self, cutoff: float) -> None:
        """Raise ValueError if the cutoff (Å) does not fit."""
        if self.nearest is not None and self.nearest >= cutoff:
            raise ValueError(f"nearest is {self.nearest} Å, expected less than the cutoff {cutoff} Å")

    def build(self, cutoff: float, species: list[str]) -> ACE:
        """Return the module."""
        return ACE(self, cutoff, species)


class ACE(MomentDescriptor):
    """The descriptor of an `ACEConfig`."""

    def __init__(self, config: ACEConfig, cutoff: float, species: list[str]):
        max_degree = config.max_degree or preset_degrees(config, len(species))
        found = list(functions_by_degree(len(species), max_degree, config.l_max, config.l_weight))
        functions = [function for function, _ in found]
        counts = _radial_counts(functions)
        layout = MomentLayout(len(species), counts)
        super().__init__(
            "ace",
            species,
            cutoff,
            layout,
            _radial_tables(config, cutoff, species, counts),
            build_products(layout, functions),
            [_label(function, species) for function in functions],
            [degree for _, degree in found],
            description={"max_degree": list(max_degree), "l_weight": config.l_weight},
        )


def preset_degrees(config: ACEConfig, num_species: int) -> list[int]:
    """Return the largest degrees of the size with at most num_species times the functions of one species."""

    def count(species: int, degrees: Iterable[float]) -> int:
        return sum(1 for _ in functions_by_degree(species, list(degrees), config.l_max, config.l_weight))

    limit = num_species * count(1, _PRESETS[config.size])
    less = 0
    while count(num_species, degrees := [max(d - less, 0) for d in _PRESETS[config.size]]) > limit:
        less += 1
    return degrees


def _radial_counts(functions: Sequence[Function]) -> tuple[int, ...]:
    moments = {moment for function in functions for moment in function}
    l_max = max(l for _, l, _ in moments)  # noqa: E741
    return tuple(1 + max(n for _, k, n in moments if k == l) for l in range(l_max + 1))  # noqa: E741


def _radial_tables(
    config: ACEConfig, cutoff: float, species: Sequence[str], counts: Sequence[int]
) -> RadialTables:
    """Return one table for each distinct nearest-neighbor distance."""
    from ase.data import atomic_numbers, covalent_radii

    radii = [covalent_radii[atomic_numbers[symbol]] for symbol in species]
    nearest = [[config.nearest or round(_REACH * float(a + b), 4) for b in radii] for a in radii]
    distinct = sorted({distance for row in nearest for distance in row})
    tables = [
        tabulate(lambda r, scale=scale: distance_polynomials(r, cutoff, scale, max(counts)), cutoff)
        for scale in distinct
    ]
    return RadialTables(
        values=np.stack(tables),
        table_of=np.array([[distinct.index(distance) for distance in row] for row in nearest]),
        first=(0,) * len(counts),
        at_center=np.zeros(counts[0]),
    )


def _label(function: Function, species: Sequence[str]) -> str:
    return " ".join(f"{species[channel]}(n={n},l={l})" for channel, l, n in function)  # noqa: E741
