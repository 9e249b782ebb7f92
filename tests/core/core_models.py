"""BPNN files with random weights, and structures, for the tests of the core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from models_for_tests import rarer_functions

from nearsight.export import save_model
from nearsight.models import BPNNConfig

SPECIES = ["H", "O"]
REFERENCE_ENERGIES = {"H": -13.0, "O": -431.0}


def random_bpnn(members=1, **config):
    """A BPNN whose weights, shifts and scales are all random, so that nothing cancels."""
    torch.manual_seed(7)
    config = BPNNConfig(**{"cutoff": 4.5} | config)
    model = config.build(SPECIES, members)
    for network in model.networks:
        network.shift.normal_()
        network.scale.uniform_(0.5, 1.5)
    model.output_scale.uniform_(0.5, 1.5)
    return model


def save_bpnn(path: Path, **config) -> Path:
    save_model(
        path,
        random_bpnn(**config),
        reference_energies=REFERENCE_ENERGIES,
        reference_energies_source="given",
        provenance={},
    )
    return path


def explicit_functions() -> dict:
    """Every kind, shifted angular functions, several cutoffs, lambda between -1 and 1, large zeta."""

    def functions(symbols):
        radial = [
            {"kind": "radial", "neighbors": [s], "eta": eta, "r_shift": shift, "cutoff": cutoff}
            for s in symbols
            for eta, shift, cutoff in ((0.1, 0.0, 4.5), (2.0, 1.5, 4.5), (1.0, 0.5, 3.0))
        ]
        angular = [
            {
                "kind": kind,
                "neighbors": pair,
                "eta": eta,
                "r_shift": shift,
                "lambda": lam,
                "zeta": zeta,
                "cutoff": rc,
            }
            for kind in ("angular_narrow", "angular_wide")
            for pair in (["H", "H"], ["O", "H"], ["O", "O"])
            for eta, shift, lam, zeta, rc in (
                (0.05, 0.0, 1.0, 1, 4.5),
                (0.05, 0.0, -1.0, 3, 4.5),
                (0.3, 1.0, 0.5, 64, 4.5),
                (0.1, 0.0, -1.0, 16, 3.5),
            )
        ]
        return radial + angular + rarer_functions(symbols)

    return {"H": functions(["H", "O"]), "O": functions(["O", "H"])}


def random_box(seed: int, n: int = 24, edge: float = 6.5, skew: float = 1.5):
    """Positions at least 0.7 Å apart, species numbers and a triclinic cell."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * edge + skew * rng.uniform(-1, 1, (3, 3))
    positions: list[np.ndarray] = []
    while len(positions) < n:
        x = rng.random(3) @ cell
        images = np.array([i for i in np.ndindex(3, 3, 3)]) - 1
        if all(np.linalg.norm(x - y + images @ cell, axis=1).min() > 0.7 for y in positions):
            positions.append(x)
    return np.array(positions), rng.integers(0, 2, n).astype(np.int32), cell
