"""The energy of charges in torch, for training and the torchforce export: the twin of csrc/core/mesh.

Conventions are those of docs/electrostatics.md. Scriptable, in double, twice differentiable by positions,
charges, widths and strain. Annotations are not postponed here: TorchScript would look up those of
ChargeFrames where it is used.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nearsight.couple.mesh import mesh_energies, volumes
from nearsight.couple.sums import sum_frames
from nearsight.units import COULOMB


class ChargeFrames(NamedTuple):
    """Boxes, pairs and frozen parameters of the sums of F frames with n atoms.

    An image is an atom moved by lattice vectors; there are those that some pair needs. An open frame has all
    its pairs, a box of no meaning that is not singular, and zeros for parameters.
    """

    frame: Tensor  # [n] int64, number of the frame of each atom
    boxes: Tensor  # [F, 3, 3] Å, rows are lattice vectors; that of a slab has vacuum along its normal
    pbc: Tensor  # [F, 3] bool
    splitting: Tensor  # [F] 1/Å
    cutoff: Tensor  # [F] Å
    order: Tensor  # [F] int64, of the splines
    mesh: Tensor  # [F, 3] int64, points along the lattice vectors
    image_atoms: Tensor  # [I] int
    image_shifts: Tensor  # [I, 3] int, lattice vectors
    pairs: Tensor  # [2, E] int, an atom and an image; every pair once


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
        """Return the energy [F] in eV, the sum over channels of charges that do not see each other.

        positions[n, 3] Å; charges[n, C] e; widths[n] Å: standard deviations of Gaussian charges, 0 or None
        for points; strain[F, 3, 3]: positions and boxes are multiplied by 1 + strain from the right, and the
        virial is minus the symmetric part of the derivative by it.
        """
        boxes = frames.boxes
        if strain is not None:
            positions = positions + _times(positions, strain.index_select(0, frames.frame))
            boxes = boxes + boxes @ strain
        if widths is not None:
            widths = widths.to(torch.float64)
        charges = charges.to(torch.float64)
        energy = pair_energies(positions, charges, boxes, frames, widths)
        energy = energy + lattice_energies(positions, charges, boxes, frames, widths)
        return self.coulomb * energy


def lattice_energies(
    positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return what periodic frames have beside the energies of pairs, [F] e²/Å."""
    if not bool((frames.order > 0).any()):
        return torch.zeros(boxes.size(0), dtype=boxes.dtype, device=boxes.device)
    energy = correction_energies(charges, boxes, frames, widths)
    energy = energy + slab_energies(positions, charges, boxes, frames, widths)
    return energy + reciprocal_energies(positions, charges, boxes, frames)


