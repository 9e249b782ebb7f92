"""Atom-centered symmetry functions in pure torch operations: scriptable and twice differentiable.

Triplets are formed inside from the edges, which are sorted by center. A set of functions is mostly a grid,
so that many share a factor: a factor is evaluated once per edge or triplet and spread to the functions by
multiplication with a 0/1 matrix. No loop runs over atoms, species or functions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nearsight.models.cutoff_functions import cutoff_function
from nearsight.models.symmetry_functions import AngularFunction, RadialFunction, SymmetryFunction

_Key = TypeVar("_Key", bound=Hashable)


def _distinct(keys: Sequence[_Key]) -> tuple[list[_Key], list[int]]:
    """Return the distinct keys in order of appearance, and the place of every key among them."""
    distinct = list(dict.fromkeys(keys))
    return distinct, [distinct.index(key) for key in keys]


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _selection(places: list[int], count: int) -> Tensor:
    """Return the 0/1 matrix [count, len(places)] that spreads factors to those who use them."""
    matrix = torch.zeros(count, len(places), dtype=torch.float64)
    matrix[places, torch.arange(len(places))] = 1.0
    return matrix


def triplets(center: Tensor, num_centers: int) -> tuple[Tensor, Tensor]:
    """Return all pairs of edges that share a center, as edge numbers first[T] < second[T].

    center[E] must be sorted.
    """
    edges = torch.arange(center.size(0), device=center.device)
    end = torch.cumsum(torch.bincount(center, minlength=num_centers), 0)
    later = end.index_select(0, center) - 1 - edges  # edges of the same center behind this one
    first = torch.repeat_interleave(edges, later)
    start = (torch.cumsum(later, 0) - later).index_select(0, first)
    second = first + 1 + torch.arange(first.size(0), device=center.device) - start
    return first, second


class _Terms(nn.Module):
    """A module whose constants are exact again when it comes back from single precision."""

    __jit_ignored_attributes__ = ["_exact"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def constant(self, name: str, values: Sequence[float]) -> None:
        """Make a buffer of the values, which are in double."""
        self._exact[name] = _column(values)
        self.register_buffer(name, self._exact[name])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Terms:
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            self.register_buffer(name, exact.to(self.get_buffer(name)))
        return self


class RadialTerms(_Terms):
    """Distinct radial functions; the result has a column for each of them and each neighbor species."""

    def __init__(self, functions: Sequence[RadialFunction], num_species: int, kind: str):
        super().__init__()
        self.kind = kind
        self.num_species = num_species
        self.width = len(functions)
        self.constant("eta", [f.eta for f in functions])
        self.constant("r_shift", [f.r_shift for f in functions])
        self.constant("cutoff", [f.cutoff for f in functions])

    def forward(self, center: Tensor, neighbor_species: Tensor, distances: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, num_species * width]."""
        r = distances.unsqueeze(1)
        terms = torch.exp(-self.eta * (r - self.r_shift) ** 2) * cutoff_function(self.kind, r, self.cutoff)
        sums = torch.zeros(num_owned * self.num_species, self.width, dtype=r.dtype, device=r.device)
        sums = sums.index_add(0, center * self.num_species + neighbor_species, terms)
        return sums.view(num_owned, self.num_species * self.width)


