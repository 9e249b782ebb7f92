"""Energies of pairs of atoms beside those of networks: ZBL's repulsion, and walls where there are no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nearsight.models.constants import ConstantsModule
from nearsight.models.edge_functions import polynomial_envelope
from nearsight.neighbors import Graph

# Universal screening function of Ziegler, Biersack and Littmark, in the digits that mace-torch takes.
_ZBL_TERMS = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
_ZBL_BOHR = 0.529  # Å
_ZBL_COULOMB = 14.3996  # eV Å

# Of the sum of covalent radii: bonds are shorter.
_LONGEST_BOND = 1.3
# How far beyond the distances of the training set walls begin, as a fraction of them.
_CLOSER, _MARGIN = 0.15, 0.08


class ZBL(ConstantsModule):
    """Ziegler, Biersack and Littmark's repulsion, which ends at the sum of the covalent radii of a pair.

    Args:
        record: object `zbl` of the hyperparameters, see docs/file_format.md; None: no repulsion.
        num_species: of the model.
    """

    def __init__(self, record: Mapping[str, Any] | None, num_species: int):
        super().__init__()
        self.used = record is not None
        record = record or {"numbers": [1] * num_species, "radii": [1.0] * num_species}
        self.order, self.exponent, self.prefactor, self.factor = (
            float(record.get(name, 1.0)) for name in ("p", "a_exponent", "a_prefactor", "scale")
        )
        self.terms = [list(term) for term in _ZBL_TERMS]
        self.bohr, self.coulomb = _ZBL_BOHR, _ZBL_COULOMB
        self.constant("numbers", torch.tensor(record["numbers"], dtype=torch.float64))
        self.constant("radii", torch.tensor(record["radii"], dtype=torch.float64))

    def forward(self, distances: Tensor, species: Tensor, edge_index: Tensor, num_rows: int) -> Tensor:
        """Return the energy [num_rows] of each center, half of each pair's; centers are below num_rows."""
        energies = torch.zeros(num_rows, dtype=torch.float64, device=distances.device)
        if not self.used:
            return energies
        r = distances.to(torch.float64)
        centers, neighbors = species[edge_index[0]], species[edge_index[1]]
        numbers, radii = self.numbers.to(torch.float64), self.radii.to(torch.float64)
        z1, z2 = numbers[centers], numbers[neighbors]
        length = self.prefactor * self.bohr / (z1**self.exponent + z2**self.exponent)
        screening = torch.zeros_like(r)
        for term in self.terms:
            screening = screening + term[0] * torch.exp(-term[1] * r / length)
        envelope = polynomial_envelope(r / (radii[centers] + radii[neighbors]), self.order)
        pairs = self.factor * self.coulomb * z1 * z2 / r * screening * envelope
        return energies.index_add(0, edge_index[0], 0.5 * pairs)


class Walls(ConstantsModule):
    """Repulsion of pairs at distances that the training set does not have.

    Networks know nothing of the way from a bond to atoms that are not bonded, or of atoms closer than any
    of the training set, and mostly say that it is easy; hot molecules then fall apart or collapse. With
    r = r_ij in Å, a pair has the energy

        slope (b - a) (1 - u²)³, u = (2 r - a - b) / (b - a), between a and b,
        repulsion (c / r - 1)³ below c.

    c is 0.85 times the shortest distance of these species in the training set, a is 1.08 times the longest of
    their bonds (up to 1.3 times the sum of their covalent radii), b is 0.92 times the next longer distance.
    The energy of the training set is zero. Pairs that it does not have have none.

    Args:
        record: object `walls` of the hyperparameters, see docs/file_format.md; None: no such energy.
        limits: [species, species, 3] Å: c, a, b; None: zeros.
        num_species: of the model.
    """

    def __init__(self, record: Mapping[str, Any] | None, limits: Tensor | None, num_species: int):
        super().__init__()
        self.used = record is not None
        record = record or {}
        self.slope, self.repulsion = (float(record.get(name, 0.0)) for name in ("slope", "repulsion"))
        limits = torch.zeros(num_species, num_species, 3) if limits is None else limits
        self.register_buffer("limits", limits.detach().to(torch.float64, copy=True))

    def forward(self, distances: Tensor, species: Tensor, edge_index: Tensor, num_rows: int) -> Tensor:
        """Return the energy [num_rows] of each center, half of each pair's; centers are below num_rows."""
        energies = torch.zeros(num_rows, dtype=torch.float64, device=distances.device)
        if not self.used:
            return energies
        r = distances.to(torch.float64)
        limits = self.limits.to(torch.float64)[species[edge_index[0]], species[edge_index[1]]]
        closest, begin, end = limits[:, 0], limits[:, 1], limits[:, 2]
        width = end - begin
        u = (2.0 * r - begin - end) / torch.where(width > 0.0, width, torch.ones_like(width))
        between = self.slope * width * torch.clamp(1.0 - u**2, min=0.0) ** 3
        below = self.repulsion * torch.clamp(closest / r - 1.0, min=0.0) ** 3
        return energies.index_add(0, edge_index[0], 0.5 * (between + below))

    @torch.jit.unused
    def fit(self, graphs: Iterable[Graph], radii: Sequence[float]) -> None:
        """Set the limits from the distances of the training set; covalent radii of the species in Å."""
        count = len(radii)
        sums = torch.tensor(radii, dtype=torch.float64)
        ends = _LONGEST_BOND * (sums[:, None] + sums)
        shortest, next_one = (torch.full((count * count,), torch.inf, dtype=torch.float64) for _ in range(2))
        longest = torch.zeros(count * count, dtype=torch.float64)
        for graph in graphs:
            r = graph.edge_vectors.to(torch.float64).square().sum(1).sqrt()
            first, second = graph.species[graph.edge_index]
            pair = count * first + second
            bonded = r < ends.view(-1)[pair]
            shortest.scatter_reduce_(0, pair, r, "amin")
            longest.scatter_reduce_(0, pair[bonded], r[bonded], "amax")
            next_one.scatter_reduce_(0, pair[~bonded], r[~bonded], "amin")
        closest = (1 - _CLOSER) * shortest
        begin, end = (1 + _MARGIN) * longest, (1 - _MARGIN) * next_one
        gap = (longest > 0) & end.isfinite() & (end > begin)
        limits = torch.stack(
            [torch.where(closest.isfinite(), closest, 0), begin.where(gap, 0), end.where(gap, 0)], 1
        )
        self.limits.copy_(limits.view(count, count, 3))
