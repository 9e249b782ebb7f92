"""What message-passing models share: readouts are scaled outputs, energies with a shift of the species."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from nearsight.keys import READOUT_ENERGY
from nearsight.models.long_range import readout_scales
from nearsight.neighbors import Graph

_CENTERING_FRAMES = 20


class EnergyModel(nn.Module):
    """Attributes of docs/model_contract.md; scale [columns] in eV and e, shift [species] in eV, and their
    untrained values.

    Args:
        species: chemical symbols; their order numbers the species.
        cutoff: Å.
        num_interactions: layers.
        readouts: columns of readouts beside the energy, by name.
        scale, shift: of a trained model.
    """

    def __init__(
        self,
        species: list[str],
        cutoff: float,
        num_interactions: int,
        readouts: Mapping[str, int] | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ):
        super().__init__()
        self.species = list(species)
        self.cutoff = float(cutoff)
        self.num_interactions = num_interactions
        widths = {READOUT_ENERGY: 1, **(readouts or {})}
        self.names, self.widths = list(widths), list(widths.values())
        self.readouts = [{"name": name, "columns": width} for name, width in widths.items()]
        self.couple = {"kind": "sum"}
        scale = readout_scales(self.readouts) if scale is None else scale
        shift = torch.zeros(len(species)) if shift is None else shift
        self.register_buffer("scale", scale.detach().to(torch.float64, copy=True))
        self.register_buffer("shift", shift.detach().to(torch.float64, copy=True))

    def readouts_of(self, outputs: Tensor, species: Tensor) -> dict[str, Tensor]:
        """Return the readouts of atoms species[n] with these outputs [n, columns]: `energy` [n] in eV, and
        others [n, columns]."""
        outputs = self.scale * outputs
        found: dict[str, Tensor] = {}
        start = 0
        for name, width in zip(self.names, self.widths):
            found[name] = outputs[:, start : start + width]
            start += width
        found["energy"] = found["energy"].squeeze(1) + self.shift[species]
        return found

    @torch.jit.unused
    @torch.no_grad()
    def fit_statistics(
        self, graphs: Iterable[Graph], output_scale: float, source: nn.Module | None = None
    ) -> None:
        """Set what multiplies the energies (eV), and a shift that makes the mean energy of each species 0.

        `source`, a training module of this model, evaluates the energies.
        """
        graphs = list(graphs)
        self.scale[0] = output_scale
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
