"""A toy with closed-form labels: Morse pairs of two noble gases in periodic boxes, and isolated atoms."""

from itertools import product

import numpy as np

from nearsight import keys
from nearsight.data import Frame

CUTOFF = 4.0
ISOLATED = {"Ne": -2.0, "Ar": -5.0}  # eV
_DEPTH, _WIDTH = 0.2, 1.5  # eV, 1/Å
_MINIMUM = {"NeNe": 2.6, "ArNe": 2.9, "ArAr": 3.2}  # Å


def _pair(symbols, r):
    """Morse energy times (1 - (r/rc)²)³, and its derivative."""
    x = np.exp(-_WIDTH * (r - _MINIMUM["".join(sorted(symbols))]))
    morse, slope = _DEPTH * (x * x - 2 * x), -2 * _WIDTH * _DEPTH * (x * x - x)
    y = 1 - (r / CUTOFF) ** 2
    return morse * y**3, slope * y**3 - 6 * r / CUTOFF**2 * y**2 * morse


def label(frame):
    """Energy, forces and virial = -Σ_pairs dE/dr r⊗r/r over all images."""
    n = len(frame)
    energy, forces, virial = (
        sum(ISOLATED[symbol] for symbol in frame.symbols),
        np.zeros((n, 3)),
        np.zeros((3, 3)),
    )
    images = list(product(*[(-1, 0, 1) if periodic else (0,) for periodic in frame.pbc]))
    for i, j, image in product(range(n), range(n), images):
        vector = frame.positions[j] - frame.positions[i] + np.array(image) @ frame.cell
        r = np.linalg.norm(vector)
        if 0 < r < CUTOFF:
            value, slope = _pair((frame.symbols[i], frame.symbols[j]), r)
            energy += value / 2
            forces[i] += slope * vector / r
            virial -= slope / 2 * np.outer(vector, vector) / r
    return {keys.ENERGY: energy, keys.FORCES: forces, keys.VIRIAL: virial}


def boxes(count, seed=0, isolated_atoms=False):
    """Frames of 8 atoms in slightly sheared boxes around 5.6 Å, of changing composition."""
    rng = np.random.default_rng(seed)
    sites = np.array(list(product((0.0, 0.5), repeat=3)))
    frames = []
    for _ in range(count):
        cell = np.eye(3) * rng.uniform(5.4, 5.9) + rng.uniform(-0.2, 0.2, size=(3, 3))
        positions = sites @ cell + rng.normal(scale=0.12, size=(8, 3))
        symbols = rng.permutation(["Ar"] * 4 + ["Ne"] * 3 + [rng.choice(["Ar", "Ne"])])
        frames.append(Frame(positions, symbols.tolist(), cell, [True] * 3))
    if isolated_atoms:
        frames += [Frame([[0, 0, 0]], [symbol], np.zeros((3, 3)), [False] * 3) for symbol in ISOLATED]
    for frame in frames:
        frame.labels = label(frame)
    return frames
