"""Models with electrostatics as an ASE calculator."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from core.charge_models import KINDS, SPECIES, case, random_model
from core.test_charge_models import save

import nearsight
from nearsight.errors import DataError, EvaluationError


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charges")
    return {kind: save(folder / f"{kind}.pt", random_model(kind, rtol=1e-7)) for kind in KINDS}


def atoms_of(one, calculator=None, **info):
    symbols = [SPECIES[z] for z in one.species]
    return Atoms(symbols, one.positions, cell=one.cell, pbc=one.pbc, info=info, calculator=calculator)


@pytest.mark.parametrize("kind", KINDS)
def test_results(paths, kind):
    one = case("triclinic", True, kind)
    atoms = atoms_of(one, nearsight.Calculator(paths[kind], charge=one.charge))
    expected = nearsight.Potential(paths[kind]).compute_indices(*one)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, rel=1e-13)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-11)
    shape = (12,) if kind != "latent" else (12, 2)
    assert atoms.get_charges().shape == shape
    np.testing.assert_allclose(atoms.get_charges().reshape(12, -1), expected.charges, atol=1e-13)
    potentials = atoms.calc.get_property("potentials", atoms).reshape(12, -1)
    half = 0.5 * (expected.charges * potentials).sum()
    assert expected.electrostatic_energy == pytest.approx(half, rel=1e-11)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-6)
    with pytest.raises(PropertyNotImplementedError, match="stresses of atoms are not defined for the electr"):
        atoms.get_stresses()


def test_where_the_total_charge_comes_from(paths):
    """The calculator's argument, then info."""
    one = case("triclinic", True, "weighted")
    path = paths["weighted"]
    energies = [
        atoms_of(one, nearsight.Calculator(path, charge=charge), **info).get_potential_energy()
        for charge, info in (
            (-1.5, {}),
            (-1.5, {"charge": 3.0}),
            (None, {"charge": -1.5}),
            (None, {"total_charge": -1.5, "charge": 3.0}),
            (None, {}),
            (0.0, {}),
        )
    ]
    assert len(set(energies[:4])) == 1 and energies[4] == energies[5] != energies[0]
    with pytest.raises(DataError, match=r"atoms\.info: the total charge \(key 'charge'\) is 'much'"):
        atoms_of(one, nearsight.Calculator(path), charge="much").get_potential_energy()


def test_dipoles_born_charges_and_fields(paths):
    """A field changes forces by Born charges times it, and the energy by the dipole's."""
    one, field = case("open", True, "latent"), np.array([0.3, -0.2, 0.5])
    path = paths["latent"]
    plain = atoms_of(one, nearsight.Calculator(path, charge=one.charge))
    expected = nearsight.Potential(path).compute_indices(*one, born_charges=True)
    np.testing.assert_allclose(plain.get_dipole_moment(), expected.dipole, rtol=1e-12)
    born = plain.calc.get_born_charges(plain)
    np.testing.assert_allclose(born, expected.born_charges, atol=1e-11)
    assert plain.calc.get_property("born_effective_charges") is not None
    moved = atoms_of(one, nearsight.Calculator(path, charge=one.charge, efield=field))
    added = moved.get_forces() - plain.get_forces()
    np.testing.assert_allclose(added, np.einsum("iab,a->ib", born, field), atol=1e-9)
    difference = moved.get_potential_energy() - plain.get_potential_energy()
    assert difference == pytest.approx(-expected.dipole @ field, rel=1e-9)


def test_dipoles_of_periodic_systems(paths, bpnn_path):
    one = case("slab", True, "weighted")
    atoms = atoms_of(one, nearsight.Calculator(paths["weighted"], charge=one.charge))
    assert atoms.calc.get_born_charges(atoms).shape == (12, 3, 3)
    with pytest.raises(PropertyNotImplementedError, match="a dipole needs a model with electrostatics and a"):
        atoms.get_dipole_moment()
    atoms = atoms_of(case("open", False, "environment"), nearsight.Calculator(bpnn_path))
    with pytest.raises(PropertyNotImplementedError, match="a dipole needs a model with electrostatics and a"):
        atoms.get_dipole_moment()


def test_molecules(paths):
    """As numbers, as an array of the atoms, or as the frame has them; charges as numbers or from info."""
    one, path = case("triclinic", True, "weighted"), paths["weighted"]
    numbers, charges = np.repeat([5, 3, 9], 4), [1.0, -0.5, 0.25]
    given = {"molecules": numbers, "molecule_charges": charges}
    expected = nearsight.Potential(path).compute_indices(*one[:4], **given)

    def check(info, **arguments):
        atoms = atoms_of(one, nearsight.Calculator(path, **arguments), **info)
        atoms.set_array("molecules", numbers)
        atoms.set_array("mol-id", numbers)
        assert atoms.get_potential_energy() == pytest.approx(expected.energy, rel=1e-13)
        np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-11)
        np.testing.assert_allclose(atoms.get_charges(), expected.charges[:, 0], atol=1e-13)
        np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4), atol=1e-6)

    check({}, **given)
    check({"charge": 7.0}, **given | {"molecules": "mol-id"})
    check({"molecule_charges": charges})
    check({"molecule_charges": np.array(charges), "total_charge": 0.75})
    none = atoms_of(one, nearsight.Calculator(path, molecules=numbers))
    sums = [none.get_charges()[numbers == number].sum() for number in (3, 5, 9)]
    np.testing.assert_allclose(sums, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "info", "error", "message"),
    [
        (
            {"molecules": "mol"},
            {},
            EvaluationError,
            r"array 'mol' of the atoms, which have numbers, positions: ",
        ),
        (
            {"molecules": [0] * 12, "charge": 1.0},
            {},
            EvaluationError,
            "a total charge and charges of molecules",
        ),
        ({}, {"molecule_charges": 0.0}, DataError, r"atoms\.info: charges of molecules were given, but not"),
    ],
)
def test_molecules_that_cannot_be(paths, arguments, info, error, message):
    atoms = atoms_of(
        case("open", True, "weighted"), nearsight.Calculator(paths["weighted"], **arguments), **info
    )
    with pytest.raises(error, match=message):
        atoms.get_potential_energy()


def test_models_without_electrostatics(bpnn_path):
    """`info` may say what it likes, an argument is an error."""
    one = case("open", False, "environment")
    atoms = atoms_of(one, nearsight.Calculator(bpnn_path), charge="much")
    assert np.isfinite(atoms.get_potential_energy())
    atoms.calc = nearsight.Calculator(bpnn_path, charge=1.0)
    with pytest.raises(EvaluationError, match=r"a total charge was given, but '.*' has no electrostatics"):
        atoms.get_potential_energy()
    assert nearsight.Potential(bpnn_path).num_charges == 0


@pytest.fixture
def bpnn_path(tmp_path):
    from core.core_models import save_bpnn

    return save_bpnn(tmp_path / "bpnn.pt")
