"""Atomic numbers and covalent radii of chemical symbols."""

from __future__ import annotations

from collections.abc import Sequence


def atomic_numbers(symbols: Sequence[str]) -> list[int]:
    """Return the atomic number of each symbol."""
    from ase.data import atomic_numbers

    return [int(atomic_numbers[symbol]) for symbol in symbols]


def covalent_radii(symbols: Sequence[str]) -> list[float]:
    """Return the covalent radius of each symbol in Å (Cordero et al., Dalton Trans. 2832, 2008)."""
    from ase.data import covalent_radii

    return [float(covalent_radii[number]) for number in atomic_numbers(symbols)]
