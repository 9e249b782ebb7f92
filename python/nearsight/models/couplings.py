"""Rotation-invariant polynomials of the moments A_{c,n,l,m}, as a table of products that any engine can run.

A node is a number per center. Node 0 is 1, then follow the moments, then the products: node t is
Σ C node_a node_b over the rows (t, a, b, C) of the table, a and b < t. Some nodes are the features. So
whoever evaluates them needs to know nothing of angular momentum.

Functions of one to three moments (body order two to four) that are invariant under rotations and inversion:

    ν = 1   A_{cn00}
    ν = 2   Σ_m A_{cnlm} A_{c'n'lm} / √(2l+1)
    ν = 3   Σ_{m1m2m3} G^{l1l2l3}_{m1m2m3} A_{c1n1l1m1} A_{c2n2l2m2} A_{c3n3l3m3}

G is the one invariant tensor of three real spherical harmonics, normalized: Wigner's 3j symbol in the real
basis. It exists within the triangle, and is even under inversion for l1 + l2 + l3 even, as it must be here. A
multiset of (c, n, l) gives one function and the functions share no monomial, so they are linearly independent
as they stand: up to ν = 3 there are no redundant couplings to remove.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from nearsight.models.harmonics import spherical_harmonics

Moment = tuple[int, int, int]  # channel, l, n
Function = tuple[Moment, ...]


@cache
def invariant_tensor(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return G[2 l1 + 1, 2 l2 + 1, 2 l3 + 1] with Σ G² = 1; zeros outside of the triangle.

    Rotations leave it alone. For l1 + l2 + l3 even it is, up to a factor, Gaunt's integral over the sphere
    ∫ Y_1 Y_2 Y_3, which inversion leaves alone too; for odd sums Elsasser's, ∫ r̂ · (∇Y_1 × ∇Y_2) Y_3, which
    changes its sign, and the first entry that is not zero is positive. The quadrature is exact for both.
    """
    if l3 > l1 + l2 or l3 < abs(l1 - l2):
        return np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    weights, unit = _quadrature(l1 + l2 + l3 + 1)
    parts = [_harmonics(unit, l) for l in (l1, l2, l3)]  # noqa: E741
    if (l1 + l2 + l3) % 2 == 0:
        tensor = np.einsum("p,pa,pb,pc->abc", weights, *parts, optimize=True)
    else:
        slopes = [_gradients(unit, l) for l in (l1, l2)]  # noqa: E741
        # r̂ · (∇Y_1 × ∇Y_2) = ∇Y_1 · (∇Y_2 × r̂)
        turned = np.cross(slopes[1], unit[:, None])
        tensor = np.einsum("p,pax,pbx,pc->abc", weights, slopes[0], turned, parts[2], optimize=True)
    tensor[np.abs(tensor) < 1e-12 * np.abs(tensor).max()] = 0.0
    if (l1 + l2 + l3) % 2:
        tensor *= np.sign(tensor[tensor != 0][0])
    return tensor / np.linalg.norm(tensor)


