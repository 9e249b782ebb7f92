"""Basis functions, envelope and transforms against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight.models.edge_functions import RadialBasis, polynomial_envelope
from nearsight.models.mace_config import RadialConfig

CUTOFF = 5.0
SPECIES = ["H", "O"]
RADII = {"H": 0.31, "O": 0.66}  # Å, of Cordero et al.
R = np.array([0.4, 0.9, 1.7, 3.1, 4.99])
EDGES = torch.tensor([[0] * len(R), [1] * len(R)])  # O - H
KINDS = torch.tensor([1, 0])


def basis_of(**keys) -> np.ndarray:
    config = RadialConfig(**keys)
    module = RadialBasis(config.record(CUTOFF, SPECIES), config.tables(CUTOFF), CUTOFF, len(SPECIES))
    return module(torch.from_numpy(R), KINDS, EDGES)[0].numpy()


def agnesi(r: np.ndarray) -> np.ndarray:
    y = 2 * r / (RADII["H"] + RADII["O"])
    return 1 / (1 + 1.0805 * y**0.9183 / (1 + y ** (0.9183 - 4.5791)))


def soft(r: np.ndarray) -> np.ndarray:
    pair = RADII["H"] + RADII["O"]
    low, high = 0.75 * pair, 4 / 3 * pair
    return low + (r - low) / (1 + np.exp(-2 * 4.0 / (high - low) * (r - (low + high) / 2)))


@pytest.mark.parametrize(("transform", "x"), [(None, R), ("agnesi", agnesi(R)), ("soft", soft(R))])
def test_basis_functions(transform, x):
    n = np.arange(1, 7)
    shared = {"count": 6, "transform": transform}
    x = x[:, None]
    bessel = np.sqrt(2 / CUTOFF) * np.sin(n * np.pi * x / CUTOFF) / x
    np.testing.assert_allclose(basis_of(basis="bessel", **shared), bessel, atol=1e-14)
    centers = np.linspace(0, CUTOFF, 6)
    np.testing.assert_allclose(
        basis_of(basis="gaussian", **shared), np.exp(-(((x - centers) / 1.0) ** 2) / 2), atol=1e-14
    )
    t = 2 * x - 1 if transform == "agnesi" else 1 - 2 * x / CUTOFF
    np.testing.assert_allclose(basis_of(basis="chebyshev", **shared), np.cos(n * np.arccos(t)), atol=1e-13)


@pytest.mark.parametrize("order", [3.0, 5.0, 6.0])
def test_envelope(order):
    x = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    value = polynomial_envelope(x, order)
    p = order
    y = x.detach().numpy()[1:3]
    expected = 1 - (p + 1) * (p + 2) / 2 * y**p + p * (p + 2) * y ** (p + 1) - p * (p + 1) / 2 * y ** (p + 2)
    np.testing.assert_allclose(value.detach().numpy(), [1.0, *expected, 0.0, 0.0], atol=1e-14)
    slope = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), x)[0]
    assert slope[[0, 3, 4]].abs().max() < 1e-12
    assert curvature[[3, 4]].abs().max() < 1e-11
