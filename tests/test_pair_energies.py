"""Energies of pairs: ZBL's repulsion and walls against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import torch

from nearsight.models import MACEConfig, build_model
from nearsight.models.pair_energies import ZBL, Walls
from nearsight.neighbors import make_graph

RADII = {"H": 0.31, "O": 0.66}  # Å, of Cordero et al.
KINDS = torch.tensor([1, 0])
BOTH_WAYS = torch.tensor([[0, 1], [1, 0]])
WALLS = {"slope": 4.0, "repulsion": 100.0}


def test_zbl_of_a_pair():
    """O - H at 0.4 Å inside, and at 0.97 Å at the end of the radii's sum; each end has half of the energy."""
    record = {
        "p": 6,
        "a_exponent": 0.3,
        "a_prefactor": 0.4543,
        "numbers": [1, 8],
        "radii": [RADII["H"], RADII["O"]],
        "scale": 2.0,
    }
    module = ZBL(record, 2)
    distances = torch.tensor([0.4, 0.4, 0.97, 1.5], dtype=torch.float64)
    edges = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])
    length = 0.4543 * 0.529 / (1 + 8**0.3)
    terms = [(0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016)]
    screening = sum(c * math.exp(-d * 0.4 / length) for c, d in terms)
    x = 0.4 / 0.97
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    pair = 2.0 * 14.3996 * 8 / 0.4 * screening * envelope
    np.testing.assert_allclose(module(distances, KINDS, edges, 2).numpy(), [pair / 2] * 2, rtol=1e-13)
    assert module(distances.float(), KINDS, edges, 2).dtype == torch.float64
    assert not ZBL(None, 2)(distances, KINDS, edges, 2).any()


def test_walls_of_a_pair():
    """Before, in and behind the gap, and below the closest distance; each end has half of the energy."""
    limits = torch.zeros(2, 2, 3, dtype=torch.float64)
    limits[0, 1] = limits[1, 0] = torch.tensor([0.8, 1.2, 1.8], dtype=torch.float64)
    module = Walls(WALLS, limits, 2)

    def energy(r: float) -> float:
        halves = module(torch.tensor([r, r], dtype=torch.float64), KINDS, BOTH_WAYS, 2)
        assert halves[0] == halves[1]
        return float(halves.sum())

    assert [energy(r) for r in (0.8, 1.0, 1.2, 1.8, 2.5)] == [0, 0, 0, 0, 0]
    np.testing.assert_allclose(energy(1.5), 4.0 * 0.6, rtol=1e-12)
    np.testing.assert_allclose(energy(1.65), 4.0 * 0.6 * 0.75**3, rtol=1e-12)
    np.testing.assert_allclose(energy(0.4), 100.0, rtol=1e-12)
    same = module(torch.tensor([1.5, 1.5], dtype=torch.float64), torch.tensor([1, 1]), BOTH_WAYS, 2)
    assert not same.any()
    assert not Walls(None, None, 2)(torch.ones(2, dtype=torch.float64), KINDS, BOTH_WAYS, 2).any()


def water(bond: float, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Two molecules O-H, one behind the other."""
    x = [0.0, bond, bond + apart, 2 * bond + apart]
    return np.array([[value, 0.0, 0.0] for value in x]), np.array([1, 0, 1, 0])


def test_limits_are_those_of_the_training_set():
    """O-H bonds of 0.9 to 1.1 Å, other O-H pairs from 1.7 Å on, and no H-H closer than the two."""
    model = build_model(MACEConfig(cutoff=5.0, channels=2, walls=True), ["H", "O"])
    model.fit_walls(
        make_graph(*water(*frame), np.zeros((3, 3)), [False] * 3, 5.0)
        for frame in [(0.9, 1.9), (1.1, 1.7), (1.0, 1.8)]
    )
    closest_like = 0.85 * 2.8  # Å; bond and distance to the next one
    expected = [
        [[closest_like, 0, 0], [0.85 * 0.9, 1.08 * 1.1, 0.92 * 1.7]],
        [[0.85 * 0.9, 1.08 * 1.1, 0.92 * 1.7], [closest_like, 0, 0]],
    ]
    np.testing.assert_allclose(model.weights()["walls"].numpy(), expected, rtol=1e-12)


def test_no_wall_where_bonds_break_in_the_training_set():
    model = build_model(MACEConfig(cutoff=5.0, channels=2, walls=True), ["H", "O"])
    model.fit_walls(
        make_graph(*water(bond, 3.0), np.zeros((3, 3)), [False] * 3, 5.0) for bond in (1.0, 1.2, 1.3)
    )
    assert not model.walls.limits[0, 1, 1:].any()
