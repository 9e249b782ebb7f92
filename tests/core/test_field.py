"""A uniform electric field on the charges, and Born effective charges, of the core."""

from __future__ import annotations

from ctypes import byref, sizeof

import numpy as np
import pytest

from nearsight import Potential
from nearsight.errors import EvaluationError
from nearsight.lib import _core

from .c_api import Host, load_model, make_evaluator, open_library, pointer, results_for, system_of
from .charge_models import CELLS, KINDS, case, random_model
from .core_models import random_box
from .test_charge_models import PLACES, assert_close, save
from .test_polarization import SEVERAL, polarized, random_messages

FIELD = np.array([0.3, -0.2, 0.5])  # V/Å
NORMAL = np.array([0.0, 0.0, 0.7])  # of the slab


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=["bpnn", "mace"])
def architecture(request):
    """Of one interaction layer."""
    return request.param


@pytest.fixture(scope="module")
def models(architecture):
    return {kind: random_model(kind, 1e-9, architecture) for kind in KINDS}


@pytest.fixture(scope="module")
def paths(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    return {kind: save(folder / f"{kind}.pt", model) for kind, model in models.items()}


def slope(evaluator, field, changed, step=5e-4):
    energies = [evaluator.evaluate(*changed(k * step), field)["energy"] for k in (-2, -1, 1, 2)]
    return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)


def moved(one, i, axis):
    def changed(h):
        positions = one.positions.copy()
        positions[i, axis] += h
        return one._replace(positions=positions)

    return changed


def strained(one, a, b):
    def changed(h):
        unit = np.zeros((3, 3))
        unit[a, b] += 0.5
        unit[b, a] += 0.5
        deformation = np.eye(3) + h * unit
        return one._replace(positions=one.positions @ deformation, cell=one.cell @ deformation)

    return changed


@pytest.mark.parametrize("charged", [False, True], ids=["neutral", "charged"])
@pytest.mark.parametrize(("cell", "field"), [("open", FIELD), ("slab", NORMAL)])
def test_forces_and_virial_are_differences_of_the_energy(paths, kind, cell, field, charged):
    """Of a slab all components of strain but those that turn its plane, which depend on the images."""
    evaluator = _core.Evaluator(str(paths[kind]))
    one = case(cell, charged, kind)
    found = evaluator.evaluate(*one, field)
    some = [(0, 0), (3, 1), (7, 2), (11, 0)]
    forces = [-slope(evaluator, field, moved(one, *place)) for place in some]
    assert_close([found["forces"][place] for place in some], forces, 1e-7)
    places = [place for place in zip(*PLACES) if cell == "open" or place not in ((0, 2), (1, 2))]
    virial = [-slope(evaluator, field, strained(one, *place)) for place in places]
    assert_close([found["virial"][place] for place in places], virial, 1e-7)


@pytest.mark.parametrize("charged", [False, True], ids=["neutral", "charged"])
def test_the_energy_is_that_of_the_dipole(paths, kind, charged):
    """The field acts on the first channel; potentials are dE/dq, and the energy is part of the electrostatic
    one and of the energies of atoms."""
    evaluator, one = _core.Evaluator(str(paths[kind])), case("open", charged, kind)
    without, found = evaluator.evaluate(*one), evaluator.evaluate(*one, FIELD)
    outer = -one.positions @ FIELD
    energy = found["charges"][:, 0] @ outer
    assert found["energy"] - without["energy"] == pytest.approx(energy, rel=1e-9)
    assert found["electrostatic_energy"] - without["electrostatic_energy"] == pytest.approx(energy, rel=1e-11)
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-14)
    added = found["potentials"] - without["potentials"]
    np.testing.assert_allclose(added[:, 0], outer, atol=1e-12)
    np.testing.assert_allclose(added[:, 1:], 0.0, atol=1e-12)
    np.testing.assert_array_equal(found["charges"], without["charges"])


def test_fixed_charges_in_a_crystal(paths):
    """A constant force on each, in any direction; the energy is that of the positions as they are."""
    evaluator, one = _core.Evaluator(str(paths["fixed"])), case("triclinic", False, "fixed")
    without, found = evaluator.evaluate(*one), evaluator.evaluate(*one, FIELD)
    charges = found["charges"][:, 0]
    assert_close(found["forces"] - without["forces"], np.outer(charges, FIELD), 1e-11)
    assert found["energy"] - without["energy"] == pytest.approx(-charges @ one.positions @ FIELD, rel=1e-9)
    np.testing.assert_allclose(found["virial"], without["virial"], atol=1e-10)


@pytest.mark.parametrize("charged", [False, True], ids=["neutral", "charged"])
@pytest.mark.parametrize("cell", CELLS)
def test_born_charges(models, paths, kind, cell, charged, monkeypatch):
    """Those of the torch module."""
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")  # those of MACE; tables are right to 1e-9
    one = case(cell, charged, kind)
    found = _core.Evaluator(str(paths[kind])).evaluate(*one, born_charges=True)
    assert_close(found["born_charges"], polarized(models[kind], one).born_charges.numpy(), 1e-10)
    without = _core.Evaluator(str(paths[kind])).evaluate(*one)
    np.testing.assert_array_equal(found["forces"], without["forces"])
    assert "born_charges" not in without


