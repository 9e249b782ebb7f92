"""Charges of least energy ½ qᵀ A q - bᵀ q with given sums over frames: dense, and by conjugate gradients."""

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


def shift_to(charges: Tensor, shares: Tensor, total: Tensor, frame: Tensor) -> Tensor:
    """Return charges[n] plus multiples of shares[n], so that the sums over frame[n] are total[F]."""
    missing = total - sum_frames(charges, frame, total.size(0))
    return charges + shares * (missing / sum_frames(shares, frame, total.size(0))).index_select(0, frame)


def dense_minimum(factor: Tensor, b: Tensor, total: Tensor, frame: Tensor) -> Tensor:
    """Return q[n] for b[n] and sums total[F]; factor[n, n]: Cholesky's of A, which is 0 between frames."""
    both = torch.cholesky_solve(torch.stack([b, torch.ones_like(b)], dim=1), factor)
    q = shift_to(both[:, 0], both[:, 1], total, frame)
    return shift_to(q, both[:, 1], total, frame)  # again, for what round-off has left


def gradient_minimum(
    product: Callable[[Tensor], Tensor], diagonal: Tensor, b: Tensor, total: Tensor, frame: Tensor
) -> Tensor:
    """Return q[n] for b[n] and sums total[F] to `_RESIDUAL`, all frames at once.

    Conjugate gradients among charges of constant sums, preconditioned with diagonal[n]; product(q) = A q.

    Raises:
        EvaluationError: A is not positive definite, or the iterations do not converge.
    """
    count = total.size(0)

    def products(a: Tensor, b: Tensor) -> Tensor:
        return sum_frames(a * b, frame, count)

    def preconditioned(r: Tensor) -> Tensor:
        return shift_to(r / diagonal, 1 / diagonal, torch.zeros_like(total), frame)

    q = shift_to(b / diagonal, 1 / diagonal, total, frame)
    allowed = _RESIDUAL**2 * (products(b, b) + products(diagonal * q, diagonal * q))
    r = b - product(q)
    z = preconditioned(r)
    p, rz = z, products(r, z)
    sizes = sum_frames(torch.ones_like(b), frame, count)
    for _ in range(_MAX_ITERATIONS):
        rest = products(r, r) - sum_frames(r, frame, count) ** 2 / sizes  # without what the constraint takes
        active = rest > allowed
        if not bool(active.any()):
            return shift_to(q, 1 / diagonal, total, frame)
        ap = product(p)
        curvature = products(p, ap)
        if bool((curvature <= 0)[active].any()):
            raise EvaluationError(NO_MINIMUM)
        step = torch.where(active, rz / curvature, 0.0).index_select(0, frame)
        q, r = q + step * p, r - step * ap
        z = preconditioned(r)
        before, rz = rz, products(r, z)
        p = z + torch.where(active, rz / before, 0.0).index_select(0, frame) * p
    worst = float((rest / allowed).max().sqrt()) * _RESIDUAL
    raise EvaluationError(
        f"the charges did not reach the residual {_RESIDUAL:g} in {_MAX_ITERATIONS} iterations, found "
        f"{worst:.3g}; raise the hardness"
    )
