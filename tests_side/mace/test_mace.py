"""Imported models of mace-torch against mace-torch itself."""

import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from ase.stress import voigt_6_to_full_3x3_stress
from mace.calculators import MACECalculator
from side import energy_forces, make_context
from systems import systems
from variants import CHEBYSHEV, UNKNOWN, VARIANTS

from nearsight import openmm as nearsight_openmm
from nearsight.couple import evaluate
from nearsight.importers import mace_extract
from nearsight.importers.mace_torch import import_mace
from nearsight.interfaces.potential import Potential
from nearsight.keys import NATIVE_ARCHITECTURES
from nearsight.neighbors import make_graph
from nearsight.units import KJ_PER_MOL

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lammps"))
from lammps_harness import Case, run_cases

NATIVE = "mace" in NATIVE_ARCHITECTURES
# Precision, how the native engine evaluates radial functions, and the deviation that is allowed.
MODES = {"analytic": ("double", "analytic", 1e-9)}
if NATIVE:
    MODES |= {"tables": ("double", "tables", 1e-6), "mixed": ("mixed", "tables", 1e-4)}
# All numbers of ranks for some, one for each of the others.
RANKS = {
    v.name: (1, 2, 3, 4) if v.name in ("omat", "three") else (1 + n % 4,) for n, v in enumerate(VARIANTS)
}


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: variant.name)
def case(request, tmp_path_factory):
    """A variant, mace-torch's model, and ours, in one file and as a module."""
    variant = request.param
    if variant.cueq:
        pytest.importorskip("cuequivariance_torch", reason="the variant is one of cuEquivariance")
    folder = tmp_path_factory.mktemp(variant.name)
    theirs = variant.save(folder / "mace.model")
    imported = import_mace(folder / "mace.model", head="second" if variant.name == "heads" else None)
    imported.save(folder / "model.pt")
    return variant, theirs, imported, folder / "model.pt"


def expected(variant, model, atoms):
    """Energy, forces and stress (3×3, zero where nothing is periodic) of mace-torch."""
    heads = {"head": "second"} if variant.name == "heads" else {}
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", **heads)
    calculator.calculate(atoms, properties=["energy", "forces", "stress"])
    stress = voigt_6_to_full_3x3_stress(calculator.results["stress"])
    return calculator.results["energy"], calculator.results["forces"], stress * atoms.pbc.all()


def of_module(imported, atoms):
    """Energy, forces and stress of the module."""
    model = imported.model
    symbols = atoms.get_chemical_symbols()
    kinds = [model.species.index(symbol) for symbol in symbols]
    graph = make_graph(atoms.positions, kinds, atoms.cell.array, atoms.pbc, model.cutoff)
    results = evaluate(model, graph, model.couple)
    energy = float(results.energy) + sum(imported.reference_energies[symbol] for symbol in symbols)
    volume = atoms.cell.volume if atoms.pbc.all() else np.inf
    return energy, results.forces.numpy(), -results.virial[0].numpy() / volume


def of_file(path, atoms, **options):
    """Energy, forces and stress of a backend."""
    found = Potential(path, **options).compute(
        atoms.positions, atoms.get_chemical_symbols(), atoms.cell.array, list(atoms.pbc)
    )
    volume = atoms.cell.volume if atoms.pbc.all() else np.inf
    return found.energy, found.forces, -np.asarray(found.virial) / volume


def compare(found, wanted, tolerance):
    energy, forces, stress = (np.abs(np.asarray(a) - b).max() for a, b in zip(found, wanted))
    largest = max(1.0, np.abs(wanted[1]).max())
    assert energy < tolerance * max(1.0, abs(wanted[0]))
    assert forces < tolerance * largest
    assert stress < tolerance


def test_module(case):
    variant, theirs, imported, path = case
    for atoms in systems(variant.numbers).values():
        wanted = expected(variant, theirs, atoms)
        compare(of_module(imported, atoms), wanted, 1e-9)
        compare(of_file(path, atoms, backend="torchscript"), wanted, 1e-9)


def boxed(atoms):
    """The atoms with a box, open where nothing is periodic, as LAMMPS wants it."""
    if atoms.pbc.all():
        return atoms
    moved = atoms.copy()
    moved.set_cell([40.0, 40.0, 40.0])
    moved.positions += 17.0
    return moved


