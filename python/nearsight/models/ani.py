"""Atomic environment vectors of ANI in pure torch operations: scriptable and twice differentiable.

Smith, Isayev and Roitberg, Chem. Sci. 8, 3192 (2017); constants of ANI-2x: Devereux et al., J. Chem. Theory
Comput. 16, 4192 (2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nearsight.models.acsf_terms import pair_index, triplets
from nearsight.models.cutoff_functions import cutoff_function

ANICutoffFunction = Literal["cos", "exp"]


@dataclass(frozen=True)
class RadialGrid:
    """¼ exp(-η (r - shift)²) f(r) for every shift; Å."""

    cutoff: float
    eta: float
    shifts: tuple[float, ...]


@dataclass(frozen=True)
class AngularGrid:
    """2^(1-ζ) (1 + cos(θ - angle))^ζ exp(-η ((r_ij + r_ik)/2 - shift)²) f(r_ij) f(r_ik).

    For every shift (Å) and every angle (radians); θ = acos(0.95 cos∠jik).
    """

    cutoff: float
    eta: float
    zeta: float
    shifts: tuple[float, ...]
    angles: tuple[float, ...]


class ANI(nn.Module):
    """Atomic environment vectors; keeps the protocol of `nearsight.models.descriptors`.

    A row has the radial shifts of every neighbor species, then, for every unordered pair of neighbor species
    (upper triangle by rows), the angles of every angular shift: the order of ANI's parameter files.
    """

    kind = "ani"

    def __init__(
        self,
        radial: RadialGrid,
        angular: AngularGrid,
        species: list[str],
        cutoff_kind: ANICutoffFunction = "cos",
    ):
        super().__init__()
        self._species = list(species)
        self._radial = radial
        self._angular = angular
        self.cutoff_kind = cutoff_kind
        self.num_species = len(species)
        self.num_pairs = len(species) * (len(species) + 1) // 2
        self.radial_cutoff, self.radial_eta = radial.cutoff, radial.eta
        self.angular_cutoff, self.angular_eta, self.zeta = angular.cutoff, angular.eta, angular.zeta
        self.register_buffer("pair_index", pair_index(len(species)))
        self._register("radial_shifts", radial.shifts)
        self._register("angular_shifts", angular.shifts)
        self._register("cos_angles", [math.cos(angle) for angle in angular.angles])
        self._register("sin_angles", [math.sin(angle) for angle in angular.angles])

    def _register(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    @torch.jit.unused
    def columns(self, symbol: str) -> Tensor:
        """Return the columns of the table that are the features of a center: all, for every species."""
        return torch.arange(len(self.labels(symbol)))

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return {
            "kind": self.kind,
            "cutoff_function": self.cutoff_kind,
            "radial": {
                "cutoff": self._radial.cutoff,
                "eta": self._radial.eta,
                "shifts": list(self._radial.shifts),
            },
            "angular": {
                "cutoff": self._angular.cutoff,
                "eta": self._angular.eta,
                "zeta": self._angular.zeta,
                "shifts": list(self._angular.shifts),
                "angles": list(self._angular.angles),
            },
        }

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file: none, the record says all."""
        return {}

    @torch.jit.unused
    def labels(self, symbol: str) -> list[str]:
        """Return a readable name for each feature of a center of this species."""
        names = [f"radial {a} {shift:g} Å" for a in self._species for shift in self._radial.shifts]
        names += [
            f"angular {a}-{b} {shift:g} Å {math.degrees(angle):.4g}°"
            for k, a in enumerate(self._species)
            for b in self._species[k:]
            for shift in self._angular.shifts
            for angle in self._angular.angles
        ]
        return [f"{number} {name}" for number, name in enumerate(names, 1)]

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, features]; arguments as in docs/model_contract.md."""
        center, neighbor = edge_index[0], edge_index[1]
        kinds = species.index_select(0, neighbor)
        distances = torch.sqrt((edge_vectors**2).sum(1))
        radial = self.radial_features(center, kinds, distances, num_owned)
        near = torch.nonzero(distances < self.angular_cutoff).squeeze(1)
        angular = self.angular_features(
            center.index_select(0, near),
            kinds.index_select(0, near),
            edge_vectors.index_select(0, near),
            distances.index_select(0, near),
            num_owned,
        )
        return torch.cat([radial, angular], dim=1)

    def radial_features(self, center: Tensor, kinds: Tensor, distances: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, species * shifts] of edges with neighbors of these kinds."""
        r = distances.unsqueeze(1)
        terms = torch.exp(-self.radial_eta * (r - self.radial_shifts) ** 2)
        terms = 0.25 * terms * self.cutoff_values(r, self.radial_cutoff)
        sums = torch.zeros(num_owned * self.num_species, terms.size(1), dtype=r.dtype, device=r.device)
        return sums.index_add(0, center * self.num_species + kinds, terms).view(num_owned, -1)

    def angular_features(
        self, center: Tensor, kinds: Tensor, vectors: Tensor, distances: Tensor, num_owned: int
    ) -> Tensor:
        """Return [num_owned, pairs * shifts * angles] of the edges within the angular cutoff."""
        first, second = triplets(center, num_owned)
        r_ij, r_ik = distances.index_select(0, first), distances.index_select(0, second)
        dot = torch.zeros_like(r_ij)
        for component in vectors.unbind(1):  # gathers of one-dimensional tensors have a quick derivative
            dot = dot + component.index_select(0, first) * component.index_select(0, second)
        cosine = (0.95 * dot / (r_ij * r_ik)).unsqueeze(1)  # so that the sine is never 0
        sine = torch.sqrt(1.0 - cosine**2)
        base = 0.5 * (1.0 + cosine * self.cos_angles + sine * self.sin_angles)
        angle = 2.0 * torch.clamp(base, min=1e-30) ** self.zeta  # 0 may round to less

        f = self.cutoff_values(distances, self.angular_cutoff)
        ends = f.index_select(0, first) * f.index_select(0, second)
        mean = 0.5 * (r_ij + r_ik).unsqueeze(1)
        shell = torch.exp(-self.angular_eta * (mean - self.angular_shifts) ** 2) * ends.unsqueeze(1)
        terms = (shell.unsqueeze(2) * angle.unsqueeze(1)).flatten(1)

        pair = self.pair_index[kinds.index_select(0, first), kinds.index_select(0, second)]
        rows = center.index_select(0, first) * self.num_pairs + pair
        sums = torch.zeros(num_owned * self.num_pairs, terms.size(1), dtype=terms.dtype, device=terms.device)
        return sums.index_add(0, rows, terms).view(num_owned, -1)

    def cutoff_values(self, distances: Tensor, cutoff: float) -> Tensor:
        """Return f(r), zero at and beyond the cutoff."""
        return cutoff_function(self.cutoff_kind, 0.0, distances, torch.full_like(distances, cutoff))


