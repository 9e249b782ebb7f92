"""Atom-centered symmetry functions as a descriptor module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearsight.models.acsf_terms import (
    AngularTerms,
    CompactAngularTerms,
    CompactRadialTerms,
    RadialTerms,
)
from nearsight.models.constants import ConstantsModule
from nearsight.models.symmetry_functions import (
    AngularFunction,
    CompactAngularFunction,
    CompactRadialFunction,
    RadialFunction,
    SymmetryFunction,
)


class ACSF(ConstantsModule):
    """Symmetry functions of every owned atom; keeps the protocol of `nearsight.models.descriptors`.

    The table has a column for every distinct radial function and neighbor species, then for every distinct
    angular function and pair of neighbor species, then for every function with weights, which is a
    combination of the columns before.
    """

    kind = "acsf"

    def __init__(
        self,
        functions: dict[str, list[SymmetryFunction]],
        species: list[str],
        cutoff_kind: str,
        inner_fraction: float = 0.0,
    ):
        super().__init__()
        self._species = list(species)
        self._functions = {symbol: list(functions[symbol]) for symbol in species}
        self._cutoff_kind = cutoff_kind
        self._inner_fraction = inner_fraction
        everything = [f for symbol in species for f in functions[symbol]]
        anywhere = list(dict.fromkeys(f.anywhere() for f in everything))
        cores = list(dict.fromkeys(f.core for f in anywhere if hasattr(f, "core")))
        count = len(species)

        def of(kind: type, core: str | None = None) -> list[Any]:
            return [f for f in anywhere if isinstance(f, kind) and (core is None or f.core == core)]

        radial, angular = of(RadialFunction), of(AngularFunction)
        compact_radial = {core: of(CompactRadialFunction, core) for core in cores}
        compact_angular = {core: of(CompactAngularFunction, core) for core in cores}
        self.radial = RadialTerms(radial, count, cutoff_kind, inner_fraction)
        self.angular = AngularTerms(angular, count, cutoff_kind, inner_fraction)
        self.compact_radial = nn.ModuleList(
            CompactRadialTerms(f, count, core) for core, f in compact_radial.items() if f
        )
        self.compact_angular = nn.ModuleList(
            CompactAngularTerms(f, count, core) for core, f in compact_angular.items() if f
        )
        singles = [(symbol,) for symbol in species]
        pairs = [(a, b) for i, a in enumerate(species) for b in species[i:]]
        places = [
            (neighbors, f)
            for f_of_core in (radial, *compact_radial.values())
            for neighbors in singles
            for f in f_of_core
        ]
        places += [
            (neighbors, f)
            for f_of_core in (angular, *compact_angular.values())
            for neighbors in pairs
            for f in f_of_core
        ]
        self._places = {place: column for column, place in enumerate(places)}
        self._weighted = list(dict.fromkeys(f for f in everything if f.weights is not None))
        self.constant(
            "combination",
            torch.tensor(
                [
                    [f.factor(*neighbors) * (plain == f.anywhere()) for f in self._weighted]
                    for neighbors, plain in self._places
                ],
                dtype=torch.float64,
            ),
        )

    @torch.jit.unused
    def columns(self, symbol: str) -> Tensor:
        """Return the columns of the table that are the features of a center of this species, int64."""
        columns = []
        for f in self._functions[symbol]:
            if f.weights is not None:
                columns.append(len(self._places) + self._weighted.index(f))
            else:
                neighbors = tuple(sorted(f.neighbors, key=self._species.index))
                columns.append(self._places[neighbors, f.anywhere()])
        return torch.tensor(columns, dtype=torch.int64)

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return {
            "kind": self.kind,
            "cutoff_function": self._cutoff_kind,
            "inner_fraction": self._inner_fraction,
            "symmetry_functions": {
                symbol: [f.record() for f in functions] for symbol, functions in self._functions.items()
            },
        }

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file: none, the record says all."""
        return {}

    @torch.jit.unused
    def degrees(self, symbol: str) -> Tensor:
        """Return the degree of each feature, which priors grow with: symmetry functions have none."""
        return torch.zeros(len(self._functions[symbol]), dtype=torch.float64)

    @torch.jit.unused
    def labels(self, symbol: str) -> list[str]:
        """Return a readable name for each feature of a center of this species."""
        return [f"{number} {f.label()}" for number, f in enumerate(self._functions[symbol], 1)]

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, columns of the table]; arguments as in docs/model_contract.md."""
        center, neighbor = edge_index[0], edge_index[1]
        kinds = species.index_select(0, neighbor)
        distances = torch.sqrt((edge_vectors**2).sum(1))
        parts = [self.radial(center, kinds, distances, num_owned)]
        for radial in self.compact_radial:
            parts.append(radial(center, kinds, distances, num_owned))
        parts.append(self.angular(center, kinds, edge_vectors, distances, num_owned))
        for angular in self.compact_angular:
            parts.append(angular(center, kinds, edge_vectors, distances, num_owned))
        table = torch.cat(parts, dim=1)
        return torch.cat([table, table @ self.combination], dim=1)
