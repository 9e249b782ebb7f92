"""What message-passing models have in common: energies of atoms are scale · output + shift of the species."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from nearsight.keys import READOUT_ENERGY
from nearsight.neighbors import Graph

_CENTERING_FRAMES = 20


class EnergyModel(nn.Module):
    """Attributes of docs/model_contract.md; scale [1] and shift [species] in eV, and their untrained values.

    Args:
        species: chemical symbols; their order numbers the species.
        cutoff: Å.
        num_interactions: layers.
        scale, shift: of a trained model.
    """

    def __init__(
        self,
        species: list[str],
        cutoff: float,
        num_interactions: int,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ):
        super().__init__()
        self.species = list(species)
        self.cutoff = float(cutoff)
        self.num_interactions = num_interactions
        self.readouts = [{"name": READOUT_ENERGY, "columns": 1}]
        self.couple = {"kind": "sum"}
        scale = torch.ones(1) if scale is None else scale
        shift = torch.zeros(len(species)) if shift is None else shift
        self.register_buffer("scale", scale.detach().to(torch.float64, copy=True))
        self.register_buffer("shift", shift.detach().to(torch.float64, copy=True))

    @torch.jit.unused
    @torch.no_grad()
    def fit_statistics(
        self, graphs: Iterable[Graph], output_scale: float, source: nn.Module | None = None
    ) -> None:
        """Set what multiplies the outputs (eV), and a shift that makes the mean energy of each species 0.

        `source`, a training module of this model, evaluates the energies.
        """
        graphs = list(graphs)
        self.scale.fill_(output_scale)
        self.shift.zero_()
        sums, counts = torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        for graph in graphs[:: max(1, len(graphs) // _CENTERING_FRAMES)]:
            arguments = (graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
            energies = (source or self)(*arguments)[READOUT_ENERGY]
            sums.index_add_(0, graph.species, energies.to(sums))
            counts.index_add_(0, graph.species, torch.ones_like(energies).to(sums))
        overall = sums.sum() / counts.sum().clamp(min=1.0)  # for species that these frames do not have
        self.shift.copy_(-torch.where(counts > 0, sums / counts.clamp(min=1.0), overall))

    @torch.jit.unused
    @torch.no_grad()
    def set_mean_energies(self, energies: Mapping[str, float]) -> None:
        """Let the untrained model have a mean energy per species, in eV. Call it after `fit_statistics`."""
        self.shift.add_(torch.tensor([energies[symbol] for symbol in self.species]).to(self.shift))
