"""The energy of charges: the twin of csrc/core/mesh in torch, for training and for the torchforce export.

Conventions are those of docs/electrostatics.md. Scriptable, in double, twice differentiable by positions,
charges, widths and strain.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nearsight.couple.mesh import mesh_energies, volumes
from nearsight.couple.sums import sum_frames
from nearsight.units import COULOMB


class ChargeFrames(NamedTuple):
    """Boxes, pairs and frozen parameters of the sums of F frames with n charges and E pairs.

    An image is an atom moved by lattice vectors; of the I images a sum needs only those near an atom. An open
    frame has all its pairs, splitting 0 and order 0.
    """

    frame: Tensor  # [n] int64, number of the frame of each atom
    boxes: Tensor  # [F, 3, 3] Å, rows are lattice vectors; a slab's with vacuum along its normal
    pbc: Tensor  # [F, 3] bool
    splitting: Tensor  # [F] 1/Å
    cutoff: Tensor  # [F] Å
    order: Tensor  # [F] int64, of the splines
    mesh: Tensor  # [F, 3] int64, points along the lattice vectors
    image_atoms: Tensor  # [I] int
    image_shifts: Tensor  # [I, 3] int, in lattice vectors
    pairs: Tensor  # [2, E] int, an atom and an image; each pair once


class Electrostatics(nn.Module):
    """The energy ½ Σ q φ of every frame, without the interaction of a charge with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.coulomb = COULOMB  # TorchScript knows attributes, not global constants

    def forward(
        self,
        positions: Tensor,
        charges: Tensor,
        frames: ChargeFrames,
        widths: Tensor | None = None,
        strain: Tensor | None = None,
    ) -> Tensor:
        """Return the energy [F] in eV, summed over channels of charges that do not see each other.

        positions[n, 3] Å, charges[n, C] e, widths[n] Å: standard deviations of Gaussian charges, 0 or None for
        points (no derivative by those that are 0). strain[F, 3, 3] acts on positions and boxes from the right;
        the virial is minus the derivative by it.
        """
        boxes = frames.boxes
        if strain is not None:
            positions = positions + _times(positions, strain.index_select(0, frames.frame))
            boxes = boxes + boxes @ strain
        charges = charges.to(torch.float64)
        energy = pair_energies(positions, charges, boxes, frames, widths)
        if bool(frames.pbc.any()):
            energy = energy + correction_energies(charges, boxes, frames, widths)
            energy = energy + slab_energies(positions, charges, boxes, frames, widths)
            energy = energy + reciprocal_energies(positions, charges, boxes, frames)
        return self.coulomb * energy