class ANIConfig(BaseModel):
    """Atomic environment vectors of ANI; with cutoff 5.1 Å those of ANI-2x.

    Shifts are evenly spaced from `start` towards the cutoff, angles evenly between 0 and π; η in Å⁻².
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["ani"] = "ani"
    cutoff_function: ANICutoffFunction = "cos"
    start: float = Field(0.8, ge=0.0)
    radial_eta: float = Field(19.7, gt=0.0)
    radial_shifts: int = Field(16, ge=1)
    angular_cutoff: float = Field(3.5, gt=0.0)
    angular_eta: float = Field(12.5, gt=0.0)
    angular_shifts: int = Field(8, ge=1)
    zeta: float = Field(14.1, ge=1.0)
    angles: int = Field(4, ge=1)

    def check(self, cutoff: float) -> None:
        """Raise ValueError if the lengths do not fit the cutoff (Å)."""
        if self.angular_cutoff > cutoff:
            raise ValueError(f"angular_cutoff {self.angular_cutoff} Å is beyond the cutoff {cutoff} Å")
        if self.start >= self.angular_cutoff:
            raise ValueError(f"start {self.start} Å must be below the angular cutoff {self.angular_cutoff} Å")

    def build(self, cutoff: float, species: list[str]) -> ANI:
        """Return the module."""
        radial = RadialGrid(cutoff, self.radial_eta, _shifts(self.start, cutoff, self.radial_shifts))
        angular = AngularGrid(
            self.angular_cutoff,
            self.angular_eta,
            self.zeta,
            _shifts(self.start, self.angular_cutoff, self.angular_shifts),
            tuple((k + 0.5) * math.pi / self.angles for k in range(self.angles)),
        )
        return ANI(radial, angular, species, self.cutoff_function)


def _shifts(start: float, cutoff: float, count: int) -> tuple[float, ...]:
    return tuple(start + k * (cutoff - start) / count for k in range(count))
