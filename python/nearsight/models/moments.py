"""Moment descriptors in pure torch operations: what SOAP and ACE share.

    A_{s,n,l,m} = Σ_j δ(s, s_j) R_nl(r_ij) Y_lm(r_ij / |r_ij|)   moments of the neighbors of species s
    A_{c,n,l,m} = Σ_s W_cs A_{s,n,l,m}                           channels: species, or learned mixtures

and then the products of nearsight.models.couplings. The tables of radial functions and of products are
constants that the C++ engine reads from the model file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearsight.models.constants import ConstantsModule
from nearsight.models.couplings import MomentLayout, Products
from nearsight.models.harmonics import spherical_harmonics
from nearsight.models.radial_basis import interpolate


@dataclass(frozen=True)
class RadialTables:
    """Radial functions of the moments.

    Attributes:
        values: [tables, knots, 3, functions] of `radial_basis.tabulate`.
        table_of: [species of center, species of neighbor] table of each pair.
        first: [l_max + 1] first function of each l; equal where functions do not depend on l.
        at_center: [functions of l = 0] what a center adds to the moments of its own species.
    """

    values: np.ndarray
    table_of: np.ndarray
    first: tuple[int, ...]
    at_center: np.ndarray


class _ProductLevel(ConstantsModule):
    """Appends the products of one level to the nodes."""

    def __init__(self, rows: np.ndarray):
        super().__init__()
        index = torch.from_numpy(rows[:, :3].astype(np.int64))
        self.first_target = int(index[0, 0]) if len(rows) else 0
        self.num_targets = int(index[-1, 0]) - self.first_target + 1 if len(rows) else 0
        self.register_buffer("target", index[:, 0] - self.first_target)
        self.register_buffer("a", index[:, 1].clone())
        self.register_buffer("b", index[:, 2].clone())
        self.constant("coefficient", torch.from_numpy(rows[:, 3].copy()))

    def forward(self, nodes: Tensor) -> Tensor:
        """[n, nodes so far] -> [n, nodes with those of this level]."""
        if self.num_targets == 0:
            return nodes
        terms = nodes.index_select(1, self.a) * nodes.index_select(1, self.b) * self.coefficient
        sums = torch.zeros(nodes.size(0), self.num_targets, dtype=nodes.dtype, device=nodes.device)
        return torch.cat([nodes, sums.index_add(1, self.target, terms)], dim=1)


def _random_mixing(channels: int, num_species: int) -> Tensor:
    weights = torch.randn(channels, num_species, dtype=torch.float64)
    return weights / weights.norm(dim=0)


class MomentDescriptor(ConstantsModule):
    """Invariant polynomials of moments of every owned atom; keeps the protocol of `descriptors`.

    Args:
        kind: name in the model file.
        species: chemical symbols.
        cutoff: Å.
        layout: of the moments of the channels.
        radial: tables of the radial functions.
        products: what makes the features.
        labels: a name for each feature.
        degrees: total degree of each feature in radial and angular functions.
        normalize: divide the features of an atom by their Euclidean norm.
        mix: channels are trained mixtures of the species.
        description: further entries of the record, for readers of the file.
    """

    def __init__(
        self,
        kind: str,
        species: Sequence[str],
        cutoff: float,
        layout: MomentLayout,
        radial: RadialTables,
        products: Products,
        labels: Sequence[str],
        degrees: Sequence[float],
        *,
        normalize: bool = False,
        mix: bool = False,
        description: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.kind = kind
        self.cutoff = cutoff
        self.normalize = normalize
        self.num_species = len(species)
        self.per_channel = layout.per_channel
        self.l_max = len(layout.radial_counts) - 1
        self.radial_counts = list(layout.radial_counts)
        self.radial_first = list(radial.first)
        self._products = products
        self._labels = list(labels)
        self._degrees = torch.tensor(degrees, dtype=torch.float64)
        self._description = dict(description or {})
        self.constant("radial", torch.from_numpy(radial.values))
        self.register_buffer("table_of", torch.from_numpy(radial.table_of.astype(np.int64)))
        at_center = torch.zeros(self.num_species, self.num_species * self.per_channel, dtype=torch.float64)
        for number in range(self.num_species):
            first = number * self.per_channel
            at_center[number, first : first + self.radial_counts[0]] = torch.from_numpy(radial.at_center)
        self.constant("at_center", at_center)
        self.register_buffer("features", torch.from_numpy(products.features))
        levels = np.split(products.rows, [products.levels[0]])
        self.levels = nn.ModuleList(_ProductLevel(rows) for rows in levels)
        mixing = nn.Parameter(_random_mixing(layout.channels, self.num_species)) if mix else None
        self.register_parameter("mixing", mixing)

    def moments(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return the moments by species, [num_owned, species * moments per channel]."""
        center, neighbor = edge_index[0], edge_index[1]
        distances = torch.sqrt((edge_vectors**2).sum(1))
        harmonics = spherical_harmonics(edge_vectors / distances.unsqueeze(1), self.l_max)
        neighbor_species = species.index_select(0, neighbor)
        which = self.table_of[species.index_select(0, center), neighbor_species]
        functions = interpolate(self.radial, which, distances, self.cutoff)
        blocks: list[Tensor] = []
        for l, count in enumerate(self.radial_counts):  # noqa: E741
            angular = harmonics[:, l * l : (l + 1) * (l + 1)].unsqueeze(2)
            rows = functions[:, self.radial_first[l] : self.radial_first[l] + count].unsqueeze(1)
            blocks.append((angular * rows).flatten(1))
        terms = torch.cat(blocks, dim=1)
        sums = torch.zeros(
            num_owned * self.num_species, self.per_channel, dtype=terms.dtype, device=terms.device
        )
        sums = sums.index_add(0, center * self.num_species + neighbor_species, terms)
        own = self.at_center.index_select(0, species[:num_owned])
        return sums.view(num_owned, self.num_species * self.per_channel) + own

    def channels(self, moments: Tensor) -> Tensor:
        """Moments by species [n, species * moments per channel] -> by channel."""
        mixing = self.mixing
        if mixing is None:
            return moments
        by_species = moments.view(-1, self.num_species, self.per_channel)
        return torch.einsum("cs,nsk->nck", mixing, by_species).flatten(1)

    def polynomials(self, moments: Tensor) -> Tensor:
        """Moments by channel -> features [n, features], not normalized."""
        nodes = torch.cat([torch.ones_like(moments[:, :1]), moments], dim=1)
        for level in self.levels:
            nodes = level(nodes)
        return nodes.index_select(1, self.features)

    def normalized(self, features: Tensor) -> Tensor:
        """Features of norm 1 if that is asked for."""
        return features / torch.sqrt((features**2).sum(1, keepdim=True)) if self.normalize else features

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, features]; arguments as in docs/model_contract.md."""
        moments = self.moments(species, edge_index, edge_vectors, num_owned)
        return self.normalized(self.polynomials(self.channels(moments)))

    @torch.jit.unused
    def columns(self, symbol: str) -> Tensor:
        """Return the columns of the table that are the features of a center of this species: all."""
        return torch.arange(len(self._labels))

    @torch.jit.unused
    def labels(self, symbol: str) -> list[str]:
        """Return a readable name for each feature of a center of this species."""
        return [f"{number} {label}" for number, label in enumerate(self._labels, 1)]

    @torch.jit.unused
    def degrees(self, symbol: str) -> Tensor:
        """Return the degree of each feature of a center of this species, which priors grow with."""
        return self._degrees

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return {
            "kind": self.kind,
            "cutoff": self.cutoff,
            **self._description,
            "normalize": self.normalize,
            "radial_counts": self.radial_counts,
            "radial_first": self.radial_first,
            "table_of": self.table_of.flatten().tolist(),
        }

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file."""
        count = self.radial_counts[0]
        first = torch.arange(self.num_species) * self.per_channel
        own = [self._exact["at_center"][s, first[s] : first[s] + count] for s in range(self.num_species)]
        tensors = {
            "descriptor.radial": self._exact["radial"],
            "descriptor.center": torch.stack(own),
            "descriptor.products": torch.from_numpy(self._products.rows),
            "descriptor.features": torch.from_numpy(self._products.features).double(),
        }
        if self.mixing is not None:
            tensors["descriptor.mixing"] = self.mixing.detach()
        return tensors

    @torch.jit.unused
    def products(self) -> Products:
        """Return the table of products that `polynomials` evaluates."""
        return self._products

    @torch.jit.unused
    def fixed_part(self) -> FixedMoments:
        """Return what does not depend on trained parameters: the moments by species, see `channels`."""
        return FixedMoments(self)


class FixedMoments:
    """Record and tensors of a descriptor whose features are the moments by species of another one."""

    def __init__(self, whole: MomentDescriptor):
        self.whole = whole

    def record(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**self.whole.record(), "normalize": False}

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors."""
        tensors = self.whole.weights()
        moments = torch.arange(1, 1 + self.whole.num_species * self.whole.per_channel, dtype=torch.float64)
        return {
            "descriptor.radial": tensors["descriptor.radial"],
            "descriptor.center": tensors["descriptor.center"],
            "descriptor.products": torch.zeros(0, 4, dtype=torch.float64),
            "descriptor.features": moments,
        }
