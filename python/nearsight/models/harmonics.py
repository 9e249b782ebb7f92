"""Real spherical harmonics, orthonormal on the sphere, and the couplings of them that rotations leave alone.

    Y_lm(θ, φ) = F_lm Q_lm(cos θ) sinᵐθ {cos mφ for m >= 0, sin |m|φ for m < 0},  Q_lm(z) = dᵐP_l/dzᵐ

without the Condon-Shortley phase: Y_1,-1, Y_10, Y_11 are √(3/4π) times y, z, x. The pair (l, m) has the
place l² + l + m. The functions are evaluated as polynomials of the unit vector by the recursions of l and m
(Bigi et al., J. Chem. Phys. 159, 064802, 2023); csrc/core/models/ace uses the same ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spherical_harmonics(unit: Tensor, l_max: int) -> Tensor:
    """Return Y_lm of unit vectors [E, 3] for l <= l_max, as [E, (l_max + 1)²]; scriptable."""
    x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
    cosine = torch.ones_like(x)  # sinᵐθ cos mφ
    sine = torch.zeros_like(x)  # sinᵐθ sin mφ
    columns = [torch.empty(0)] * ((l_max + 1) * (l_max + 1))
    diagonal = math.sqrt(0.25 / math.pi)  # F_mm Q_mm
    for m in range(l_max + 1):
        if m > 0:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
            diagonal *= math.sqrt((2.0 * m + 1.0) / (2.0 * m)) * (math.sqrt(2.0) if m == 1 else 1.0)
        before = torch.zeros_like(z)
        value = torch.full_like(z, diagonal)
        for l in range(m, l_max + 1):  # noqa: E741
            if l > m:
                a = math.sqrt((4.0 * l * l - 1.0) / (l * l - m * m))
                b = 0.0
                if l > m + 1:
                    ratio = (2.0 * l + 1.0) / (2.0 * l - 3.0)
                    b = math.sqrt(((l - 1.0) * (l - 1.0) - m * m) / (l * l - m * m) * ratio)
                value, before = a * z * value - b * before, value
            columns[l * l + l + m] = value * cosine
            if m > 0:
                columns[l * l + l - m] = value * sine
    return torch.stack(columns, dim=1)
