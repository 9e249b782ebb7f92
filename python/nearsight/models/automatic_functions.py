"""Automatic sets of symmetry functions, by cutoff and size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Literal

from nearsight.models.symmetry_functions import AngularFunction, RadialFunction, SymmetryFunction

Size = Literal["small", "medium", "large"]


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
