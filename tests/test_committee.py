"""Merging of model files, and what a committee says in Python and ASE."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import Trajectory, read
from committees_for_tests import ENERGIES, graph_of, random_model, save
from models_for_tests import random_structure, save_embedded

import nearsight
from nearsight import uncertainty
from nearsight.cli import main
from nearsight.errors import EvaluationError, ModelFileError
from nearsight.export import load, read_metadata
from nearsight.export.committee import merge_models
from nearsight.export.model_file import read_ranges
from nearsight.models import BPNN, ACSFConfig, BPNNConfig, MACEConfig, PaiNNConfig
from nearsight.models.networks import NetworkShape

CELL = np.array([[6.0, 0.0, 0.0], [2.0, 5.5, 0.0], [-1.0, 2.5, 7.0]])


def structure(seed, count=16):
    positions, symbols = random_structure(seed, count, CELL)
    return positions, ["H" if symbol == "Si" else symbol for symbol in symbols]


def graph(seed):
    positions, symbols = structure(seed)
    return graph_of(positions, [int(symbol == "O") for symbol in symbols], CELL)


POSITIONS, SYMBOLS = structure(1)


@pytest.fixture(scope="module")
def singles(tmp_path_factory):
    """Three models that differ in weights, statistics, output scales and reference energies."""
    folder = tmp_path_factory.mktemp("singles")
    return [
        save(
            folder / f"{seed}.pt",
            random_model(seed, [graph(seed + 10)]),
            reference_energies={"H": -13.0 + 0.1 * seed, "O": ENERGIES["O"]},
        )
        for seed in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def committee(singles, tmp_path_factory):
    path = tmp_path_factory.mktemp("committee") / "committee.pt"
    agreement = merge_models(singles, path)
    assert agreement.members == 3
    assert agreement.energy < 1e-10 and agreement.forces < 1e-9
    return path


@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_members_are_the_single_files(singles, committee, backend):
    potential = nearsight.Potential(committee, backend=backend)
    assert potential.num_members == 3
    found = potential.compute(POSITIONS, SYMBOLS, CELL, True, members=True)
    parts = [nearsight.Potential(path).compute(POSITIONS, SYMBOLS, CELL, True) for path in singles]
    np.testing.assert_allclose(found.member_energies, [part.energy for part in parts], rtol=1e-13)
    forces = np.array([part.forces for part in parts])
    np.testing.assert_allclose(found.member_forces, forces, rtol=0, atol=1e-11 * np.abs(forces).max())
    virials = np.array([part.virials.sum(0) for part in parts])
    np.testing.assert_allclose(found.member_virials, virials, rtol=0, atol=1e-11 * np.abs(virials).max())
    assert found.energy == pytest.approx(np.mean([part.energy for part in parts]), rel=1e-13)
    np.testing.assert_allclose(found.forces, forces.mean(0), rtol=0, atol=1e-11 * np.abs(forces).max())
    assert found.energy_std == pytest.approx(np.std([part.energy for part in parts]), rel=1e-9)


def test_ranges_are_those_of_all_training_sets(singles, committee):
    parts, (whole, labels) = [read_ranges(path)[0] for path in singles], read_ranges(committee)
    assert labels == read_ranges(singles[0])[1]
    for symbol in ("H", "O"):
        for end, extreme in (("min", np.min), ("max", np.max)):
            values = [part[f"{symbol}.{end}"] for part in parts]
            np.testing.assert_array_equal(whole[f"{symbol}.{end}"], extreme(values, axis=0))


def test_a_range_that_one_file_lacks_is_not_known(singles, tmp_path):
    other = save(tmp_path / "other.pt", random_model(9, []))
    merge_models([singles[0], other], tmp_path / "committee.pt")
    assert read_ranges(tmp_path / "committee.pt")[0] == {}


def test_committees_can_be_merged(singles, committee, tmp_path):
    other = save(tmp_path / "other.pt", random_model(9, [graph(5)]))
    assert merge_models([committee, other], tmp_path / "four.pt").members == 4
    found = nearsight.Potential(tmp_path / "four.pt").compute(POSITIONS, SYMBOLS, CELL, True)
    expected = [
        nearsight.Potential(p).compute(POSITIONS, SYMBOLS, CELL, True).energy for p in [*singles, other]
    ]
    np.testing.assert_allclose(found.member_energies, expected, rtol=1e-13)
    assert found.energy == pytest.approx(np.mean(expected), rel=1e-13)


def test_metadata(singles, committee):
    metadata = read_metadata(committee)
    assert metadata["couple"] == {"kind": "sum", "members": 3}
    assert metadata["reference_energies"] == read_metadata(singles[0])["reference_energies"]
    member = metadata["provenance"]["member 2"]
    assert member["file"] == "2.pt" and len(member["sha256"]) == 64 and member["date"] == "today"
    assert load(committee).module.networks is not None


def test_files_that_do_not_fit_together(singles, committee, tmp_path):
    config = {
        "states": ({"states": 2}, "with couple 'eigenstate'"),
        "cutoff": ({"cutoff": 4.0}, "different cutoff"),
    }
    config["networks"] = ({"hidden": [9, 7]}, "different networks")
    config["descriptor"] = ({"descriptor": ACSFConfig(size="medium")}, "different descriptors")
    for name, (change, message) in config.items():
        other = save(tmp_path / f"{name}.pt", random_model(4, [], **change))
        with pytest.raises(ModelFileError, match=message):
            merge_models([singles[0], other], tmp_path / "out.pt")
    species = BPNNConfig(cutoff=4.5, hidden=[9, 6]).build(["H", "Si"])
    save(tmp_path / "species.pt", species, reference_energies={"H": 0.0, "Si": 0.0})
    with pytest.raises(ModelFileError, match="have different species: members of a committee differ in noth"):
        merge_models([singles[0], tmp_path / "species.pt"], tmp_path / "out.pt")
    with pytest.raises(ModelFileError, match="hold the same weights: train members with different seeds"):
        merge_models([singles[0], singles[1], singles[0]], tmp_path / "out.pt")
    with pytest.raises(ModelFileError, match="needs at least two model files, found 1"):
        merge_models(singles[:1], tmp_path / "out.pt")
    with pytest.raises(
        ModelFileError, match="models of architecture 'test-embedded' cannot be merged, only those of bpnn"
    ):
        merge_models([singles[0], save_embedded(tmp_path / "embedded.pt")], tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("config", [MACEConfig, PaiNNConfig])
def test_models_of_messages_cannot_be_merged(config, tmp_path):
    path = save(tmp_path / "one.pt", config(cutoff=4.5, channels=2, num_interactions=2).build(["H", "O"]))
    message = (
        rf"models of architecture '{config().architecture}' cannot be merged, only those of bpnn and linear; "
        "write a module whose readout energy has a column for each member"
    )
    with pytest.raises(ModelFileError, match=message):
        merge_models([path, path], tmp_path / "out.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["one.pt"]


def test_last_layers_that_are_not_linear(tmp_path):
    """Nothing can be folded into them; equal scales and energies need no folding."""

    def member(seed, scale, energy):
        torch.manual_seed(seed)
        plain = random_model(seed, [graph(seed)])
        shapes = dict.fromkeys(["H", "O"], NetworkShape((5,), ("tanh", "tanh")))
        model = BPNN(["H", "O"], plain.cutoff, plain.descriptor, shapes)
        model.output_scale.fill_(scale)
        return save(
            tmp_path / f"{seed}-{scale}-{energy}.pt", model, reference_energies={"H": energy, "O": 0.0}
        )

    merge_models([member(1, 0.7, 0.0), member(2, 0.7, 0.0)], tmp_path / "out.pt")
    first = tmp_path / "1-0.7-0.0.pt"
    for other in (member(2, 0.8, 0.0), member(2, 0.7, 1.0)):
        with pytest.raises(ModelFileError, match="cannot be folded into a last layer with activation tanh"):
            merge_models([first, other], tmp_path / "out.pt")


def test_a_member_that_differs_is_not_written(singles, tmp_path, monkeypatch):
    from nearsight.export import committee as module

    fold = module._fold

    def wrong(*arguments):
        layers = fold(*arguments)
        layers["2.bias"] = layers["2.bias"] + 1e-6
        return layers

    monkeypatch.setattr(module, "_fold", wrong)
    with pytest.raises(
        ModelFileError, match="not written, since the committee's native backend does not give"
    ):
        merge_models(singles, tmp_path / "out.pt")
    assert not list(tmp_path.iterdir())


def test_command_line(singles, tmp_path, monkeypatch, capsys):
    output = tmp_path / "committee.pt"
    monkeypatch.setattr(sys, "argv", ["nearsight", "committee", *map(str, singles), "-o", str(output)])
    with pytest.raises(SystemExit) as caught:
        main()
        sys.exit(0)
    assert caught.value.code == 0
    assert f"{output} written, 3 members. On the check structures" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["nearsight", "info", str(output)])
    with pytest.raises(SystemExit):
        main()
        sys.exit(0)
    assert "members" in capsys.readouterr().out


# ---- formulas ----


def test_deviation_by_its_definition():
    generator = np.random.default_rng(1)
    forces, virials = generator.normal(size=(4, 7, 3)), generator.normal(size=(4, 6))
    of_atoms = []
    for i in range(7):
        mean = sum(forces[m, i] for m in range(4)) / 4
        of_atoms.append(math.sqrt(sum(float(((forces[m, i] - mean) ** 2).sum()) for m in range(4)) / 4))
    np.testing.assert_allclose(uncertainty.forces_std(forces), of_atoms, rtol=1e-13)
    nine = []
    for a, b in itertools.product(range(3), repeat=2):
        k = {(0, 0): 0, (1, 1): 1, (2, 2): 2, (0, 1): 3, (0, 2): 4, (1, 2): 5}[min(a, b), max(a, b)]
        values = [virials[m, k] / 7 for m in range(4)]
        mean = sum(values) / 4
        nine.append(math.sqrt(sum((value - mean) ** 2 for value in values) / 4))
    found = uncertainty.Deviation.of(forces, virials)
    assert found.max_virial == pytest.approx(max(nine)) and found.min_virial == pytest.approx(min(nine))
    assert found.avg_virial == pytest.approx(math.sqrt(sum(value**2 for value in nine) / 9))
    expected = (max(of_atoms), min(of_atoms), sum(of_atoms) / 7)
    assert (found.max_forces, found.min_forces, found.avg_forces) == pytest.approx(expected)


def test_file_is_read_by_column_numbers(tmp_path):
    """Tools read the fifth column as the largest deviation of forces, and the first as the step."""
    deviation = uncertainty.Deviation(1.0, 2.0, 3.0, 4.0, 5.0, 1.23456789e-10)
    path = tmp_path / "model_devi.out"
    path.write_text(
        "\n".join([uncertainty.FILE_HEADER, deviation.file_row(0), deviation.file_row(10)]) + "\n"
    )
    assert uncertainty.FILE_HEADER.split() == [
        *("#", "step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f")
    ]
    np.testing.assert_allclose(
        np.loadtxt(path), [[0, 1, 2, 3, 4, 5, 1.234568e-10], [10, 1, 2, 3, 4, 5, 1.234568e-10]]
    )


# ---- ASE ----


def atoms_with(path, pbc=True):
    return Atoms(SYMBOLS, POSITIONS, cell=CELL, pbc=pbc, calculator=nearsight.Calculator(path))


def test_ase(committee, tmp_path):
    atoms = atoms_with(committee)
    expected = nearsight.Potential(committee).compute(
        POSITIONS, SYMBOLS, CELL, True, members=True, extrapolations=True
    )
    atoms.get_potential_energy()
    results = atoms.calc.results
    assert results["energy_std"] == pytest.approx(expected.energy_std, rel=1e-9)
    np.testing.assert_allclose(results["member_energies"], expected.member_energies, rtol=1e-13)
    assert "forces_std" not in results
    for name in ("forces_std", "member_forces"):
        found, values = atoms.calc.get_property(name, atoms), getattr(expected, name)
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-12 * np.abs(values).max())
    found = atoms.calc.get_property("extrapolations", atoms)
    assert [e.label for e in found] == [e.label for e in expected.extrapolations] != []
    assert "forces_std" in atoms.calc.results and "stress" in atoms.calc.results
    # ASE's files do not mind.
    atoms.write(tmp_path / "atoms.xyz")
    with Trajectory(tmp_path / "atoms.traj", "w", atoms) as trajectory:
        trajectory.write()
    for name in ("atoms.xyz", "atoms.traj"):
        assert read(tmp_path / name).get_potential_energy() == pytest.approx(expected.energy)
    atoms.positions[0] += 0.1
    atoms.get_potential_energy()
    assert "forces_std" not in atoms.calc.results and "extrapolations" not in atoms.calc.results
    assert atoms.calc.results["energy_std"] != expected.energy_std


def test_ase_without_a_committee(singles):
    atoms = atoms_with(singles[0], pbc=False)
    atoms.get_potential_energy()
    assert "energy_std" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError, match="energy_std not present"):
        atoms.calc.get_property("energy_std", atoms)
    with pytest.raises(EvaluationError, match="is no committee"):
        atoms.calc.get_property("forces_std", atoms)


def test_extrapolations_tell_value_and_distance(singles):
    found = nearsight.Potential(singles[0]).compute(POSITIONS, SYMBOLS, CELL, True, extrapolations=True)
    assert {e.species for e in found.extrapolations} <= {"H", "O"}
    for e in found.extrapolations:
        assert e.count > 0 and (e.lowest < e.minimum or e.highest > e.maximum)
        assert e.beyond == max(e.minimum - e.value, e.value - e.maximum) / (e.maximum - e.minimum) > 0
