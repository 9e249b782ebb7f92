"""The reciprocal part of smooth particle-mesh Ewald in torch: the twin of csrc/core/mesh/mesh.hpp.

Scriptable, and twice differentiable by fractional coordinates, charges and boxes. The meshes of all frames
have the same lengths, and the splines the same order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mesh_energies(
    fractions: Tensor,
    charges: Tensor,
    frame: Tensor,
    boxes: Tensor,
    splitting: Tensor,
    order: int,
    lengths: list[int],
) -> Tensor:
    """Return ½ Σ_k G(k) B(k) |S(k)|² over the waves of the mesh and the channels of charges, [F] e²/Å.

    fractions[n, 3] need not be wrapped; charges[n, C] e; frame[n]: number of the frame of each atom; the rows
    of boxes[F, 3, 3] are lattice vectors, Å; splitting[F] 1/Å. G is Ewald's 4π/V exp(-k²/4α²)/k², B the
    least-squares factor of docs/electrostatics.md.
    """
    mesh = spread(fractions, charges, frame, boxes.size(0), order, lengths)
    waves = torch.fft.rfftn(mesh, dim=[2, 3, 4])
    power = (torch.real(waves) ** 2 + torch.imag(waves) ** 2).sum(0)
    return 0.5 * (influence(boxes, splitting, order, lengths) * power.flatten(1)).sum(1)


def spread(
    fractions: Tensor, charges: Tensor, frame: Tensor, num_frames: int, order: int, lengths: list[int]
) -> Tensor:
    """Return the charges on the meshes, [C, F, K0, K1, K2] e; arguments as in mesh_energies."""
    n, channels, points = charges.size(0), charges.size(1), lengths[0] * lengths[1] * lengths[2]
    size = torch.tensor(lengths, device=fractions.device)
    place = (fractions - torch.floor(fractions)) * size
    first = torch.floor(place)
    reach = torch.arange(order, device=fractions.device)
    x, y, z = ((first.to(torch.int64).unsqueeze(2) + reach) % size.unsqueeze(1)).unbind(1)
    lines = (x * lengths[1]).unsqueeze(2) + y.unsqueeze(1)
    numbers = (lines * lengths[2]).unsqueeze(3) + z.view(n, 1, 1, order)
    meshes = torch.arange(channels, device=frame.device).unsqueeze(1) * num_frames + frame
    numbers = (meshes * points).view(channels, n, 1, 1, 1) + numbers

    wx, wy, wz = spline_weights(place - first, order).unbind(1)
    planes = charges.t().contiguous().unsqueeze(2) * wx
    shares = planes.view(channels, n, order, 1, 1) * (wy.unsqueeze(2) * wz.unsqueeze(1)).unsqueeze(1)
    mesh = torch.zeros(channels * num_frames * points, dtype=charges.dtype, device=charges.device)
    mesh = mesh.index_add(0, numbers.view(-1), shares.view(-1))
    return mesh.view(channels, num_frames, lengths[0], lengths[1], lengths[2])


def spline_weights(fraction: Tensor, order: int) -> Tensor:
    """Return M_order(fraction + order - 1 - j) at the points j that a charge reaches, [..., order].

    Cardinal B-splines by their recursion, Essmann et al., J. Chem. Phys. 103, 8577 (1995), eq. 4.1.
    """
    fraction = fraction.unsqueeze(-1)
    weights = torch.cat([1.0 - fraction, fraction], dim=-1)
    for n in range(3, order + 1):
        j = torch.arange(n, dtype=fraction.dtype, device=fraction.device)
        above = torch.nn.functional.pad(weights, (1, 0))
        below = torch.nn.functional.pad(weights, (0, 1))
        weights = ((fraction + (n - 1 - j)) * above + (1 + j - fraction) * below) / (n - 1)
    return weights


def influence(boxes: Tensor, splitting: Tensor, order: int, lengths: list[int]) -> Tensor:
    """Return G B of the waves that rfftn gives, counted for k and -k, [F, K0 · K1 · (K2 // 2 + 1)] 1/Å."""
    half = lengths[2] // 2 + 1
    factors = spline_factors(order, lengths, boxes.device)
    factor = factors[0].view(-1, 1, 1) * factors[1].view(-1, 1) * factors[2][:half]
    factor[:, :, 1:] *= 2.0
    factor[0, 0, 0] = 0.0
    periods = [signed_waves(length, boxes.device) for length in lengths]
    x, y, z = torch.meshgrid(periods[0], periods[1], periods[2][:half], indexing="ij")
    products = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]).flatten(1)

    inverse = torch.linalg.inv(boxes)
    metric = 4 * math.pi**2 * inverse.transpose(1, 2) @ inverse
    rows = torch.tensor([0, 1, 2, 0, 0, 1], device=boxes.device)
    columns = torch.tensor([0, 1, 2, 1, 2, 2], device=boxes.device)
    k2 = metric[:, rows, columns] @ products + (products[:3].sum(0) == 0)  # 1 where it would be 0
    ewald = torch.exp(-0.25 * k2 / (splitting**2).unsqueeze(1)) / k2
    return (4 * math.pi / volumes(boxes)).unsqueeze(1) * factor.flatten() * ewald


def volumes(boxes: Tensor) -> Tensor:
    """Return the volumes of boxes[F, 3, 3], [F] Å³."""
    return (boxes[:, 0] * torch.linalg.cross(boxes[:, 1], boxes[:, 2])).sum(1).abs()


def signed_waves(length: int, device: torch.device) -> Tensor:
    """Return how many periods the waves of one direction have, [length]; from length / 2 on h - length."""
    h = torch.arange(length, dtype=torch.float64, device=device)
    return torch.where(2 * h < length, h, h - length)


def spline_factors(order: int, lengths: list[int], device: torch.device) -> list[Tensor]:
    """Return B of each direction: Ŵ² / (ΣŴ²)² of own and equal-looking waves, [K].

    ΣŴ² is the Fourier series of the spline of twice the order at the integers. The wave at the mesh's limit,
    which has no sign, is left out.
    """
    overlap = spline_weights(torch.zeros(1, dtype=torch.float64, device=device), 2 * order)[0]
    overlap = overlap[:order].flip(0)
    overlap[1:] *= 2.0
    harmonics = torch.arange(order, dtype=torch.float64, device=device)
    factors: list[Tensor] = []
    for length in lengths:
        angle = math.pi / length * signed_waves(length, device)
        own = torch.sinc(angle / math.pi) ** (2 * order)
        factor = own / (torch.cos(2 * angle.unsqueeze(1) * harmonics) @ overlap) ** 2
        if length % 2 == 0:
            factor[length // 2] = 0.0
        factors.append(factor)
    return factors
