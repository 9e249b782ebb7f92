"""D3 in torch, for tests, checks at export and the torchforce export: the twin of the core's.

Equations are those of docs/dispersion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.units import BOHR, HARTREE

_STEEPNESS = 16.0  # k1
_SHARPNESS = 4.0  # k3
_STEP = 1e30  # slope of a window without smoothing
_EDGE = 1e-12  # how far inside it is, so that pairs exactly at the cutoff do not depend on round-off


class Dispersion(nn.Module):
    """D3 with the damping of Becke and Johnson, of two bodies; scriptable, in double, twice differentiable.

    Args:
        record: `dispersion` of docs/file_format.md.
    """

    def __init__(self, record: dict[str, Any]):
        super().__init__()
        self.s6, self.s8 = float(record["s6"]), float(record["s8"])
        self.steepness, self.sharpness, self.step, self.edge = _STEEPNESS, _SHARPNESS, _STEP, _EDGE
        self.cutoff = float(record["cutoff"])
        self.coordination_cutoff = float(record["coordination_cutoff"])
        self.smoothing = float(record["smoothing"])
        self.reach = max(self.cutoff, self.coordination_cutoff)
        radii = torch.tensor(record["radii"], dtype=torch.float64)
        r4r2 = torch.tensor(record["r4r2"], dtype=torch.float64) * BOHR
        count, most = len(radii), max(len(numbers) for numbers in record["coordination"])
        coordination = torch.full((count, most), torch.nan, dtype=torch.float64)
        c6 = torch.zeros(count, count, most, most, dtype=torch.float64)
        for a, numbers in enumerate(record["coordination"]):
            coordination[a, : len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
            for b, block in enumerate(record["c6"][a]):
                c6[a, b, : len(block), : len(block[0])] = torch.tensor(block, dtype=torch.float64)
        ratio = 3 * r4r2.unsqueeze(1) * r4r2  # C8 / C6
        self.register_buffer("radii", radii)
        self.register_buffer("known", ~coordination.isnan())
        self.register_buffer("coordination", coordination.nan_to_num())
        self.register_buffer("c6", c6 * HARTREE * BOHR**6)
        self.register_buffer("ratio", ratio)
        self.register_buffer("damping", record["a1"] * ratio.sqrt() + record["a2"] * BOHR)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Return the energies of the atoms, [n] eV, half of each pair to each of its ends.

        species[n] int64: numbers of the record's species; edge_index[2, E] and edge_vectors[E, 3] Å: all
        directed pairs within `reach`, images included.
        """
        square = (edge_vectors**2).sum(1)
        center, neighbor = edge_index[0], edge_index[1]
        numbers = self.coordination_numbers(species, center, neighbor, square)
        coordination, known = self.coordination[species], self.known[species]
        exponents = -self.sharpness * (numbers.unsqueeze(1) - coordination) ** 2
        weights = torch.softmax(exponents.masked_fill(~known, -torch.inf), 1)
        halves = torch.einsum("na,nsab->nsb", weights, self.c6[species])  # C6 before the other's weights

        a, b = species.index_select(0, center), species.index_select(0, neighbor)
        rows = halves.flatten(0, 1).index_select(0, center * halves.size(1) + b)
        c6 = (rows * weights.index_select(0, neighbor)).sum(1)
        damping = self.damping[a, b]
        both = self.s6 / (square**3 + damping**6)
        both = both + self.s8 * self.ratio[a, b] / (square**4 + damping**8)
        energies = -0.5 * c6 * both * self.window(square, self.cutoff)
        return torch.zeros_like(numbers).index_add(0, center, energies)

    def coordination_numbers(
        self, species: Tensor, center: Tensor, neighbor: Tensor, square: Tensor
    ) -> Tensor:
        """Return the fractional coordination numbers, [n]; square[E] Å² are those of distances."""
        with torch.no_grad():
            near = torch.nonzero(square < self.coordination_cutoff**2).squeeze(1)
        center, neighbor = center.index_select(0, near), neighbor.index_select(0, near)
        square = square.index_select(0, near)
        radii = self.radii.index_select(0, species)
        radius = radii.index_select(0, center) + radii.index_select(0, neighbor)
        counted = torch.sigmoid(self.steepness * (radius / torch.sqrt(square) - 1))
        counted = counted * self.window(square, self.coordination_cutoff)
        numbers = torch.zeros(species.size(0), dtype=square.dtype, device=square.device)
        return numbers.index_add(0, center, counted)

    def window(self, square: Tensor, cutoff: float) -> Tensor:
        """Return 1 below cutoff - smoothing, 0 from the cutoff on, in between a polynomial of square[E]."""
        start = cutoff**2 * (1 - self.edge)
        scale = self.step
        if self.smoothing > 0:
            start = (cutoff - self.smoothing) ** 2
            scale = 1 / (cutoff**2 - start)
        t = torch.clamp((square - start) * scale, 0.0, 1.0)
        return 1 - t**3 * (10 - t * (15 - 6 * t))


def core_dispersion(record: dict[str, Any], **options: Any) -> Any:
    """Return the core's `Dispersion` of a record; options: precision, threads."""
    import json

    from nearsight.lib import _core  # the compiled core; the module above does without it

    return _core.Dispersion(json.dumps(record), len(record["radii"]), **options)


class LabelDispersion:
    """Dispersion of frames of any elements.

    Args:
        record: of all species.
        species: chemical symbols, in the order of the record.
    """

    def __init__(self, record: dict[str, Any], species: Sequence[str]):
        self.number = {symbol: number for number, symbol in enumerate(species)}
        self.core = core_dispersion(record)

    def __call__(self, positions: Any, symbols: Sequence[str], cell: Any, pbc: Any) -> dict[str, Any]:
        """Return energy eV, forces [n, 3] eV/Å and virial [3, 3] eV under the names of labels, and more.

        Raises:
            EvaluationError: positions or cell cannot be used.
        """
        return self.core.evaluate(positions, [self.number[symbol] for symbol in symbols], cell, pbc)
