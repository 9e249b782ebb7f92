"""Comparing energies, forces and stresses with absolute tolerances; a table of the differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Numbers(NamedTuple):
    """What a model says about a system."""

    energy: float  # eV
    forces: np.ndarray  # (n, 3) eV/Å
    stress: np.ndarray  # (3, 3) eV/Å³, zero where nothing is periodic


@dataclass
class Comparison:
    """Differences by host and mode, each the largest of all models and systems."""

    largest: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    size: float = 0.0  # eV/Å, of the largest force

    def check(self, found: Numbers, wanted: Numbers, tolerance: float, host: str, mode: str) -> None:
        """Assert that every number is within the tolerance, in eV, eV/Å and eV/Å³."""
        differences = np.array([np.abs(np.asarray(a) - b).max() for a, b in zip(found, wanted)])
        key = host, mode
        self.largest[key] = np.maximum(self.largest.get(key, 0.0), differences)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.size = max(self.size, float(np.abs(wanted.forces).max()))
        assert (differences < tolerance).all(), f"{host}, {mode}: {differences} with {tolerance}"

    def table(self) -> str:
        """A line for each host and mode."""
        rows = [f"{'host':<20}{'mode':<10}{'systems':>8}{'energy/eV':>12}{'eV/Å':>12}{'eV/Å³':>12}"]
        rows += [
            f"{host:<20}{mode:<10}{self.counts[host, mode]:>8}" + "".join(f"{x:12.1e}" for x in found)
            for (host, mode), found in sorted(self.largest.items())
        ]
        return "\n".join([*rows, f"The largest force is {self.size:.1f} eV/Å."])
