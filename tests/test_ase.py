"""The ASE calculator against ASE's own numerical derivatives, in dynamics, and as an ASE object."""

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase import units as ase_units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from models_for_tests import REFERENCE_ENERGIES, random_structure, reference, save_embedded

import nearsight
from nearsight.errors import EvaluationError

CELL = np.array([[6.0, 0.0, 0.0], [2.0, 5.5, 0.0], [-1.0, 2.5, 7.0]])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_embedded(tmp_path_factory.mktemp("model") / "embedded.pt")


def structure(calculator, pbc=True, seed=1, count=12):
    positions, symbols = random_structure(seed, count, CELL, minimum=1.5)
    return Atoms(symbols, positions, cell=CELL, pbc=pbc, calculator=calculator)


@pytest.mark.parametrize("pbc", [True, False, (True, True, False)], ids=str)
def test_energy_and_forces(path, pbc):
    atoms = structure(nearsight.Calculator(path), pbc)
    expected = reference(atoms.positions, atoms.symbols, CELL, pbc)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_potential_energies(), expected["energies"], rtol=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-11)
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), numerical, atol=1e-6)


def test_stress(path):
    """Six components in ASE's sign and Voigt order, by ASE's strain differences."""
    atoms = structure(nearsight.Calculator(path))
    stress = atoms.get_stress()
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8)
    assert len(set(np.round(stress, 6))) == 6
    np.testing.assert_allclose(atoms.get_stresses().sum(0), stress, atol=1e-12)


@pytest.mark.parametrize("pbc", [False, (True, True, False)], ids=str)
def test_no_stress_without_three_periodic_directions(path, pbc):
    atoms = structure(nearsight.Calculator(path), pbc)
    with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
        atoms.get_stress()
    assert "stress" not in atoms.calc.results
    assert atoms.get_forces().shape == (12, 3)


def test_cell_of_lower_rank(path):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 2.0]], cell=[3.0, 0, 0], pbc=(True, False, False))
    atoms.calc = nearsight.Calculator(path)
    box = np.diag([3.0, 50.0, 50.0])
    expected = reference(atoms.positions, ["O", "H"], box, (True, False, False))
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], rel=1e-13)


def test_isolated_atom(path):
    atoms = Atoms("O", calculator=nearsight.Calculator(path))
    assert atoms.get_potential_energy() == REFERENCE_ENERGIES["O"]
    assert not atoms.get_forces().any()


def test_atoms_may_change(path):
    """One calculator: other positions, elements, numbers of atoms, cells."""
    calculator = nearsight.Calculator(path)
    atoms = structure(calculator)
    generator = np.random.default_rng(2)
    for _ in range(3):
        atoms.rattle(0.3, rng=generator)
        atoms.set_cell(atoms.cell.array * generator.uniform(0.97, 1.03), scale_atoms=True)
        atoms.symbols[generator.integers(len(atoms))] = generator.choice(["H", "O", "Si"])
        del atoms[-1]
        expected = reference(atoms.positions, atoms.symbols, atoms.cell.array, True)
        assert atoms.get_potential_energy() == pytest.approx(expected["energy"], rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-10)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))], ids=["copy", "pickle"]
)
def test_copies(path, copied):
    atoms = structure(nearsight.Calculator(path, skin=0.5))
    energy = atoms.get_potential_energy()
    twin = copied(atoms)
    assert twin.calc is not atoms.calc
    assert twin.get_potential_energy() == energy
    twin.rattle(0.1)
    assert twin.get_potential_energy() != energy
    assert atoms.get_potential_energy() == energy


def test_unknown_element(path):
    atoms = Atoms("OHe", [[0, 0, 0], [0, 0, 2.0]], calculator=nearsight.Calculator(path))
    with pytest.raises(EvaluationError, match=r"^atom 1 is He, which the model"):
        atoms.get_potential_energy()


def test_misspelled_keyword(path):
    with pytest.raises(TypeError, match="num_threads"):
        nearsight.Calculator(path, num_threads=2)


def test_nve(path):
    """The fluctuation of the total energy shrinks with the square of the time step."""

    def fluctuation(step_fs):
        atoms = structure(nearsight.Calculator(path), seed=3)
        atoms.set_masses([28.0] * len(atoms))
        thermal = np.sqrt(300 * ase_units.kB / 28.0)
        atoms.set_velocities(np.random.default_rng(4).normal(scale=thermal, size=(len(atoms), 3)))
        totals = []
        dynamics = VelocityVerlet(atoms, step_fs * ase_units.fs)
        dynamics.attach(lambda: totals.append(atoms.get_total_energy()), interval=round(2 / step_fs))
        dynamics.run(round(100 / step_fs))
        return np.std(totals)

    coarse, fine = fluctuation(1.0), fluctuation(0.5)
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(4.0, rel=0.1)


def test_relaxation_of_positions_and_cell(path):
    atoms = bulk("Si") * (2, 2, 1)
    atoms.calc = nearsight.Calculator(path)
    atoms.rattle(0.05, rng=np.random.default_rng(5))
    before = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    assert atoms.get_potential_energy() < before
    assert np.abs(atoms.get_forces()).max() < 1e-3
    assert np.abs(atoms.get_stress() * atoms.get_volume()).max() < 1e-2
