"""The five systems that models are compared on."""

import ase
import numpy as np


def scattered(count, box, periodic, seed, shortest=1.0):
    """Random positions, none closer to another (or its image) than the shortest distance in Å."""
    rng = np.random.default_rng(seed)
    steps = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) * periodic
    positions = np.zeros((0, 3))
    while len(positions) < count:
        candidate = rng.random(3) @ box
        if (np.linalg.norm(positions[:, None] + steps @ box - candidate, axis=2) > shortest).all():
            positions = np.vstack([positions, candidate])
    return positions


def systems(numbers):
    """The five systems, of the elements of a model."""
    triclinic = np.array([[4.1, 0.0, 0.0], [1.1, 3.9, 0.0], [-0.8, 1.3, 4.4]])
    large = 9.0 * np.array([[1.0, 0.0, 0.0], [0.1, 1.0, 0.0], [0.0, -0.2, 1.0]])
    drawn = np.random.default_rng(11).permutation(np.resize(numbers, 89))
    open_ = {"cell": np.zeros((3, 3)), "pbc": False}
    return {
        "triclinic": ase.Atoms(drawn[:7], scattered(7, triclinic, 1, 1), cell=triclinic, pbc=True),
        "table": ase.Atoms(drawn, scattered(89, large, 1, 2), cell=large, pbc=True),
        "atom": ase.Atoms(drawn[:1], np.zeros((1, 3)), **open_),
        "dimer": ase.Atoms(drawn[:2], [[0.0, 0.0, 0.0], [0.3, -0.7, 0.9]], **open_),
        "molecule": ase.Atoms(drawn[:11], scattered(11, 5.0 * np.eye(3), 0, 3), **open_),
    }