def _quadrature(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [p] and unit vectors [p, 3], up to a factor exact for polynomials of this degree."""
    z, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    phi = 2.0 * math.pi * np.arange(degree + 1) / (degree + 1)
    rho = np.sqrt(1.0 - z**2)[:, None]
    unit = np.stack([rho * np.cos(phi), rho * np.sin(phi), z[:, None] + 0.0 * phi], axis=-1).reshape(-1, 3)
    return np.repeat(weights, degree + 1), unit


def _harmonics(unit: np.ndarray, l: int) -> np.ndarray:  # noqa: E741
    """Y_lm at points [p, 3] as [p, 2l + 1]."""
    return spherical_harmonics(torch.from_numpy(unit), l)[:, l * l :].numpy()


def _gradients(unit: np.ndarray, l: int) -> np.ndarray:  # noqa: E741
    """∇Y_lm as [p, 2l + 1, 3], of which only the part along the sphere means something."""
    points = torch.from_numpy(unit).requires_grad_()
    sums = spherical_harmonics(points, l)[:, l * l :].sum(0)
    slopes = [torch.autograd.grad(column, points, retain_graph=True)[0] for column in sums]
    return torch.stack(slopes, dim=1).numpy()


@cache
def coupling(l1: int, l2: int, l3: int) -> np.ndarray:
    """Return C[2 l1 + 1, 2 l2 + 1, 2 l3 + 1] = √(2 l3 + 1) G: with x of l1 and y of l2, Σ C x y is of l3.

    C of (0, l, l) is 1 on the diagonal.
    """
    return math.sqrt(2 * l3 + 1) * invariant_tensor(l1, l2, l3)


@dataclass(frozen=True)
class MomentLayout:
    """Where the moment A_{c,n,l,m} stands among the moments: ordered by channel, l, m and n.

    Attributes:
        channels: of neighbors: species, or learned mixtures of them.
        radial_counts: [l_max + 1] number of radial functions n of each l.
    """

    channels: int
    radial_counts: tuple[int, ...]

    @property
    def per_channel(self) -> int:
        """Moments of one channel."""
        return sum((2 * l + 1) * count for l, count in enumerate(self.radial_counts))  # noqa: E741

    @property
    def size(self) -> int:
        """All moments."""
        return self.channels * self.per_channel

    def place(self, moment: Moment, m: int) -> int:
        """Return the number of the moment with m = 0 … 2l (that is, m + l), from 0."""
        channel, l, n = moment  # noqa: E741
        before = sum((2 * k + 1) * count for k, count in enumerate(self.radial_counts[:l]))
        return channel * self.per_channel + before + m * self.radial_counts[l] + n


@dataclass(frozen=True)
class Products:
    """The table of products and the features among its nodes.

    Attributes:
        num_moments: nodes 1 … num_moments are the moments.
        rows: [T, 4] float64: target, a, b, coefficient; sorted by target, targets count up from
            num_moments + 1. Products of moments come before products of products.
        features: [K] int64 node of each feature.
        levels: number of rows whose factors are moments, and of the rest.
    """

    num_moments: int
    rows: np.ndarray
    features: np.ndarray
    levels: tuple[int, int]

    @property
    def num_nodes(self) -> int:
        """The 1, moments and products."""
        return int(self.rows[-1, 0]) + 1


class _Builder:
    """Adds products to the table; a pair of moments that couple to some l is made once."""

    def __init__(self, layout: MomentLayout):
        self.layout = layout
        self.rows: list[tuple[int, int, int, float]] = []
        self.next_node = layout.size + 1
        self.pairs: dict[tuple[Moment, Moment, int], list[int]] = {}

    def node(self, terms: dict[tuple[int, int], float]) -> int:
        self.rows += [(self.next_node, a, b, c) for (a, b), c in sorted(terms.items())]
        self.next_node += 1
        return self.next_node - 1

    def moment(self, moment: Moment) -> list[int]:
        return [1 + self.layout.place(moment, m) for m in range(2 * moment[1] + 1)]

    def pair(self, first: Moment, second: Moment, l: int) -> list[int]:  # noqa: E741
        """Nodes of the 2l + 1 components of the product of two moments that transform as Y_lm."""
        key = (first, second, l)
        if key not in self.pairs:
            tensor = invariant_tensor(first[1], second[1], l)
            nodes1, nodes2 = self.moment(first), self.moment(second)
            self.pairs[key] = []
            for m in range(2 * l + 1):
                terms: dict[tuple[int, int], float] = {}
                for i, j in np.argwhere(tensor[:, :, m]):
                    ends = (min(nodes1[i], nodes2[j]), max(nodes1[i], nodes2[j]))
                    terms[ends] = terms.get(ends, 0.0) + float(tensor[i, j, m])
                self.pairs[key].append(self.node(terms))
        return self.pairs[key]

    def cost(self, first: Moment, second: Moment, third: Moment) -> int:
        known = (first, second, third[1]) in self.pairs
        return 2 * third[1] + 1 + (0 if known else _num_terms(first[1], second[1], third[1]))

    def feature(self, function: Function) -> int:
        if len(function) == 1:
            return self.node({(0, self.moment(function[0])[0]): 1.0})
        if len(function) == 2:
            return self.pair(*function, 0)[0]
        a, b, c = function
        first, second, third = min([(a, b, c), (a, c, b), (b, c, a)], key=lambda order: self.cost(*order))
        pair, single = self.pair(first, second, third[1]), self.moment(third)
        return self.node({(a, b): 1.0 for a, b in zip(single, pair)})


@cache
def _num_terms(l1: int, l2: int, l3: int) -> int:
    return int(np.count_nonzero(invariant_tensor(l1, l2, l3)))


def build_products(layout: MomentLayout, functions: Sequence[Function]) -> Products:
    """Return the table whose features are `functions`, in their order."""
    builder = _Builder(layout)
    features = np.array([builder.feature(tuple(sorted(function))) for function in functions])
    rows = np.array(builder.rows)
    nodes = rows[:, :3].astype(np.int64)
    first_product = layout.size + 1
    is_later = np.zeros(builder.next_node, dtype=bool)  # made of products
    np.logical_or.at(is_later, nodes[:, 0], (nodes[:, 1:] >= first_product).any(axis=1))
    number = np.empty(builder.next_node, dtype=np.int64)
    number[np.argsort(is_later, kind="stable")] = np.arange(builder.next_node)
    rows[:, :3] = number[nodes]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    later = int(is_later[nodes[:, 0]].sum())
    return Products(layout.size, rows, number[features], (len(rows) - later, later))


def _allowed(function: Function) -> bool:
    ls = [moment[1] for moment in function]
    if len(ls) == 1:
        return ls[0] == 0
    if len(ls) == 2:
        return ls[0] == ls[1]
    return sum(ls) % 2 == 0 and max(ls) <= sum(ls) - max(ls)


def functions_by_degree(
    channels: int, max_degree: Sequence[float], l_max: int, l_weight: float
) -> Iterator[tuple[Function, float]]:
    """Yield the invariant functions of ν = 1 … len(max_degree) moments and their degree Σ (n + l_weight l).

    n counts from 0. The degree of a function of ν moments is at most max_degree[ν - 1].
    """
    for order, limit in enumerate(max_degree, start=1):
        moments = sorted(
            (n + l_weight * l, (channel, l, n))
            for l in range(l_max + 1)  # noqa: E741
            for n in range(int(limit - l_weight * l) + 1 if limit >= l_weight * l else 0)
            for channel in range(channels)
        )
        for function, degree in _multisets(moments, order, limit, 0):
            if _allowed(function):
                yield function, degree


def _multisets(
    moments: Sequence[tuple[float, Moment]], order: int, limit: float, start: int
) -> Iterator[tuple[Function, float]]:
    """All multisets of `order` of the moments, which are sorted by degree, up to a sum of degrees."""
    if order == 0:
        yield (), 0.0
        return
    for k in range(start, len(moments)):
        degree, moment = moments[k]
        if order * degree > limit + 1e-9:
            return
        for rest, more in _multisets(moments, order - 1, limit - degree, k):
            yield (moment, *rest), degree + more
