"""Couplings and polynomials against rotation matrices, closed forms, and characters of O(3)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nearsight.models.couplings import coupling, invariant_tensor
from nearsight.models.equivariant import edge_convolution, horner_tables, symmetric_contraction
from nearsight.models.harmonics import spherical_harmonics
from nearsight.models.irreps import Irrep, in_order, irrep, parse_irreps, starts
from nearsight.models.mace_config import coupling_rows, layer_record, message_irreps
from nearsight.models.polynomials import symmetric_polynomials

NATURAL = message_irreps(3, [Irrep(0, 1)])
ALL = message_irreps(2, [Irrep(0, -1)])
TRIANGLES = [(a, b, c) for a, b, c in itertools.product(range(4), repeat=3) if abs(a - b) <= c <= a + b]


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def harmonics(unit: np.ndarray, l: int) -> np.ndarray:  # noqa: E741
    return spherical_harmonics(torch.from_numpy(unit), l)[:, l * l :].numpy()


def turning(l: int, matrix: np.ndarray) -> np.ndarray:  # noqa: E741
    """D with Y(R r) = D Y(r), from the values at many points."""
    unit = np.random.default_rng(l).normal(size=(60, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.linalg.lstsq(harmonics(unit, l), harmonics(unit @ matrix.T, l), rcond=None)[0].T


def turn(irreps: tuple[Irrep, ...], matrix: np.ndarray) -> np.ndarray:
    """The matrix that rotates features with these irreps; of a reflection, with their parities."""
    proper = matrix * np.sign(np.linalg.det(matrix))
    size = starts(irreps)[-1]
    full = np.zeros((size, size))
    for which, begin in zip(irreps, starts(irreps)):
        sign = which.p if np.linalg.det(matrix) < 0 else 1
        full[begin : begin + which.size, begin : begin + which.size] = sign * turning(which.l, proper)
    return full


def evaluate(rows: np.ndarray, m: np.ndarray, paths: int, size: int) -> np.ndarray:
    """P_η[c](m), [paths, size], straight from the table."""
    factors = np.concatenate([m, [1.0]])
    out = np.zeros((paths, size))
    for path, target, a, b, c, value in rows:
        out[int(path), int(target)] += value * factors[int(a)] * factors[int(b)] * factors[int(c)]
    return out


@pytest.mark.parametrize("ls", TRIANGLES)
def test_couplings_turn(ls):
    tensor, matrix = coupling(*ls), rotation(5)
    turned = np.einsum("abc,ax,by,cz->xyz", tensor, *(turning(l, matrix) for l in ls))  # noqa: E741
    np.testing.assert_allclose(turned, tensor, atol=1e-12)
    np.testing.assert_allclose((tensor**2).sum((0, 1)), 1.0, atol=1e-13)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(range(4), repeat=2)))
def test_couplings_are_a_basis_of_products(a, b):
    full = np.concatenate([coupling(a, b, c) for c in range(abs(a - b), a + b + 1)], axis=2)
    square = full.reshape((2 * a + 1) * (2 * b + 1), -1)
    np.testing.assert_allclose(square.T @ square, np.eye(len(square)), atol=1e-13)


def test_couplings_by_closed_forms():
    """Components of l = 1 are y, z, x: the vector product, and the dot product."""
    levi_civita = np.zeros((3, 3, 3))
    for a, b, c in itertools.permutations(range(3)):
        levi_civita[a, b, c] = np.linalg.det(np.eye(3)[[a, b, c]])
    np.testing.assert_allclose(coupling(1, 1, 1), levi_civita / math.sqrt(2), atol=1e-14)
    np.testing.assert_allclose(coupling(1, 1, 0)[..., 0], np.eye(3) / math.sqrt(3), atol=1e-14)
    for l in range(4):  # noqa: E741
        np.testing.assert_allclose(coupling(0, l, l)[0], np.eye(2 * l + 1), atol=1e-14)


@pytest.mark.parametrize("ls", [(1, 1, 1), (1, 2, 2), (2, 2, 1), (3, 2, 2), (3, 3, 3), (1, 3, 3)])
def test_odd_couplings_are_antisymmetric_and_have_their_sign(ls):
    a, b, c = ls
    tensor = invariant_tensor(a, b, c)
    assert tensor[tensor != 0][0] > 0
    if a == b:
        np.testing.assert_allclose(tensor, -tensor.transpose(1, 0, 2), atol=1e-14)


def character(l: int, angle: float) -> float:  # noqa: E741
    return sum(math.cos(m * angle) for m in range(-l, l + 1))


def dimensions(variables, output, degree):
    """How often an irrep is in the symmetric power of the variables: Molien's integral over O(3)."""
    count = 0.0
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for x, w in zip(nodes, weights):
        angle = 0.5 * math.pi * (x + 1)
        haar = w * 0.5 * math.pi * (1 - math.cos(angle)) / math.pi
        for inversion in (1, -1):
            powers = [
                sum(character(v.l, k * angle) * (v.p if inversion**k < 0 else 1) for v in variables)
                for k in range(1, degree + 1)
            ]
            p1, p2, p3 = (*powers, 0.0, 0.0)[:3]
            symmetric = {1: p1, 2: (p1**2 + p2) / 2, 3: (p1**3 + 3 * p1 * p2 + 2 * p3) / 6}[degree]
            sign = output.p if inversion < 0 else 1
            count += 0.5 * haar * symmetric * sign * character(output.l, angle)
    return count