def pair_energies(
    positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return Σ q_i q_j (erfc(α r) / r - erfc(r / √(2 (σ_i² + σ_j²))) / r - shift) over pairs, [F] e²/Å."""
    atoms, pair_frame = frames.image_atoms, frames.frame.index_select(0, frames.pairs[0])
    moved = frames.image_shifts.to(boxes.dtype)
    translations = _times(moved, boxes.index_select(0, frames.frame.index_select(0, atoms)))
    images = positions.index_select(0, atoms) + translations
    vectors = _columns(images, frames.pairs[1]) - _columns(positions, frames.pairs[0])
    r = torch.sqrt((vectors**2).sum(0))
    potential = torch.erfc(frames.splitting.index_select(0, pair_frame) * r)
    if widths is not None:
        squares = widths.to(torch.float64) ** 2
        square = squares.index_select(0, atoms).index_select(0, frames.pairs[1])
        square = square + squares.index_select(0, frames.pairs[0])
        smeared = square > 0
        outer = torch.erfc(r / torch.sqrt(2 * torch.where(smeared, square, 1.0)))
        potential = potential - torch.where(smeared, outer, 0.0)
    potential = potential / r - potential_shift(frames).index_select(0, pair_frame)
    products = torch.zeros_like(r)
    for q in charges.unbind(1):
        images_q = q.index_select(0, atoms).index_select(0, frames.pairs[1])
        products = products + q.index_select(0, frames.pairs[0]) * images_q
    return sum_frames(products * potential, pair_frame, boxes.size(0))


def potential_shift(frames: ChargeFrames) -> Tensor:
    """Return erfc(α r_c) / r_c, by which the short-ranged part is shifted to zero, [F] 1/Å; open: 0."""
    with torch.no_grad():
        shift = torch.erfc(frames.splitting * frames.cutoff) / frames.cutoff
        return torch.where(frames.order > 0, shift, 0.0)


def correction_energies(
    charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return what needs no sum over pairs: own screening charges and the background, [F] e²/Å."""
    num_frames = boxes.size(0)
    with torch.no_grad():
        alpha, cutoff, shift = frames.splitting, frames.cutoff, potential_shift(frames)
        periodic = frames.order > 0
        own = 2 * alpha / math.sqrt(math.pi) + shift
        # ∫ erfc(α r) / r - shift d³r within the cutoff
        reach = alpha * cutoff
        inside = torch.erf(reach) - 2 / math.sqrt(math.pi) * reach * torch.exp(-(reach**2))
        level = math.pi / alpha**2 * inside + 2 / 3 * math.pi * cutoff**3 * shift
        level = torch.where(periodic, level, 0.0)
    total = sum_frames(charges, frames.frame, num_frames)
    background = level * (total**2).sum(1)
    if widths is not None:
        spread = sum_frames(charges * (widths**2).unsqueeze(1), frames.frame, num_frames)
        gaussian = torch.where(periodic, 4 * math.pi * (total * spread).sum(1), 0.0)
        background = background - gaussian
    squares = sum_frames((charges**2).sum(1), frames.frame, num_frames)
    return -0.5 * (own * squares + background / volumes(boxes))


def slab_energies(
    positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return the correction of slabs, Ballenegger, Arnold and Cerdà, J. Chem. Phys. 131, 094107 (2009), [F]."""
    chosen = frames.pbc.any(1) & ~frames.pbc.all(1)
    energies = torch.zeros(boxes.size(0), dtype=boxes.dtype, device=boxes.device)
    slabs = torch.nonzero(chosen).squeeze(1)
    if slabs.numel() == 0:
        return energies
    atoms, frame = _atoms_of(chosen, frames.frame)
    boxes, number = boxes.index_select(0, slabs), slabs.numel()
    row = torch.arange(number, device=boxes.device)
    along = torch.argmin(frames.pbc.index_select(0, slabs).to(torch.int64), dim=1)
    normal = torch.linalg.cross(boxes[row, (along + 1) % 3], boxes[row, (along + 2) % 3])
    normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    height2 = (boxes[row, along] * normal).sum(1) ** 2

    q = charges.index_select(0, atoms)
    z = (positions.index_select(0, atoms) * normal.index_select(0, frame)).sum(1)
    counts = sum_frames(torch.ones_like(z), frame, number)
    z = (z - (sum_frames(z, frame, number) / counts).index_select(0, frame)).unsqueeze(1)
    total, first = sum_frames(q, frame, number), sum_frames(q * z, frame, number)
    second = z**2
    if widths is not None:
        second = second + (widths.index_select(0, atoms) ** 2).unsqueeze(1)
    spread = sum_frames(q * second, frame, number)
    moments = first**2 - total * spread - total**2 * (height2 / 12).unsqueeze(1)
    return energies.index_add(0, slabs, 2 * math.pi / volumes(boxes) * moments.sum(1))


def reciprocal_energies(positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames) -> Tensor:
    """Return the mesh part, [F] e²/Å; frames with meshes of the same lengths are done together."""
    energies = torch.zeros(boxes.size(0), dtype=boxes.dtype, device=boxes.device)
    meshes = torch.cat([frames.order.unsqueeze(1), frames.mesh], dim=1)
    left = frames.order > 0
    while bool(left.any()):
        mesh: list[int] = meshes[left][0].tolist()
        chosen = left & (meshes == meshes[left][:1]).all(1)
        left = left & ~chosen
        atoms, frame = _atoms_of(chosen, frames.frame)
        members = torch.nonzero(chosen).squeeze(1)
        some = boxes.index_select(0, members)
        inverses = torch.linalg.inv(some).index_select(0, frame)
        fractions = _times(positions.index_select(0, atoms), inverses)
        found = mesh_energies(
            fractions,
            charges.index_select(0, atoms),
            frame,
            some,
            frames.splitting.index_select(0, members),
            mesh[0],
            mesh[1:],
        )
        energies = energies.index_add(0, members, found)
    return energies


def _atoms_of(chosen: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Return the atoms of the frames with chosen[F], and the number of the frame of each among those."""
    atoms = torch.nonzero(chosen.index_select(0, frame)).squeeze(1)
    numbers = torch.cumsum(chosen, 0) - 1
    return atoms, numbers.index_select(0, frame.index_select(0, atoms))


def _times(rows: Tensor, matrices: Tensor) -> Tensor:
    """Return row · matrix of rows[n, 3] and matrices[n, 3, 3]."""
    return torch.bmm(rows.unsqueeze(1), matrices).squeeze(1)


def _columns(rows: Tensor, index: Tensor) -> Tensor:
    """Return some of rows[n, 3] as [3, E]; one-dimensional lookups are several times faster than of rows."""
    start = rows.size(0) * torch.arange(3, dtype=index.dtype, device=index.device).unsqueeze(1)
    return rows.t().reshape(-1).index_select(0, (start + index).view(-1)).view(3, -1)
