"""The OpenMM force on device cuda, emulated: copies on the host, and a platform that has the arrays."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from committees_for_tests import graph_of
from committees_for_tests import random_model as random_committee
from committees_for_tests import save as save_committee
from core.charge_models import case, random_model
from core.test_charge_models import save
from models_for_tests import random_structure
from test_force import CUBIC, PLATFORMS, SMALL, TRICLINIC, energy_forces, make_context, make_system

openmm = pytest.importorskip("openmm", reason="openmm is not installed")

from nearsight.openmm import SystemPotential, create_force  # noqa: E402


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    if not os.environ.get("NEARSIGHT_TEST_GPU"):
        monkeypatch.setenv("NEARSIGHT_CUDA", "emulated")


def assert_same(found, expected, tolerance=1e-10):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    forces, others = np.asarray(found[1]), np.asarray(expected[1])
    assert np.abs(forces - others).max() < tolerance * np.abs(others).max()


def context_of(bpnn, structure, cell, platform="Reference", **options):
    positions, symbols = structure
    system = make_system(symbols, cell)
    options = {"precision": "double", "periodic": True} | options
    system.addForce(create_force(bpnn, symbols, **options))
    return make_context(system, positions, platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "cell, periodic", [(CUBIC, False), (CUBIC, True), (SMALL, True), (TRICLINIC, True)], ids=str
)
def test_equals_the_cpu(bpnn, platform, cell, periodic):
    structure = random_structure(1, 30, cell)
    found, expected = (
        energy_forces(context_of(bpnn, structure, cell, platform, periodic=periodic, device=device))
        for device in ("cuda:0", "cpu")
    )
    assert_same(found, expected)


def test_mixed_precision(bpnn):
    structure = random_structure(1, 30, CUBIC)
    (energy, forces), expected = (
        energy_forces(context_of(bpnn, structure, CUBIC, device=device, precision=precision))
        for device, precision in (("cuda", "mixed"), ("cpu", "double"))
    )
    assert abs(energy - expected[0]) < 1e-5 * 30
    assert np.abs(forces - expected[1]).max() < 1e-4


def test_reporters_evaluate_on_the_device(tmp_path):
    cell = 10.0 * np.eye(3)
    positions, symbols = random_structure(1, 30, cell)
    symbols = ["O" if symbol == "O" else "H" for symbol in symbols]
    graph = graph_of(positions, [int(symbol == "O") for symbol in symbols], cell)
    committee = save_committee(tmp_path / "c.pt", random_committee(2, [graph], members=3))
    found = []
    for device in ("cpu", "cuda:0"):
        context = context_of(committee, (0.95 * positions, symbols), cell, device=device)
        potential = SystemPotential(context.getSystem())
        state = context.getState(positions=True)
        found.append(potential.compute(state, members=True, extrapolations=True))
    assert (
        [(e.label, e.count) for e in found[0].extrapolations]
        == [(e.label, e.count) for e in found[1].extrapolations]
        != []
    )
    np.testing.assert_allclose(found[1].forces_std, found[0].forces_std, rtol=1e-9)


def test_contexts_in_threads(bpnn):
    structures = [random_structure(seed, 20, CUBIC) for seed in range(2)]
    expected = [energy_forces(context_of(bpnn, s, CUBIC)) for s in structures]
    contexts = [context_of(bpnn, s, CUBIC, device="cuda") for s in structures]
    found = [None, None]

    def evaluate(k):
        for _ in range(3):
            found[k] = energy_forces(contexts[k])

    threads = [threading.Thread(target=evaluate, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected):
        assert_same(one, other)


def test_xml(bpnn):
    xml = openmm.XmlSerializer.serialize(create_force(bpnn, ["H"], periodic=False, device="cuda:1"))
    assert ' device="cuda:1"' in xml
    assert openmm.XmlSerializer.serialize(openmm.XmlSerializer.deserialize(xml)) == xml
    # As plugins wrote it that knew no devices.
    assert "device" not in openmm.XmlSerializer.serialize(create_force(bpnn, ["H"], periodic=False))


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "cuda:1000", "auto", ""])
def test_unknown_device(bpnn, word):
    with pytest.raises(openmm.OpenMMException) as caught:
        create_force(bpnn, ["H"], periodic=False, device=word)
    assert str(caught.value) == (
        f'nearsight: device "{word}" is unknown; expected cpu, cuda or, with the number of a GPU, cuda:0'
    )


@pytest.mark.skipif(bool(os.environ.get("NEARSIGHT_TEST_GPU")), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(bpnn, monkeypatch):
    structure = random_structure(1, 4, CUBIC)
    with pytest.raises(openmm.OpenMMException) as caught:
        context_of(bpnn, structure, CUBIC, device="cuda:3")
    assert str(caught.value) == (
        "nearsight: GPU number 3 was asked for, but this machine has 1, numbered from 0: choose one of them"
    )
    monkeypatch.setenv("NEARSIGHT_EMULATED_DEVICES", "0")
    with pytest.raises(openmm.OpenMMException) as caught:
        context_of(bpnn, structure, CUBIC, device="cuda")
    assert str(caught.value) == "nearsight: there are no emulated devices"


NO_GPU = """
import sys, openmm
from nearsight.openmm import create_force
system = openmm.System()
system.addParticle(1.0)
system.addForce(create_force(sys.argv[1], ["H"], periodic=False, device="cuda"))
try:
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
except openmm.OpenMMException as error:
    print(error)
