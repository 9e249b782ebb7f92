"""Reporters of a committee's deviation and of extrapolations, against the Python potential."""

import csv
import io

import numpy as np
import pytest
from committees_for_tests import graph_of, random_model, save
from models_for_tests import random_structure

openmm = pytest.importorskip("openmm", reason="openmm is not installed")
app = pytest.importorskip("openmm.app", reason="openmm is not installed")
unit = openmm.unit

from nearsight import Potential, uncertainty, units  # noqa: E402
from nearsight.errors import ConfigError, EvaluationError  # noqa: E402
from nearsight.openmm import (  # noqa: E402
    DeviationReporter,
    ExtrapolationReporter,
    SystemPotential,
    create_force,
)

CELL = np.diag([10.0, 11.0, 12.0])
SEEN, KINDS = random_structure(1, 30, CELL)
SYMBOLS = ["O" if symbol == "O" else "H" for symbol in KINDS]
ELEMENTS = {symbol: app.Element.getBySymbol(symbol) for symbol in ("H", "O")}


@pytest.fixture(scope="module")
def committee(tmp_path_factory):
    graph = graph_of(SEEN, [int(symbol == "O") for symbol in SYMBOLS], CELL)
    return save(tmp_path_factory.mktemp("committee") / "c.pt", random_model(2, [graph], members=3))


def simulation(model, particles=None, forces=1):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in SYMBOLS:
        topology.addAtom(symbol, ELEMENTS[symbol], residue)
    system = openmm.System()
    for symbol in SYMBOLS:
        system.addParticle(ELEMENTS[symbol].mass)
    system.setDefaultPeriodicBoxVectors(*(CELL / units.NM))
    for k in range(forces):
        symbols = SYMBOLS if particles is None else [SYMBOLS[p] for p in particles]
        system.addForce(
            create_force(model, symbols, particles=particles, periodic=True, precision="double", name=f"f{k}")
        )
    integrator = openmm.VerletIntegrator(1e-8)
    made = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(SEEN / units.NM)
    return made


def positions_of(run):
    state = run.context.getState(positions=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)


@pytest.mark.parametrize("particles", [None, list(range(3, 20))], ids=["all", "some"])
def test_deviation(committee, tmp_path, particles):
    run = simulation(committee, particles)
    run.reporters.append(DeviationReporter(tmp_path / "dev.out", 3))
    run.step(6)
    lines = (tmp_path / "dev.out").read_text().splitlines()
    assert lines[0] == uncertainty.FILE_HEADER
    assert [int(line.split()[0]) for line in lines[1:]] == [3, 6]
    chosen = list(range(len(SYMBOLS))) if particles is None else particles
    found = Potential(committee).compute(
        positions_of(run)[chosen], [SYMBOLS[p] for p in chosen], CELL, True, members=True
    )
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / "dev.out")[-1, 1:],
        [float(word) for word in found.deviation.file_row(6).split()[1:]],
        rtol=2e-6,
    )
    state = run.context.getState(positions=True)
    again = SystemPotential(run.system).compute(state, members=True)
    np.testing.assert_allclose(again.forces_std, found.forces_std, rtol=1e-10)


def test_extrapolation(committee):
    run, file = simulation(committee), io.StringIO()
    run.reporters.append(ExtrapolationReporter(file, 1))
    run.context.setPositions(0.95 * SEEN / units.NM)
    run.step(1)
    row = next(csv.DictReader(io.StringIO(file.getvalue())))
    found = (
        Potential(committee)
        .compute(positions_of(run), SYMBOLS, CELL, True, extrapolations=True)
        .extrapolations
    )
    worst = max(found, key=lambda extrapolation: extrapolation.beyond)
    assert int(row["extrapolations"]) == sum(e.count for e in found) > 0
    assert int(row["features"]) == len(found)
    assert (row["species"], row["farthest"]) == (worst.species, worst.label)
    assert float(row["value"]) == pytest.approx(worst.value)
    assert (float(row["minimum"]), float(row["maximum"])) == (worst.minimum, worst.maximum)


def test_no_extrapolation_gives_a_line_too(committee):
    run, file = simulation(committee), io.StringIO()
    run.reporters.append(ExtrapolationReporter(file, 1))
    run.step(1)
    assert file.getvalue().splitlines()[1].split(",")[:3] == ["1", "0", "0"]


def test_append(committee, tmp_path):
    for append in (False, True):
        run = simulation(committee)
        run.reporters.append(DeviationReporter(tmp_path / "dev.out", 1, append=append))
        run.step(1)
    assert len((tmp_path / "dev.out").read_text().splitlines()) == 3


def test_several_forces_have_names(committee, tmp_path):
    run = simulation(committee, forces=2)
    state = run.context.getState(positions=True)
    first = SystemPotential(run.system, "f1").compute(state, members=True)
    assert first.member_forces.shape == (3, len(SYMBOLS), 3)
    with pytest.raises(ConfigError, match="the System has 2 NearsightForces, expected one: name one of them"):
        SystemPotential(run.system)
    with pytest.raises(
        ConfigError, match="the System has 0 NearsightForces named 'x', expected one: add one"
    ):
        SystemPotential(run.system, "x")


def test_what_cannot_be_reported(bpnn, committee):
    with pytest.raises(ConfigError, match="the report interval must be at least 1 step, found 0"):
        DeviationReporter("dev.out", 0)
    run = simulation(bpnn)
    for reporter, sentence in (
        (DeviationReporter(io.StringIO(), 1), "is no committee"),
        (ExtrapolationReporter(io.StringIO(), 1), "knows no ranges of its features"),
    ):
        run.reporters[:] = [reporter]
        with pytest.raises(EvaluationError, match=sentence):
            run.step(1)
