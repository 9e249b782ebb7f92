"""Structures for the LAMMPS tests: random, but with no two atoms close to each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms

TILT = np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [-0.9, 0.6, 0.0]])  # Å


def grid(
    counts: tuple[int, int, int],
    *,
    spacing: float = 2.3,
    tilt: np.ndarray | None = None,
    pbc: bool | tuple[bool, bool, bool] = True,
    seed: int = 0,
) -> Atoms:
    """Return O and H atoms on a distorted grid that fills the cell, positions wrapped into it."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(n) / n for n in counts]
    fractions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    cell = np.diag(np.array(counts) * spacing) + (TILT if tilt is None else tilt)
    symbols = rng.choice(["O", "H", "H"], len(fractions))
    atoms = Atoms(symbols, scaled_positions=fractions, cell=cell, pbc=pbc)
    atoms.positions += 0.25 * spacing + rng.uniform(-0.25, 0.25, atoms.positions.shape)
    atoms.wrap()
    return atoms


def orthogonal(counts: tuple[int, int, int], **options: object) -> Atoms:
    """As `grid`, in a rectangular box."""
    return grid(counts, tilt=np.zeros((3, 3)), **options)


def cluster_in_a_corner() -> Atoms:
    """Return a small cluster in a large open box: most ranks own nothing."""
    atoms = orthogonal((2, 2, 2), pbc=False)
    atoms.set_cell([40.0, 40.0, 40.0])
    return atoms


def lone_atoms() -> Atoms:
    """Return atoms that have no neighbors within any cutoff."""
    return Atoms("OH", positions=[[2.0, 2.0, 2.0], [22.0, 22.0, 22.0]], cell=[30.0] * 3, pbc=True)
