"""The examples of README.md, run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from core.core_models import save_bpnn

from nearsight.data import read_frames, write_extxyz
from nearsight.demo.engines import run_lammps, write_lammps_data
from nearsight.demo.job import data_folder, starting_structure

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, mark: str) -> str:
    """The fenced block of a language that contains a mark."""
    parts = README.split("```")[1::2]  # every second part lies between fences
    (found,) = [p.split("\n", 1)[1] for p in parts if p.split("\n", 1)[0] == language and mark in p]
    return found


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """A folder with model.pt (random weights), as the snippets expect."""
    folder = tmp_path_factory.mktemp("readme")
    save_bpnn(folder / "model.pt")
    return folder


def test_training_example(tmp_path):
    (tmp_path / "train.yaml").write_text(block("yaml", "architecture: bpnn"))
    write_extxyz(tmp_path / "frames.extxyz", read_frames(data_folder() / "water.extxyz.xz")[2:12])
    commands = [
        line.split("#")[0].split() for line in README.splitlines() if line.startswith("    nearsight ")
    ]
    train, evaluate, info = commands[:3]
    train += ["-o", "training.epochs=2"]
    (tmp_path / "test.extxyz").write_bytes((tmp_path / "frames.extxyz").read_bytes())
    for command in (train, evaluate, info):
        code = "from nearsight.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *command[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.pt").exists()
    assert list((tmp_path / "out").glob("*.png"))


def test_ase_example(water, monkeypatch):
    monkeypatch.chdir(water)
    scope = {"atoms": starting_structure()}
    exec(block("python", "nearsight.Calculator"), scope)
    assert np.isfinite(scope["energy"])
    assert scope["forces"].shape == (192, 3)
    assert scope["stress"].shape == (6,)


def test_openmm_example(water, monkeypatch):
    import openmm
    from openmm import app

    monkeypatch.chdir(water)
    atoms = starting_structure()
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    system = openmm.System()
    for symbol, mass in zip(atoms.get_chemical_symbols(), atoms.get_masses()):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
    box = atoms.cell.array / 10
    topology.setPeriodicBoxVectors(box)
    system.setDefaultPeriodicBoxVectors(*box)
    exec(block("python", "create_force"), {"system": system, "topology": topology})
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(atoms.positions / 10)
    assert np.isfinite(context.getState(getEnergy=True).getPotentialEnergy()._value)


def test_lammps_example(water):
    lines = block("", "pair_style    mlp").splitlines()
    assert lines[0].split() == ["units", "metal"]
    write_lammps_data(water / "water.data", starting_structure(), ["O", "H"])
    script = "\n".join([lines[0], "atom_style atomic", "read_data water.data", *lines[1:], "run 0", ""])
    assert "Loop time" in run_lammps(script, water, ranks=2)


def test_data_read_by_ase_alone():
    """examples/water/README.md promises that plain ASE reads the file."""
    import lzma

    with lzma.open(data_folder() / "water.extxyz.xz", "rt") as handle:
        images = ase.io.read(handle, ":", format="extxyz")
    assert {len(image) for image in images} == {1, 192}