@pytest.mark.parametrize("variables", [NATURAL, ALL])
@pytest.mark.parametrize("output", ["0e", "0o", "1o", "1e", "2e", "2o"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_number_of_polynomials(variables, output, degree):
    found = symmetric_polynomials(variables, (irrep(output),), degree)
    expected = sum(dimensions(variables, irrep(output), d) for d in range(1, degree + 1))
    assert expected == pytest.approx(found.num_paths, abs=1e-8)


@pytest.mark.parametrize("variables", [NATURAL, ALL])
@pytest.mark.parametrize("sign", [1, -1])
def test_polynomials_turn(variables, sign):
    outputs = parse_irreps("0e + 0o + 1o + 1e + 2e")
    polynomials = symmetric_polynomials(variables, outputs, 3)
    m = np.random.default_rng(2).normal(size=starts(variables)[-1])
    matrix = sign * rotation(3)
    size = starts(outputs)[-1]
    before = evaluate(polynomials.rows, m, polynomials.num_paths, size)
    after = evaluate(polynomials.rows, turn(variables, matrix) @ m, polynomials.num_paths, size)
    np.testing.assert_allclose(after, before @ turn(outputs, matrix).T, atol=1e-11)
    assert (np.abs(before).max(1) > 0).all()


@pytest.mark.parametrize("variables", [NATURAL, ALL])
def test_polynomials_are_orthonormal(variables):
    output = Irrep(1, -1)
    polynomials = symmetric_polynomials(variables, (output,), 3)
    monomials, place = np.unique(polynomials.rows[:, 2:5], axis=0, return_inverse=True)
    factor = [
        math.prod(math.factorial(np.count_nonzero(row == v)) for v in set(row) - {-1.0}) for row in monomials
    ]
    table = np.zeros((polynomials.num_paths, output.size, len(monomials)))
    path, target = polynomials.rows[:, :2].astype(int).T
    table[path, target, place.ravel()] = polynomials.rows[:, 5]
    gram = np.einsum("acu,bdu,u->acbd", table, table, np.array(factor, dtype=float))
    paths = polynomials.num_paths
    expected = np.einsum("ab,cd->acbd", np.eye(paths), np.eye(output.size))
    np.testing.assert_allclose(gram, expected, atol=1e-12)


def test_published_numbers_of_monomials():
    """Non-zero monomials of MACE models with l_max 3: 94, 410 and 887 for hidden L = 0, 1, 2."""
    counts = []
    for hidden in ("0e", "0e + 1o", "0e + 1o + 2e"):
        rows = symmetric_polynomials(NATURAL, parse_irreps(hidden), 3).rows
        counts.append(len(np.unique(rows[:, 1:5], axis=0)))
    assert counts == [94, 410, 887]


def test_rows_are_sorted_monomials():
    rows = symmetric_polynomials(ALL, parse_irreps("0e + 1e"), 3).rows
    assert (np.diff(rows[:, 2:5], axis=1) >= 0).all()
    assert rows[:, 2:5].min() == -1 and rows[:, 4].min() >= 0


def test_degree_out_of_range():
    with pytest.raises(ValueError, match="degree of 1 to 3, found 4"):
        symmetric_polynomials(NATURAL, (Irrep(0, 1),), 4)


def test_irreps_in_order():
    assert [str(which) for which in parse_irreps("1e+0o + 1o + 0e")] == ["0e", "0o", "1o", "1e"]
    assert [str(which) for which in in_order(ALL)] == ["0e", "0o", "1o", "1e", "2e", "2o"]


@pytest.mark.parametrize(("text", "match"), [("0e + 1x", "found ' 1x'"), ("0e + 1o + 0e", "appears once")])
def test_irreps_that_are_none(text, match):
    with pytest.raises(ValueError, match=match):
        parse_irreps(text)


def test_paths_of_a_layer():
    first = layer_record([Irrep(0, 1)], NATURAL, [Irrep(0, 1)], 3, 3)
    assert first["paths"] == [["0e", 0, "0e"], ["0e", 1, "1o"], ["0e", 2, "2e"], ["0e", 3, "3o"]]
    second = layer_record(parse_irreps("0e + 1o"), NATURAL, [Irrep(0, 1)], 3, 3)
    assert len(second["paths"]) == 10
    assert second["paths"][:2] == [["0e", 0, "0e"], ["1o", 1, "0e"]]
    # Of one element, messages from scalars are natural whatever the hidden irreps are.
    everything = layer_record([Irrep(0, 1)], message_irreps(3, parse_irreps("0e + 0o")), [], 3, 3)
    assert everything["message"] == ["0e", "1o", "2e", "3o"]


def test_table_of_couplings():
    """Φ of an interaction of vectors with themselves to a pseudovector is the vector product."""
    rows = coupling_rows([["1o", 1, "1e"]])
    y, u = np.random.default_rng(0).normal(size=(2, 3))
    phi = np.zeros(9)
    np.add.at(phi, rows[:, 0].astype(int), rows[:, 2] * np.concatenate([[0], y])[rows[:, 1].astype(int)])
    cross = np.cross(u[[2, 0, 1]], y[[2, 0, 1]])[[1, 2, 0]]  # components are y, z, x
    np.testing.assert_allclose(phi.reshape(3, 3) @ u, cross / math.sqrt(2), atol=1e-14)


def test_edge_convolution_by_its_sums():
    """Against the equation, term by term; the second atom has no neighbors."""
    generator = torch.Generator().manual_seed(3)
    record = layer_record(parse_irreps("0e + 1o"), message_irreps(2, []), [Irrep(0, 1)], 2, 2)
    rows = coupling_rows(record["paths"])
    sizes, ends = [1, 3], [(irrep(one), irrep(three)) for one, _, three in record["paths"]]
    paths = [[one.l, one.size, three.size] for one, three in ends]
    center, neighbor = torch.tensor([0, 0, 0, 2, 3]), torch.tensor([1, 3, 4, 0, 2])
    u, radial, y = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((5, 4, 2), (5, len(paths), 2), (5, 9))
    )
    couplings = torch.zeros(9, sum(one * three for _, one, three in paths), dtype=torch.float64)
    couplings[rows[:, 1], rows[:, 0]] = torch.from_numpy(rows[:, 2])
    found = edge_convolution(u, radial, y, torch.stack([center, neighbor]), couplings, sizes, paths, 4)
    expected, begin = torch.zeros(4, sum(three for *_, three in paths), 2, dtype=torch.float64), 0
    for p, ((one, l2, three), (irrep1, size1, size3)) in enumerate(zip(record["paths"], paths)):
        tensor = torch.from_numpy(coupling(irrep(one).l, l2, irrep(three).l))
        for e, (i, j) in enumerate(zip(center, neighbor)):
            source = u[j, irrep1 : irrep1 + size1]  # 0e has one component
            product = torch.einsum("abc,ak,b->ck", tensor, source, y[e, l2 * l2 : (l2 + 1) ** 2])
            expected[i, begin : begin + size3] += radial[e, p] * product
        begin += size3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_symmetric_contraction_by_its_table():
    outputs = parse_irreps("0e + 1o")
    polynomials = symmetric_polynomials(ALL, outputs, 3)
    generator = torch.Generator().manual_seed(5)
    m, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, starts(ALL)[-1], 2), (2, polynomials.num_paths, 2))
    )
    species = torch.tensor([1, 0, 1])
    rows = torch.from_numpy(polynomials.rows)
    terms, place = torch.unique(rows[:, 1:5].long(), dim=0, return_inverse=True)
    coefficients = torch.zeros(len(terms), polynomials.num_paths, dtype=torch.float64)
    coefficients[place, rows[:, 0].long()] = rows[:, 5]
    factors, sums = horner_tables(terms)
    sizes = [len(factors[1]), len(factors[2]), 4]
    found = symmetric_contraction(m, weights, species, coefficients, factors, sums, sizes)
    assert found.shape == (3, 4, 2)
    for atom, channel in itertools.product(range(3), range(2)):
        values = evaluate(polynomials.rows, m[atom, :, channel].numpy(), polynomials.num_paths, 4)
        expected = weights[species[atom], :, channel].numpy() @ values
        np.testing.assert_allclose(found[atom, :, channel].numpy(), expected, rtol=0, atol=1e-12)
