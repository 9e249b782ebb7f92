"""Small message-passing models with random weights, and structures for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from nearsight.couple import evaluate
from nearsight.models import MACEConfig, PaiNNConfig, build_model
from nearsight.neighbors import Graph, make_graph

SPECIES = ["H", "C", "O"]
CUTOFF = 4.0  # Å
BOTH_PARITIES = {
    "channels": 3,
    "num_interactions": 3,
    "l_max": 2,
    "hidden": "0e + 0o + 1o + 1e",
    "correlation": 2,
    "density": True,
    "radial": {"basis": "chebyshev", "transform": "agnesi", "envelope": "functions"},
}
CONFIGS = {  # of MACE
    "one interaction": {"channels": 4, "zbl": True},
    "two interactions": {"channels": 4, "num_interactions": 2},
    "both parities": BOTH_PARITIES,
    "gaussians": {
        "channels": 4,
        "num_interactions": 2,
        "l_max": 2,
        "hidden": "0e",
        "correlation": 1,
        "radial": {"basis": "gaussian", "transform": "soft", "hidden": [8]},
    },
}


def make(name: str) -> torch.nn.Module:
    """A MACE model of the configurations above, or "painn"."""
    torch.manual_seed(1)
    if name == "painn":
        config = PaiNNConfig(cutoff=CUTOFF, channels=6, num_basis=5)
    else:
        config = MACEConfig(cutoff=CUTOFF, **CONFIGS[name])
    model = build_model(config, SPECIES)
    model.set_mean_energies({"H": 0.1, "C": -0.2, "O": 0.3})
    return model


def molecule(seed: int = 0, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positions = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)], dtype=float)
    positions = 1.6 * positions[:count] + rng.normal(scale=0.25, size=(count, 3))
    return positions, rng.integers(0, len(SPECIES), count)


def graph_of(positions, species, cutoff: float, cell=None) -> Graph:
    periodic = cell is not None
    box = np.asarray(cell) if periodic else np.zeros((3, 3))
    return make_graph(positions, species, box, [periodic] * 3, cutoff)


def energy_forces(model, positions, species, cell=None) -> tuple[float, np.ndarray]:
    results = evaluate(model, graph_of(positions, species, CUTOFF, cell), {"kind": "sum"})
    return float(results.energy), results.forces.numpy()


def close(found, expected, relative: float = 1e-11) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max())


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def derivative(energy: Callable[[np.ndarray], float], positions: np.ndarray, atom: int, axis: int) -> float:
    """dE/dx of one coordinate by the five-point central difference of energy(positions), step 1e-4 Å."""
    step, energies = 1e-4, []
    for shift in (-2, -1, 1, 2):
        moved = positions.copy()
        moved[atom, axis] += shift * step
        energies.append(energy(moved))
    return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
