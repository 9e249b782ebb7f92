"""Models whose charges equilibrate, with random weights, and the dense oracle."""

from __future__ import annotations

import numpy as np
import torch

from nearsight.lib import _core
from nearsight.neighbors import make_graph
from nearsight.units import COULOMB

from .charge_models import SPECIES
from .equilibrated_models import equilibrated_model
from .test_charge_models import save

HARDNESS = {"H": 6.0, "O": 9.0}  # eV/e²
WIDTHS = {"H": 0.4, "O": 0.7}  # Å


def equilibrated(folder, name="model", architecture="bpnn", **long_range):
    """A model with random weights, and its file."""
    numbers = {"hardness": HARDNESS, "widths": WIDTHS} | long_range
    model = equilibrated_model(architecture, **numbers)
    return model, save(folder / f"{name}.pt", model)


def electronegativities(model, one) -> np.ndarray:
    """[n] V, from the torch module."""
    graph = make_graph(*one[:4], model.cutoff)
    with torch.no_grad():
        found = model(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    return found["electronegativity"][:, 0].numpy()


def matrix(one) -> np.ndarray:
    """[n, n] eV/e², of unit charges by Ewald's sum."""
    widths = np.array([WIDTHS[SPECIES[z]] for z in one.species])
    columns = [
        _core.ewald(one.positions, unit, one.cell, one.pbc, widths)["potentials"]
        for unit in np.eye(len(widths))
    ]
    hardness = np.array([HARDNESS[SPECIES[z]] for z in one.species])
    return np.array(columns).T + np.diag(hardness + COULOMB / (np.sqrt(np.pi) * widths))


def solve(dense: np.ndarray, chi: np.ndarray, charges, molecules=None) -> np.ndarray:
    """[n] e, by LAPACK with the multiplier of the total charge, or of the charge of each molecule[n]."""
    n, charges = len(chi), np.atleast_1d(charges)
    ones = np.eye(len(charges))[np.zeros(n, dtype=int) if molecules is None else molecules]
    bordered = np.block([[dense, ones], [ones.T, np.zeros((len(charges), len(charges)))]])
    return np.linalg.solve(bordered, np.append(-chi, charges))[:n]
