"""What message passing knows of a distance: basis functions, envelope and transforms.

The formulas are those of mace-torch, so that its models can be taken over: Batatia et al., Advances in Neural
Information Processing Systems 35 (2022), and Batatia et al., arXiv:2401.00096.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nearsight.models.constants import ConstantsModule


def polynomial_envelope(x: Tensor, order: float) -> Tensor:
    """Return the envelope of x = r / cutoff: 1 at 0, and 0 with two derivatives from 1 on.

    1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) (Gasteiger et al., ICLR 2020).
    """
    p = order
    inner = torch.clamp(x, max=1.0)
    polynomial = 0.5 * (p + 1.0) * (p + 2.0) - p * (p + 2.0) * inner + 0.5 * p * (p + 1.0) * inner**2
    return (1.0 - polynomial * torch.pow(inner, p)) * (x < 1.0)


class RadialBasis(ConstantsModule):
    """Basis functions of the transformed distance, and the envelope of the true one.

    Args:
        record: object `radial` of the hyperparameters, see docs/file_format.md.
        weights: tensors `radial.frequencies` (1/Å) of kind bessel, `radial.centers` of kind gaussian.
        cutoff: Å.
        num_species: of the model.
    """

    def __init__(
        self, record: Mapping[str, Any], weights: Mapping[str, Tensor], cutoff: float, num_species: int
    ):
        super().__init__()
        basis, transform = record["basis"], record["transform"]
        self.kind: str = basis["kind"]
        self.count: int = basis["count"]
        self.cutoff, self.order = cutoff, float(record["envelope_order"])
        self.width, self.shift, self.slope = (float(basis.get(k, 1.0)) for k in ("width", "shift", "slope"))
        self.transform: str = transform["kind"] if transform else "none"
        self.q, self.p, self.a, self.alpha = (
            float((transform or {}).get(name, 1.0)) for name in ("q", "p", "a", "alpha")
        )
        radii = transform["radii"] if transform else [0.0] * num_species
        self.constant("radii", torch.tensor(radii, dtype=torch.float64))
        tables = {"bessel": "radial.frequencies", "gaussian": "radial.centers"}
        table = weights[tables[self.kind]] if self.kind in tables else torch.zeros(0)
        self.constant("table", table.detach().to(torch.float64).clone())

    def forward(self, distances: Tensor, species: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return basis functions [E, count] without envelope, and the envelope [E, 1]."""
        envelope = polynomial_envelope(distances / self.cutoff, self.order)
        radii = self.radii.index_select(0, species)
        pair = radii.index_select(0, edge_index[0]) + radii.index_select(0, edge_index[1])
        x = self.transformed(distances, pair).unsqueeze(1)
        return self.functions(x), envelope.unsqueeze(1)

    def transformed(self, r: Tensor, pair: Tensor) -> Tensor:
        """Return the distances that the basis sees; `pair` is the sum of the radii of both atoms, Å.

        agnesi: 1 / (1 + a y^q / (1 + y^(q-p))) with y = r / (pair / 2), without unit. soft: from 3/4 of the
        pair, below 4/3 of it, smoothly to r.
        """
        if self.transform == "agnesi":
            y = r / (0.5 * pair)
            return 1.0 / (1.0 + self.a * torch.pow(y, self.q) / (1.0 + torch.pow(y, self.q - self.p)))
        if self.transform == "soft":
            low, high = 0.75 * pair, pair * 4.0 / 3.0
            switch = 0.5 * (1.0 + torch.tanh(self.alpha / (high - low) * (r - 0.5 * (low + high))))
            return low + (r - low) * switch
        return r

    def functions(self, x: Tensor) -> Tensor:
        """Return the basis functions [E, count] of transformed distances [E, 1]."""
        if self.kind == "bessel":
            return math.sqrt(2.0 / self.cutoff) * torch.sin(self.table * x) / x
        if self.kind == "gaussian":
            return torch.exp(-0.5 * ((x - self.table) / self.width) ** 2)
        before, value = torch.ones_like(x), self.shift + self.slope * x
        step = 2.0 * value
        columns = [value]
        for _ in range(self.count - 1):
            before, value = value, step * value - before
            columns.append(value)
        return torch.cat(columns, dim=1)

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors by their names in the file."""
        names = {"bessel": "radial.frequencies", "gaussian": "radial.centers"}
        return {names[self.kind]: self.table} if self.kind in names else {}
