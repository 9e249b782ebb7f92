"""Everything that a user of the OpenMM force can get wrong, and the sentence that tells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_force import make_context, make_system, water_topology

openmm = pytest.importorskip("openmm", reason="openmm is not installed")
app = pytest.importorskip("openmm.app", reason="openmm is not installed")

import nearsight  # noqa: E402
from nearsight.errors import ConfigError, ModelFileError, NearsightError  # noqa: E402
from nearsight.interfaces import openmm as door  # noqa: E402
from nearsight.openmm import create_force, load_plugin  # noqa: E402

LIBRARY = Path(nearsight.__file__).parent / "lib" / "libnearsight_openmm.so"


def context_error(force, symbols=("H", "O")):
    system = make_system(symbols)
    system.addForce(force)
    with pytest.raises(openmm.OpenMMException) as caught:
        make_context(system, [[2.0 * k, 0.0, 0.0] for k in range(len(symbols))])
    return str(caught.value)


def changed(force, old, new):
    return openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(force).replace(old, new))


def test_missing_file(model, tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.pt: there is no such model file"):
        create_force(tmp_path / "absent.pt", ["H", "O"], periodic=False)
    message = context_error(
        changed(create_force(model, ["H", "O"], periodic=False), "embedded.pt", "absent.pt")
    )
    assert message.startswith("nearsight: ")
    assert "absent.pt" in message


def test_unknown_species(model):
    with pytest.raises(ConfigError) as caught:
        create_force(model, ["H", "Xe"], periodic=False)
    assert str(caught.value) == f"{model}: the model knows the species H, O, Si, found Xe"
    assert context_error(changed(create_force(model, ["H", "O"], periodic=False), '"O"', '"Xe"')) == (
        'nearsight: particle 1 is "Xe", which the model does not know; it was trained for H, O, Si'
    )


def test_wrong_number_of_particles(model):
    assert context_error(create_force(model, ["H"], periodic=False)) == (
        "nearsight: the System has 2 particles, but 1 species were given; "
        "give one per particle, or list the particles that the model sees"
    )


@pytest.mark.parametrize("index", [2, -1])
def test_particle_out_of_range(model, index):
    assert context_error(create_force(model, ["H"], particles=[index], periodic=False)) == (
        f"nearsight: particle index {index} is out of range; the System has 2 particles, counted from 0"
    )


def test_atoms_on_top_of_each_other(model):
    system = make_system(["H", "O"])
    system.addForce(create_force(model, ["H", "O"], periodic=False))
    with pytest.raises(openmm.OpenMMException, match=r"^nearsight: "):
        make_context(system, [[0.0, 0.0, 0.0]] * 2).getState(getEnergy=True)


def test_barostat_needs_a_periodic_force(model):
    system = make_system(["H", "O"])
    system.addForce(create_force(model, ["H", "O"], periodic=False))
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    with pytest.raises(openmm.OpenMMException, match="non-periodic"):
        make_context(system, [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"precision": "single"}, 'precision "single" is unknown; expected one of mixed double'),
        ({"backend": "onnx"}, 'backend "onnx" is unknown; expected one of auto native torchscript'),
        ({"threads": 0}, "the number of threads must be at least 1, not 0"),
        ({"skin": -0.1}, "the skin must be a length of at least 0 nm, not -0.100000"),
        ({"particles": [1, 1]}, "particle 1 is listed twice; list each particle once"),
    ],
)
def test_options_that_the_force_refuses(model, arguments, sentence):
    with pytest.raises(openmm.OpenMMException) as caught:
        create_force(model, ["H", "O"], periodic=False, **arguments)
    assert str(caught.value) == f"nearsight: {sentence}"


@pytest.mark.parametrize(
    "species, arguments, sentence",
    [
        (["H"], {}, "periodic can be left out only with a Topology; say periodic=True or periodic=False"),
        (["H"], {"particles": []}, "particles is empty; name at least one, or leave it out to use all"),
        (
            ["H"],
            {"particles": [0, 1], "periodic": False},
            "2 particles but 1 species; give one species per particle",
        ),
        (
            water_topology(),
            {"particles": [0, 6]},
            "particle 6 is out of range; the Topology has 6 atoms, counted from 0",
        ),
    ],
)
def test_arguments_that_do_not_belong_together(model, species, arguments, sentence):
    with pytest.raises(ConfigError) as caught:
        create_force(model, species, **arguments)
    assert str(caught.value) == sentence


def test_topology_atom_without_element(model):
    topology = water_topology()
    topology.addAtom("EP", None, list(topology.residues())[-1])
    with pytest.raises(ConfigError, match=r"^atom 6 \(EP\) of the Topology has no element"):
        create_force(model, topology)


def test_particle_and_species_counts_in_xml(model):
    xml = openmm.XmlSerializer.serialize(create_force(model, ["H", "O"], particles=[0, 1], periodic=False))
    with pytest.raises(openmm.OpenMMException) as caught:
        openmm.XmlSerializer.deserialize(xml.replace(' index="1"', ""))
    assert str(caught.value) == (
        "nearsight: 1 particles but 2 species were given; give one species per particle"
    )


def test_newer_xml(model):
    xml = openmm.XmlSerializer.serialize(create_force(model, ["H"], periodic=False))
    with pytest.raises(openmm.OpenMMException) as caught:
        openmm.XmlSerializer.deserialize(xml.replace('version="1"', 'version="3"'))
    assert str(caught.value) == (
        "nearsight: this System was written with version 3 of the NearsightForce XML, "
        "and this plugin reads versions 1 to 2; update nearsight"
    )


def test_plugin_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(door.nearsight, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(NearsightError, match="installed without its OpenMM plugin"):
        load_plugin.__wrapped__()


LOAD = """
import sys, openmm
try:
    openmm.Platform.loadPluginLibrary(sys.argv[1])
except openmm.OpenMMException as error:
    print(error)
"""


def error_of_loading(library, **environment):
    """The message of loading a plugin library in a new process."""
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(library)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_plugin_for_another_openmm(tmp_path):
    """A copy of the library whose build version, a string in it, is changed."""
    version = openmm.Platform.getOpenMMVersion()
    major, minor = version.split(".")[:2]
    other = f"{major}.{'9' if minor != '9' else '8'}"
    content = LIBRARY.read_bytes().replace(
        version.encode() + b"\0", f"{other}{version[len(other) :]}".encode() + b"\0"
    )
    changed = tmp_path / LIBRARY.name
    changed.write_bytes(content)
    assert error_of_loading(changed, LD_LIBRARY_PATH=str(LIBRARY.parent)) == (
        f"nearsight: the plugin was built for OpenMM {other}, but OpenMM {version} is running; "
        "install nearsight again next to this OpenMM"
    )


def test_core_with_another_api(tmp_path):
    """A preloaded library that answers for the core."""
    source = tmp_path / "other.c"
    source.write_text("int ns_api_version(void) { return 999; }\n")
    other = tmp_path / "other.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", other, source], check=True)
    assert error_of_loading(LIBRARY, LD_PRELOAD=str(other)) == (
        "nearsight: the plugin needs version 1 of libnearsight.so, but version 999 is loaded; "
        "install nearsight again"
    )


def test_plugin_that_cannot_be_loaded(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / LIBRARY.name).write_text("no library")
    monkeypatch.setattr(door.nearsight, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(NearsightError, match="Error loading library"):
        load_plugin.__wrapped__()
