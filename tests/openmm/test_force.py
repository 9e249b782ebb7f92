"""The OpenMM force against the closed form of a test potential, and its behaviour as an OpenMM object."""

import copy
import threading

import numpy as np
import pytest
from models_for_tests import random_structure, reference

openmm = pytest.importorskip("openmm", reason="openmm is not installed")
app = pytest.importorskip("openmm.app", reason="openmm is not installed")
unit = openmm.unit

from nearsight import Potential, units  # noqa: E402
from nearsight.openmm import create_force  # noqa: E402

PLATFORMS = ("Reference", "CPU")
CUBIC = np.diag([11.0, 11.0, 11.0])
SMALL = np.diag([5.0, 6.0, 7.0])  # shorter than two cutoffs: an atom meets its own images
TRICLINIC = np.array([[9.0, 0.0, 0.0], [2.0, 8.5, 0.0], [-3.0, 2.5, 8.0]])
MASS = {"H": 1.008, "O": 15.999, "Si": 28.085}


def make_system(symbols, cell=None):
    system = openmm.System()
    for symbol in symbols:
        system.addParticle(MASS[symbol])
    if cell is not None:
        system.setDefaultPeriodicBoxVectors(*(np.asarray(cell) / units.NM))
    return system


def make_context(system, positions, platform="Reference", integrator=None):
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(np.asarray(positions) / units.NM)
    return context


def energy_forces(context, groups=-1):
    """eV and eV/Å."""
    state = context.getState(getEnergy=True, getForces=True, groups=groups)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * units.KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energy, forces * units.KJ_PER_MOL / units.NM


def assert_same(found, expected, rtol=1e-12):
    energy, forces = found
    assert energy == pytest.approx(expected["energy"], rel=rtol)
    assert np.abs(forces - expected["forces"]).max() < 10 * rtol * np.abs(expected["forces"]).max()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "cell, periodic", [(CUBIC, False), (CUBIC, True), (SMALL, True), (TRICLINIC, True)], ids=str
)
def test_closed_form(model, platform, cell, periodic):
    positions, symbols = random_structure(1, 40, cell)
    system = make_system(symbols, cell)
    system.addForce(create_force(model, symbols, periodic=periodic, precision="double"))
    found = energy_forces(make_context(system, positions, platform))
    assert_same(found, reference(positions, symbols, cell, periodic))


def test_mixed_precision_is_close(model):
    positions, symbols = random_structure(2, 60, TRICLINIC, minimum=1.0)
    system = make_system(symbols, TRICLINIC)
    system.addForce(create_force(model, symbols, periodic=True))
    energy, forces = energy_forces(make_context(system, positions))
    expected = reference(positions, symbols, TRICLINIC, True)
    assert abs(energy - expected["energy"]) < 1e-6 * len(symbols)
    assert np.abs(forces - expected["forces"]).max() < 1e-5


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "backend, precision, tolerance",
    [("native", "double", 1e-11), ("torchscript", "double", 1e-11), ("native", "mixed", 1e-5)],
)
def test_network(bpnn, platform, backend, precision, tolerance):
    """A model of ours against `Potential` on the backend that OpenMM does not use here."""
    positions, symbols = random_structure(9, 40, TRICLINIC)
    other = {"native": "torchscript", "torchscript": "native"}[backend]
    expected = Potential(bpnn, backend=other).compute(positions, symbols, TRICLINIC, True)
    system = make_system(symbols, TRICLINIC)
    system.addForce(create_force(bpnn, symbols, periodic=True, backend=backend, precision=precision))
    energy, forces = energy_forces(make_context(system, positions, platform))
    assert energy == pytest.approx(expected.energy, abs=tolerance * len(symbols))
    assert np.abs(forces - expected.forces).max() < tolerance


def test_positions_need_not_be_wrapped(model):
    positions, symbols = random_structure(3, 20, TRICLINIC)
    far = positions + np.random.default_rng(0).integers(-3, 4, (20, 3)) @ TRICLINIC
    system = make_system(symbols, TRICLINIC)
    system.addForce(create_force(model, symbols, periodic=True, precision="double"))
    found = energy_forces(make_context(system, far))
    assert_same(found, reference(positions, symbols, TRICLINIC, True), rtol=1e-11)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_subset_of_particles(model, platform):
    positions, symbols = random_structure(4, 30, CUBIC)
    chosen = [17, 3, 29, 8, 11, 0, 22]  # in no order
    system = make_system(symbols, CUBIC)
    force = create_force(
        model, [symbols[i] for i in chosen], particles=chosen, periodic=True, precision="double"
    )
    system.addForce(force)
    energy, forces = energy_forces(make_context(system, positions, platform))
    expected = reference(positions[chosen], [symbols[i] for i in chosen], CUBIC, True)
    assert_same((energy, forces[chosen]), expected)
    assert not np.delete(forces, chosen, axis=0).any()


def water_topology(cell=None):
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        for name in ("O", "H1", "H2"):
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
    if cell is not None:
        topology.setPeriodicBoxVectors(cell / units.NM * unit.nanometer)
    return topology


@pytest.mark.parametrize("cell", [None, CUBIC], ids=["molecule", "box"])
def test_topology_gives_elements_and_periodicity(model, cell):
    force = create_force(model, water_topology(cell))
    assert force.usesPeriodicBoundaryConditions() == (cell is not None)
    assert openmm.XmlSerializer.serialize(force).count('species="O"') == 2
    subset = openmm.XmlSerializer.serialize(create_force(model, water_topology(cell), particles=[0, 1, 2]))
    assert (subset.count('species="O"'), subset.count('species="H"')) == (1, 2)


