"""What the core refuses of models with charges, and their part of the C API."""

from __future__ import annotations

from ctypes import byref, sizeof

import numpy as np
import pytest

from nearsight.errors import EvaluationError, ModelFileError
from nearsight.lib import _core

from .c_api import Host, load_model, make_evaluator, open_library, results_for, system_of
from .charge_models import KINDS, case, random_model
from .core_models import random_box
from .test_charge_models import save
from .test_errors import edited


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charges")
    return {kind: save(folder / f"{kind}.pt", random_model(kind)) for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("fixed", {"values": [1.0]}),
        ("fixed", {"channels": 2}),
        ("weighted", {"widths": [1.0, 1.0, 1.0]}),
        ("latent", {"channels": 0}),
    ],
)
def test_damaged_records(paths, tmp_path, kind, change):
    path = edited(paths[kind], tmp_path / "x.pt", lambda metadata: metadata["couple"].update(change))
    with pytest.raises(
        ModelFileError, match="couple 'coulomb' wants at least one channel, of fixed and equi"
    ):
        _core.Evaluator(str(path))


def test_readouts_that_do_not_fit(paths, tmp_path):
    path = edited(paths["latent"], tmp_path / "x.pt", lambda metadata: metadata["couple"].update(channels=3))
    with pytest.raises(ModelFileError, match="the couple expects 5 readout columns, the model has 4"):
        _core.Evaluator(str(path))


def test_a_charge_without_electrostatics(bpnn):
    with pytest.raises(EvaluationError, match=r"total charge was given, but '.*' has no electrostatics"):
        _core.Evaluator(str(bpnn)).evaluate(*random_box(1), [True] * 3, 0.0)


def test_fixed_charges_that_do_not_add_up(paths):
    evaluator, one = _core.Evaluator(str(paths["fixed"])), case("triclinic", True, "fixed")
    with pytest.raises(EvaluationError, match=r"add up to -1\.2 e, but a periodic system is taken to have 0"):
        evaluator.evaluate(*one[:4])
    with pytest.raises(EvaluationError, match=r"-1\.2 e, but the total charge that was given is 2 e: check"):
        evaluator.evaluate(*one[:4], 2.0)
    one = case("open", True, "fixed")
    assert evaluator.evaluate(*one[:4])["energy"] == evaluator.evaluate(*one)["energy"]


def test_one_periodic_direction(paths):
    one = case("open", True, "latent")
    with pytest.raises(EvaluationError, match="periodic in one direction, but electrostatics needs 0"):
        _core.Evaluator(str(paths["latent"])).evaluate(*one._replace(pbc=[False, True, False]))


def test_a_slab_that_outgrows_its_vacuum(paths):
    evaluator, one = _core.Evaluator(str(paths["latent"])), case("slab", True, "latent")
    evaluator.evaluate(*one)
    positions = one.positions.copy()
    positions[0, 2] += 100.0
    with pytest.raises(EvaluationError, match=r"the slab needs .* Å with its vacuum, but it was set up for"):
        evaluator.evaluate(*one._replace(positions=positions))


@pytest.fixture(scope="module")
def library():
    return open_library()


def c_arguments(one):
    return one.positions, one.species, np.ascontiguousarray(one.cell), [int(p) for p in one.pbc]


def test_c_charges(library, paths):
    """They are added to, as everything."""
    one = case("triclinic", True, "latent")
    model = load_model(library, paths["latent"])
    assert library.ns_model_num_charges(model) == 2 and library.ns_model_has_atom_virials(model) == 0
    evaluator = make_evaluator(library, model)
    arrays = {name: np.ones((len(one.species), 2)) for name in ("charges", "potentials")}
    results, system = results_for(**arrays), system_of(*c_arguments(one), np.array([one.charge]))
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 0
    expected = _core.Evaluator(str(paths["latent"])).evaluate(*one)
    assert results.energy == expected["energy"]
    assert results.electrostatic == expected["electrostatic_energy"]
    for name, array in arrays.items():
        np.testing.assert_allclose(array - 1, expected[name], atol=1e-12)
    for name, columns in (("virials", 6), ("centroid_virials", 9)):
        wanted = results_for(**{name: np.zeros((len(one.species), columns))})
        assert library.ns_evaluate_system(evaluator, byref(system), byref(wanted)) == 3
        assert b"virials of atoms are not defined for the electrostatics of" in library.ns_last_error()
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(model)


def test_c_charges_of_a_model_without(library, bpnn):
    model = load_model(library, bpnn)
    assert library.ns_model_num_charges(model) == 0 and library.ns_model_has_atom_virials(model) == 1
    evaluator, box = make_evaluator(library, model), random_box(1)
    results = results_for(charges=np.zeros(1))
    assert library.ns_evaluate_system(evaluator, byref(system_of(*box)), byref(results)) == 3
    assert b"has no charges: ask for them of a model with long_range" in library.ns_last_error()
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(model)


def test_several_ranks_need_exchanges(library, paths):
    host = Host(struct_size=sizeof(Host), num_ranks=2)
    host.all_sum = dict(Host._fields_)["all_sum"](lambda *_: 0)
    model = load_model(library, paths["environment"])
    evaluator = make_evaluator(library, model, host)
    one = case("triclinic", False, "environment")
    system = system_of(*c_arguments(one))
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results_for())) == 3
    assert (
        b"electrostatics of a model's charges needs all_to_all of a host with several ranks"
        in library.ns_last_error()
    )
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(model)
