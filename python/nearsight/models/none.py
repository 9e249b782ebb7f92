"""Architecture `none`: no local energy, for a file that holds nothing but dispersion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CUTOFF = 2.0  # Å; within it hosts look for atoms on top of each other


class NoLocalEnergy(nn.Module):
    """All energies are 0. Attributes of docs/model_contract.md."""

    def __init__(self, species: Sequence[str]):
        super().__init__()
        self.architecture, self.hyperparameters = "none", {}
        self.species, self.cutoff, self.num_interactions = list(species), _CUTOFF, 1
        self.readouts, self.couple = [{"name": "energy", "columns": 1}], {"kind": "sum"}

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readout energy, [num_owned]; hosts differentiate it by the edges."""
        nothing = torch.zeros(num_owned, dtype=edge_vectors.dtype, device=edge_vectors.device)
        return {"energy": nothing.index_add(0, edge_index[0], 0.0 * edge_vectors.sum(1))}

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file: none."""
        return {}
