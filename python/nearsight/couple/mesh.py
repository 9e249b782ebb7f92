"""The reciprocal part of smooth particle-mesh Ewald: the twin of csrc/core/mesh/mesh.hpp, in torch.

Scriptable and twice differentiable by fractional coordinates, charges and boxes. All frames here have
meshes of the same lengths and splines of the same order.
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
    """Return ½ Σ_k G(k) B(k) |S(k)|² over the waves of the mesh, summed over channels, [F] e²/Å.

    fractions[n, 3] need not be wrapped, charges[n, C] e, frame[n], boxes[F, 3, 3] Å with lattice vectors as
    rows, splitting[F] 1/Å. G is Ewald's 4π/V exp(-k²/4α²)/k², B the least-squares factor of csrc's Mesh.
    """
    mesh = spread(fractions, charges, frame, boxes.size(0), order, lengths)
    waves = torch.fft.rfftn(mesh, dim=[2, 3, 4])
    power = (torch.real(waves) ** 2 + torch.imag(waves) ** 2).sum(0)
    return 0.5 * (influence(boxes, splitting, order, lengths) * power.flatten(1)).sum(1)


def spread(
    fractions: Tensor, charges: Tensor, frame: Tensor, num_frames: int, order: int, lengths: list[int]
) -> Tensor:
    """Return the charges on the mesh, [C, F, K0, K1, K2] e."""
    size = torch.tensor(lengths, dtype=torch.int64, device=fractions.device)
    place = (fractions - torch.floor(fractions)) * size
    first = torch.floor(place)
    weights = spline_weights(place - first, order)
    points = (first.to(torch.int64).unsqueeze(2) + torch.arange(order, device=size.device)) % size.unsqueeze(1)

    n, channels = charges.size(0), charges.size(1)
    total = lengths[0] * lengths[1] * lengths[2]
    start = (
        torch.arange(channels, device=frame.device).unsqueeze(1) * num_frames + frame.unsqueeze(0)
    ) * total
    rows = points[:, 0] * lengths[1]
    lines = (rows.unsqueeze(2) + points[:, 1].unsqueeze(1)) * lengths[2]
    places = start.view(channels, n, 1, 1) + (lines.unsqueeze(3) + points[:, 2].view(n, 1, 1, order)).view(
        1, n, order, order * order
    )
    planes = charges.t().unsqueeze(2) * weights[:, 0]
    sheets = (weights[:, 1].unsqueeze(2) * weights[:, 2].unsqueeze(1)).view(1, n, 1, order * order)
    shares = planes.unsqueeze(3) * sheets
    mesh = torch.zeros(channels * num_frames * total, dtype=charges.dtype, device=charges.device)
    mesh = mesh.index_add(0, places.reshape(-1), shares.reshape(-1))
    return mesh.view(channels, num_frames, lengths[0], lengths[1], lengths[2])


def spline_weights(fraction: Tensor, order: int) -> Tensor:
    """Return M_order(fraction + order - 1 - j) at the points j that a charge reaches, [..., order].

    Cardinal B-splines by their recursion, Essmann et al., J. Chem. Phys. 103, 8577 (1995), eq. 4.1.
    """
    fraction = fraction.unsqueeze(-1)
    weights = torch.cat([1.0 - fraction, fraction], dim=-1)
    for n in range(3, order + 1):
        j = torch.arange(n, dtype=fraction.dtype, device=fraction.device)
        before = torch.nn.functional.pad(weights, (1, 0))
        same = torch.nn.functional.pad(weights, (0, 1))
        weights = ((fraction + (n - 1 - j)) * before + (1 + j - fraction) * same) / (n - 1)
    return weights


def influence(boxes: Tensor, splitting: Tensor, order: int, lengths: list[int]) -> Tensor:
    """Return G B for the waves that rfftn gives, [F, K0 · K1 · (K2 // 2 + 1)] 1/Å; each for k and -k."""
    with torch.no_grad():
        factors = [spline_factors(order, length, boxes.device) for length in lengths]
        periods = [signed_waves(length, boxes.device) for length in lengths]
        half = lengths[2] // 2 + 1
        factor = factors[0].view(-1, 1, 1) * factors[1].view(-1, 1) * factors[2][:half]
        factor[:, :, 1:] *= 2.0
        factor[0, 0, 0] = 0.0
        x, y, z = torch.meshgrid(periods[0], periods[1], periods[2][:half], indexing="ij")
        products = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]).flatten(1)
        is_zero = (products[:3].sum(0) == 0).to(boxes.dtype)
    inverse = torch.linalg.inv(boxes)
    metric = 4 * math.pi**2 * inverse.transpose(1, 2) @ inverse
    components = torch.stack(
        [metric[:, 0, 0], metric[:, 1, 1], metric[:, 2, 2], metric[:, 0, 1], metric[:, 0, 2], metric[:, 1, 2]],
        dim=1,
    )
    k2 = components @ products + is_zero
    return (
        (4 * math.pi / volumes(boxes)).unsqueeze(1)
        * factor.flatten()
        * torch.exp(-0.25 * k2 / (splitting**2).unsqueeze(1))
        / k2
    )


def volumes(boxes: Tensor) -> Tensor:
    """Return the volumes of boxes[F, 3, 3], [F] Å³."""
    return (boxes[:, 0] * torch.linalg.cross(boxes[:, 1], boxes[:, 2])).sum(1).abs()


def signed_waves(length: int, device: torch.device) -> Tensor:
    """Return the periods h of the waves of one direction, [length]; those from length / 2 on are h - length."""
    h = torch.arange(length, dtype=torch.float64, device=device)
    return torch.where(2 * h < length, h, h - length)


def spline_factors(order: int, length: int, device: torch.device) -> Tensor:
    """Return B of one direction: Ŵ² / (ΣŴ²)² of own and equal-looking waves, [length].

    ΣŴ² is the Fourier series of the spline of twice the order at the integers. Waves at the mesh's limit are
    left out.
    """
    angle = math.pi / length * signed_waves(length, device)
    own = torch.sinc(angle / math.pi) ** (2 * order)
    zero = torch.zeros(1, dtype=torch.float64, device=device)
    overlap = spline_weights(zero, 2 * order)[0, :order].flip(0)
    overlap[1:] *= 2.0
    harmonics = torch.arange(order, dtype=torch.float64, device=device)
    everything = torch.cos(2 * angle.unsqueeze(1) * harmonics) @ overlap
    factors = own / everything**2
    if length % 2 == 0:
        factors[length // 2] = 0.0
    return factors
