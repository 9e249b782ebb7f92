"""Polynomials of one set of features that turn as an irrep: the symmetric contraction of message passing.

The variables are the components of a list of irreps, each once. A monomial's factors come from a multiset of
irreps; all polynomials on it that turn as the irrep L are spanned by the couplings ((a b) l_ab, c) L of its
members with every intermediate l_ab. Symmetry makes some of them vanish or depend on one another, so that
they are orthonormalized in the order of l_ab, and what adds nothing is left out. The product of two
polynomials is Σ_α α! p_α q_α over the exponents α of monomials (Bombieri's, up to a factor): rotations leave
it alone, and of random variables with unit variance normalized products of different ones have unit
variance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np

from nearsight.models.couplings import coupling
from nearsight.models.irreps import Irrep, starts

MAX_DEGREE = 3
_DEPENDENT = 1e-9  # squared part of a normalized polynomial that is not in the ones before


@dataclass(frozen=True)
class Polynomials:
    """Polynomials P_η from the components of some irreps to those of others.

    Attributes:
        rows: [rows, 6] float64: (η, output component, a, b, c, coefficient), a <= b <= c components of the
            variables, -1 in front where the degree is lower.
        outputs: [paths] number of the output irrep of each P_η.
    """

    rows: np.ndarray
    outputs: tuple[int, ...]

    @property
    def num_paths(self) -> int:
        """Number of polynomials, all components of an irrep as one."""
        return len(self.outputs)


@cache
def symmetric_polynomials(
    variables: tuple[Irrep, ...], outputs: tuple[Irrep, ...], max_degree: int
) -> Polynomials:
    """Return an orthonormal basis: by output irrep, degree and multiset of irreps, 2l + 1 the squared norm.

    Raises:
        ValueError: the degree is not 1 to 3.
    """
    if not 1 <= max_degree <= MAX_DEGREE:
        raise ValueError(f"polynomials have a degree of 1 to {MAX_DEGREE}, found {max_degree}")
    first, places = starts(outputs), starts(variables)
    rows: list[np.ndarray] = []
    numbers: list[int] = []
    for number, output in enumerate(outputs):
        for degree in range(1, max_degree + 1):
            for multiset in combinations_with_replacement(range(len(variables)), degree):
                if math.prod(variables[k].p for k in multiset) != output.p:
                    continue
                for monomials, values in _basis(variables, places, multiset, output.l):
                    rows.append(_rows(len(numbers), first[number], monomials, values))
                    numbers.append(number)
    return Polynomials(np.concatenate([np.empty((0, 2 + MAX_DEGREE + 1)), *rows]), tuple(numbers))


def _rows(path: int, first: int, monomials: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows of the table for a polynomial of monomials [u, degree] with coefficients [u, 2l + 1]."""
    component, monomial = np.nonzero(values.T)
    rows = np.full((len(monomial), 2 + MAX_DEGREE + 1), -1.0)
    rows[:, 0], rows[:, 1] = path, first + component
    rows[:, 2 + MAX_DEGREE - monomials.shape[1] : 2 + MAX_DEGREE] = monomials[monomial]
    rows[:, -1] = values[monomial, component]
    return rows


def _basis(
    variables: tuple[Irrep, ...],
    places: list[int],
    multiset: tuple[int, ...],
    l: int,  # noqa: E741
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return orthonormal polynomials of a multiset as monomials [u, degree] and coefficients [u, 2l + 1]."""
    tensors = list(_trees(tuple(variables[k].l for k in multiset), l))
    if not tensors:
        return []
    grids = np.meshgrid(*(np.arange(places[k], places[k + 1]) for k in multiset), indexing="ij")
    factors = np.sort(np.stack([grid.ravel() for grid in grids], axis=1), axis=1)
    monomials, place = np.unique(factors, axis=0, return_inverse=True)
    weights = np.array([math.prod(map(math.factorial, Counter(row).values())) for row in monomials.tolist()])
    found: list[np.ndarray] = []
    for tensor in tensors:
        values = np.zeros((len(monomials), 2 * l + 1))
        np.add.at(values, place.ravel(), tensor.reshape(-1, 2 * l + 1))
        scaled = np.sqrt(weights)[:, None] * values
        size = (scaled**2).sum()
        for _ in range(2):  # once more, against round-off
            for other in found:
                scaled = scaled - (other * scaled).sum() / (2 * l + 1) * other
        rest = (scaled**2).sum()
        if size > _DEPENDENT and rest > _DEPENDENT * size:
            found.append(scaled * math.sqrt((2 * l + 1) / rest))
    clean = [np.where(np.abs(values) < 1e-12, 0.0, values) for values in found]
    return [(monomials, values / np.sqrt(weights)[:, None]) for values in clean]


def _trees(ls: tuple[int, ...], l: int) -> Iterator[np.ndarray]:  # noqa: E741
    """Yield the couplings of harmonics of ls, one after the other, to l: [2 l1 + 1, …, 2l + 1]."""
    if len(ls) == 1:
        if ls[0] == l:
            yield np.eye(2 * l + 1)
        return
    *before, last = ls
    for between in range(abs(l - last), l + last + 1):
        for tree in _trees(tuple(before), between):
            yield np.tensordot(tree, coupling(between, last, l), axes=1)
