"""Charges of least energy ½ qᵀ A q - bᵀ q with given sums over molecules: dense, and by conjugate gradients.

A frame without molecules is one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearsight.couple.sums import sum_frames
from nearsight.errors import EvaluationError

_RESIDUAL = 1e-12  # of conjugate gradients, relative
_MAX_ITERATIONS = 1000
NO_MINIMUM = (
    "the energy of the charges has no minimum: the matrix of their hardness and potentials is not positive "
    "definite; raise the hardness, or the widths of narrow species"
)


def shift_to(charges: Tensor, shares: Tensor, total: Tensor, molecule: Tensor) -> Tensor:
    """Return charges[n] plus multiples of shares[n], so that the sums over molecule[n] are total[M]."""
    missing = total - sum_frames(charges, molecule, total.size(0))
    sums = sum_frames(shares, molecule, total.size(0))
    return charges + shares * (missing / sums).index_select(0, molecule)


def centered(rows: Tensor, molecule: Tensor, num_molecules: int) -> Tensor:
    """Return rows[n, ...] minus their mean over each molecule."""
    sizes = sum_frames(torch.ones_like(molecule), molecule, num_molecules)
    means = sum_frames(rows, molecule, num_molecules) / sizes.view([num_molecules] + [1] * (rows.dim() - 1))
    return rows - means.index_select(0, molecule)


def constrained(matrix: Tensor, molecule: Tensor, num_molecules: int) -> Tensor:
    """Return P A P + c (1 - P), [n, n], with P that makes sums over molecules 0; A[n, n] is 0 between frames.

    A alone may have a negative eigenvalue: in a slab the energy falls with its net charge.
    """
    n = matrix.size(0)
    means = torch.eye(n, dtype=matrix.dtype, device=matrix.device)
    means = torch.diagonal(matrix).mean() * (means - centered(means, molecule, num_molecules))
    return centered(centered(matrix, molecule, num_molecules).t(), molecule, num_molecules) + means


def dense_minimum(matrix: Tensor, factor: Tensor, b: Tensor, total: Tensor, molecule: Tensor) -> Tensor:
    """Return q[n] for b[n] and sums total[M]; matrix: A, factor: Cholesky's of `constrained`."""
    count = total.size(0)
    even = total / sum_frames(torch.ones_like(b), molecule, count)
    q = even.index_select(0, molecule)
    rest = centered(b - matrix @ q, molecule, count)
    return q + centered(torch.cholesky_solve(rest.unsqueeze(1), factor).squeeze(1), molecule, count)


def gradient_minimum(
    product: Callable[[Tensor], Tensor],
    diagonal: Tensor,
    b: Tensor,
    total: Tensor,
    molecule: Tensor,
    frame: Tensor,
) -> Tensor:
    """Return q[n] for b[n] and sums total[M] over molecules to `_RESIDUAL`, all frames at once.

    Conjugate gradients among charges of constant sums, preconditioned with diagonal[n]; product(q) = A q.

    Raises:
        EvaluationError: A is not positive definite, or the iterations do not converge.
    """
    count, num_frames = total.size(0), int(frame.max()) + 1

    def products(a: Tensor, b: Tensor) -> Tensor:
        return sum_frames(a * b, frame, num_frames)

    def preconditioned(r: Tensor) -> Tensor:
        return shift_to(r / diagonal, 1 / diagonal, torch.zeros_like(total), molecule)

    q = shift_to(b / diagonal, 1 / diagonal, total, molecule)
    allowed = _RESIDUAL**2 * (products(b, b) + products(diagonal * q, diagonal * q))
    r = centered(b - product(q), molecule, count)
    p = z = preconditioned(r)
    rz, rest = products(r, z), products(r, r)
    for _ in range(_MAX_ITERATIONS):
        active = rest > allowed
        if not bool(active.any()):
            return shift_to(q, 1 / diagonal, total, molecule)
        ap = product(p)
        curvature = products(p, ap)
        if bool((curvature <= 0)[active].any()):
            raise EvaluationError(NO_MINIMUM)
        step = torch.where(active, rz / curvature, 0.0).index_select(0, frame)
        q, r = q + step * p, r - centered(step * ap, molecule, count)
        z, before = preconditioned(r), rz
        rz, rest = products(r, z), products(r, r)
        p = z + torch.where(active, rz / before, 0.0).index_select(0, frame) * p
    worst = float((rest / allowed).max().sqrt()) * _RESIDUAL
    raise EvaluationError(
        f"the charges did not reach the residual {_RESIDUAL:g} in {_MAX_ITERATIONS} iterations, found "
        f"{worst:.3g}; raise the hardness"
    )