"""


@pytest.mark.skipif(bool(os.environ.get("NEARSIGHT_TEST_GPU")), reason="this machine has a GPU")
def test_no_gpu_is_one_sentence(bpnn):
    environment = {name: value for name, value in os.environ.items() if name != "NEARSIGHT_CUDA"}
    printed = subprocess.run(
        [sys.executable, "-c", NO_GPU, bpnn], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("nearsight: ")
    assert printed.count("\n") == 1
    assert "use device cpu" in printed


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """The library of a platform that says it is CUDA."""
    source, plugin = Path(__file__).parent / "cuda_platform.cpp", Path(__file__).parents[2] / "openmm_plugin"
    root = Path(openmm.version.openmm_library_path).parent
    if not (root / "include" / "openmm" / "reference" / "ReferencePlatform.h").exists():
        pytest.skip("this OpenMM has no headers")
    library = tmp_path_factory.mktemp("platform") / "libcuda_platform.so"
    subprocess.run(
        [
            *(os.environ.get("CXX", "c++"), "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
            *(f"-I{plugin}", "-isystem", root / "include", source, "-o", library),
            *(root / "lib" / "libOpenMM.so", f"-Wl,-rpath,{root / 'lib'}"),
        ],
        check=True,
    )
    return library


ON_PLATFORM = """
import json, sys, openmm
from test_force import energy_forces, make_context, make_system
from nearsight.openmm import create_force, load_plugin
load_plugin()
openmm.Platform.loadPluginLibrary(sys.argv[1])
positions, symbols, cell, forces = json.load(sys.stdin)
system = make_system(symbols, cell)
found = []
try:
    for group, force in enumerate(forces):
        system.addForce(create_force(**force, periodic=True, force_group=group))
    contexts = [make_context(system, positions, "CUDA") for _ in range(2)]
    for groups in (*({k} for k in range(len(forces))), set(range(len(forces))), {31}):
        for context in contexts:
            energy, forces = energy_forces(context, groups)
            found.append((energy, forces.tolist()))
            states = [context.getState(getEnergy=True, getForces=f, groups=groups) for f in (True, False)]
            assert states[0].getPotentialEnergy() == states[1].getPotentialEnergy()
except openmm.OpenMMException as error:
    found = str(error)
