"""The energy of charges as a matrix: second derivatives of `Electrostatics` by charges, for small systems.

Scriptable; nothing is differentiated here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearsight.couple.electrostatics import (
    ChargeFrames,
    choose_frames,
    correction_factors,
    pair_potentials,
    slab_places,
)
from nearsight.couple.mesh import influence, spread, volumes


def coulomb_matrix(positions: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor) -> Tensor:
    """Return A of the energy ½ qᵀ A q of `Electrostatics`, [n, n] 1/Å, in double; 0 between frames.

    positions[n, 3] and widths[n] in Å; boxes[F, 3, 3].
    """
    n = positions.size(0)
    first, second = frames.pairs[0].to(torch.int64), frames.image_atoms[frames.pairs[1]].to(torch.int64)
    potentials = pair_potentials(positions, boxes, frames, widths)
    matrix = torch.zeros(n * n, dtype=torch.float64, device=positions.device)
    matrix = matrix.index_add(0, first * n + second, potentials)  # a charge and its own image count twice
    matrix = matrix.index_add(0, second * n + first, potentials).view(n, n)
    if bool((frames.order > 0).any()):
        matrix = matrix + _corrections(boxes, frames, widths) + _of_slabs(positions, boxes, frames, widths)
        matrix = matrix + _of_meshes(positions, boxes, frames)
    return matrix


def _corrections(boxes: Tensor, frames: ChargeFrames, widths: Tensor) -> Tensor:
    own, level, spreading = correction_factors(boxes, frames)
    squares = widths**2
    of_pairs = 0.5 * spreading[frames.frame] * (squares.unsqueeze(1) + squares) - level[frames.frame]
    return of_pairs * _same(frames.frame) - torch.diag(own[frames.frame])


def _of_slabs(positions: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor) -> Tensor:
    n = positions.size(0)
    matrix = torch.zeros(n, n, dtype=torch.float64, device=positions.device)
    members, atoms, frame = choose_frames((frames.order > 0) & ~frames.pbc.all(1), frames.frame)
    if members.numel() == 0:
        return matrix
    boxes = boxes[members]
    z, height = slab_places(positions[atoms], boxes, frames.pbc[members], frame)
    second = z**2 + (widths[atoms] ** 2).unsqueeze(1)
    moments = 2 * z * z.t() - second - second.t() - (height**2 / 6)[frame]
    moments = (2 * math.pi / volumes(boxes))[frame].unsqueeze(1) * moments * _same(frame)
    matrix[atoms.unsqueeze(1), atoms] = moments
    return matrix


def _of_meshes(positions: Tensor, boxes: Tensor, frames: ChargeFrames) -> Tensor:
    """Products of the waves of unit charges, each on a mesh of its own."""
    n = positions.size(0)
    matrix = torch.zeros(n, n, dtype=torch.float64, device=positions.device)
    for number in range(boxes.size(0)):
        order = int(frames.order[number])
        if order == 0:
            continue
        atoms = torch.nonzero(frames.frame == number).squeeze(1)
        count, box = atoms.numel(), boxes[number : number + 1]
        lengths = [int(length) for length in frames.mesh[number]]
        ones = torch.ones(count, 1, dtype=torch.float64, device=positions.device)
        fractions = positions[atoms] @ torch.linalg.inv(box[0])
        own = torch.arange(count, device=positions.device)
        waves = torch.fft.rfftn(spread(fractions, ones, own, count, order, lengths)[0], dim=[1, 2, 3])
        weights = influence(box, frames.splitting[number : number + 1], order, lengths)
        parts = torch.view_as_real(waves.flatten(1)) * torch.sqrt(weights[0]).unsqueeze(1)
        parts = parts.flatten(1)
        matrix[atoms.unsqueeze(1), atoms] = parts @ parts.t()
    return matrix


def _same(frame: Tensor) -> Tensor:
    return (frame.unsqueeze(1) == frame).to(torch.float64)
