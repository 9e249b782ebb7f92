"""D3(BJ) in the core and in torch: against simple-dftd3, differences, symmetry, and each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from dispersion_for_tests import record_of, scattered

from nearsight.couple import Dispersion, edge_sums
from nearsight.errors import EvaluationError, ModelFileError
from nearsight.lib import _core
from nearsight.neighbors import make_graph
from nearsight.units import BOHR, HARTREE

OPEN, CRYSTAL, SLAB, WIRE = [False] * 3, [True] * 3, [True, False, True], [False, False, True]
COMBINATIONS = ["H O", "H C N O", "Si O", "Na Cl", "Mg O", "Ti O", "Au S C H", "Xe Ar", "Cs Pb I", "U F"]


def core(record, **options):
    return _core.Dispersion(json.dumps(record), len(record["radii"]), **options)


def assert_same(found, expected, tolerance, names=("energies", "forces", "virial", "virials")):
    for name in ("energy", *names):
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name)


def simple_dftd3(symbols, record, positions, species, cell, pbc):
    """Energy, forces and virial of the program of the authors, in eV and Å."""
    interface = pytest.importorskip("dftd3.interface", reason="dftd3 is not installed")
    model = interface.DispersionModel(
        np.array([atomic_numbers[symbols[kind]] for kind in species]),
        positions / BOHR,
        cell / BOHR if any(pbc) else None,
        np.array(pbc) if any(pbc) else None,
    )
    cutoffs = record["cutoff"] / BOHR, record["coordination_cutoff"] / BOHR
    model.set_realspace_cutoff(cutoffs[0], cutoffs[0], cutoffs[1])
    damping = interface.RationalDampingParam(
        **{name: record[name] for name in ("s6", "s8", "a1", "a2")}, s9=0.0
    )
    found = model.get_dispersion(damping, grad=True)
    return {
        "energy": found["energy"] * HARTREE,
        "forces": -found["gradient"] * HARTREE / BOHR,
        "virial": -found["virial"] * HARTREE,
    }


@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL], ids=["molecule", "cell"])
@pytest.mark.parametrize("symbols", COMBINATIONS)
def test_simple_dftd3(symbols, pbc):
    symbols = symbols.split()
    for functional, cutoff in (("pbe", 16.0), ("b3lyp", 21.0)):
        record = record_of(
            symbols, functional=functional, cutoff=cutoff, coordination_cutoff=13.0, smoothing=0.0
        )
        arguments = (*scattered(5, 8, len(symbols)), pbc)
        expected = simple_dftd3(symbols, record, *arguments)
        found = core(record).evaluate(*arguments)
        assert_same(found, expected, 1e-8, ("forces", "virial"))


def test_simple_dftd3_with_its_own_cutoffs():
    """60 and 40 bohr; a small cell with thousands of images."""
    cutoffs = {"cutoff": 60 * BOHR, "coordination_cutoff": 40 * BOHR, "smoothing": 0.0}
    record = record_of(["Si", "O"], **cutoffs)
    arguments = (*scattered(6, 3, 2, spacing=2.3), CRYSTAL)
    found = core(record).evaluate(*arguments)
    assert_same(found, simple_dftd3(["Si", "O"], record, *arguments), 1e-8, ("forces", "virial"))


def in_torch(record, positions, species, cell, pbc):
    module = torch.jit.script(Dispersion(record))
    graph = make_graph(positions, species, cell, pbc, module.reach)
    vectors = graph.edge_vectors.requires_grad_(True)
    energies = module(graph.species, graph.edge_index, vectors)
    (gradients,) = torch.autograd.grad(energies.sum(), vectors)
    forces, virial = edge_sums(gradients, graph)
    return {
        "energy": float(energies.sum().detach()),
        "energies": energies.detach().numpy(),
        "forces": forces.numpy(),
        "virial": virial[0].detach().numpy(),
    }


@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB, WIRE], ids=["open", "crystal", "slab", "wire"])
@pytest.mark.parametrize("smoothing", [0.0, 3.0])
def test_core_and_torch(pbc, smoothing):
    symbols = ["H", "C", "N", "O"]
    record = record_of(symbols, smoothing=smoothing)
    arguments = (*scattered(7, 20, 4), pbc)
    expected = in_torch(record, *arguments)
    found = core(record).evaluate(*arguments)
    assert_same(found, expected, 1e-11, ("energies", "forces", "virial"))
    six = found["virial"][(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    np.testing.assert_allclose(found["virials"].sum(0), six, rtol=1e-12)
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-13)
    assert_same(core(record, threads=3).evaluate(*arguments), found, 0.0)
    assert_same(core(record, precision="mixed").evaluate(*arguments), found, 2e-5)


@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB], ids=["open", "crystal", "slab"])
def test_differences(pbc):
    record = record_of(["H", "C", "O"])
    positions, species, cell = scattered(8, 9, 3, spacing=1.6)
    dispersion = core(record)
    found = dispersion.evaluate(positions, species, cell, pbc)
    step = 2e-4

    def energy(moved, box=cell):
        return dispersion.evaluate(moved, species, box, pbc)["energy"]

    for atom, axis in ((0, 0), (4, 1), (8, 2)):
        moved = np.zeros_like(positions)
        moved[atom, axis] = step
        slope = (8 * (energy(positions + moved) - energy(positions - moved)) -
                 (energy(positions + 2 * moved) - energy(positions - 2 * moved))) / (12 * step)  # fmt: skip
        assert -slope == pytest.approx(found["forces"][atom, axis], abs=1e-9)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2

        def strained(scale, strain=strain):
            matrix = np.eye(3) + scale * strain
            return energy(positions @ matrix, cell @ matrix)

        slope = (8 * (strained(1) - strained(-1)) - (strained(2) - strained(-2))) / (12 * step)
        assert -slope == pytest.approx(found["virial"][a, b], abs=2e-8)


def test_pairs_exactly_at_a_sharp_cutoff():
    """They count nothing, whatever the last digits of their distances are."""
    record = record_of(["Si"], cutoff=9.0, coordination_cutoff=6.0, smoothing=0.0)
    species, rng = np.zeros(1, np.int32), np.random.default_rng(3)
    turns = [np.eye(3), *(np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(5))]
    energies = [
        found(record, np.zeros((1, 3)), species, 3.0 * turn, CRYSTAL)["energy"]
        for found in (in_torch, lambda record, *arguments: core(record).evaluate(*arguments))
        for turn in turns
    ]
    np.testing.assert_allclose(energies, energies[0], rtol=1e-12)


def test_second_derivatives_in_torch():
    module = Dispersion(record_of(["H", "O"]))
    positions, species, cell = scattered(9, 3, 2)
    graph = make_graph(positions, species, cell, OPEN, 4.5)
    vectors = graph.edge_vectors.requires_grad_(True)

    def energy(edges):
        return module(graph.species, graph.edge_index, edges).sum()

    assert torch.autograd.gradgradcheck(energy, vectors, atol=1e-6)


def test_two_copies_far_apart_give_exactly_twice():
    record = record_of(["H", "C"])
    positions, species, cell = scattered(10, 12, 2)
    one = core(record).evaluate(positions, species, cell, OPEN)
    moved = np.array([0.0, 64.0, 0.0])
    positions = np.round(positions * 2**20) / 2**20  # so that nothing is rounded when they move
    one = core(record).evaluate(positions, species, cell, OPEN)
    two = core(record).evaluate(np.vstack([positions, positions + moved]), np.tile(species, 2), cell, OPEN)
    assert two["energy"] == pytest.approx(2 * one["energy"], rel=1e-14)
    np.testing.assert_allclose(two["forces"], np.tile(one["forces"], (2, 1)), rtol=0, atol=1e-16)


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 3, 2)])
def test_a_cell_and_its_copies(repeat):
    record = record_of(["Si", "O"])
    positions, species, cell = scattered(11, 3, 2, spacing=2.0)
    one = core(record).evaluate(positions, species, cell, CRYSTAL)
    shifts = np.array(list(np.ndindex(*repeat)))
    count = len(shifts)
    many = (positions[None] + (shifts @ cell)[:, None]).reshape(-1, 3)
    arguments = (many, np.tile(species, count), cell * np.array(repeat)[:, None], CRYSTAL)
    found = core(record).evaluate(*arguments)
    assert found["energy"] == pytest.approx(count * one["energy"], rel=1e-12)
    np.testing.assert_allclose(found["forces"], np.tile(one["forces"], (count, 1)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(found["virial"], count * one["virial"], rtol=0, atol=1e-11)


def test_smooth_at_the_cutoff():
    """Two continuous derivatives of a pair's energy at both ends of the window, and none beyond."""
    record = record_of(["C"])

    def force(distance):
        positions = np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        found = core(record).evaluate(positions, np.zeros(2, np.int32), np.zeros((3, 3)), OPEN)
        return found["forces"][1, 0], found["energy"]

    step = 1e-4
    for end in (record["cutoff"], record["cutoff"] - record["smoothing"]):
        slopes = [(force(end + k * step)[0] - force(end + (k - 1) * step)[0]) / step for k in (0, 1)]
        assert slopes[0] == pytest.approx(slopes[1], abs=1e-6)
    assert force(record["cutoff"] - 1e-2)[1] < 0
    assert force(record["cutoff"]) == (0.0, 0.0)


