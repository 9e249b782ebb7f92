"""Reference energies E0 per species: what an atom contributes before any interaction, eV.

A model is trained on E - ΣE0. Whoever runs it adds them again in double precision. They come from the user,
from frames with one isolated atom, or from a least-squares fit, and the choice is written to the model file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.errors import DataError

GIVEN, ISOLATED_ATOMS, LEAST_SQUARES, NONE = "given", "isolated_atoms", "least_squares", "none"


@dataclass(frozen=True)
class ReferenceEnergies:
    """E0 of every species in eV, and where they come from (`reference_energies_source` of the model file)."""

    values: dict[str, float]
    source: str

    def total(self, symbols: Sequence[str]) -> float:
        """ΣE0 over atoms, eV."""
        return sum(self.values[symbol] for symbol in symbols)


def is_isolated_atom(frame: Frame) -> bool:
    """A single atom that is marked with config_type=IsolatedAtom or has no periodic direction."""
    return len(frame) == 1 and (frame.info.get("config_type") == "IsolatedAtom" or not frame.pbc.any())


def reference_energies(
    frames: Sequence[Frame], species: Sequence[str], choice: str | Mapping[str, float] = "auto"
) -> ReferenceEnergies:
    """Reference energies of `species` from training frames.

    Args:
        frames: training frames, isolated atoms included.
        species: the model's species.
        choice: energies {symbol: eV}, or "isolated_atoms", "least_squares", "none", or "auto": isolated
            atoms if every species has one, else least squares.

    Raises:
        DataError: a species without an energy.
    """
    if isinstance(choice, Mapping):
        missing = [symbol for symbol in species if symbol not in choice]
        if missing:
            raise DataError(
                f"data.reference_energies has no energy for {', '.join(missing)}; give one for each."
            )
        return ReferenceEnergies({symbol: float(choice[symbol]) for symbol in species}, GIVEN)
    if choice == NONE:
        return ReferenceEnergies(dict.fromkeys(species, 0.0), NONE)
    isolated = _isolated_atoms(frames)
    missing = [symbol for symbol in species if symbol not in isolated]
    if choice == LEAST_SQUARES or (choice == "auto" and missing):
        return ReferenceEnergies(fit_energies(frames, species), LEAST_SQUARES)
    if missing:
        raise DataError(
            f"data.reference_energies is isolated_atoms, but no frame holds an isolated "
            f"{' or '.join(missing)} atom with an energy (a single atom with config_type=IsolatedAtom or "
            "without periodic directions)."
        )
    return ReferenceEnergies({symbol: isolated[symbol] for symbol in species}, ISOLATED_ATOMS)


def _isolated_atoms(frames: Sequence[Frame]) -> dict[str, float]:
    energies: dict[str, float] = {}
    for frame in frames:
        if not is_isolated_atom(frame) or keys.ENERGY not in frame.labels:
            continue
        symbol, energy = frame.symbols[0], float(frame.labels[keys.ENERGY])
        if abs(energies.setdefault(symbol, energy) - energy) > 1e-6:
            raise DataError(
                f"{frame.source}: isolated {symbol} atoms have different energies, {energies[symbol]:.6f} "
                f"and {energy:.6f} eV; keep one, or give data.reference_energies as numbers."
            )
    return energies


def fit_energies(
    frames: Sequence[Frame], species: Sequence[str], reference: ReferenceEnergies | None = None
) -> dict[str, float]:
    """Least-squares energy per species, eV: of E = Σ n_s e_s, or of E - ΣE0 if reference energies are given.

    Where the compositions leave a direction free (all frames H2O), the solution closest to one common energy
    per atom is taken, so that no species gets an arbitrary share.
    """
    frames = [frame for frame in frames if keys.ENERGY in frame.labels]
    if not frames:
        return dict.fromkeys(species, 0.0)
    counts = np.array([[frame.symbols.count(symbol) for symbol in species] for frame in frames], dtype=float)
    energies = np.array([frame.labels[keys.ENERGY] for frame in frames])
    if reference is not None:
        energies = energies - [reference.total(frame.symbols) for frame in frames]
    mean = energies.sum() / counts.sum()
    deviation = np.linalg.lstsq(counts, energies - mean * counts.sum(axis=1), rcond=1e-10)[0]
    return {symbol: float(mean + value) for symbol, value in zip(species, deviation)}