@pytest.mark.parametrize("options", [{"backend": "torchscript"}, {"precision": "mixed"}, {"threads": 3}])
def test_born_charges_of_many_atoms(paths, options, monkeypatch):
    """In several tiles, by both backends, both precisions, several threads."""
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")
    one = case("triclinic", False, "weighted")
    shifts = np.stack(np.meshgrid(*3 * [range(2)], indexing="ij"), -1).reshape(-1, 3) @ one.cell
    large = one._replace(
        positions=(one.positions[None] + shifts[:, None]).reshape(-1, 3),
        species=np.tile(one.species, 8),
        cell=2 * one.cell,
    )
    expected = _core.Evaluator(str(paths["weighted"])).evaluate(*one, born_charges=True)["born_charges"]
    evaluator = _core.Evaluator(str(paths["weighted"]), **{"precision": "double"} | options)
    found = evaluator.evaluate(*large, born_charges=True)["born_charges"].reshape(8, 12, 3, 3)
    tolerance = 3e-5 if options.get("precision") == "mixed" else 1e-11
    assert_close(found, np.broadcast_to(expected, found.shape), tolerance)


def test_forces_are_born_charges_times_the_field(paths, kind):
    potential, one = Potential(paths[kind]), case("open", True, kind)
    without = potential.compute_indices(*one, born_charges=True)
    found = potential.compute_indices(*one, FIELD)
    expected = np.einsum("iab,a->ib", without.born_charges, FIELD)
    assert_close(found.forces - without.forces, expected, 1e-10)
    np.testing.assert_allclose(found.dipole, found.charges[:, 0] @ one.positions, rtol=1e-14)
    assert potential.compute_indices(*case("slab", True, kind)).dipole is None


@pytest.mark.parametrize("architecture", SEVERAL)
def test_several_interactions(architecture, tmp_path, monkeypatch):
    """Born charges come from forces in fields, whatever field is on."""
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")
    model, one = random_messages(architecture), case("open", True, "latent")
    path = save(tmp_path / "model.pt", model)
    expected = polarized(model, one, 2).born_charges.numpy()
    for field in (None, FIELD):
        found = Potential(path).compute_indices(*one, field, born_charges=True)
        assert_close(found.born_charges, expected, 1e-9)
    with pytest.raises(
        EvaluationError, match="periodic systems need charges that depend on the neighbors on"
    ):
        Potential(path).compute_indices(*case("triclinic", True, "latent"), born_charges=True)
    with pytest.raises(EvaluationError, match="need a model with charges and one interaction layer, and '"):
        _core.Evaluator(str(path)).evaluate(*one, born_charges=True)


@pytest.mark.parametrize(("cell", "field"), [("triclinic", FIELD), ("slab", [1e-3, 0.0, 1.0])])
def test_fields_along_periodic_directions(paths, kind, cell, field):
    if kind == "fixed":
        pytest.skip("fixed charges have an energy in such a field")
    with pytest.raises(
        EvaluationError, match="electric field has a component along a periodic direction, wh"
    ):
        Potential(paths[kind]).compute_indices(*case(cell, False, kind), field)


def test_models_without_charges(bpnn):
    potential, (positions, species, cell) = Potential(bpnn), random_box(1)
    with pytest.raises(EvaluationError, match=r"an electric field was given, but '.*' has no electrostatics"):
        potential.compute_indices(positions, species, cell, True, efield=FIELD)
    with pytest.raises(
        EvaluationError, match="Born effective charges need a model with charges and one inte"
    ):
        potential.compute_indices(positions, species, cell, True, born_charges=True)
    assert potential.compute_indices(positions, species, cell, True).dipole is None


def test_a_field_that_is_no_vector(paths):
    with pytest.raises(EvaluationError, match=r"efield has shape \(2,\), expected three numbers, V/Å"):
        Potential(paths["fixed"]).compute_indices(*case("open", True, "fixed"), [1.0, 2.0])


def test_c_api(paths):
    """Both are in its structures; Born charges are added to."""
    library = open_library()
    one = case("open", True, "latent")
    model = load_model(library, paths["latent"])
    evaluator = make_evaluator(library, model)
    cell, charge = np.ascontiguousarray(one.cell), np.array([one.charge])  # which only pointers hold on to
    system = system_of(one.positions, one.species, cell, [0, 0, 0], charge)
    system.efield = pointer(FIELD)
    born = np.ones((12, 3, 3))
    results = results_for(born_charges=born)
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 0
    expected = _core.Evaluator(str(paths["latent"])).evaluate(*one, FIELD, born_charges=True)
    assert results.energy == expected["energy"]
    np.testing.assert_allclose(born - 1, expected["born_charges"], atol=1e-13)
    host = Host(struct_size=sizeof(Host), num_ranks=2)
    host.all_sum = dict(Host._fields_)["all_sum"](lambda *_: 0)
    parallel = make_evaluator(library, model, host)
    assert library.ns_evaluate_system(parallel, byref(system), byref(results)) == 3
    assert b"Born effective charges are computed in one process" in library.ns_last_error()
    for some in (evaluator, parallel):
        library.ns_evaluator_free(some)
    library.ns_model_free(model)
