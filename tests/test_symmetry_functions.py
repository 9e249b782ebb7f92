"""Cutoff functions, symmetry functions and their automatic sets, against closed forms and plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nearsight.models.acsf import ACSF
from nearsight.models.automatic_functions import automatic_functions
from nearsight.models.cutoff_functions import core_function, cutoff_function
from nearsight.models.symmetry_functions import AngularFunction, CompactAngularFunction, RadialFunction

CUTOFF_FUNCTIONS = {
    "cos": lambda x: 0.5 * (math.cos(math.pi * x) + 1),
    "hard": lambda x: 1.0,
    "tanh3": lambda x: math.tanh(1 - x) ** 3,
    "tanh3_normalized": lambda x: (math.tanh(1 - x) / math.tanh(1)) ** 3,
    "exp": lambda x: math.exp(1 - 1 / (1 - x**2)),
    "poly1": lambda x: 1 - 3 * x**2 + 2 * x**3,
    "poly2": lambda x: 1 - 10 * x**3 + 15 * x**4 - 6 * x**5,
    "poly3": lambda x: 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7,
    "poly4": lambda x: 1 - 126 * x**5 + 420 * x**6 - 540 * x**7 + 315 * x**8 - 70 * x**9,
}
SMOOTHNESS = {  # derivatives that vanish
    "cos": 1, "tanh3": 2, "tanh3_normalized": 2, "poly1": 1, "poly2": 2, "poly3": 3, "poly4": 4
}  # fmt: skip


def radial(neighbor, eta=0.3, r_shift=0.0, cutoff=4.0):
    return RadialFunction(neighbors=(neighbor,), eta=eta, r_shift=r_shift, cutoff=cutoff)


def angular(kind, neighbors, eta=0.1, r_shift=0.0, cutoff=4.0, lambda_=1.0, zeta=1.0):
    record = {"kind": kind, "neighbors": neighbors, "eta": eta, "r_shift": r_shift, "cutoff": cutoff}
    return AngularFunction.model_validate({**record, "lambda": lambda_, "zeta": zeta})


def molecule_edges(positions, cutoff):
    """All directed pairs of a molecule, by a double loop."""
    pairs = [
        (i, j)
        for i, j in itertools.product(range(len(positions)), repeat=2)
        if i != j and np.linalg.norm(positions[j] - positions[i]) < cutoff
    ]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    vectors = np.array([positions[j] - positions[i] for i, j in pairs]).reshape(-1, 3)
    return index, torch.tensor(vectors)


def loop_value(function, i, positions, symbols, fc):
    """One symmetry function of atom i, as the papers write it."""
    rc = function.cutoff
    distance = lambda a, b: float(np.linalg.norm(positions[a] - positions[b]))  # noqa: E731
    cut = lambda r: fc(r / rc) if r < rc else 0.0  # noqa: E731
    others = [j for j in range(len(positions)) if j != i]
    total = 0.0
    if isinstance(function, RadialFunction):
        for j in others:
            if symbols[j] == function.neighbors[0]:
                r = distance(i, j)
                total += math.exp(-function.eta * (r - function.r_shift) ** 2) * cut(r)
        return total
    for j, k in itertools.combinations(others, 2):
        if sorted([symbols[j], symbols[k]]) != sorted(function.neighbors):
            continue
        r_ij, r_ik, r_jk = distance(i, j), distance(i, k), distance(j, k)
        cosine = float((positions[j] - positions[i]) @ (positions[k] - positions[i])) / (r_ij * r_ik)
        sides = [r_ij, r_ik] + [r_jk] * (function.kind == "angular_narrow")
        gauss = math.exp(-function.eta * sum((r - function.r_shift) ** 2 for r in sides))
        angle = 2 ** (1 - function.zeta) * (1 + function.lambda_ * cosine) ** function.zeta
        total += angle * gauss * math.prod(cut(r) for r in sides)
    return total


def table_values(functions, positions, symbols, species, fc):
    """The symmetry functions [n][functions of that species] by ACSF."""
    descriptor = ACSF(functions, species, fc)
    index, vectors = molecule_edges(positions, 4.0)
    kinds = torch.tensor([species.index(s) for s in symbols])
    table = descriptor(kinds, index, vectors, len(symbols))
    return [table[i, descriptor.columns(s)].tolist() for i, s in enumerate(symbols)]


@pytest.mark.parametrize("name", CUTOFF_FUNCTIONS)
def test_cutoff_functions_equal_their_closed_form(name):
    r = torch.linspace(0.01, 5.0, 40, dtype=torch.float64)
    found = cutoff_function(name, 0.0, r, torch.tensor(3.0, dtype=torch.float64))
    expected = [CUTOFF_FUNCTIONS[name](float(x) / 3.0) if x < 3.0 else 0.0 for x in r]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SMOOTHNESS)
def test_cutoff_functions_vanish_smoothly(name):
    r = torch.tensor(1.0 - 1e-6, dtype=torch.float64, requires_grad=True)
    derivative = cutoff_function(name, 0.0, r, torch.tensor(1.0, dtype=torch.float64))
    for order in range(1, SMOOTHNESS[name] + 2):
        (derivative,) = torch.autograd.grad(derivative, r, create_graph=True)
        vanishes = abs(derivative.item()) < 0.1
        assert vanishes == (order <= SMOOTHNESS[name]), f"derivative {order}: {derivative.item()}"


def test_an_unknown_cutoff_function_is_named():
    with pytest.raises(ValueError, match="unknown cutoff function 'cosine'"):
        cutoff_function("cosine", 0.0, torch.ones(1), torch.ones(1))


def test_cutoff_functions_begin_at_the_inner_fraction():
    r = torch.tensor([0.5, 1.1, 2.0, 2.9, 3.0], dtype=torch.float64)
    cutoff = torch.tensor(3.0, dtype=torch.float64)
    for name in ("cos", "exp", "poly1", "poly2", "poly3", "poly4"):
        found = cutoff_function(name, 0.4, r, cutoff).tolist()
        scaled = CUTOFF_FUNCTIONS[name]((2.0 - 1.2) / 1.8)
        assert found[:3] == pytest.approx([1.0, 1.0, scaled], rel=1e-14)
        assert 0.0 < found[3] < 0.1
        assert found[4] == 0.0
    for name in ("hard", "tanh3", "tanh3_normalized"):  # they have no inner part
        assert cutoff_function(name, 0.4, r, cutoff).equal(cutoff_function(name, 0.0, r, cutoff))


def test_derivatives_of_the_exponential_are_finite_at_its_end():
    x = torch.tensor([0.0, 0.5, 1.0 - 1e-9, 1.0], dtype=torch.float64, requires_grad=True)
    derivative = core_function("exp", x).sum()
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative.sum(), x, create_graph=True)
        assert derivative.isfinite().all()
        assert derivative[2:].tolist() == [0.0, 0.0]


def test_a_dimer_by_hand():
    functions = {"H": [radial("H", eta=0.5, r_shift=0.4)]}
    (value,), (other,) = table_values(functions, np.array([[0, 0, 0], [0, 0, 1.5]]), ["H", "H"], ["H"], "cos")
    expected = math.exp(-0.5 * 1.1**2) * 0.5 * (math.cos(math.pi * 1.5 / 4.0) + 1)
    assert value == pytest.approx(expected, rel=1e-14)
    assert other == pytest.approx(expected, rel=1e-14)


def test_a_right_angled_trimer_by_hand():
    positions = np.array([[0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    functions = {
        "O": [
            angular("angular_narrow", ("H", "H"), eta=0.2, zeta=4.0),
            angular("angular_wide", ("H", "H"), eta=0.2),
        ],
        "H": [radial("O")],
    }
    values = table_values(functions, positions, ["O", "H", "H"], ["H", "O"], "poly1")
    near, far = CUTOFF_FUNCTIONS["poly1"](0.25), CUTOFF_FUNCTIONS["poly1"](math.sqrt(2) / 4)
    narrow = 2.0**-3 * math.exp(-0.2 * (1 + 1 + 2)) * near**2 * far
    wide = math.exp(-0.2 * (1 + 1)) * near**2
    assert values[0] == pytest.approx([narrow, wide], rel=1e-14)


@pytest.mark.parametrize("name", CUTOFF_FUNCTIONS)
def test_a_cluster_equals_loops_over_its_atoms(name):
    rng = np.random.default_rng(1)
    positions = rng.random((9, 3)) * 3.5
    symbols = ["C", "H", "O", "H", "C", "O", "H", "H", "C"]
    species = ["H", "C", "O"]
    kinds = ("angular_narrow", "angular_wide")
    functions = {
        "H": [radial("C"), radial("H", eta=2.0, r_shift=1.2, cutoff=3.0)]
        + [angular(k, ("O", "H"), lambda_=s, zeta=z) for k in kinds for s in (1.0, -1.0) for z in (1.0, 3.0)],
        "C": [angular("angular_wide", ("C", "C"), r_shift=0.7, cutoff=3.5, zeta=16.0), radial("O", eta=0.0)],
        "O": [
            angular("angular_narrow", pair, eta=0.03, r_shift=0.4, cutoff=2.5)
            for pair in (("H", "C"), ("H", "H"))
        ],
    }
    found = table_values(functions, positions, symbols, species, name)
    for i, symbol in enumerate(symbols):
        expected = [loop_value(f, i, positions, symbols, CUTOFF_FUNCTIONS[name]) for f in functions[symbol]]
        assert found[i] == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(("size", "functions"), [("small", 46), ("medium", 74), ("large", 142)])
def test_automatic_sets(size, functions):
    sets = automatic_functions(["H", "O"], 6.0, size)
    for symbol in ("H", "O"):
        assert len(sets[symbol]) == len(set(sets[symbol])) == functions
        assert max(f.cutoff for f in sets[symbol] if isinstance(f, RadialFunction)) == 6.0
        assert max(f.cutoff for f in sets[symbol] if isinstance(f, AngularFunction)) <= 5.0
    short = automatic_functions(["H"], 3.0, size)["H"]
    assert {f.cutoff for f in short} == {3.0}


def test_records_have_the_keys_of_the_file_format():
    assert radial("H").record() == {
        "kind": "radial", "neighbors": ["H"], "eta": 0.3, "r_shift": 0.0, "cutoff": 4.0,
    }  # fmt: skip
    assert angular("angular_narrow", ("H", "O"), zeta=4.0).record() == {
        "kind": "angular_narrow", "neighbors": ["H", "O"], "eta": 0.1, "r_shift": 0.0, "cutoff": 4.0,
        "lambda": 1.0, "zeta": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zeta": 0.0}, "greater than or equal to 1"),
        ({"lambda": 2.0}, "less than or equal to 1"),
        ({"eta": -0.1}, "greater than or equal to 0"),
        ({"cutoff": 0.0}, "greater than 0"),
        ({"neighbors": ["H"]}, "neighbors must name 2 species, found 1"),
        ({"weights": [1.0]}, "weights must be one for each of the 2 neighbors"),
        (
            {"neighbors": ["H", "H"], "weights": [1.0, 2.0]},
            "neighbors with weights must be different species",
        ),
        ({"theta": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused(change, message):
    record = angular("angular_wide", ("H", "O")).record()
    with pytest.raises(ValidationError, match=message):
        AngularFunction.model_validate(record | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": 4.0}, "inner must be smaller than the cutoff 4.0, found 4.0"),
        ({"core": "exp", "asymmetric": True}, "asymmetric goes with a polynomial core"),
        (
            {"angle": [90.0, 30.0]},
            r"angle must be a window \[left, right\] of at most 360, found \[90.0, 30.0\]",
        ),
        ({"angle": [-10.0, 30.0]}, r"beyond 0 or 180 must have its middle there, found \[-10.0, 30.0\]"),
        ({"core": "poly5"}, "Input should be 'poly1', 'poly2'"),
    ],
)
def test_compact_parameters_that_cannot_be_right_are_refused(change, message):
    record = {
        "kind": "compact_wide",
        "neighbors": ["H", "O"],
        "inner": 0.0,
        "cutoff": 4.0,
        "angle": [0.0, 90.0],
    }
    CompactAngularFunction.model_validate(record)
    with pytest.raises(ValidationError, match=message):
        CompactAngularFunction.model_validate(record | change)


def test_labels_name_kind_neighbors_and_parameters():
    assert radial("H").label() == "radial(H) cutoff=4 eta=0.3 r_shift=0"
    weighted = RadialFunction(neighbors=("H", "O"), weights=(1.0, 8.0), eta=0.3, cutoff=4.0)
    assert weighted.label() == "radial(H,O) weights=1,8 cutoff=4 eta=0.3 r_shift=0"