print(json.dumps(found))
"""


def run_on_platform(platform, word, structure, cell, *forces):
    """(energy, forces) of each force, of all and of none, each in two Contexts; or a message."""
    positions, symbols = structure
    folders = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", ON_PLATFORM, platform],
        input=json.dumps((positions.tolist(), list(symbols), cell.tolist(), forces)),
        env={**os.environ, "TEST_PLATFORM": word, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def on_cuda(model, symbols, **options):
    return {"model": str(model), "species": list(symbols), "precision": "double", "device": "cuda"} | options


emulated_only = pytest.mark.skipif(
    bool(os.environ.get("NEARSIGHT_TEST_GPU")), reason="the platform of these tests has the host's memory"
)


@emulated_only
@pytest.mark.parametrize("word, tolerance", [("mixed", 1e-7), ("double", 1e-9)])
def test_arrays_of_the_platform(bpnn, platform, word, tolerance):
    """All particles, and some of them in another order. Forces of OpenMM have a step of 2^-32 kJ/(mol nm)."""
    structure = random_structure(1, 40, TRICLINIC)
    chosen = [17, 3, 29, 8, 11, 0, 22]
    some = [structure[1][k] for k in chosen]
    found = run_on_platform(
        platform,
        word,
        structure,
        TRICLINIC,
        on_cuda(bpnn, structure[1]),
        on_cuda(bpnn, some, particles=chosen),
    )
    whole = energy_forces(context_of(bpnn, structure, TRICLINIC))
    energy, forces = energy_forces(context_of(bpnn, (structure[0][chosen], some), TRICLINIC))
    part = (energy, np.zeros_like(whole[1]))
    part[1][chosen] = forces
    expected = [whole, part, (whole[0] + part[0], whole[1] + part[1]), (0.0, 0.0 * whole[1])]
    for k, one in enumerate(found):
        if k < 6:
            assert_same(one, expected[k // 2], tolerance)
        else:
            assert one[0] == 0.0
            assert not np.any(one[1])


@emulated_only
def test_charges_on_the_platform(platform, tmp_path):
    one = case("triclinic", False, "environment")
    path = save(tmp_path / "model.pt", random_model("environment"))
    structure = (one.positions, ["HO"[z] for z in one.species])
    cell = np.round(one.cell, 12)
    found = run_on_platform(platform, "double", structure, cell, on_cuda(path, structure[1], charge=0.0))
    expected = energy_forces(context_of(path, structure, cell, charge=0.0))
    assert_same(found[0], expected, 1e-9)


@emulated_only
@pytest.mark.parametrize(
    "word, options, sentence",
    [
        (
            "without kernel",
            {},
            "device cuda on the CUDA platform needs libnearsight_openmm_cuda.so, which is not loaded; "
            "install nearsight where the CUDA toolkit is, or use device cpu",
        ),
        (
            "double",
            {"device": "cuda:3"},
            "device cuda:3 was asked for, but the Context is on GPU 0; say cuda for that of the Context",
        ),
        (
            "double",
            {"efield": [0.0, 0.0, 1.0]},
            "an electric field in a periodic box needs positions that no platform has wrapped; "
            "use device cpu on the CUDA platform",
        ),
    ],
    ids=["no kernel", "another GPU", "field"],
)
def test_what_the_platform_refuses(bpnn, platform, word, options, sentence):
    structure = random_structure(1, 4, CUBIC)
    found = run_on_platform(platform, word, structure, CUBIC, on_cuda(bpnn, structure[1], **options))
    assert found == f"nearsight: {sentence}"


@emulated_only
def test_device_cpu_on_the_platform(bpnn, platform):
    structure = random_structure(1, 4, CUBIC)
    force = on_cuda(bpnn, structure[1], device="cpu")
    found = run_on_platform(platform, "without kernel", structure, CUBIC, force)
    assert_same(found[0], energy_forces(context_of(bpnn, structure, CUBIC)))


@pytest.mark.skipif(not os.environ.get("NEARSIGHT_TEST_GPU"), reason="needs a GPU and OpenMM's CUDA platform")
@pytest.mark.parametrize("word, tolerance", [("double", 1e-9), ("mixed", 1e-5), ("single", 1e-4)])
def test_openmm_cuda_platform(bpnn, word, tolerance):
    """Two Contexts, before and after steps in which OpenMM reorders atoms."""
    if "CUDA" not in {
        openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())
    }:
        pytest.skip("this OpenMM has no CUDA platform")
    structure = random_structure(1, 40, TRICLINIC)
    system = make_system(structure[1], TRICLINIC)
    system.addForce(openmm.NonbondedForce())
    for _ in structure[1]:
        system.getForce(0).addParticle(0.0, 1.0, 0.0)
    system.getForce(0).setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    system.getForce(0).setCutoffDistance(0.3)
    system.addForce(
        create_force(bpnn, structure[1], periodic=True, precision="double", device="cuda", force_group=1)
    )
    cuda = openmm.Platform.getPlatformByName("CUDA")
    contexts = [
        openmm.Context(system, openmm.VerletIntegrator(1e-5), cuda, {"Precision": word}) for _ in range(2)
    ]
    for k, context in enumerate(contexts):
        context.setPositions(structure[0] / 10 + 0.01 * k)
        for steps in (0, 600):
            context.getIntegrator().step(steps)
            positions = context.getState(getPositions=True).getPositions(asNumpy=True)._value * 10
            expected = energy_forces(context_of(bpnn, (positions, structure[1]), TRICLINIC))
            assert_same(energy_forces(context, {1}), expected, tolerance)
