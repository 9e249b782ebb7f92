"""The terms of atom-centered symmetry functions in pure torch operations: scriptable, twice differentiable.

Triplets are formed inside from the edges, which are sorted by center. A set of functions is mostly a grid,
so that many share a factor: a factor is evaluated once per edge or triplet and spread to the functions by
multiplication with a 0/1 matrix. No loop runs over atoms, species or functions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from nearsight.models.constants import ConstantsModule
from nearsight.models.cutoff_functions import compact_function, cutoff_function
from nearsight.models.symmetry_functions import (
    AngularFunction,
    CompactAngularFunction,
    CompactRadialFunction,
    RadialFunction,
)

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


def pair_index(num_species: int) -> Tensor:
    """Return [num_species, num_species] int64: the number of each unordered pair, upper triangle by rows."""
    upper = torch.triu_indices(num_species, num_species)
    index = torch.zeros(num_species, num_species, dtype=torch.int64)
    index[upper[0], upper[1]] = torch.arange(upper.size(1))
    index[upper[1], upper[0]] = torch.arange(upper.size(1))
    return index


class RadialTerms(ConstantsModule):
    """Distinct functions `radial`; the result has a column for each of them and each neighbor species."""

    def __init__(self, functions: Sequence[RadialFunction], num_species: int, kind: str, inner: float):
        super().__init__()
        self.kind = kind
        self.inner = inner
        self.num_species = num_species
        self.width = len(functions)
        self.constant("eta", _column([f.eta for f in functions]))
        self.constant("r_shift", _column([f.r_shift for f in functions]))
        self.constant("cutoff", _column([f.cutoff for f in functions]))

    def forward(self, center: Tensor, neighbor_species: Tensor, distances: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, num_species * width]."""
        r = distances.unsqueeze(1)
        terms = torch.exp(-self.eta * (r - self.r_shift) ** 2)
        terms = terms * cutoff_function(self.kind, self.inner, r, self.cutoff)
        sums = torch.zeros(num_owned * self.num_species, self.width, dtype=r.dtype, device=r.device)
        sums = sums.index_add(0, center * self.num_species + neighbor_species, terms)
        return sums.view(num_owned, self.num_species * self.width)


class CompactRadialTerms(ConstantsModule):
    """Like RadialTerms for functions `compact_radial` of one core."""

    def __init__(self, functions: Sequence[CompactRadialFunction], num_species: int, core: str):
        super().__init__()
        self.core = core
        self.num_species = num_species
        self.width = len(functions)
        self.constant("left", _column([f.inner for f in functions]))
        self.constant("right", _column([f.cutoff for f in functions]))
        self.constant("asymmetric", _column([float(f.asymmetric) for f in functions]))

    def forward(self, center: Tensor, neighbor_species: Tensor, distances: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, num_species * width]."""
        r = distances.unsqueeze(1)
        terms = compact_function(self.core, r, self.left, self.right, self.asymmetric)
        sums = torch.zeros(num_owned * self.num_species, self.width, dtype=r.dtype, device=r.device)
        sums = sums.index_add(0, center * self.num_species + neighbor_species, terms)
        return sums.view(num_owned, self.num_species * self.width)


def _geometry(
    vectors: Tensor, distances: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return r_ij, r_ik, r_jk and cos θ of triplets, each [T, 1]."""
    r_ij = distances.index_select(0, first)
    r_ik = distances.index_select(0, second)
    dot = torch.zeros_like(r_ij)
    square_jk = torch.zeros_like(r_ij)  # not by the law of cosines, which loses digits in float32
    for component in vectors.unbind(1):  # gathers of one-dimensional tensors have a quick derivative
        j, k = component.index_select(0, first), component.index_select(0, second)
        dot = dot + j * k
        square_jk = square_jk + (k - j) ** 2
    cosine = (dot / (r_ij * r_ik)).unsqueeze(1)
    return r_ij.unsqueeze(1), r_ik.unsqueeze(1), torch.sqrt(square_jk).unsqueeze(1), cosine


class _Angular(ConstantsModule):
    """Distinct angular functions; the result has a column for each of them and each neighbor pair."""

    def __init__(self, functions: Sequence[AngularFunction | CompactAngularFunction], num_species: int):
        super().__init__()
        self.width = len(functions)
        self.max_cutoff = max((f.cutoff for f in functions), default=0.0)
        self.num_pairs = num_species * (num_species + 1) // 2
        self.register_buffer("pair_index", pair_index(num_species))

    def forward(
        self, center: Tensor, neighbor_species: Tensor, vectors: Tensor, distances: Tensor, num_owned: int
    ) -> Tensor:
        """Return [num_owned, num_pairs * width]."""
        near = torch.nonzero(distances < self.max_cutoff).squeeze(1)
        center = center.index_select(0, near)
        neighbor_species = neighbor_species.index_select(0, near)
        r = distances.index_select(0, near)
        first, second = triplets(center, num_owned)
        r_ij, r_ik, r_jk, cosine = _geometry(vectors.index_select(0, near), r, first, second)
        terms = self.terms(r_ij, r_ik, r_jk, cosine)

        pair = self.pair_index[
            neighbor_species.index_select(0, first), neighbor_species.index_select(0, second)
        ]
        rows = center.index_select(0, first) * self.num_pairs + pair
        sums = torch.zeros(num_owned * self.num_pairs, self.width, dtype=r.dtype, device=r.device)
        return sums.index_add(0, rows, terms).view(num_owned, self.num_pairs * self.width)


