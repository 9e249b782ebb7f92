"""D3 records and systems for tests."""

from __future__ import annotations

import numpy as np
import pytest

from nearsight.models import DispersionConfig


def record_of(species, **options) -> dict:
    """The record of PBE; short cutoffs with long smooth ends, so that many pairs lie there."""
    pytest.importorskip("tad_dftd3", reason="tad-dftd3, which has the tables of D3, is not installed")
    short = {"cutoff": 9.0, "coordination_cutoff": 7.0, "smoothing": 3.0}
    return DispersionConfig(**{"functional": "pbe", "labels": "with"} | short | options).record(species)


def scattered(seed: int, num_atoms: int, num_species: int, spacing: float = 1.9, tilt: float = 0.3):
    """Positions [n, 3] on a jittered grid, species [n] with all of them, a triclinic cell [3, 3]."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(num_atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[range(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:num_atoms]
    cell = side * spacing * (np.eye(3) + np.tril(rng.uniform(-tilt, tilt, (3, 3)), -1))
    positions = (grid + rng.uniform(-0.15, 0.15, grid.shape)) / side @ cell
    return positions, rng.permutation(np.arange(num_atoms) % num_species).astype(np.int32), cell
