"""Harmonics, radial functions, couplings, SOAP and ACE in torch: closed forms, symmetries, dscribe."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import lpmv

from nearsight.models import ACEConfig, SOAPConfig
from nearsight.models.ace import preset_degrees
from nearsight.models.couplings import (
    MomentLayout,
    build_products,
    functions_by_degree,
    invariant_tensor,
)
from nearsight.models.harmonics import spherical_harmonics
from nearsight.models.radial_basis import (
    distance_polynomials,
    gaussian_density,
    interpolate,
    orthonormal_bessel,
    orthonormal_chebyshev,
    tabulate,
)

GOLDEN = Path(__file__).parent / "soap_dscribe.json"


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def directions(count, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 3))
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))


def features(descriptor, neighbors, species=None, center=0):
    """Features of one center with neighbors at these vectors (Å)."""
    neighbors = torch.as_tensor(np.asarray(neighbors), dtype=torch.float64)
    count = len(neighbors)
    kinds = torch.tensor([center, *(species if species is not None else [0] * count)])
    edges = torch.stack([torch.zeros(count, dtype=torch.int64), torch.arange(1, count + 1)])
    return descriptor(kinds, edges, neighbors, 1)[0]


def cloud(count, seed=0, scale=1.6):
    """Vectors between about 1 and 4 Å."""
    rng = np.random.default_rng(seed)
    return directions(count, seed).numpy() * rng.uniform(1.0, 2.6 * scale, size=(count, 1))


# ---- harmonics and couplings ---------------------------------------------------------------------


def test_harmonics_equal_the_associated_legendre_functions():
    unit = directions(40)
    found = spherical_harmonics(unit, 8).numpy()
    phi = torch.atan2(unit[:, 1], unit[:, 0]).numpy()
    for l in range(9):  # noqa: E741
        for m in range(l + 1):
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
            norm *= (-1) ** m * (math.sqrt(2) if m else 1.0)  # lpmv has the Condon-Shortley phase
            expected = norm * lpmv(m, l, unit[:, 2].numpy())
            np.testing.assert_allclose(found[:, l * l + l + m], expected * np.cos(m * phi), atol=2e-13)
            if m:
                np.testing.assert_allclose(found[:, l * l + l - m], expected * np.sin(m * phi), atol=2e-13)


@pytest.mark.parametrize("ls", [(0, 0, 0), (1, 1, 0), (1, 1, 2), (2, 2, 2), (1, 3, 4), (4, 5, 3), (6, 6, 6)])
def test_couplings_are_invariant_and_normalized(ls):
    tensor = invariant_tensor(*ls)
    assert np.sum(tensor**2) == pytest.approx(1.0, abs=1e-14)
    three = directions(3, 1)
    values = []
    for matrix in (np.eye(3), rotation(2), -rotation(3)):
        y = spherical_harmonics(three @ torch.from_numpy(matrix.T), 6).numpy()
        parts = [y[k, l * l : (l + 1) ** 2] for k, l in enumerate(ls)]  # noqa: E741
        values.append(np.einsum("abc,a,b,c", tensor, *parts))
    np.testing.assert_allclose(values, values[0], atol=1e-14)
    assert abs(values[0]) > 1e-4


@pytest.mark.parametrize("ls", [(1, 1, 3), (0, 1, 2)])
def test_couplings_outside_of_the_triangle_vanish(ls):
    assert not invariant_tensor(*ls).any()


def test_products_are_a_table_in_order():
    layout = MomentLayout(2, (5, 3, 2))
    functions = [function for function, _ in functions_by_degree(2, (4, 3, 2), 2, 1.0)]
    products = build_products(layout, functions)
    target, a, b, coefficient = products.rows.T
    assert products.features.shape == (len(functions),)
    assert len(set(products.features)) == len(functions)
    assert (np.diff(target) >= 0).all() and set(np.diff(np.unique(target))) == {1}
    assert target[0] == layout.size + 1 and (np.maximum(a, b) < target).all() and coefficient.all()
    first, second = products.levels
    assert first + second == len(products.rows)
    assert max(a[:first].max(), b[:first].max()) <= layout.size
    assert (np.maximum(a, b)[first:] > layout.size).all()


def test_functions_are_linearly_independent():
    ace = ACEConfig(max_degree=[5, 4, 4]).build(5.0, ["H", "O"])
    rng = np.random.default_rng(3)
    count = 2 * len(ace.labels("H"))
    rows = []
    for seed in range(count):
        x = cloud(int(rng.integers(1, 12)), seed)
        rows.append(features(ace, x, rng.integers(0, 2, len(x)).tolist()))
    matrix = torch.stack(rows).numpy()
    singular = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0), compute_uv=False)
    assert singular[-1] > 1e-9 * singular[0]


# ---- radial functions ----------------------------------------------------------------------------


def smooth_gaussian(r):
    return gaussian_density(r, 5.0, 0.5, 6, 4) * (1 - (r[:, None] / 5.0) ** 2) ** 3


@pytest.mark.parametrize(
    "form",
    [smooth_gaussian, lambda r: distance_polynomials(r, 5.0, 2.6, 16)],
    ids=["gaussian", "polynomials"],
)
def test_tables_meet_the_analytic_forms(form):
    table = torch.from_numpy(tabulate(form, 5.0))[None]
    r = np.linspace(0.3, 5.0, 4001)
    found = interpolate(table, torch.zeros(4001, dtype=torch.int64), torch.from_numpy(r), 5.0).numpy()
    expected = form(r)
    assert np.abs(found - expected).max() < 2e-8 * np.abs(expected).max()


def test_radial_functions_are_twice_differentiable_everywhere():
    """At knots and at the cutoff, from both sides."""
    cutoff, step = 5.0, 5.0 / 256
    table = torch.from_numpy(tabulate(lambda r: distance_polynomials(r, cutoff, 2.6, 6), cutoff))[None]
    for knot in (100, 201, 256):
        sides = []
        for side in (-1e-9, 1e-9):
            r = torch.full((1,), knot * step + side, dtype=torch.float64, requires_grad=True)
            values = interpolate(table, torch.zeros(1, dtype=torch.int64), r, cutoff)[0]
            derivatives = []
            for value in values:
                (slope,) = torch.autograd.grad(value, r, create_graph=True)
                (curvature,) = torch.autograd.grad(slope, r, retain_graph=True)
                derivatives.append([float(x.detach()) for x in (value, slope, curvature)])
            sides.append(derivatives)
        np.testing.assert_allclose(sides[0], sides[1], atol=2e-6)
    assert not np.any(sides[1])


@pytest.mark.parametrize("basis", [orthonormal_bessel, orthonormal_chebyshev])
def test_radial_bases_are_orthonormal(basis):
    nodes, weights = np.polynomial.legendre.leggauss(60)
    r = 2.5 * (nodes + 1)
    values = basis(r, 5.0, 8)
    overlap = np.einsum("p,pm,pn->mn", 2.5 * weights * r**2, values, values)
    np.testing.assert_allclose(overlap, np.eye(8), atol=1e-12)


def test_gaussian_density_is_the_projection_integral():
    """Against a quadrature over the density around one neighbor on the z axis, l = 0 … 3."""
    cutoff, smearing, distance, n_max, l_max = 4.0, 0.5, 2.1, 3, 3
    found = gaussian_density(np.array([distance]), cutoff, smearing, n_max, l_max)[0].reshape(
        l_max + 1, n_max
    )
    reach = np.linspace(1.0, cutoff, n_max)
    nodes, weights = np.polynomial.legendre.leggauss(80)
    r, w = 5.0 * (nodes + 1), 5.0 * weights  # the orbitals have no cutoff
    density = np.exp(-(r[:, None] ** 2 + distance**2 - 2 * r[:, None] * distance * nodes) / (2 * smearing**2))
    for l in range(l_max + 1):  # noqa: E741
        alpha = -np.log(1e-3 / reach**l) / reach**2
        primitive = r[:, None] ** l * np.exp(-alpha * r[:, None] ** 2)
        overlap = np.einsum("p,pm,pn->mn", w * r**2, primitive, primitive)
        values, vectors = np.linalg.eigh(overlap)
        orbitals = primitive @ vectors @ np.diag(values**-0.5) @ vectors.T
        legendre = np.polynomial.legendre.legval(nodes, np.eye(l + 1)[l])
        # ∫ over angles of Y_l0 ρ, divided by Y_l0 of the neighbor, is 2π ∫ P_l ρ dz.
        angular = 2 * math.pi * (density * legendre) @ weights
        np.testing.assert_allclose(found[l], np.einsum("p,pn->n", w * r**2 * angular, orbitals), rtol=1e-9)


# ---- symmetries and body order -------------------------------------------------------------------

DESCRIPTORS = {
    "ace": ACEConfig(max_degree=[6, 5, 5]),
    "soap": SOAPConfig(n_max=4, l_max=4, smearing=0.4),
    "normalized": SOAPConfig(n_max=4, l_max=3, radial="chebyshev", normalize=True),
    "mixed": SOAPConfig(n_max=4, l_max=3, radial="bessel", species_channels=3),
    "scaled": SOAPConfig(n_max=4, l_max=3, radial_scaling={"rate": 1.0, "scale": 2.0, "exponent": 4}),
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_features_are_invariant(name):
    """Under rotation, reflection and the order of neighbors."""
    torch.manual_seed(1)
    descriptor = DESCRIPTORS[name].build(5.0, ["H", "O"])
    x, species = cloud(9), [0, 1, 1, 0, 1, 0, 0, 0, 1]
    expected = features(descriptor, x, species).detach()
    order = np.random.default_rng(4).permutation(9)
    for moved, kinds in (
        (x @ rotation(1).T, species),
        (x * [1, 1, -1], species),
        (x[order], [species[k] for k in order]),
    ):
        found = features(descriptor, moved, kinds).detach()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(expected.abs().max()))
    other = features(descriptor, x, species[::-1]).detach()
    assert (other - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_neighbors_leave_without_a_trace(name):
    """Value, first and second derivative vanish at the cutoff."""
    torch.manual_seed(1)
    descriptor = DESCRIPTORS[name].build(5.0, ["H", "O"])
    x = cloud(5)
    without = features(descriptor, x).detach()

    def far(distance):
        return features(descriptor, np.vstack([x, [[0.0, distance * 0.6, distance * 0.8]]])).detach()

    near, closer = (float((far(5.0 - d) - without).abs().max()) for d in (2e-3, 1e-3))
    assert near > 0 and closer < near / 6  # the third power of the distance to the cutoff, or faster
    assert (far(5.5) - without).abs().max() <= 1e-14 * without.abs().max()


def test_body_order():
    """A function of ν moments of a center sees at most ν neighbors at once: mixed differences of ν + 1 groups
    of neighbors vanish, those of ν groups do not."""
    ace = ACEConfig(max_degree=[4, 4, 4]).build(5.0, ["H"])
    groups = [cloud(4, seed, scale=1.0) for seed in range(4)]
    orders = torch.tensor([label.count("(") for label in ace.labels("H")])

    def mixed_difference(count):
        total = torch.zeros(len(orders), dtype=torch.float64)
        for size in range(count + 1):
            for chosen in combinations(groups[:count], size):
                sign = (-1.0) ** (count - size)
                total += sign * features(ace, np.vstack([np.zeros((0, 3)), *chosen]))
        return total

    for count in (2, 3, 4):
        difference = mixed_difference(count).abs()
        assert difference[orders < count].max() < 1e-10
        assert count == 4 or difference[orders >= count].max() > 1e-2


# ---- what the power spectrum knows ---------------------------------------------------------------


def test_soap_does_not_know_mirror_images():
    """A chiral neighborhood and its mirror image, which no rotation maps onto each other."""
    x = np.array([[1.0, 0.2, 0.1], [-0.3, 1.3, 0.0], [0.1, -0.2, 1.7], [-1.5, -0.8, -0.6]])
    mirrored = x * [-1.0, 1.0, 1.0]
    assert np.linalg.det(x[:3]) * np.linalg.det(mirrored[:3]) < 0
    soap = SOAPConfig(n_max=6, l_max=6, smearing=0.3).build(4.0, ["C"])
    torch.testing.assert_close(features(soap, mirrored), features(soap, x), rtol=1e-11, atol=1e-11)


def test_soap_does_not_know_degenerate_pairs_that_three_moments_tell_apart():
    """Two sets of four points on a circle of eight that have the same distances but are not congruent."""

    def ring(places):
        angle = np.array(places) * math.pi / 4
        return 2.0 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)

    first, second = ring([0, 1, 3, 4]), ring([0, 1, 2, 5])
    soap = SOAPConfig(n_max=6, l_max=6, smearing=0.3).build(4.0, ["C"])
    torch.testing.assert_close(features(soap, first), features(soap, second), rtol=1e-11, atol=1e-11)
    ace = ACEConfig(max_degree=[6, 6, 6]).build(4.0, ["C"])
    difference = (features(ace, first) - features(ace, second)).abs()
    orders = torch.tensor([label.count("(") for label in ace.labels("C")])
    assert difference[orders < 3].max() < 1e-12
    assert difference[orders == 3].max() > 1e-2


# ---- dscribe -------------------------------------------------------------------------------------


def in_the_order_of_dscribe(table, n_max, l_max):
    """[species pair][l, n, n'] without the √2 of different (c, n); see nearsight.models.soap."""
    blocks = {}
    column = 0
    single = [(c, n) for c in range(2) for n in range(n_max)]
    for place, (c, n) in enumerate(single):
        for other_c, other_n in single[place:]:
            for l in range(l_max + 1):  # noqa: E741
                factor = 1.0 if (c, n) == (other_c, other_n) else math.sqrt(0.5)
                blocks.setdefault((c, other_c), {})[l, n, other_n] = table[:, column] * factor
                column += 1
    columns = [block[key] for _, block in sorted(blocks.items()) for key in sorted(block)]
    return np.stack(columns, axis=1)


def soap_table(case):
    config = SOAPConfig(
        n_max=case["n_max"], l_max=case["l_max"], smearing=case["sigma"], cutoff_function="poly1"
    )
    soap = config.build(case["r_cut"], ["H", "O"])
    x = np.array(case["positions"])
    species = torch.tensor([["H", "O"].index(symbol) for symbol in case["symbols"]])
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    i, j = np.nonzero((distance < case["r_cut"]) & (distance > 0))
    table = soap(species, torch.from_numpy(np.stack([i, j])), torch.from_numpy(x[j] - x[i]), len(x))
    return in_the_order_of_dscribe(table.numpy(), case["n_max"], case["l_max"])


def test_soap_equals_dscribe():
    """Golden numbers; `provenance` in the file says how they were made."""
    case = json.loads(GOLDEN.read_text())
    expected = np.array(case["power_spectrum"])
    found = soap_table(case)[case["centers"]]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_soap_equals_dscribe_itself():
    descriptors = pytest.importorskip("dscribe.descriptors", reason="dscribe is not installed")
    from ase import Atoms

    case = json.loads(GOLDEN.read_text())
    soap = descriptors.SOAP(
        species=["H", "O"],
        r_cut=case["r_cut"],
        n_max=case["n_max"],
        l_max=case["l_max"],
        sigma=case["sigma"],
        weighting={"function": "poly", "r0": case["r_cut"], "c": 1, "m": 1},
        periodic=False,
    )
    expected = soap.create(Atoms(case["symbols"], positions=case["positions"]))
    np.testing.assert_allclose(soap_table(case), expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


# ---- modules and configuration -------------------------------------------------------------------


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_scripted_and_single_precision_modules(name):
    torch.manual_seed(1)
    descriptor = DESCRIPTORS[name].build(5.0, ["H", "O"])
    arguments = (
        torch.tensor([0, 1, 0, 1, 1]),
        torch.tensor([[0, 0, 0, 1, 1], [1, 2, 3, 0, 4]]),
        torch.from_numpy(cloud(5)),
        2,
    )
    expected = descriptor(*arguments).detach()
    assert expected.shape == (2, len(descriptor.labels("H")))
    assert torch.equal(torch.jit.script(descriptor)(*arguments).detach(), expected)
    single = descriptor.float()
    species, edges, vectors, count = arguments
    found = single(species, edges, vectors.float(), count)
    assert found.dtype == torch.float32
    assert (found.double() - expected).abs().max() < 1e-4 * expected.abs().max()
    again = single.double()
    constants = dict(DESCRIPTORS[name].build(5.0, ["H", "O"]).named_buffers())
    for key, buffer in again.named_buffers():
        assert torch.equal(buffer, constants[key]), key


def test_labels_and_degrees():
    ace = ACEConfig(max_degree=[2, 2, 1], l_weight=1.0).build(5.0, ["H", "O"])
    labels, degrees = ace.labels("O"), ace.degrees("O").tolist()
    assert labels[0] == "1 H(n=0,l=0)"
    assert len(set(labels)) == len(labels) == len(degrees) == ace.columns("H").numel()
    by_label = dict(zip((label.split(" ", 1)[1] for label in labels), degrees))
    assert by_label["H(n=0,l=1) O(n=0,l=1)"] == 2.0
    assert by_label["H(n=0,l=0) O(n=0,l=0) O(n=1,l=0)"] == 1.0
    soap = SOAPConfig(n_max=2, l_max=1).build(5.0, ["H", "O"])
    assert soap.labels("H")[-1] == "20 O(n=1) O(n=1) l=1"


def test_sizes():
    counts = [len(ACEConfig(size=s).build(5.0, ["Mo"]).labels("Mo")) for s in ("small", "medium", "large")]
    assert counts == [264, 979, 1750]
    assert preset_degrees(ACEConfig(size="medium"), 2) == [12, 10, 8]
    mixed = [len(SOAPConfig(n_max=3, l_max=2, species_channels=2).build(5.0, list("HCNO")).labels("H"))]
    assert mixed == [len(SOAPConfig(n_max=3, l_max=2).build(5.0, list("HC")).labels("H"))]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ACEConfig(max_degree=[3, -1]), "max_degree needs numbers from 0 on, found .3.0, -1.0."),
        (
            lambda: SOAPConfig(radial="bessel", smearing=0.5),
            "smearing belongs to radial gto; leave it out with radial bessel",
        ),
        (lambda: SOAPConfig(normalize=True, center_weight=0.0), "normalize needs a center_weight above 0"),
    ],
)
def test_configurations_that_cannot_be_right(make, message):
    with pytest.raises(ValidationError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "cutoff", "message"),
    [
        (ACEConfig(nearest=5.0), 4.0, "nearest is 5.0 Å, expected less than the cutoff 4.0 Å"),
        (SOAPConfig(), 0.9, "radial gto needs a cutoff above 1 Å, found 0.9 Å"),
    ],
)
def test_cutoffs_that_do_not_fit(config, cutoff, message):
    with pytest.raises(ValueError, match=message):
        config.check(cutoff)