class AngularTerms(_Angular):
    """Functions `angular_narrow` and `angular_wide`."""

    def __init__(self, functions: Sequence[AngularFunction], num_species: int, kind: str, inner: float):
        super().__init__(functions, num_species)
        self.kind = kind
        self.inner = inner
        angles, angle_of = _distinct([(f.lambda_, f.zeta) for f in functions])
        self.constant("lambda_", _column([key[0] for key in angles]))
        self.constant("zeta", _column([key[1] for key in angles]))
        self.register_buffer("select_angle", _selection(angle_of, len(angles)))

        shells, shell_of = _distinct([(f.is_narrow, f.eta, f.r_shift, f.cutoff) for f in functions])
        self.register_buffer("narrow", torch.tensor([key[0] for key in shells], dtype=torch.bool))
        self.constant("eta", _column([key[1] for key in shells]))
        self.constant("r_shift", _column([key[2] for key in shells]))
        self.register_buffer("select_shell", _selection(shell_of, len(shells)))

        cutoffs, cutoff_of = _distinct([key[3] for key in shells])
        self.constant("cutoff", _column(cutoffs))
        self.register_buffer("select_cutoff", _selection(cutoff_of, len(cutoffs)))

    def terms(self, r_ij: Tensor, r_ik: Tensor, r_jk: Tensor, cosine: Tensor) -> Tensor:
        """Return the summands [T, width] of all triplets."""
        # 1 + λ cos θ may round to -1e-17, whose real powers are NaN; at 0 some derivatives are infinite.
        base = torch.clamp(0.5 * (1.0 + self.lambda_ * cosine), min=1e-30)
        angle = 2.0 * base**self.zeta
        exponent = (r_ij - self.r_shift) ** 2 + (r_ik - self.r_shift) ** 2
        exponent = exponent + self.narrow * (r_jk - self.r_shift) ** 2
        ends = cutoff_function(self.kind, self.inner, r_ij, self.cutoff)
        ends = ends * cutoff_function(self.kind, self.inner, r_ik, self.cutoff)
        far_side = cutoff_function(self.kind, self.inner, r_jk, self.cutoff) @ self.select_cutoff
        far_side = torch.where(self.narrow, far_side, torch.ones_like(far_side))
        shell = torch.exp(-self.eta * exponent) * (ends @ self.select_cutoff) * far_side
        return (angle @ self.select_angle) * (shell @ self.select_shell)


class CompactAngularTerms(_Angular):
    """Functions `compact_narrow` and `compact_wide` of one core."""

    def __init__(self, functions: Sequence[CompactAngularFunction], num_species: int, core: str):
        super().__init__(functions, num_species)
        self.core = core
        windows, window_of = _distinct([f.angle for f in functions])
        self.constant("theta_left", _column([math.radians(left) for left, _ in windows]))
        self.constant("theta_right", _column([math.radians(right) for _, right in windows]))
        self.register_buffer("select_window", _selection(window_of, len(windows)))

        shells, shell_of = _distinct([(f.is_narrow, f.inner, f.cutoff, f.asymmetric) for f in functions])
        self.register_buffer("narrow", torch.tensor([key[0] for key in shells], dtype=torch.bool))
        self.constant("left", _column([key[1] for key in shells]))
        self.constant("right", _column([key[2] for key in shells]))
        self.constant("asymmetric", _column([float(key[3]) for key in shells]))
        self.register_buffer("select_shell", _selection(shell_of, len(shells)))

    def _shell(self, r: Tensor) -> Tensor:
        return compact_function(self.core, r, self.left, self.right, self.asymmetric)

    def terms(self, r_ij: Tensor, r_ik: Tensor, r_jk: Tensor, cosine: Tensor) -> Tensor:
        """Return the summands [T, width] of all triplets."""
        # The derivative of acos is infinite at ±1, where that of the window is 0: no force there.
        edge = 1e-14 if cosine.dtype == torch.float64 else 1e-6
        theta = torch.acos(torch.clamp(cosine, min=edge - 1.0, max=1.0 - edge))
        symmetric = torch.zeros_like(self.theta_left)
        angle = compact_function(self.core, theta, self.theta_left, self.theta_right, symmetric)
        far_side = torch.where(self.narrow, self._shell(r_jk), torch.ones_like(self.left))
        shell = self._shell(r_ij) * self._shell(r_ik) * far_side
        return (angle @ self.select_window) * (shell @ self.select_shell)