def pair_energies(
    positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return Σ q_i q_j v_ij over pairs with v of `pair_potentials`, [F] e²/Å."""
    potentials = pair_potentials(positions, boxes, frames, widths)
    products = torch.zeros_like(potentials)
    for q in charges.unbind(1):
        products = products + _pair_values(q, frames, 0) * _pair_values(q, frames, 1)
    pair_frame = frames.frame.index_select(0, frames.pairs[0])
    return sum_frames(products * potentials, pair_frame, boxes.size(0))


def pair_potentials(positions: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None) -> Tensor:
    """Return erfc(α r) / r - erfc(r / √(2 (σ_i² + σ_j²))) / r - shift of every pair, [E] 1/Å."""
    atoms, pair_frame = frames.image_atoms, frames.frame.index_select(0, frames.pairs[0])
    image_boxes = boxes.index_select(0, frames.frame.index_select(0, atoms))
    images = positions.index_select(0, atoms) + _times(frames.image_shifts.to(boxes.dtype), image_boxes)
    vectors = _components(images, frames.pairs[1]) - _components(positions, frames.pairs[0])
    r = torch.sqrt((vectors**2).sum(0))
    potential = torch.erfc(frames.splitting.index_select(0, pair_frame) * r)
    if widths is not None:
        width2 = _pair_values(widths**2, frames, 0) + _pair_values(widths**2, frames, 1)
        smeared = width2 > 0
        outer = torch.erfc(r / torch.sqrt(2 * torch.where(smeared, width2, 1.0)))
        potential = potential - torch.where(smeared, outer, 0.0)
    return potential / r - potential_shift(frames).index_select(0, pair_frame)


def potential_shift(frames: ChargeFrames) -> Tensor:
    """Return erfc(α r_c) / r_c, by which the short-ranged part is shifted to 0 at the cutoff, [F] 1/Å."""
    shift = torch.erfc(frames.splitting * frames.cutoff) / frames.cutoff
    return torch.where(frames.order > 0, shift, 0.0)


def correction_energies(
    charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return what needs no sum over pairs: own screening charges and the background, [F] e²/Å."""
    own, level, spreading = correction_factors(boxes, frames)
    total = sum_frames(charges, frames.frame, boxes.size(0))
    background = level * (total**2).sum(1)
    if widths is not None:
        spread = sum_frames(charges * (widths**2).unsqueeze(1), frames.frame, boxes.size(0))
        background = background - spreading * (total * spread).sum(1)
    squares = sum_frames((charges**2).sum(1), frames.frame, boxes.size(0))
    return -0.5 * (own * squares + background)


def correction_factors(boxes: Tensor, frames: ChargeFrames) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, b and c of the correction -½ Σ (a q_i² + b Q q_i - c Q q_i σ_i²), [F] each; 0 where open."""
    alpha, cutoff, shift = frames.splitting, frames.cutoff, potential_shift(frames)
    reach = alpha * cutoff
    inside = torch.erf(reach) - 2 / math.sqrt(math.pi) * reach * torch.exp(-(reach**2))
    # ∫ erfc(α r) / r - shift d³r within the cutoff
    level = math.pi / alpha**2 * inside + 2 / 3 * math.pi * cutoff**3 * shift
    is_periodic, volume = frames.order > 0, volumes(boxes)
    own = 2 * alpha / math.sqrt(math.pi) + shift
    level = torch.where(is_periodic, level, 0.0) / volume
    return own, level, torch.where(is_periodic, 4 * math.pi / volume, 0.0)


def slab_energies(
    positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames, widths: Tensor | None
) -> Tensor:
    """Return the correction of slabs, [F] e²/Å.

    Yeh and Berkowitz, J. Chem. Phys. 111, 3155 (1999); with a net charge Ballenegger, Arnold and Cerdà,
    J. Chem. Phys. 131, 094107 (2009).
    """
    energies = torch.zeros(boxes.size(0), dtype=boxes.dtype, device=boxes.device)
    chosen = (frames.order > 0) & ~frames.pbc.all(1)
    members, atoms, frame = choose_frames(chosen, frames.frame)
    if members.numel() == 0:
        return energies
    boxes, count = boxes.index_select(0, members), members.numel()
    z, height = slab_places(positions.index_select(0, atoms), boxes, frames.pbc[members], frame)
    q, second = charges.index_select(0, atoms), z**2
    if widths is not None:
        second = second + (widths**2).index_select(0, atoms).unsqueeze(1)
    charge, dipole = sum_frames(q, frame, count), sum_frames(q * z, frame, count)
    moments = dipole**2 - charge * (sum_frames(q * second, frame, count) + charge * height**2 / 12)
    return energies.index_add(0, members, 2 * math.pi / volumes(boxes) * moments.sum(1))


def slab_places(positions: Tensor, boxes: Tensor, pbc: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places [n, 1] of atoms along the normals of slabs, and the heights [F, 1] of these, Å.

    From the middle of the slab, since differences of large moments would lose digits.
    """
    count = boxes.size(0)
    row, open_row = torch.arange(count, device=boxes.device), torch.argmin(pbc.int(), dim=1)
    normal = slab_normals(boxes, pbc)
    height = (boxes[row, open_row] * normal).sum(1, keepdim=True)
    z = (positions * normal.index_select(0, frame)).sum(1, keepdim=True)
    middle = sum_frames(z, frame, count) / sum_frames(torch.ones_like(z), frame, count)
    return z - middle.index_select(0, frame), height


def slab_normals(boxes: Tensor, pbc: Tensor) -> Tensor:
    """Return unit vectors normal to the two periodic directions of boxes[F, 3, 3] with pbc[F, 3], [F, 3]."""
    row, open_row = torch.arange(boxes.size(0), device=boxes.device), torch.argmin(pbc.int(), dim=1)
    normal = torch.linalg.cross(boxes[row, (open_row + 1) % 3], boxes[row, (open_row + 2) % 3])
    return normal / torch.sqrt((normal**2).sum(1, keepdim=True))


def reciprocal_energies(positions: Tensor, charges: Tensor, boxes: Tensor, frames: ChargeFrames) -> Tensor:
    """Return what comes from meshes, [F] e²/Å; frames of the same mesh and order are done together."""
    energies = torch.zeros(boxes.size(0), dtype=boxes.dtype, device=boxes.device)
    meshes = torch.cat([frames.order.unsqueeze(1), frames.mesh], dim=1)
    left = frames.order > 0
    while bool(left.any()):
        like = meshes[left][0]
        chosen = left & (meshes == like).all(1)
        left = left & ~chosen
        members, atoms, frame = choose_frames(chosen, frames.frame)
        some = boxes.index_select(0, members)
        fractions = _times(positions.index_select(0, atoms), torch.linalg.inv(some).index_select(0, frame))
        splitting, mesh = frames.splitting.index_select(0, members), [int(number) for number in like]
        q = charges.index_select(0, atoms)
        found = mesh_energies(fractions, q, frame, some, splitting, mesh[0], mesh[1:])
        energies = energies.index_add(0, members, found)
    return energies


def choose_frames(chosen: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the frames with chosen[F], their atoms, and for each atom the number of its frame among them."""
    members = torch.nonzero(chosen).squeeze(1)
    atoms = torch.nonzero(chosen.index_select(0, frame)).squeeze(1)
    numbers = torch.cumsum(chosen, 0) - 1
    return members, atoms, numbers.index_select(0, frame.index_select(0, atoms))


def _times(rows: Tensor, matrices: Tensor) -> Tensor:
    """Return rows[n, 3] · matrices[n, 3, 3]."""
    return torch.bmm(rows.unsqueeze(1), matrices).squeeze(1)


def _components(rows: Tensor, index: Tensor) -> Tensor:
    """Return some of rows[n, 3] as [3, E]; looked up in one dimension, several times faster than by rows."""
    start = rows.size(0) * torch.arange(3, dtype=index.dtype, device=index.device).unsqueeze(1)
    return rows.t().reshape(-1).index_select(0, (start + index).view(-1)).view(3, -1)


def _pair_values(values: Tensor, frames: ChargeFrames, end: int) -> Tensor:
    """Return values[n] of the atoms (end 0) or images (end 1) of pairs, [E]."""
    if end == 1:
        values = values.index_select(0, frames.image_atoms)
    return values.index_select(0, frames.pairs[end])
