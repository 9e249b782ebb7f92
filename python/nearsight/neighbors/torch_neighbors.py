"""Neighbor search in pure, scriptable torch operations: O(N²), any triclinic cell, also small ones.

It is what the torchforce export carries inside, and an oracle for the core's cell list.
"""

from __future__ import annotations

import torch
from torch import Tensor


def torch_neighbors(
    positions: Tensor, cell: Tensor, periodic: list[bool], cutoff: float, block: int = 1_000_000
) -> tuple[Tensor, Tensor, Tensor]:
    """Return edge_index[2, E], shifts[E, 3] int64 and edge_vectors[E, 3] of all pairs closer than the cutoff.

    r_ij = r_j - r_i + shift @ cell, sorted by center; differentiable by positions[n, 3] and cell[3, 3],
    whose rows are lattice vectors. Along a direction that is not periodic the vector must only be
    independent of the others. `block` is the number of pairs looked at together, which bounds the memory.
    """
    with torch.no_grad():
        center, neighbor, shifts = _search(positions, cell, periodic, cutoff, block)
    vectors = positions.index_select(0, neighbor) - positions.index_select(0, center)
    vectors = vectors + shifts.to(cell.dtype) @ cell
    return torch.stack([center, neighbor]), shifts, vectors


def _search(
    positions: Tensor, cell: Tensor, periodic: list[bool], cutoff: float, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return center[E], neighbor[E] and shifts[E, 3]."""
    inverse = torch.linalg.inv(cell)
    wrap = torch.tensor(periodic, dtype=cell.dtype, device=cell.device)
    heights = 1.0 / torch.sqrt((inverse**2).sum(0))
    # Fractional differences are folded to [-1/2, 1/2] first, so that so many images to each side are enough.
    reach = torch.floor(wrap * (cutoff / heights + 0.5)).to(torch.int64)
    ranges = [torch.arange(-int(n), int(n) + 1, device=cell.device) for n in reach]
    images = torch.cartesian_prod(ranges[0], ranges[1], ranges[2])
    translations = images.to(cell.dtype) @ cell

    n = positions.size(0)
    fractional = positions @ inverse
    rows = max(1, block // max(1, n * images.size(0)))
    centers = [torch.zeros(0, dtype=torch.int64, device=cell.device)]
    neighbors = [torch.zeros(0, dtype=torch.int64, device=cell.device)]
    shifts = [torch.zeros(0, 3, dtype=torch.int64, device=cell.device)]
    for begin in range(0, n, rows):
        some = positions[begin : begin + rows]
        fold = -torch.round((fractional.unsqueeze(0) - fractional[begin : begin + rows].unsqueeze(1)) * wrap)
        base = positions.unsqueeze(0) - some.unsqueeze(1) + fold @ cell
        square = ((base.unsqueeze(2) + translations) ** 2).sum(3)
        itself = torch.arange(some.size(0), device=cell.device)
        square[itself, itself + begin, images.size(0) // 2] = cutoff**2  # the middle image has shift 0
        i, j, k = torch.nonzero(square < cutoff**2).unbind(1)
        centers.append(i + begin)
        neighbors.append(j)
        shifts.append(fold[i, j].to(torch.int64) + images.index_select(0, k))
    return torch.cat(centers), torch.cat(neighbors), torch.cat(shifts)
