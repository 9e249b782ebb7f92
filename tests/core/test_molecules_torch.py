"""Molecules that keep charges of their own in torch: the core, solvers, derivatives, data, torchforce."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight import Potential
from nearsight.couple import (
    ChargedStructure,
    FrameCharger,
    couples,
    equilibration,
    evaluate,
    join_charged,
    settle,
    widest_couple,
)
from nearsight.data import Frame, read_frames, write_extxyz
from nearsight.data.hdf5 import write_hdf5
from nearsight.errors import ConfigError, DataError, EvaluationError
from nearsight.export import torchforce_module
from nearsight.interfaces.predictions import predict
from nearsight.lib import _core
from nearsight.molecules import Molecules
from nearsight.neighbors import collate
from nearsight.training.batches import make_batch
from nearsight.units import KJ_PER_MOL

from . import test_equilibration_torch
from .charge_models import CELLS, REFERENCE_ENERGIES, SPECIES, case, graph_of, random_model
from .equilibrated_models import Oracle, equilibrated_model
from .test_charge_models import assert_close, save
from .test_equilibration_torch import assert_same_losses, loss_and_gradient
from .test_errors import edited
from .test_molecules import CHARGES, FOUR, KEPT, Kept

MOLECULES = Molecules(FOUR, CHARGES)


def structure(one, molecules=MOLECULES):
    return ChargedStructure(*one[:4], None, molecules)


def with_molecules(model):
    """Frames of every cell; of two of them molecules have charges."""
    charger = FrameCharger(model.couple)
    cases = [case(cell, True, "") for cell in CELLS]
    kept = [charger(structure(one)) for one in cases[:2]]
    return collate([graph_of(one) for one in cases]), join_charged(
        [*kept, *(charger(ChargedStructure(*one)) for one in cases[2:])]
    )


@pytest.mark.parametrize("kind", ["equilibrated", "environment", "weighted", "latent"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_core(tmp_path, kind, cell):
    """With the parameters that the core chooses."""
    model = settle(equilibrated_model()) if kind == "equilibrated" else random_model(kind)
    path, one = save(tmp_path / "model.pt", model), case(cell, True, "")
    if kind == "equilibrated":
        path = _with_residual(path, tmp_path / "fine.pt")
    graph = graph_of(one)
    with torch.no_grad():
        readouts = model(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    charged = FrameCharger(model.couple).with_charges(structure(one), readouts)
    found, expected = evaluate(model, graph, model.couple, charged=charged), Kept(path, **KEPT).evaluate(*one)
    reference = sum(REFERENCE_ENERGIES[SPECIES[z]] for z in one.species)
    assert found.energy.item() + reference == pytest.approx(expected["energy"], rel=1e-11)
    for name in ("forces", "charges"):
        assert_close(getattr(found, name).numpy(), expected[name], 1e-9)
    assert_close(found.virial[0].numpy(), expected["virial"], 1e-9)


def _with_residual(source, target):
    return edited(source, target, lambda metadata: metadata["couple"].update(residual=1e-13))


def test_both_solvers_agree_in_a_batch(monkeypatch):
    """Frames with molecules and without."""
    model = settle(equilibrated_model())
    graph, charged = with_molecules(model)
    expected = evaluate(model, graph, model.couple, charged=charged)
    monkeypatch.setattr(equilibration, "MAX_DENSE", 0)
    found = evaluate(model, graph, model.couple, charged=charged)
    for name in ("energy", "forces", "virial", "charges"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-10)
    for result in (found, expected):
        charges = np.bincount(charged.molecule.numpy(), result.charges[:, 0].numpy())
        np.testing.assert_allclose(charges, [*CHARGES, *CHARGES, -1.5, -1.5], rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", ["dense", "gradients"])
def test_gradients_are_those_through_the_equations(solver, monkeypatch):
    """Of a loss, by all parameters, hardness and widths among them."""
    model = equilibrated_model()

    def batch_of(one):
        charger, cases = FrameCharger(widest_couple(one)), [case(cell, True, "") for cell in CELLS]
        frames = [charger(structure(some)) for some in cases]
        return collate([graph_of(some) for some in cases]), join_charged(frames)

    monkeypatch.setattr(test_equilibration_torch, "batch_of", batch_of)
    monkeypatch.setattr(equilibration, "MAX_DENSE", {"dense": 512, "gradients": 0}[solver])
    found = loss_and_gradient(model, model)
    monkeypatch.setattr(couples, "EquilibratedCouple", Oracle)
    assert_same_losses(found, loss_and_gradient(model, model), 1e-8)


def test_born_charges_are_refused():
    model, one = random_model("environment"), case("open", True, "")
    charged = FrameCharger(model.couple)(structure(one))
    with pytest.raises(
        ConfigError, match="Born effective charges are not known where molecules have charges"
    ):
        evaluate(model, graph_of(one), model.couple, charged=charged, born_charges=1)


def test_fixed_charges_must_add_up_in_every_molecule():
    charger = FrameCharger(random_model("fixed").couple)
    with pytest.raises(
        ConfigError, match=r"add up to .* e, but molecule 0 of 4 is to have 1 e: check the at"
    ):
        charger(structure(case("open", True, "fixed")))


# ---- data ----


def frame_of(one, **info):
    return Frame(one.positions, [SPECIES[z] for z in one.species], one.cell, one.pbc, info=info)


@pytest.mark.parametrize("name", ["data.xyz", "data.h5"])
def test_files(tmp_path, name):
    """Molecules go from files to batches of training and to `nearsight evaluate`."""
    model, one = settle(equilibrated_model()), case("triclinic", True, "")
    frame = frame_of(one, molecules=FOUR + 5, molecule_charges=CHARGES, total_charge=float(CHARGES.sum()))
    (write_hdf5 if name.endswith("h5") else write_extxyz)(tmp_path / name, [frame])
    (read,) = read_frames(tmp_path / name)

    class NoReferences:
        def total(self, symbols):
            return 0.0

    batch = make_batch(read, SPECIES, 4.0, NoReferences(), charger=FrameCharger(model.couple))
    np.testing.assert_array_equal(batch.charged.molecule.numpy(), FOUR)
    np.testing.assert_array_equal(batch.charged.total_charge.numpy(), CHARGES)
    path = save(tmp_path / "model.pt", model)
    charges = predict(Potential(path), read)["charges"]
    expected = Kept(path, **KEPT).evaluate(*one)["charges"][:, 0]
    np.testing.assert_allclose(charges, expected, rtol=0, atol=1e-8)  # positions have eight digits


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (
            {"molecule_charges": 0.0},
            "x: charges of molecules were given, but not which atoms belong together",
        ),
        (
            {"molecules": FOUR, "molecule_charges": [1.0, 2.0]},
            "x: 2 charges were given for 4 molecules: give",
        ),
        (
            {"molecules": FOUR, "molecule_charges": CHARGES, "charge": 1.0},
            r"x: the charges of the molecules add up to -1\.25 e, but the total charge is 1 e: correct one",
        ),
    ],
)
def test_frames_that_cannot_be(info, message):
    frame = frame_of(case("open", True, ""), **info)
    frame.source = "x"
    charger = FrameCharger(settle(equilibrated_model()).couple)
    with pytest.raises(DataError, match=message):
        make_batch(frame, SPECIES, 4.0, None, charger=charger)


def test_frames_with_numbers_of_molecules_alone_have_a_total_charge():
    frame = frame_of(case("open", True, ""), molecules=FOUR, total_charge=2.0)
    charger = FrameCharger(settle(equilibrated_model()).couple)
    assert make_batch(frame, SPECIES, 4.0, None, charger=charger).charged.total_charge.tolist() == [2.0]


# ---- torchforce ----


@pytest.mark.parametrize("kind", ["equilibrated", "latent"])
@pytest.mark.parametrize("cell", ["open", "triclinic"])
def test_torchforce(tmp_path, kind, cell):
    model = settle(equilibrated_model()) if kind == "equilibrated" else random_model(kind)
    path, one = save(tmp_path / "model.pt", model), case(cell, True, "")
    if kind == "equilibrated":
        path = _with_residual(path, tmp_path / "fine.pt")
    symbols, periodic = [SPECIES[z] for z in one.species], cell != "open"
    places = {"positions": one.positions, "cell": one.cell} if periodic else {}
    module = torchforce_module(path, symbols, periodic=periodic, **KEPT, **places)
    positions = torch.tensor(0.1 * one.positions, requires_grad=True)
    energy = module(positions, *([torch.tensor(0.1 * one.cell)] if periodic else []))
    (gradient,) = torch.autograd.grad(energy, positions)
    expected = _core.Evaluator(str(path)).evaluate(*one[:4], **KEPT)
    assert energy.item() * KJ_PER_MOL == pytest.approx(expected["energy"], rel=1e-10)
    assert_close(-gradient.numpy() * KJ_PER_MOL / 10, expected["forces"], 1e-8)


def test_what_torchforce_refuses(tmp_path, bpnn):
    path = save(tmp_path / "model.pt", settle(equilibrated_model()))
    symbols = [SPECIES[z] for z in case("open", True, "").species]
    with pytest.raises(
        ConfigError, match="a total charge and molecules were given, which have charges: leave"
    ):
        torchforce_module(path, symbols, periodic=False, charge=1.0, **KEPT)
    with pytest.raises(EvaluationError, match="2 charges were given for 4 molecules: give one for each"):
        torchforce_module(path, symbols, periodic=False, molecules=FOUR, molecule_charges=[1.0, 2.0])
    with pytest.raises(ConfigError, match="a molecule was given, but the model has no electrostatics: leave"):
        torchforce_module(bpnn, ["H"] * 12, periodic=False, molecules=FOUR)
