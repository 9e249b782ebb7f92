"""Imported models of mace-torch against mace-torch itself."""

import ase
import numpy as np
import pytest
from mace.calculators import MACECalculator
from systems import systems
from variants import CHEBYSHEV, VARIANTS

from nearsight.couple import evaluate
from nearsight.importers.mace_torch import import_mace
from nearsight.interfaces.potential import Potential
from nearsight.neighbors import make_graph


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
    stress = ase.stress.voigt_6_to_full_3x3_stress(calculator.results["stress"])
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