class AngularTerms(_Terms):
    """Distinct angular functions; the result has a column for each of them and each neighbor pair."""

    def __init__(self, functions: Sequence[AngularFunction], num_species: int, kind: str):
        super().__init__()
        self.kind = kind
        self.width = len(functions)
        self.max_cutoff = max((f.cutoff for f in functions), default=0.0)
        self.num_pairs = num_species * (num_species + 1) // 2
        self.register_buffer("pair_index", pair_index(num_species))

        angles, angle_of = _distinct([(f.lambda_, f.zeta) for f in functions])
        self.constant("lambda_", [key[0] for key in angles])
        self.constant("zeta", [key[1] for key in angles])
        self.register_buffer("select_angle", _selection(angle_of, len(angles)))

        shells, shell_of = _distinct(
            [(f.kind == "angular_narrow", f.eta, f.r_shift, f.cutoff) for f in functions]
        )
        self.register_buffer("narrow", torch.tensor([key[0] for key in shells], dtype=torch.bool))
        self.constant("eta", [key[1] for key in shells])
        self.constant("r_shift", [key[2] for key in shells])
        self.register_buffer("select_shell", _selection(shell_of, len(shells)))

        cutoffs, cutoff_of = _distinct([key[3] for key in shells])
        self.constant("cutoff", cutoffs)
        self.register_buffer("select_cutoff", _selection(cutoff_of, len(cutoffs)))

    def forward(
        self, center: Tensor, neighbor_species: Tensor, vectors: Tensor, distances: Tensor, num_owned: int
    ) -> Tensor:
        """Return [num_owned, num_pairs * width]."""
        near = torch.nonzero(distances < self.max_cutoff).squeeze(1)
        center = center.index_select(0, near)
        neighbor_species = neighbor_species.index_select(0, near)
        r = distances.index_select(0, near)
        first, second = triplets(center, num_owned)
        terms = self.terms(vectors.index_select(0, near), r, first, second)

        pair = self.pair_index[
            neighbor_species.index_select(0, first), neighbor_species.index_select(0, second)
        ]
        rows = center.index_select(0, first) * self.num_pairs + pair
        sums = torch.zeros(num_owned * self.num_pairs, self.width, dtype=r.dtype, device=r.device)
        return sums.index_add(0, rows, terms).view(num_owned, self.num_pairs * self.width)

    def terms(self, vectors: Tensor, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the summands [T, width] of all triplets."""
        r_ij = distances.index_select(0, first)
        r_ik = distances.index_select(0, second)
        dot = torch.zeros_like(r_ij)
        square_jk = torch.zeros_like(r_ij)  # not by the law of cosines, which loses digits in float32
        for component in vectors.unbind(1):  # gathers of one-dimensional tensors have a quick derivative
            j, k = component.index_select(0, first), component.index_select(0, second)
            dot = dot + j * k
            square_jk = square_jk + (k - j) ** 2
        cosine = (dot / (r_ij * r_ik)).unsqueeze(1)
        r_ij, r_ik, r_jk = r_ij.unsqueeze(1), r_ik.unsqueeze(1), torch.sqrt(square_jk).unsqueeze(1)

        angle = 2.0 * (0.5 * (1.0 + self.lambda_ * cosine)) ** self.zeta
        exponent = (r_ij - self.r_shift) ** 2 + (r_ik - self.r_shift) ** 2
        exponent = exponent + self.narrow * (r_jk - self.r_shift) ** 2
        ends = cutoff_function(self.kind, r_ij, self.cutoff) * cutoff_function(self.kind, r_ik, self.cutoff)
        far_side = cutoff_function(self.kind, r_jk, self.cutoff) @ self.select_cutoff
        far_side = torch.where(self.narrow, far_side, torch.ones_like(far_side))
        shell = torch.exp(-self.eta * exponent) * (ends @ self.select_cutoff) * far_side
        return (angle @ self.select_angle) * (shell @ self.select_shell)


def pair_index(num_species: int) -> Tensor:
    """Return [num_species, num_species] int64: the number of each unordered pair, upper triangle by rows."""
    upper = torch.triu_indices(num_species, num_species)
    index = torch.zeros(num_species, num_species, dtype=torch.int64)
    index[upper[0], upper[1]] = torch.arange(upper.size(1))
    index[upper[1], upper[0]] = torch.arange(upper.size(1))
    return index


class ACSF(nn.Module):
    """Symmetry functions of every owned atom; keeps the protocol of `nearsight.models.descriptors`.

    The table has a column for every distinct radial function and neighbor species, then for every distinct
    angular function and pair of neighbor species.
    """

    kind = "acsf"

    def __init__(self, functions: dict[str, list[SymmetryFunction]], species: list[str], cutoff_kind: str):
        super().__init__()
        self._species = list(species)
        self._functions = {symbol: list(functions[symbol]) for symbol in species}
        self._cutoff_kind = cutoff_kind
        everything = [f for symbol in species for f in functions[symbol]]
        anywhere = [f.model_copy(update={"neighbors": ()}) for f in everything]
        self._radial = list(dict.fromkeys(f for f in anywhere if isinstance(f, RadialFunction)))
        self._angular = list(dict.fromkeys(f for f in anywhere if isinstance(f, AngularFunction)))
        self.radial = RadialTerms(self._radial, len(species), cutoff_kind)
        self.angular = AngularTerms(self._angular, len(species), cutoff_kind)

    @torch.jit.unused
    def columns(self, symbol: str) -> Tensor:
        """Return the columns of the table that are the features of a center of this species, int64."""
        pairs = pair_index(len(self._species))
        start = len(self._species) * len(self._radial)
        places = []
        for function in self._functions[symbol]:
            anywhere = function.model_copy(update={"neighbors": ()})
            neighbors = [self._species.index(neighbor) for neighbor in function.neighbors]
            if isinstance(function, RadialFunction):
                places.append(neighbors[0] * len(self._radial) + self._radial.index(anywhere))
            else:
                pair = int(pairs[neighbors[0], neighbors[1]])
                places.append(start + pair * len(self._angular) + self._angular.index(anywhere))
        return torch.tensor(places, dtype=torch.int64)

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return {
            "kind": self.kind,
            "cutoff_function": self._cutoff_kind,
            "symmetry_functions": {
                symbol: [f.record() for f in functions] for symbol, functions in self._functions.items()
            },
        }

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file: none, the record says all."""
        return {}

    @torch.jit.unused
    def labels(self, symbol: str) -> list[str]:
        """Return a readable name for each feature of a center of this species."""
        return [f"{number} {f.label()}" for number, f in enumerate(self._functions[symbol], 1)]

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, columns of the table]; arguments as in docs/model_contract.md."""
        center, neighbor = edge_index[0], edge_index[1]
        neighbor_species = species.index_select(0, neighbor)
        distances = torch.sqrt((edge_vectors**2).sum(1))
        radial = self.radial(center, neighbor_species, distances, num_owned)
        angular = self.angular(center, neighbor_species, edge_vectors, distances, num_owned)
        return torch.cat([radial, angular], dim=1)
