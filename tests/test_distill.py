"""`nearsight distill`: labels of a teacher, and a student that learns from them."""

import numpy as np
import pytest
from core.charge_models import random_model
from core.core_models import save_bpnn
from core.test_charge_models import save

from nearsight import keys
from nearsight.cli.distill import command, label
from nearsight.data import Frame, read_frames, write_extxyz
from nearsight.data.perturbations import perturbed
from nearsight.errors import ConfigError
from nearsight.interfaces.potential import Potential
from nearsight.training import load_config, train


def frames(count=4, seed=0):
    """Crystals and molecules of sparse atoms, by turns."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[range(2)] * 3), -1).reshape(-1, 3) * 2.0
    found = []
    for number in range(count):
        periodic = number % 2 == 0
        cell = 4.4 * np.eye(3) if periodic else np.zeros((3, 3))
        positions = sites + rng.uniform(-0.2, 0.2, sites.shape)
        labels = {keys.ENERGY: 1.0, keys.FORCES: np.ones(sites.shape)}
        found.append(Frame(positions, ["O", "H"] * 4, cell, [periodic] * 3, labels, {"config_type": "a"}))
    return found


@pytest.fixture
def teacher(tmp_path):
    return save_bpnn(tmp_path / "teacher.pt")


@pytest.fixture
def structures(tmp_path):
    write_extxyz(tmp_path / "structures.xyz", frames())
    return tmp_path / "structures.xyz"


def distill(teacher, structures, output, **options):
    command(teacher, [structures], output, **{"max_force": 1e6, **options})
    return read_frames([output], max_force=1e7)


def test_labels_are_those_of_the_teacher(teacher, structures, tmp_path):
    potential = Potential(teacher)
    found = distill(teacher, structures, tmp_path / "labels.xyz")
    for given, frame in zip(frames(), found, strict=True):
        expected = potential.compute_frame(given)
        assert frame.labels[keys.ENERGY] == pytest.approx(expected.energy, abs=1e-6)  # of rounded positions
        np.testing.assert_allclose(frame.labels[keys.FORCES], expected.forces, atol=1e-7)
        np.testing.assert_allclose(frame.positions, given.positions, atol=1e-7)
        assert (keys.VIRIAL in frame.labels) == given.pbc.all()
        if given.pbc.all():
            np.testing.assert_allclose(frame.labels[keys.VIRIAL], expected.virial, atol=1e-7)
        assert frame.info["config_type"] == "a"


def test_copies_are_the_same_for_a_seed_and_near_their_structure(teacher, structures, tmp_path):
    options = {"copies": 2, "rattle": 0.05, "strain": 0.01}
    one, same, other = (
        distill(teacher, structures, tmp_path / f"{name}.xyz", seed=seed, **options)
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert len(one) == 3 * len(frames())
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(one, same))
    assert not np.allclose(one[1].positions, other[1].positions)
    for number, given in enumerate(frames()):
        for near in one[3 * number + 1 : 3 * number + 3]:
            assert 0 < np.abs(near.positions - given.positions).max() < 0.5


def test_a_perturbed_crystal_is_strained_by_at_most_so_much():
    crystal = frames(1)[0]
    rng = np.random.default_rng(0)
    strains = [perturbed(crystal, 0.0, 0.02, rng).cell / 4.4 - np.eye(3) for _ in range(200)]
    assert 0.0195 < np.abs(strains).max() <= 0.02 + 1e-12
    np.testing.assert_allclose(strains, np.swapaxes(strains, 1, 2), atol=1e-15)
    near = perturbed(crystal, 0.0, 0.02, rng)
    fractions = [frame.positions @ np.linalg.inv(frame.cell) for frame in (crystal, near)]
    np.testing.assert_allclose(*fractions, atol=1e-12)
    assert near.labels == {}


def test_rattles_have_the_deviation_that_is_asked_for_and_molecules_no_strain():
    molecule = frames(2)[1]
    rng = np.random.default_rng(0)
    moves = [perturbed(molecule, 0.1, 0.3, rng).positions - molecule.positions for _ in range(500)]
    assert np.std(moves) == pytest.approx(0.1, rel=0.03)
    assert abs(np.mean(moves)) < 0.005


def test_structures_with_large_forces_are_left_out(teacher, structures, tmp_path, capsys):
    forces = [np.abs(frame.labels[keys.FORCES]).max() for frame in label(Potential(teacher), frames())]
    bound = float(np.median(forces))
    found = distill(teacher, structures, tmp_path / "labels.xyz", max_force=bound)
    assert len(found) == 2
    assert f"2 with a force above {bound:g} eV/Å were left out (--max-force)." in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ConfigError, match=r"all 4 structures have forces above --max-force 1e-09 eV/Å"):
        distill(teacher, structures, tmp_path / "none.xyz", max_force=1e-9)
    assert not (tmp_path / "none.xyz").exists()


def test_nothing_is_overwritten(teacher, structures):
    before = structures.read_bytes()
    with pytest.raises(ConfigError, match=r"structures.xyz' is there already; choose another --output"):
        distill(teacher, structures, structures)
    assert structures.read_bytes() == before


def test_charges_of_a_teacher_are_labels(structures, tmp_path):
    teacher = save(tmp_path / "charged.pt", random_model("environment"))
    potential = Potential(teacher)
    for given, frame in zip(frames(), label(potential, frames())):
        expected = potential.compute_frame(given)
        np.testing.assert_array_equal(frame.labels[keys.CHARGES], expected.charges[:, 0])


def test_a_student_learns_from_the_labels(teacher, structures, tmp_path):
    distill(teacher, structures, tmp_path / "labels.xyz", copies=4, rattle=0.02)
    (tmp_path / "student.yaml").write_text(
        "data: {training: labels.xyz, validation: 0.2, max_force: 1.0e+6}\n"
        "model: {hidden: [4], cutoff: 3.0}\ntraining: {epochs: 1}\n"
    )
    train(load_config(tmp_path / "student.yaml"), tmp_path / "run", dry_run=True)


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "frames.xyz"
    write_extxyz(path, frames(1))
    before = path.read_bytes()

    def fail(path, *_, **__):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("ase.io.write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_extxyz(path, frames(2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["frames.xyz"]
