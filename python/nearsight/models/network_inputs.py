"""The inputs of networks as a descriptor of its own: the features, projected on their principal directions.

Training works on these: they are fewer than the features, and so are their derivatives, which can be stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nearsight.models.networks import SpeciesNetwork


class NetworkInputs(nn.Module):
    """x = ((G - shift) * scale) M of the networks of every species, with the values that these have now.

    Rows of features G and of inputs x begin with those of the center; zeros may follow.

    Args:
        descriptor: of the features, without trained parameters.
        networks: by species; with mixing M.
    """

    def __init__(self, descriptor: nn.Module, networks: Sequence[SpeciesNetwork]):
        super().__init__()
        self.descriptor = descriptor
        self.columns = pad_sequence([network.columns for network in networks], batch_first=True)
        self.shifts = pad_sequence([network.shift for network in networks], batch_first=True)
        matrices = [network.scale.unsqueeze(1) * network.mixing for network in networks]
        sizes = [max(matrix.size(axis) for matrix in matrices) for axis in (0, 1)]
        self.matrices = self.shifts.new_zeros(len(matrices), *sizes)
        for padded, matrix in zip(self.matrices, matrices):
            padded[: matrix.size(0), : matrix.size(1)] = matrix

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, inputs]; arguments as in docs/model_contract.md."""
        table = self.descriptor(species, edge_index, edge_vectors, num_owned)
        owned = species[:num_owned]
        return self.of_features(table.gather(1, self.columns[owned]), owned)

    def of_features(self, features: Tensor, species: Tensor) -> Tensor:
        """Return the inputs [n, inputs] of atoms with features [n, functions]."""
        return self.project(features - self.shifts[species], species)

    def project(self, changes: Tensor, species: Tensor) -> Tensor:
        """Return what changes [n, ..., functions] of the features do to the inputs, [n, ..., inputs]."""
        return self._multiply(changes, species, self.matrices)

    def pull_back(self, cotangents: Tensor, species: Tensor) -> Tensor:
        """Return the transpose of `project`, [n, inputs] -> [n, functions]."""
        return self._multiply(cotangents, species, self.matrices.mT)

    @staticmethod
    def _multiply(rows: Tensor, species: Tensor, matrices: Tensor) -> Tensor:
        found = rows.new_zeros(*rows.shape[:-1], matrices.size(2))
        for kind, matrix in enumerate(matrices.to(rows.dtype)):
            mine = torch.nonzero(species == kind).squeeze(1)
            found = found.index_add(0, mine, rows.index_select(0, mine) @ matrix)
        return found
