"""Models with equilibrated charges and random weights, and an oracle for their couple."""

from __future__ import annotations

import torch

from nearsight.couple import ChargedStructure, FrameCharger, System, join_charged, widest_couple
from nearsight.couple.equilibration import EquilibratedCouple
from nearsight.models import BPNNConfig, LongRangeConfig, MACEConfig, build_model
from nearsight.neighbors import collate

from .charge_models import CELLS, MACE_CONFIGS, SPECIES, case, graph_of

GIVEN = {"hardness": {"H": 9.0, "O": 14.0}, "widths": {"H": 0.5, "O": 0.7}}


def equilibrated_model(architecture: str = "bpnn", rtol: float = 1e-4, **given):
    """Random weights and learned numbers; hardness and widths are learned unless `given`. Charges of order
    0.1 e."""
    torch.manual_seed(23)
    long_range = LongRangeConfig(charges="equilibrated", rtol=rtol, **given)
    if architecture == "bpnn":
        model = build_model(BPNNConfig(cutoff=4.0, hidden=[8, 6]), SPECIES, long_range)
        for network in model.networks:
            network.shift.normal_()
            network.scale.uniform_(0.5, 1.5)
        model.output_scale.uniform_(1.0, 3.0)
    else:
        model = build_model(MACEConfig(cutoff=4.0, **MACE_CONFIGS[architecture]), SPECIES, long_range)
        model.fit_statistics([graph_of(case(cell, False, "")) for cell in CELLS], 0.8)
        model.scale[1:].uniform_(1.0, 3.0)
    if long_range.learned:
        with torch.no_grad():
            for parameter in model.learned_numbers.parameters():
                parameter.normal_(0.0, 0.3)
    return model


def batch_of(model, cells=CELLS, charged=(True, False, False, True)):
    """Frames of these cells and total charges as training sees them."""
    cases = [case(cell, some, "") for cell, some in zip(cells, charged)]
    charger = FrameCharger(widest_couple(model))
    frames = join_charged([charger(ChargedStructure(*one)) for one in cases])
    return collate([graph_of(one) for one in cases]), frames


class Oracle(EquilibratedCouple):
    """Charges and energies from one dense system of equations with a multiplier for each molecule, through
    which autograd differentiates."""

    def energies_and_charges(self, readouts, system: System, twice: bool):
        charged = system.charged
        n, count = len(charged.species), len(charged.total_charge)
        units = torch.eye(n, dtype=torch.float64, requires_grad=True)
        widths = self.widths[charged.species]
        energies = self.sums(charged.positions, units, charged.frames, widths, charged.strain)
        (matrix,) = torch.autograd.grad(energies.sum(), units, create_graph=True)
        own = self.hardness + self.coulomb / (torch.pi**0.5 * self.widths)
        matrix = matrix + torch.diag(own[charged.species])
        ones = torch.nn.functional.one_hot(charged.molecule, count).to(torch.float64)
        equations = torch.cat(
            [
                torch.cat([matrix, ones], 1),
                torch.cat([ones.T, torch.zeros(count, count, dtype=torch.float64)], 1),
            ]
        )
        slopes = readouts["electronegativity"].reshape(-1).to(torch.float64)
        q = torch.linalg.solve(equations, torch.cat([-slopes, charged.total_charge]))[:n]
        local = readouts["energy"].reshape(-1) + slopes * q + 0.5 * q * (matrix @ q)
        energies = torch.zeros(system.num_frames, dtype=torch.float64)
        return energies.index_add(0, system.frame, local), q.unsqueeze(1)
