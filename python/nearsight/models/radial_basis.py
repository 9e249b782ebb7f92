"""Radial functions of moment descriptors, as tables that every engine interpolates in the same way.

A radial function *is* the piecewise polynomial of degree five through the values, slopes and curvatures at
equidistant knots from 0 to the cutoff, where all three vanish: twice continuously differentiable everywhere.
The tables are made here, in double, from analytic forms that the interpolant meets to about 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

RadialForm = Callable[[np.ndarray], np.ndarray]  # distances [p] in Å -> values [p, functions]

NUM_KNOTS = 257
_DEGREE = 256  # of the Chebyshev series that the slopes come from


def tabulate(form: RadialForm, cutoff: float, num_knots: int = NUM_KNOTS) -> np.ndarray:
    """Return [num_knots, 3, functions]: value, slope (1/Å) and curvature (1/Å²) of the form at the knots.

    The form must be smooth on [0, cutoff] and vanish with slope and curvature at the cutoff (Å).
    """
    nodes = np.cos(math.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
    values = form(0.5 * cutoff * (nodes + 1.0))
    series = np.polynomial.chebyshev.chebfit(nodes, values, _DEGREE)
    spread = np.abs(series).max(axis=0, keepdims=True)
    series[np.abs(series) < 1e-15 * spread] = 0.0  # round-off, which differentiation would amplify
    knots = np.linspace(-1.0, 1.0, num_knots)
    table = []
    for order in range(3):
        derivative = np.polynomial.chebyshev.chebder(series, order) if order else series
        table.append(np.polynomial.chebyshev.chebval(knots, derivative).T * (2.0 / cutoff) ** order)
    result = np.stack(table, axis=1)
    result[-1] = 0.0
    return result


def interpolate(table: Tensor, which: Tensor, distances: Tensor, cutoff: float) -> Tensor:
    """Return the radial functions [E, functions] at distances[E] (Å); scriptable, twice differentiable.

    table: [tables, knots, 3, functions]; which[E]: the table of each edge.
    """
    last = table.size(1) - 1
    step = cutoff / last
    steps = torch.clamp(distances / step, max=float(last))
    knot = torch.clamp(torch.floor(steps.detach()), max=float(last - 1)).to(torch.int64)
    t = (steps - knot).unsqueeze(1)
    t2 = t * t
    t3 = t2 * t
    t4 = t3 * t
    t5 = t4 * t
    left, right = table[which, knot], table[which, knot + 1]
    value = (1.0 - 10.0 * t3 + 15.0 * t4 - 6.0 * t5) * left[:, 0]
    value = value + (10.0 * t3 - 15.0 * t4 + 6.0 * t5) * right[:, 0]
    slope = (t - 6.0 * t3 + 8.0 * t4 - 3.0 * t5) * left[:, 1]
    slope = slope + (7.0 * t4 - 4.0 * t3 - 3.0 * t5) * right[:, 1]
    curvature = 0.5 * (t2 - 3.0 * t3 + 3.0 * t4 - t5) * left[:, 2]
    curvature = curvature + 0.5 * (t3 - 2.0 * t4 + t5) * right[:, 2]
    return value + step * slope + step * step * curvature


def distance_polynomials(
    r: np.ndarray, cutoff: float, nearest: float, count: int, p: int = 2, q: int = 4, power: int = 3
) -> np.ndarray:
    """Return orthonormal polynomials of a transformed distance times an envelope, [points, count].

    The distance is mapped to x from 1 (r = 0) to -1 (cutoff), linearly in 1 / (1 + a s^q / (1 + s^(q-p)))
    with s = r / nearest: it is steepest at the nearest neighbors, where `a` puts the inflection, and falls as
    s^-p far out (the Agnesi transform of Witt et al., J. Chem. Phys. 159, 164101, 2023). The envelope
    ((1 + x) / 2)^power makes the first power - 1 derivatives vanish at the cutoff. The functions are
    orthonormal over x.
    """
    a = (4 * p * q - 2 * (p + q)) / (p * p + q * q + p + q)

    def falling(s: np.ndarray | float) -> np.ndarray | float:
        return 1.0 / (1.0 + a * s**q / (1.0 + s ** (q - p)))

    end = falling(cutoff / nearest)
    x = 2.0 * (falling(r / nearest) - end) / (1.0 - end) - 1.0
    nodes, weights = np.polynomial.legendre.leggauss(count + power + 1)
    basis = np.polynomial.legendre.legvander(nodes, count - 1) * (0.5 * (1.0 + nodes[:, None])) ** power
    triangle = np.linalg.qr(np.sqrt(weights)[:, None] * basis)[1]
    triangle *= np.sign(np.diag(triangle))[:, None]
    values = np.polynomial.legendre.legvander(x, count - 1) * (0.5 * (1.0 + x[:, None])) ** power
    return np.linalg.solve(triangle.T, values.T).T


def gaussian_density(r: np.ndarray, cutoff: float, smearing: float, n_max: int, l_max: int) -> np.ndarray:
    """Return the projections of Gaussian densities on Gaussian-type orbitals, [points, (l_max + 1) * n_max].

    ∫ g_nl(x) Y_lm ρ = I_nl(r) Y_lm(r̂) for ρ = exp(-|x - r|² / 2σ²) at distance r, σ = smearing (Å). The
    orbitals x^l exp(-α_nl x²) decay to 10⁻³ at distances evenly spaced from 1 Å to the cutoff and are
    orthonormalized symmetrically (Löwdin) for each l, as in Himanen et al., Comput. Phys. Commun. 247, 106949
    (2020).
    """
    eta = 0.5 / smearing**2
    reach = np.linspace(1.0, cutoff, n_max)
    blocks = []
    for l in range(l_max + 1):  # noqa: E741
        alpha = np.log(1e3 * reach**l) / reach**2
        overlap = 0.5 * math.gamma(l + 1.5) * (alpha[:, None] + alpha) ** (-l - 1.5)
        values, vectors = np.linalg.eigh(overlap)
        total = alpha + eta
        primitive = (
            math.pi**1.5
            * (eta * r[:, None]) ** l
            / total ** (l + 1.5)
            * np.exp(-alpha * eta / total * r[:, None] ** 2)
        )
        blocks.append(primitive @ (vectors / np.sqrt(values) @ vectors.T))
    return np.concatenate(blocks, axis=1)


def orthonormal_bessel(r: np.ndarray, cutoff: float, count: int) -> np.ndarray:
    """Return √(2 / cutoff) sin(nπr / cutoff) / r, n = 1 … count, orthonormal with r² dr: [points, count]."""
    k = np.arange(1, count + 1) * math.pi / cutoff
    return math.sqrt(2.0 / cutoff) * k * np.sinc(k * r[:, None] / math.pi)


def orthonormal_chebyshev(r: np.ndarray, cutoff: float, count: int) -> np.ndarray:
    """Return polynomials of r of degree 0 … count - 1 that are orthonormal with r² dr, [points, count].

    They are made from Chebyshev polynomials of 1 - 2 r / cutoff, in this order.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count + 2)
    distances = 0.5 * cutoff * (1.0 - nodes)
    basis = np.polynomial.chebyshev.chebvander(nodes, count - 1)
    triangle = np.linalg.qr(np.sqrt(0.5 * cutoff * weights)[:, None] * distances[:, None] * basis)[1]
    triangle *= np.sign(np.diag(triangle))[:, None]
    values = np.polynomial.chebyshev.chebvander(1.0 - 2.0 * r / cutoff, count - 1)
    return np.linalg.solve(triangle.T, values.T).T
