"""Parameters of atom-centered symmetry functions: validated records, and automatic sets by cutoff and size.

The records have the form of docs/file_format.md: radial G2, angular_narrow G4 (with r_jk) and angular_wide
G5, the types 2, 3 and 9 of n2p2. η is in Å⁻², distances in Å.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Size = Literal["small", "medium", "large"]


class _Function(BaseModel):
    kind: str
    neighbors: tuple[str, ...]
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    eta: float = Field(ge=0.0)
    r_shift: float = Field(0.0, ge=0.0)
    cutoff: float = Field(gt=0.0)

    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return self.model_dump(mode="json", by_alias=True)

    def label(self) -> str:
        """Return a readable name: the kind, the neighbors and the parameters."""
        values = self.model_dump(by_alias=True, exclude={"kind", "neighbors"})
        parameters = " ".join(f"{name}={value:g}" for name, value in values.items())
        return f"{self.kind} {'-'.join(self.neighbors)} {parameters}"


class RadialFunction(_Function):
    """G2 = Σ_j exp(-η (r_ij - r_shift)²) f(r_ij) over the neighbors j of one species."""

    kind: Literal["radial"] = "radial"
    neighbors: tuple[str]


class AngularFunction(_Function):
    """2^(1-ζ) Σ_{j<k} (1 + λ cos θ)^ζ exp(-η Σ(r - r_shift)²) Π f(r) over a pair of neighbors j, k.

    The two species are an unordered pair. Sum and product run over r_ij and r_ik, for `angular_narrow` also
    over r_jk.
    """

    kind: Literal["angular_narrow", "angular_wide"]
    neighbors: tuple[str, str]
    lambda_: float = Field(alias="lambda", ge=-1.0, le=1.0)
    zeta: float = Field(ge=1.0)

    @field_validator("zeta")
    @classmethod
    def _whole(cls, zeta: float) -> float:
        if zeta != round(zeta):  # (1 + λ cos θ) may round to -1e-17, whose real powers are NaN
            raise ValueError(f"zeta must be a whole number, found {zeta}")
        return zeta


SymmetryFunction = Annotated[RadialFunction | AngularFunction, Field(discriminator="kind")]


@dataclass(frozen=True)
class _Preset:
    radial: int  # shells of radial functions
    angular_cutoff: float  # Å; triplets dominate the cost
    narrow_etas: tuple[float, ...]
    narrow_zetas: tuple[float, ...]
    wide_etas: tuple[float, ...]
    wide_zetas: tuple[float, ...]


_PRESETS: dict[str, _Preset] = {
    "small": _Preset(10, 4.0, (0.05, 0.7), (1.0, 4.0), (), ()),
    "medium": _Preset(12, 5.0, (0.05, 0.7), (1.0, 4.0, 16.0), (0.1,), (1.0, 4.0)),
    "large": _Preset(16, 5.0, (0.02, 0.15, 0.7), (1.0, 2.0, 4.0, 16.0), (0.02, 0.2), (1.0, 4.0, 16.0)),
}
_FIRST_SHELL = 0.75  # Å; the shortest bond


def _radial_grid(shells: int, cutoff: float) -> list[tuple[float, float]]:
    """Return (η, r_shift): one broad Gaussian at the center, then shells that widen with distance.

    The shells form a geometric series, each as wide as the step to the next one: short bonds are stiff and
    need a fine grid, and an evenly spaced one of the same length leaves them unresolved.
    """
    first = min(_FIRST_SHELL, 0.25 * cutoff)
    ratio = (cutoff / first) ** (1 / shells)
    centers = [first * ratio**k for k in range(shells)]
    return [(4.5 / cutoff**2, 0.0)] + [(0.5 / (center * (ratio - 1)) ** 2, center) for center in centers]


def automatic_functions(species: list[str], cutoff: float, size: Size) -> dict[str, list[SymmetryFunction]]:
    """Return the same set for every center: radial for each neighbor species, angular for each pair of them.

    The angular functions end at min(cutoff, 4 Å) for `small` and min(cutoff, 5 Å) for the others.
    """
    preset = _PRESETS[size]
    functions: list[SymmetryFunction] = [
        RadialFunction(neighbors=(symbol,), eta=round(eta, 6), r_shift=round(shift, 6), cutoff=cutoff)
        for symbol in species
        for eta, shift in _radial_grid(preset.radial, cutoff)
    ]
    angular = [
        *product(["angular_narrow"], preset.narrow_etas, (1.0, -1.0), preset.narrow_zetas),
        *product(["angular_wide"], preset.wide_etas, (1.0, -1.0), preset.wide_zetas),
    ]
    functions += [
        AngularFunction.model_validate(
            {
                "kind": kind,
                "neighbors": pair,
                "eta": eta,
                "cutoff": min(cutoff, preset.angular_cutoff),
                "lambda": sign,
                "zeta": zeta,
            }
        )
        for pair in combinations_with_replacement(species, 2)
        for kind, eta, sign, zeta in angular
    ]
    return {symbol: list(functions) for symbol in species}
