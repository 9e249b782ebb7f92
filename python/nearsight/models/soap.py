"""The smooth overlap of atomic positions: power spectrum (Bartók et al., Phys. Rev. B 87, 184115, 2013).

    p_{cn,c'n',l} = π √(8 / (2l + 1)) Σ_m A_{cnlm} A_{c'n'lm}

Each unordered pair of (c, n) and (c', n') is given once, times √2 where they differ, so that the scalar
product of two feature vectors is that of the full power spectra.

What it cannot tell apart: it knows pairs of neighbors only, by their distances to the center and the angle
between them. So a neighborhood and its mirror image have the same features, and so have some pairs of
different neighborhoods of four or more neighbors (Pozdnyakov et al., Phys. Rev. Lett. 125, 166001, 2020).
Energies do not change under reflection, so that only the latter can matter to a potential; ACE, with three
moments, tells many of these apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nearsight.models.couplings import Function, MomentLayout, Products, build_products
from nearsight.models.cutoff_functions import core_function
from nearsight.models.moments import MomentDescriptor, RadialTables
from nearsight.models.radial_basis import (
    RadialForm,
    gaussian_density,
    orthonormal_bessel,
    orthonormal_chebyshev,
    tabulate,
)

_DEFAULT_SMEARING = 0.5  # Å


class RadialScaling(BaseModel):
    """Neighbors count u(r) = rate / (rate + (r / scale)^exponent) (Willatt et al., PCCP 20, 29661, 2018)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rate: float = Field(1.0, gt=0.0)
    scale: float = Field(2.0, gt=0.0)
    exponent: int = Field(6, ge=1)


class SOAPConfig(BaseModel):
    """Power spectrum of n_max radial functions of each l <= l_max.

    `radial` is `gto`: Gaussian-type orbitals, the density of each neighbor a Gaussian of width `smearing`
    (Å); or `chebyshev` or `bessel`: orthonormal functions of the distance, neighbors are points. The center
    counts `center_weight` times. With `species_channels` the species of neighbors are mixed into so many
    channels, with trained weights, so that the number of features does not grow with that of the species.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["soap"] = "soap"
    n_max: int = Field(8, ge=1, le=32)
    l_max: int = Field(6, ge=0, le=8)
    radial: Literal["gto", "chebyshev", "bessel"] = "gto"
    smearing: float | None = Field(None, gt=0.0)
    cutoff_function: Literal["poly1", "poly2", "poly3", "poly4"] = "poly2"
    radial_scaling: RadialScaling | None = None
    center_weight: float = Field(1.0, ge=0.0)
    normalize: bool = False
    species_channels: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> SOAPConfig:
        if self.smearing is not None and self.radial != "gto":
            raise ValueError(f"smearing belongs to radial gto; leave it out with radial {self.radial}")
        if self.normalize and self.center_weight == 0.0:
            raise ValueError("normalize needs a center_weight above 0: a lone atom would have no features")
        return self

    def check(self, cutoff: float) -> None:
        """Raise ValueError if the cutoff (Å) does not fit."""
        if self.radial == "gto" and cutoff <= 1.0:
            raise ValueError(f"radial gto needs a cutoff above 1 Å, found {cutoff} Å")

    def build(self, cutoff: float, species: list[str]) -> SOAP:
        """Return the module."""
        return SOAP(self, cutoff, species)

    def form(self, cutoff: float) -> RadialForm:
        """Return the radial functions of all l, [points, (l_max + 1) * n_max], without cutoff and scaling."""
        if self.radial == "gto":
            smearing = self.smearing or _DEFAULT_SMEARING
            return lambda r: gaussian_density(r, cutoff, smearing, self.n_max, self.l_max)
        basis = orthonormal_bessel if self.radial == "bessel" else orthonormal_chebyshev
        return lambda r: basis(r, cutoff, self.n_max)


class SOAP(MomentDescriptor):
    """The descriptor of a `SOAPConfig`."""

    def __init__(self, config: SOAPConfig, cutoff: float, species: list[str]):
        mix = config.species_channels is not None
        channels = [f"channel {c}" for c in range(config.species_channels)] if mix else species
        layout = MomentLayout(len(channels), (config.n_max,) * (config.l_max + 1))
        functions = _functions(layout)
        super().__init__(
            "soap",
            species,
            cutoff,
            layout,
            _radial_tables(config, cutoff, len(species)),
            _power_spectrum(layout, functions),
            [_label(function, channels) for function in functions],
            [float(sum(l + n for _, l, n in function)) for function in functions],  # noqa: E741
            normalize=config.normalize,
            mix=mix,
            description=config.model_dump(mode="json", exclude={"kind", "normalize"}, exclude_none=True),
        )


def _radial_tables(config: SOAPConfig, cutoff: float, num_species: int) -> RadialTables:
    form = config.form(cutoff)

    def weight(r: np.ndarray) -> np.ndarray:
        values = core_function(config.cutoff_function, torch.from_numpy(r / cutoff)).numpy()
        if config.radial_scaling is not None:
            u = config.radial_scaling
            values = values * u.rate / (u.rate + (r / u.scale) ** u.exponent)
        return values[:, None]

    per_l = config.radial == "gto"
    own = form(np.zeros(1))[0, : config.n_max] * math.sqrt(0.25 / math.pi)
    return RadialTables(
        values=tabulate(lambda r: form(r) * weight(r), cutoff)[None],
        table_of=np.zeros((num_species, num_species), dtype=np.int64),
        first=tuple(l * config.n_max * per_l for l in range(config.l_max + 1)),  # noqa: E741
        at_center=config.center_weight * own,
    )


def _functions(layout: MomentLayout) -> list[Function]:
    n_max = layout.radial_counts[0]
    single = [(channel, n) for channel in range(layout.channels) for n in range(n_max)]
    return [
        ((c, l, n), (other_c, l, other_n))
        for place, (c, n) in enumerate(single)
        for other_c, other_n in single[place:]
        for l in range(len(layout.radial_counts))  # noqa: E741
    ]


def _power_spectrum(layout: MomentLayout, functions: Sequence[Function]) -> Products:
    products = build_products(layout, functions)
    factor = np.zeros(products.num_nodes)
    factor[products.features] = [
        math.pi * math.sqrt(8.0) * (1.0 if first == second else math.sqrt(2.0)) for first, second in functions
    ]
    rows = products.rows.copy()
    rows[:, 3] *= factor[rows[:, 0].astype(np.int64)]
    return Products(products.num_moments, rows, products.features, products.levels)


def _label(function: Function, channels: Sequence[str]) -> str:
    (c, l, n), (other_c, _, other_n) = function  # noqa: E741
    return f"{channels[c]}(n={n}) {channels[other_c]}(n={other_n}) l={l}"
