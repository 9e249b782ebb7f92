"""Equilibrated charges in torch: closed forms, the core's Ewald sum, differences, and derivatives through a
dense system of equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nearsight.couple import (
    ChargedStructure,
    Electrostatics,
    FrameCharger,
    LearnedNumbers,
    System,
    build_couple,
    couples,
    equilibration,
    evaluate,
    join_charged,
    least_charges,
    present_couple,
    settle,
    widest_couple,
)
from nearsight.couple.coulomb_matrix import coulomb_matrix
from nearsight.errors import ConfigError, EvaluationError
from nearsight.lib import _core
from nearsight.models import training_module
from nearsight.neighbors import collate
from nearsight.units import COULOMB

from .charge_models import CELLS, case, graph_of
from .equilibrated_models import GIVEN, Oracle, batch_of, equilibrated_model

RECORD = {
    "kind": "coulomb",
    "charges": "equilibrated",
    "channels": 1,
    "hardness": [9.0, 14.0],
    "widths": [0.5, 0.7],
    "rtol": 1e-4,
    "residual": 1e-6,
}
CHARGED = [False, True]


def system_of(one, field=None, charge=None, **record):
    """The couple, electronegativities of random order 1 V, and the frame."""
    couple = build_couple(RECORD | record)
    total = one.charge if charge is None else charge
    charged = FrameCharger(RECORD | record)(ChargedStructure(*one[:4], total))._replace(field=field)
    chi = torch.tensor(np.random.default_rng(8).normal(size=len(one.species)))
    readouts = {"energy": torch.zeros(len(chi), dtype=torch.float64), "electronegativity": chi}
    frame = torch.zeros(len(chi), dtype=torch.int64)
    return couple, readouts, System(frame, 1, charged)


@pytest.mark.parametrize("distance", [0.3, 0.74, 1.1, 2.5, 6.0, 40.0, 1000.0])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_two_atoms(distance, total):
    structure = ChargedStructure(
        [[0, 0, 0], [0, 0.6 * distance, -0.8 * distance]], [0, 1], np.eye(3), [False] * 3
    )
    charged = FrameCharger(RECORD)(structure._replace(total_charge=total))
    chi = torch.tensor([1.3, -2.1], dtype=torch.float64)
    readouts = {"energy": torch.tensor([0.4, 0.2]), "electronegativity": chi}
    energy, charges = build_couple(RECORD).energies_and_charges(
        readouts, System(torch.tensor([0, 0]), 1, charged), False
    )
    a, b = (hard + COULOMB / (math.sqrt(math.pi) * width) for hard, width in ((9.0, 0.5), (14.0, 0.7)))
    c = COULOMB * math.erf(distance / math.sqrt(2 * (0.5**2 + 0.7**2))) / distance
    q = (-2.1 - 1.3 + (b - c) * total) / (a + b - 2 * c)
    p = total - q
    expected = 0.6 + 1.3 * q - 2.1 * p + 0.5 * (a * q * q + b * p * p) + c * q * p
    assert charges[:, 0].tolist() == pytest.approx([q, p], rel=1e-12)
    assert energy.item() == pytest.approx(expected, rel=1e-7)  # energies of the atoms are floats here


@pytest.mark.parametrize("charged", CHARGED)
@pytest.mark.parametrize("cell", CELLS)
def test_the_matrix_has_the_second_derivatives_of_the_energy(cell, charged):
    couple, _, system = system_of(case(cell, charged, ""))
    one = system.charged
    units = torch.eye(len(one.species), dtype=torch.float64, requires_grad=True)
    widths = couple.widths[one.species]
    energies = Electrostatics()(one.positions, units, one.frames, widths)
    (expected,) = torch.autograd.grad(energies.sum(), units)
    found = COULOMB * coulomb_matrix(one.positions, one.frames.boxes, one.frames, widths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize("charged", CHARGED)
@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_of_an_ewald_sum(cell, charged):
    """The core's Ewald sum gives the matrix, numpy solves."""
    one = case(cell, charged, "")
    couple, readouts, system = system_of(one, rtol=1e-10)
    energy, charges = couple.energies_and_charges(readouts, system, False)
    n, widths = len(one.species), np.array(RECORD["widths"])[one.species]
    matrix = np.array(
        [_core.ewald(one.positions, unit, one.cell, one.pbc, widths)["potentials"] for unit in np.eye(n)]
    )
    matrix += np.diag(np.array(RECORD["hardness"])[one.species] + COULOMB / (math.sqrt(math.pi) * widths))
    equations = np.block([[matrix, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    chi = readouts["electronegativity"].numpy()
    q = np.linalg.solve(equations, [*-chi, one.charge])[:n]
    np.testing.assert_allclose(charges[:, 0].numpy(), q, rtol=0, atol=1e-9)
    assert energy.item() == pytest.approx(chi @ q + 0.5 * q @ matrix @ q, rel=1e-9)


@pytest.fixture(params=["dense", "gradients"])
def solver(request, monkeypatch):
    monkeypatch.setattr(equilibration, "MAX_DENSE", {"dense": 512, "gradients": 0}[request.param])
    return request.param


@pytest.mark.parametrize("cell", CELLS)
def test_charges_add_up_and_energies_are_least(solver, cell):
    """Moving converged charges changes the energy in second order."""
    couple, readouts, system = system_of(case(cell, True, ""), charge=-1.5)
    energy, charges = couple.energies_and_charges(readouts, system, False)
    assert charges.sum().item() == pytest.approx(-1.5, abs=1e-12)
    direction = torch.tensor(np.random.default_rng(4).normal(size=len(charges)))
    direction = (direction - direction.mean()).unsqueeze(1)
    rises = [
        (couple.energies(charges + h * direction, readouts, system) - energy).item()
        for h in (1e-3, 1e-2, -1e-2)
    ]
    assert rises[0] > 0
    assert rises[1] == pytest.approx(100 * rises[0], rel=1e-6)
    assert rises[2] == pytest.approx(rises[1], rel=1e-6)


def test_both_solvers_agree_in_a_batch(monkeypatch):
    model = equilibrated_model()
    expected = loss_and_gradient(model, model)
    monkeypatch.setattr(equilibration, "MAX_DENSE", 0)
    found = loss_and_gradient(model, model)
    assert_same_losses(found, expected, 1e-9)
    graph, charged = batch_of(model)
    results = evaluate(model, graph, settle(model).couple, charged=charged)
    assert results.charges.sum().item() == pytest.approx(charged.total_charge.sum().item(), abs=1e-12)


def loss_and_gradient(module, model, **batch):
    """A loss of energies, forces, virials, charges and dipoles; its gradient by all parameters."""
    graph, charged = batch_of(model, **batch)
    found = evaluate(module, graph, present_couple(model), create_graph=True, charged=charged)
    generator = torch.Generator().manual_seed(2)
    loss = torch.zeros((), dtype=torch.float64)
    for values in (found.energy, found.forces, found.virial, 10 * found.charges, found.dipole):
        aim = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((values - aim) ** 2).sum()
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return loss.item(), dict(zip(names, gradients))


def assert_same_losses(found, expected, tolerance):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    for name, values in expected[1].items():
        scale = values.abs().max().item()
        torch.testing.assert_close(found[1][name], values, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("charged", CHARGED)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_through_the_equations(cell, charged, monkeypatch):
    model = equilibrated_model()
    found = loss_and_gradient(model, model, cells=[cell], charged=[charged])
    assert found[1]["learned_numbers.hardness"].abs().min() > 0
    assert found[1]["learned_numbers.widths"].abs().min() > 0
    monkeypatch.setattr(couples, "EquilibratedCouple", Oracle)
    assert_same_losses(found, loss_and_gradient(model, model, cells=[cell], charged=[charged]), 1e-8)


@pytest.mark.parametrize("architecture", ["bpnn", "mace", "mace with messages"])
def test_native_gradients_are_those_through_the_equations(architecture, monkeypatch):
    model = equilibrated_model(architecture)
    found = loss_and_gradient(training_module(model, "native", 1, "double"), model)
    monkeypatch.setattr(couples, "EquilibratedCouple", Oracle)
    assert_same_losses(found, loss_and_gradient(model, model), 1e-8)


@pytest.mark.parametrize("charged", CHARGED)
@pytest.mark.parametrize("cell", CELLS)
def test_forces_and_virial_are_differences_of_the_energy(cell, charged):
    """With the pairs and the mesh of the frame as it is."""
    model, one = settle(equilibrated_model()), case(cell, charged, "")
    frame = FrameCharger(model.couple)(ChargedStructure(*one))

    def found(move=0.0, strain=0.0):
        deformation = np.eye(3) + strain
        positions, box = (one.positions + move) @ deformation, one.cell @ deformation
        boxes = frame.frames.boxes @ torch.tensor(deformation)
        changed = frame._replace(positions=torch.tensor(positions), frames=frame.frames._replace(boxes=boxes))
        graph = graph_of(one._replace(positions=positions, cell=box))
        return evaluate(model, graph, model.couple, charged=changed)

    def slope(step=2e-4, **changes):
        name, unit = next(iter(changes.items()))
        energies = [found(**{name: k * step * unit}).energy.item() for k in (-2, -1, 1, 2)]
        return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)

    def unit(shape, *places):
        values = np.zeros(shape)
        for place in places:
            values[place] += 1 / len(places)
        return values

    expected = found()
    some = [(0, 0), (7, 2), (11, 1)]
    scale = expected.forces.abs().max().item()
    forces = [-slope(move=unit((12, 3), place)) for place in some]
    assert [expected.forces[place].item() for place in some] == pytest.approx(forces, abs=1e-7 * scale)
    places = [(0, 0), (1, 2), (2, 2)]
    scale = expected.virial.abs().max().item()
    virial = [-slope(strain=unit((3, 3), place, place[::-1])) for place in places]
    assert [expected.virial[0][place].item() for place in places] == pytest.approx(virial, abs=1e-7 * scale)


def test_a_field_moves_charges():
    """The dipole is minus the slope of the energy in the field."""
    one, field = case("open", True, ""), torch.tensor([0.03, -0.02, 0.05], dtype=torch.float64)

    def found(changed):
        couple, readouts, system = system_of(one, changed)
        energy, charges = couple.energies_and_charges(readouts, system, False)
        return energy.item(), (charges * system.charged.positions).sum(0)

    _, dipole = found(field)
    for axis in range(3):
        step = 1e-3 * torch.eye(3, dtype=torch.float64)[axis]
        slope = (found(field + step)[0] - found(field - step)[0]) / 2e-3
        assert dipole[axis].item() == pytest.approx(-slope, rel=1e-8)


def test_frames_of_a_batch_do_not_see_each_other():
    model = equilibrated_model()
    couple, charger = present_couple(model), FrameCharger(widest_couple(model))
    cases = [case(cell, some, "") for cell, some in zip(CELLS, (True, False, True, False))]
    frames = [charger(ChargedStructure(*one)) for one in cases]
    graphs = [graph_of(one) for one in cases]
    joint = evaluate(model, collate(graphs), couple, charged=join_charged(frames))
    alone = [evaluate(model, graph, couple, charged=one) for graph, one in zip(graphs, frames)]
    for name in ("energy", "forces", "virial", "charges"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(joint, name), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cell", ["open", "triclinic"])
def test_an_energy_without_a_minimum(solver, cell):
    couple, readouts, system = system_of(case(cell, False, ""), hardness=[-30.0, 14.0])
    with pytest.raises(
        EvaluationError, match=r"charges has no minimum: .* not positive definite; raise the hard"
    ):
        couple.energies_and_charges(readouts, system, False)


def test_iterations_that_do_not_converge(monkeypatch):
    monkeypatch.setattr(equilibration, "MAX_DENSE", 0)
    monkeypatch.setattr(least_charges, "_MAX_ITERATIONS", 2)
    couple, readouts, system = system_of(case("triclinic", False, ""))
    with pytest.raises(EvaluationError, match=r"did not reach the residual 1e-12 in 2 iterations, found \d"):
        couple.energies_and_charges(readouts, system, False)


@pytest.mark.parametrize(
    "record", [{"channels": 2}, {"widths": [0.0, 1.0]}, {"widths": [1.0]}, {"hardness": [1.0, 2.0, 3.0]}]
)
def test_records_that_cannot_be(record):
    with pytest.raises(
        ConfigError, match="of equilibrated charges has one channel, and hardness and widths abo"
    ):
        build_couple(RECORD | record)


def test_born_charges_are_refused():
    model = equilibrated_model()
    graph, charged = batch_of(model, cells=["open"], charged=[False])
    with pytest.raises(ConfigError, match="Born effective charges of equilibrated charges are not known"):
        evaluate(model, graph, present_couple(model), charged=charged, born_charges=1)


def test_learned_numbers():
    learned = LearnedNumbers({"hardness": [10.0, 12.0], "widths": [0.4, 0.8]})
    assert {name: values.tolist() for name, values in learned().items()} == {
        "hardness": pytest.approx([10.0, 12.0]),
        "widths": pytest.approx([0.4, 0.8]),
    }
    with torch.no_grad():
        learned.hardness.copy_(torch.tensor([math.log(2.0), -1.0]))
        learned.widths.copy_(torch.tensor([50.0, -50.0]))
    assert learned()["hardness"].tolist() == pytest.approx([20.0, 12.0 / math.e])
    assert learned()["widths"].tolist() == pytest.approx([0.6, 0.8 / 1.5])


def test_learned_numbers_belong_to_the_model_until_it_is_settled():
    model = equilibrated_model()
    assert widest_couple(model)["widths"] == pytest.approx([1.5 * 0.31, 1.5 * 0.66])
    before = present_couple(model)
    assert before["hardness"].requires_grad and before["widths"].requires_grad
    settled = settle(model)
    assert settled is model and present_couple(settled) == settled.couple == widest_couple(settled)
    for name in ("hardness", "widths"):
        assert settled.couple[name] == before[name].tolist()
        assert name not in "".join(settled.state_dict())
    given = equilibrated_model(**GIVEN)
    assert present_couple(given) is given.couple and not hasattr(given, "learned_numbers")
