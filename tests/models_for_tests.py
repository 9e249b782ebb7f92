"""A small potential with a closed form, as a TorchScript model file and, written independently, in numpy.

E_i = a(s_i) tanh(rho_i), rho_i = sum_j w(s_i, s_j) f(r_ij), f(r) = (1 - (r / cutoff)^2)^3 below the cutoff.
It is not a sum over pairs, treats (i, j) and (j, i) differently, and is C2 at the cutoff.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from nearsight.export import save_model
from nearsight.models import BPNNConfig, build_model

SPECIES = ("H", "O", "Si")
REFERENCE_ENERGIES = {"H": -13.6, "O": -430.0, "Si": -101.0}
CUTOFF = 4.0
DEPTH = (0.7, -1.3, 0.4)  # a, eV
WEIGHT = ((0.9, -0.4, 0.3), (1.1, 0.6, -0.8), (0.2, 0.5, 0.7))  # w


class Embedded(torch.nn.Module):
    """The potential, keeping docs/model_contract.md."""

    def __init__(self):
        super().__init__()
        self.architecture = "test-embedded"
        self.hyperparameters = {}
        self.species = list(SPECIES)
        self.cutoff = CUTOFF
        self.num_interactions = 1
        self.readouts = [{"name": "energy", "columns": 1}]
        self.couple = {"kind": "sum"}
        self.register_buffer("depth", torch.tensor(DEPTH, dtype=torch.float64))
        self.register_buffer("weight", torch.tensor(WEIGHT, dtype=torch.float64))

    def forward(
        self, species: torch.Tensor, edge_index: torch.Tensor, edge_vectors: torch.Tensor, num_owned: int
    ) -> dict[str, torch.Tensor]:
        center, neighbor = edge_index[0], edge_index[1]
        x = edge_vectors.square().sum(1) / self.cutoff**2
        terms = self.weight[species[center], species[neighbor]] * (1.0 - x) ** 3
        zeros = torch.zeros(species.shape[0], dtype=terms.dtype, device=terms.device)
        rho = zeros.index_add(0, center, terms)[:num_owned]
        return {"energy": (self.depth[species[:num_owned]] * torch.tanh(rho)).unsqueeze(1)}


def rarer_functions(symbols):
    """Symmetry functions that automatic sets lack: compact ones, weighted neighbors, a ζ not whole."""
    shapes = [
        {"inner": inner, "cutoff": cutoff, "core": core, "asymmetric": asymmetric}
        for inner, cutoff, core, asymmetric in (
            (0.0, 4.5, "poly2", False),
            (-3.0, 3.0, "poly1", False),
            (0.5, 3.5, "poly3", True),
            (0.5, 3.5, "poly4", False),
            (1.0, 4.0, "exp", False),
        )
    ]
    angles = [[0.0, 180.0], [-60.0, 60.0], [90.0, 270.0], [60.0, 150.0]]
    everyone = {"neighbors": list(symbols), "weights": [1.5 + k for k in range(len(symbols))]}
    pairs = [{"neighbors": [a, b]} for i, a in enumerate(symbols) for b in symbols[i:]]
    radial = [
        {"kind": "compact_radial", **neighbors, **shape}
        for shape in shapes
        for neighbors in (*({"neighbors": [symbol]} for symbol in symbols), everyone)
    ]
    radial.append({"kind": "radial", **everyone, "eta": 0.3, "r_shift": 0.7, "cutoff": 4.2})
    angular = [
        {"kind": kind, **neighbors, **shape, "angle": angle}
        for kind in ("compact_narrow", "compact_wide")
        for neighbors in (*pairs, everyone)
        for shape, angle in zip(shapes, [*angles, angles[0]])
    ]
    angular += [
        {"kind": kind, **everyone, "eta": eta, "r_shift": shift, "lambda": -1.0, "zeta": zeta, "cutoff": 4.0}
        for kind in ("angular_narrow", "angular_wide")
        for eta, shift, zeta in ((0.1, 0.0, 1.5), (0.3, 0.8, 2.0))
    ]
    return radial + angular


def save_embedded(path: Path) -> Path:
    """Write the potential as a model file."""
    return _save(path, Embedded())


def save_bpnn(path: Path) -> Path:
    """Write a BPNN with random weights for the same species, which the native core knows."""
    torch.manual_seed(3)
    return _save(path, build_model(BPNNConfig(cutoff=CUTOFF), list(SPECIES)))


def _save(path: Path, model: torch.nn.Module) -> Path:
    save_model(
        path, model, reference_energies=REFERENCE_ENERGIES, reference_energies_source="given", provenance={}
    )
    return path


def reference(positions, symbols, cell=None, pbc=False) -> dict:
    """Energy (eV), energies [n], forces [n, 3] and virial [3, 3] of the potential by its closed form.

    Every image within the cutoff is visited by brute force.
    """
    positions = np.asarray(positions, dtype=float)
    species = np.array([SPECIES.index(symbol) for symbol in symbols])
    i, j, vectors = _pairs(
        positions, np.zeros((3, 3)) if cell is None else np.asarray(cell), np.broadcast_to(pbc, 3)
    )
    w = np.array(WEIGHT)[species[i], species[j]]
    u = 1.0 - (vectors**2).sum(1) / CUTOFF**2
    rho = np.bincount(i, w * u**3, minlength=len(species))
    depth = np.array(DEPTH)[species]
    slope = depth / np.cosh(rho) ** 2  # dE_i/drho_i
    gradient = (slope[i] * w * 3 * u**2 * -2 / CUTOFF**2)[:, None] * vectors  # dE/dr_ij
    forces = np.zeros_like(positions)
    np.add.at(forces, i, gradient)
    np.add.at(forces, j, -gradient)
    energies = depth * np.tanh(rho) + [REFERENCE_ENERGIES[symbol] for symbol in symbols]
    return {
        "energy": energies.sum(),
        "energies": energies,
        "forces": forces,
        "virial": -vectors.T @ gradient,
    }


def _pairs(positions, cell, pbc):
    reach = np.zeros(3, dtype=int)
    if pbc.any():
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        spread = np.ceil(np.abs(positions @ np.linalg.inv(cell)).max(0)).astype(int)
        reach = np.where(pbc, np.ceil(CUTOFF / heights).astype(int) + 2 * spread, 0)
    centers, neighbors, vectors = [], [], []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        r = positions[None] - positions[:, None] + np.array(shift) @ cell
        distance = np.linalg.norm(r, axis=2)
        i, j = np.nonzero((distance < CUTOFF) & (distance > 0))
        centers.append(i)
        neighbors.append(j)
        vectors.append(r[i, j])
    return np.concatenate(centers), np.concatenate(neighbors), np.concatenate(vectors)


def random_structure(seed: int, count: int, cell, minimum=1.2):
    """Positions (Å) of `count` atoms in the cell, no two images closer than `minimum`, and their symbols."""
    generator = np.random.default_rng(seed)
    cell = np.asarray(cell, dtype=float)
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ cell
    positions = np.zeros((0, 3))
    while len(positions) < count:
        candidate = generator.random(3) @ cell
        apart = np.linalg.norm((positions - candidate)[:, None] + images, axis=2)
        if not len(positions) or apart.min() > minimum:
            positions = np.vstack([positions, candidate])
    return positions, list(generator.choice(SPECIES, count))
