"""Forward, couple, reverse: energy, forces and virial of a batch from any module of the contract."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.couple.coulomb import PHYSICAL, ChargeCouple, CoulombCouple
from nearsight.couple.couples import build_couple
from nearsight.couple.polarization import BornCharges, dipoles
from nearsight.couple.sums import sum_frames
from nearsight.couple.system import Charged, System
from nearsight.errors import ConfigError
from nearsight.keys import READOUT_ENERGY
from nearsight.neighbors import Graph


@dataclass(frozen=True)
class Results:
    """What a model gives for a batch of frames; energies and their derivatives are in double."""

    energy: Tensor  # [num_frames] eV, without reference energies
    forces: Tensor  # [n, 3] eV/Å
    virial: Tensor  # [num_frames, 3, 3] eV, -dE/dstrain, symmetric
    readouts: dict[str, Tensor]  # [n, ...] eV, e
    charges: Tensor | None = None  # [n, channels] e, of couples with charges
    physical_charges: bool = False  # whether they are meant to be those of the data: one channel, not latent
    dipole: Tensor | None = None  # [num_frames, 3] e·Å, of couples with charges
    born_charges: Tensor | None = None  # [n, 3, 3] e, if asked for


@dataclass(frozen=True)
class MemberResults:
    """What each member of a committee gives for a batch of frames, in double."""

    energy: Tensor  # [members, num_frames] eV, without reference energies
    forces: Tensor  # [members, n, 3] eV/Å
    virial: Tensor  # [members, num_frames, 3, 3] eV


def evaluate(
    module: nn.Module,
    graph: Graph,
    couple: dict[str, Any],
    create_graph: bool = False,
    charged: Charged | None = None,
    born_charges: int = 0,
) -> Results:
    """Evaluate a model; `create_graph` makes forces and virial differentiable by the parameters.

    A couple with charges needs `charged` of the graph's frames, see `FrameCharger`. `born_charges`, where
    they are wanted, is the number of the model's interaction layers.

    Raises:
        ConfigError: the couple is unknown, or needs something that the module or the caller does not give.
    """
    joint = build_couple(couple).to(graph.edge_vectors.device)
    vectors = graph.edge_vectors.detach().requires_grad_(True)
    readouts = module(graph.species, graph.edge_index, vectors, graph.num_atoms)
    _check_needs(joint, couple, readouts, charged)
    inputs, charges, dipole, born = [vectors], None, None, None
    if isinstance(joint, ChargeCouple):
        positions = charged.positions.detach().requires_grad_(True)
        strain = torch.zeros_like(charged.frames.boxes, requires_grad=True)
        inputs += [positions, strain]
        charged = charged._replace(positions=positions, strain=strain)
        system = System(graph.frame, graph.num_frames, charged)
        energy, charges = joint.energies_and_charges(readouts, system, create_graph)
        dipole = dipoles(charges, charged)
        if born_charges:
            if not isinstance(joint, CoulombCouple):
                raise ConfigError(
                    "Born effective charges of equilibrated charges are not known; leave them out"
                )
            if not torch.equal(charged.molecule, graph.frame):
                raise ConfigError(
                    "Born effective charges are not known where molecules have charges of their own; leave "
                    "one of the two out"
                )
            moving = replace(graph, edge_vectors=vectors)
            single = _of_single_edges(module, moving, readouts) if born_charges == 1 else readouts
            born = BornCharges(joint, single, moving, charged, create_graph)(born_charges)
    else:
        energy = joint(readouts, System(graph.frame, graph.num_frames, None))
    gradients = torch.autograd.grad(energy.sum(), inputs, create_graph=create_graph)
    if not create_graph:
        energy = energy.detach()
        charges, dipole, born = (None if some is None else some.detach() for some in (charges, dipole, born))
        readouts = {name: values.detach() for name, values in readouts.items()}
    sums = getattr(module, "edge_sums", edge_sums)  # a training module may have faster ones
    forces, virial = sums(gradients[0].to(torch.float64), graph)
    if charges is not None:
        forces = forces - gradients[1]
        virial = virial - 0.5 * (gradients[2] + gradients[2].transpose(1, 2))
    physical = couple.get("charges") in PHYSICAL
    return Results(energy, forces, virial, readouts, charges, physical, dipole, born)


def _of_single_edges(module: nn.Module, graph: Graph, readouts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The readouts with a gradient of each edge, where those of a training module know pairs only."""
    single = getattr(module, "of_single_edges", None)
    if single is None:
        return readouts
    return single(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)


def _check_needs(
    joint: nn.Module, couple: dict[str, Any], readouts: dict[str, Tensor], charged: Charged | None
) -> None:
    for name in joint.needs:
        if name not in readouts:
            raise ConfigError(
                f"couple {couple['kind']!r} needs the readout {name!r}, but the model gives "
                f"{', '.join(readouts)}"
            )
    if isinstance(joint, ChargeCouple) and charged is None:
        raise ConfigError(
            f"couple {couple['kind']!r} needs positions, total charges and cells, and a graph has none; give "
            "`charged` of FrameCharger"
        )


def evaluate_members(module: nn.Module, graph: Graph, members: int) -> MemberResults:
    """Evaluate each member of a committee: a module whose readout `energy` has a column for each of them."""
    vectors = graph.edge_vectors.detach().requires_grad_(True)
    readouts = module(graph.species, graph.edge_index, vectors, graph.num_atoms)
    energies = sum_frames(readouts[READOUT_ENERGY].reshape(-1, members), graph.frame, graph.num_frames)
    parts = []
    for column in energies.unbind(1):
        (gradient,) = torch.autograd.grad(column.sum(), vectors, retain_graph=True)
        parts.append(edge_sums(gradient.to(torch.float64), graph))
    forces, virials = zip(*parts)
    return MemberResults(energies.detach().T.contiguous(), torch.stack(forces), torch.stack(virials))


def edge_sums(gradients: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    """Return forces [n, 3] and virials [num_frames, 3, 3] of gradients dE/dr [E, 3], in double."""
    center, neighbor = graph.edge_index
    forces = torch.zeros(graph.num_atoms, 3, dtype=torch.float64, device=gradients.device)
    forces = forces.index_add(0, center, gradients).index_add(0, neighbor, -gradients)
    outer = graph.edge_vectors.to(torch.float64).unsqueeze(2) * gradients.unsqueeze(1)
    virial = -sum_frames(outer, graph.frame.index_select(0, center), graph.num_frames)
    return forces, 0.5 * (virial + virial.transpose(1, 2))