def test_topology_leaves_periodicity_to_the_caller(model):
    assert create_force(model, water_topology(), periodic=True).usesPeriodicBoundaryConditions()
    assert not create_force(model, water_topology(CUBIC), periodic=False).usesPeriodicBoundaryConditions()


def test_force_groups_and_addition(model):
    positions, symbols = random_structure(5, 12, CUBIC)
    system = make_system(symbols, CUBIC)
    for group in (2, 5):
        system.addForce(create_force(model, symbols, periodic=True, precision="double", force_group=group))
    context = make_context(system, positions)
    expected = reference(positions, symbols, CUBIC, True)
    one, both, none = (energy_forces(context, groups) for groups in ({5}, {2, 5}, {1}))
    assert_same(one, expected)
    assert_same(both, {name: 2 * expected[name] for name in ("energy", "forces")})
    assert none[0] == 0.0
    assert not none[1].any()


def test_xml_round_trip_of_a_system(model):
    positions, symbols = random_structure(6, 10, TRICLINIC)
    system = make_system(symbols, TRICLINIC)
    system.addForce(openmm.HarmonicBondForce())
    whole = create_force(
        model, symbols, periodic=True, precision="double", skin=0.05, force_group=3, name='a "name" <&>'
    )
    part = create_force(model, symbols[:4], particles=[9, 8, 7, 6], periodic=False, threads=2)
    system.addForce(whole)
    system.addForce(part)
    xml = openmm.XmlSerializer.serialize(system)
    copied = openmm.XmlSerializer.deserialize(xml)
    assert openmm.XmlSerializer.serialize(copied) == xml
    assert copied.getForce(1).getName() == 'a "name" <&>'
    assert copied.getForce(1).getForceGroup() == 3
    assert [copied.getForce(i).usesPeriodicBoundaryConditions() for i in (1, 2)] == [True, False]
    found, expected = (energy_forces(make_context(s, positions)) for s in (copied, system))
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_deepcopy(model):
    force = create_force(model, ["H", "O"], periodic=False)
    assert openmm.XmlSerializer.serialize(copy.deepcopy(force)) == openmm.XmlSerializer.serialize(force)


def test_relative_model_path_is_made_absolute(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    xml = openmm.XmlSerializer.serialize(create_force(model.name, ["H"], periodic=False))
    assert f'model="{model}"' in xml


def test_contexts_are_independent(model):
    """Four contexts of one System, evaluated in turn and then in four threads at once."""
    structures = [random_structure(seed, 30, CUBIC)[0] for seed in range(4)]
    symbols = random_structure(0, 30, CUBIC)[1]
    system = make_system(symbols, CUBIC)
    system.addForce(create_force(model, symbols, periodic=True, precision="double"))
    contexts = [make_context(system, positions) for positions in structures]
    expected = [reference(positions, symbols, CUBIC, True) for positions in structures]
    for context, numbers in zip(contexts, expected):
        assert_same(energy_forces(context), numbers)

    found = [None] * 4

    def evaluate(k):
        for _ in range(5):
            found[k] = energy_forces(contexts[k])

    threads = [threading.Thread(target=evaluate, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for numbers, result in zip(expected, found):
        assert_same(result, numbers)


def test_new_positions_and_boxes_within_the_skin(model):
    """Small and large changes of positions and box; after each the neighbor list must still be right."""
    positions, symbols = random_structure(7, 40, TRICLINIC)
    system = make_system(symbols, TRICLINIC)
    system.addForce(create_force(model, symbols, periodic=True, precision="double", skin=0.1))
    context = make_context(system, positions)
    generator = np.random.default_rng(1)
    cell = TRICLINIC
    for step in range(12):
        scale = 1.0 if step % 3 else 1.0 + 0.1 * generator.uniform(-1, 1)
        cell = cell * scale
        positions = positions * scale + generator.normal(scale=0.02 * (1 + step % 4), size=positions.shape)
        context.setPeriodicBoxVectors(*(cell / units.NM))
        context.setPositions(positions / units.NM)
        assert_same(energy_forces(context), reference(positions, symbols, cell, True), rtol=1e-11)


def test_virtual_sites_pass_their_force_on(model):
    """A site halfway between two atoms gives each of them half of its force."""
    symbols = ["O", "Si", "H"]
    positions = np.array([[0.0, 0, 0], [2.4, 0.3, 0], [1.2, 0.15, 0]])
    system = make_system(symbols)
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    system.addForce(create_force(model, symbols, periodic=False, precision="double"))
    energy, forces = energy_forces(make_context(system, positions))
    expected = reference(positions, symbols)
    assert energy == pytest.approx(expected["energy"], rel=1e-12)
    assert forces[:2] == pytest.approx(
        expected["forces"][:2] + 0.5 * expected["forces"][2], rel=1e-10, abs=1e-13
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_inside_a_collective_variable(model, platform):
    """The form in which openmm-ml interpolates between force fields."""
    positions, symbols = random_structure(8, 12, CUBIC)
    system = make_system(symbols, CUBIC)
    scaled = openmm.CustomCVForce("scale * ml")
    scaled.addGlobalParameter("scale", 0.25)
    scaled.addCollectiveVariable("ml", create_force(model, symbols, periodic=True, precision="double"))
    system.addForce(scaled)
    context = make_context(system, positions, platform)
    expected = reference(positions, symbols, CUBIC, True)
    assert_same(energy_forces(context), {name: 0.25 * expected[name] for name in ("energy", "forces")})