@pytest.fixture(params=MODES)
def mode(request, monkeypatch):
    """Precision and tolerance, for this process and those that it starts."""
    precision, radials, tolerance = MODES[request.param]
    monkeypatch.setenv("NEARSIGHT_RADIALS", radials)
    return precision, tolerance


@pytest.mark.skipif(not NATIVE, reason="the native engine has no mace")
def test_native(case, mode):
    variant, theirs, _, path = case
    precision, tolerance = mode
    for atoms in systems(variant.numbers).values():
        compare(of_file(path, atoms, precision=precision), expected(variant, theirs, atoms), tolerance)


def test_lammps(case, mode, tmp_path):
    variant, theirs, imported, path = case
    precision, tolerance = mode
    elements = imported.model.species
    pair = (f"pair_style mlp precision {precision}", f"pair_coeff * * {path} {' '.join(elements)}")
    everything = list(systems(variant.numbers).values())
    for ranks in RANKS[variant.name]:
        (tmp_path / str(ranks)).mkdir()
        cases = [Case(boxed(atoms), pair, elements) for atoms in everything]
        for atoms, found in zip(everything, run_cases(tmp_path / str(ranks), cases, ranks)):
            volume = atoms.cell.volume if atoms.pbc.all() else np.inf
            stress = voigt_6_to_full_3x3_stress(-found.virial[[0, 1, 2, 5, 4, 3]] / volume)
            compare((found.energy, found.forces, stress), expected(variant, theirs, atoms), tolerance)


def test_openmm(case, mode):
    variant, theirs, _, path = case
    precision, tolerance = mode
    for atoms in systems(variant.numbers).values():
        symbols, periodic = atoms.get_chemical_symbols(), bool(atoms.pbc.all())
        system = openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
        if periodic:
            system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10.0))
        force = nearsight_openmm.create_force(path, symbols, periodic=periodic, precision=precision)
        system.addForce(force)
        energy, forces = energy_forces(make_context(system, atoms.positions / 10.0))
        wanted = expected(variant, theirs, atoms)
        found = energy * KJ_PER_MOL, forces * KJ_PER_MOL / 10.0
        compare((*found, wanted[2]), wanted, tolerance)


def test_chebyshev_forces_are_differences_of_energies(tmp_path):
    """torch calls chebyshev_polynomial_t not differentiable, so that mace-torch's own forces lack a part."""
    theirs = CHEBYSHEV.save(tmp_path / "mace.model")
    imported = import_mace(tmp_path / "mace.model")
    assert "Chebyshev" in imported.notes[0]
    for atoms in systems(CHEBYSHEV.numbers).values():
        energy = expected(CHEBYSHEV, theirs, atoms)[0]
        assert of_module(imported, atoms)[0] == pytest.approx(energy, rel=1e-11, abs=1e-9)
    atoms, step = systems(CHEBYSHEV.numbers)["molecule"], 1e-4
    forces = of_module(imported, atoms)[1]
    for atom, axis in ((0, 0), (4, 1), (7, 2)):
        ends = [atoms.copy(), atoms.copy()]
        ends[0].positions[atom, axis] += step
        ends[1].positions[atom, axis] -= step
        plus, minus = (expected(CHEBYSHEV, theirs, end)[0] for end in ends)
        assert forces[atom, axis] == pytest.approx((minus - plus) / (2 * step), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("variant", UNKNOWN, ids=lambda variant: variant.name)
def test_what_is_not_known_is_named(variant):
    with pytest.raises(mace_extract.Unknown, match=UNKNOWN[variant]):
        mace_extract.read(variant.build())


def test_element_and_precision_of_the_output(tmp_path):
    """A file of single precision through the command's own function, some of its elements."""
    variant = next(v for v in VARIANTS if v.name == "single")
    theirs = variant.save(tmp_path / "mace.model")
    imported = import_mace(tmp_path / "mace.model", species=["O", "C"])
    assert imported.model.species == ["C", "O"]
    assert imported.provenance["dtype"] == "float32"
    atoms = systems((6, 8))["triclinic"]
    compare(of_module(imported, atoms), expected(variant, theirs, atoms), 1e-9)