@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB], ids=["open", "crystal", "slab"])
def test_lists_are_kept_while_they_hold(pbc):
    record = record_of(["H", "C"])
    positions, species, cell = scattered(12, 20, 2)
    kept, rng = core(record), np.random.default_rng(0)
    for spread, strain in ((0.0, 0.0), (0.1, 0.0), (0.2, 0.01), (1.5, 0.0), (0.1, 0.2)):
        matrix = np.eye(3) + strain * np.array([[1, 0, 0], [0.3, -0.5, 0], [0.2, 0.1, 0.4]])
        moved = (positions + spread * rng.uniform(-1, 1, positions.shape)) @ matrix
        arguments = (moved, species, cell @ matrix, pbc)
        assert_same(kept.evaluate(*arguments), core(record).evaluate(*arguments), 1e-12)
    others = 1 - species  # at the same places
    assert_same(kept.evaluate(moved, others, cell @ matrix, pbc),
                core(record).evaluate(moved, others, cell @ matrix, pbc), 1e-12)  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB, WIRE], ids=["open", "crystal", "slab", "wire"])
def test_ranks(pbc, ranks):
    """Also with ranks that have nothing, and with lists that are kept."""
    record = record_of(["H", "C", "O"])
    positions, species, cell = scattered(13, 40, 3)
    shifts = np.random.default_rng(1).integers(-2, 3, (40, 3)) * pbc
    arguments = (positions + shifts @ cell, species, cell, pbc)
    expected = core(record).evaluate(*arguments)
    fractions = (positions @ np.linalg.inv(cell)) % 1.0
    slices = np.minimum((fractions[:, 1] * ranks).astype(np.int32), ranks - 1)
    random = np.random.default_rng(2).integers(0, ranks, 40).astype(np.int32)
    for owners in (slices, random, np.full(40, ranks // 2, np.int32)):
        for drift in (0.0, 0.1):
            found = core(record).of_ranks(*arguments, owners, ranks, drift)
            assert_same(found, expected, 1e-11, ("energies", "forces", "virial"))


def test_nothing_at_all():
    found = core(record_of(["H"])).evaluate(np.zeros((0, 3)), np.zeros(0, np.int32), np.eye(3), CRYSTAL)
    assert found["energy"] == 0.0


def test_far_beyond_all_references():
    """Coordination numbers that no reference system comes near to: weights must not underflow."""
    record = record_of(["C"], cutoff=9.1, coordination_cutoff=7.1, smoothing=0.0)
    positions, species, cell = scattered(14, 8, 1, spacing=0.75)
    arguments = (positions, species, cell, CRYSTAL)
    found = core(record).evaluate(*arguments)
    assert found["energy"] < 0
    assert_same(found, simple_dftd3(["C"], record, *arguments), 1e-8, ("forces", "virial"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "d4"}, "the model's dispersion 'd4' is not known to this version"),
        ({"s8": None}, "the model's dispersion has a damaged record"),
        ({"radii": [1.0]}, "tables of other species than the model's"),
        ({"coordination": [[], [0.0]]}, "a species without numbers"),
        ({"coordination": [[0.0], [0.0]]}, "C6 of other references than the coordination numbers"),
        ({"smoothing": 20.0}, "cutoffs that are not larger than the smoothing"),
    ],
)
def test_damaged_records(change, message):
    record = record_of(["H", "O"]) | change
    with pytest.raises((ModelFileError, EvaluationError), match=message):
        _core.Dispersion(json.dumps(record), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": np.array([0, 2], np.int32)}, "atom 1 has species number 2, expected 0 to 1"),
        ({"species": np.zeros(3, np.int32)}, r"species has shape \(3,\), but \(n,\) is expected"),
        ({"positions": np.full((2, 3), np.nan)}, "positions must be finite"),
        ({"cell": np.diag([5.0, 5.0, 0.0])}, "the cell is 0 Å thick along periodic direction"),
        ({"cell": 1.2e-2 * np.eye(3), "positions": 1e-3 * np.eye(3)[:2]}, "of atoms, but at most 2e"),
    ],
)
def test_what_cannot_be_evaluated(change, message):
    arguments = {"positions": np.eye(3)[:2], "species": np.zeros(2, np.int32), "cell": 5 * np.eye(3)}
    with pytest.raises(EvaluationError, match=message):
        core(record_of(["H", "O"])).evaluate(**arguments | change, pbc=CRYSTAL)


def test_precision_is_a_word():
    with pytest.raises(EvaluationError, match="precision is 'single', expected mixed or double"):
        core(record_of(["H"]), precision="single")
