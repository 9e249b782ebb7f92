"""Charges that equilibrate in LAMMPS: any number of ranks, warm starts that travel with atoms, restarts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from core.equilibrated_files import equilibrated
from lammps_harness import PRESSURE_FACTOR, run_script
from lammps_systems import cluster_in_a_corner, grid
from test_lammps_charges import BALANCED, CLUSTER, CRYSTAL, SLAB, pair, run, script

from nearsight import Potential

FIELDS = "charge 1 potential 1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Solved to round-off, of one and of several layers; with the default residual."""
    folder = tmp_path_factory.mktemp("equilibrated")
    options = {
        "bpnn": {"residual": 1e-13},
        "mace": {"residual": 1e-13, "architecture": "mace with messages"},
        "warm": {},
        "restart": {"residual": 1e-9, "rtol": 1e-8},
    }
    return {name: equilibrated(folder, name, **more)[1] for name, more in options.items()}


def compare(path, folder, atoms, ranks, more=(), words="precision double charge -1.5"):
    """LAMMPS on so many ranks and the core in one process."""
    thermo, rows = run(folder, script(folder, atoms, pair(path, words), "metal", FIELDS, more), ranks)
    expected = Potential(path).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc, -1.5)
    assert thermo[0] == pytest.approx(expected.energy, rel=1e-11)
    assert thermo[1] == pytest.approx(expected.electrostatic_energy, rel=1e-9)
    assert thermo[4] == pytest.approx(thermo[0], rel=1e-12)
    virial = np.array(thermo[5:]) * thermo[3] / PRESSURE_FACTOR["metal"]
    found = {"forces": rows[:, :3], "charges": rows[:, 3:4], "potentials": rows[:, 4:5]}
    wanted = {name: getattr(expected, name) for name in found}
    found["virial"], wanted["virial"] = virial, expected.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    for name, values in found.items():
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=1e-9 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "pbc", "ranks", "more"),
    [
        *(("bpnn", pbc, ranks, ()) for pbc in (CRYSTAL, CLUSTER, SLAB) for ranks in (1, 2, 3, 4)),
        ("bpnn", CRYSTAL, 6, BALANCED),
        ("mace", CRYSTAL, 3, ()),
        ("mace", SLAB, 4, BALANCED),
    ],
)
def test_everything_equals_the_core(files, tmp_path, kind, pbc, ranks, more):
    compare(files[kind], tmp_path, grid((3, 2, 3), pbc=pbc, seed=4), ranks, more)


@pytest.mark.parametrize("kind", ["bpnn", "mace"])
def test_ranks_without_atoms(files, tmp_path, kind):
    compare(files[kind], tmp_path, cluster_in_a_corner(), 4)


STEPS = re.compile(r"([\d.]+) steps of charge equilibration per evaluation")
DYNAMICS = [
    "velocity all create 300 1",
    "timestep 0.0003",
    "fix nve all nve",
    "thermo_style custom step etotal ke pe ecoul",
    "thermo_modify format float %.15g norm no",
    "thermo 10",
]


def dynamics(folder: Path, lines: list[str], ranks: int) -> tuple[np.ndarray, list[float]]:
    """Rows of thermo, and mean steps of equilibration of every run."""
    done = run_script(folder, lines, ranks)
    assert done.code == 0, done.output[-3000:]
    rows = [line.split() for line in done.output.splitlines()]
    values = [[float(x) for x in row] for row in rows if len(row) == 5 and row[0].isdigit()]
    return np.array(values), [float(x) for x in STEPS.findall(done.output)]


def prepared(folder: Path, atoms: Atoms, path: Path, more) -> list[str]:
    """The script, with other commands in place of its run."""
    lines = script(folder, atoms, pair(path), more=[*DYNAMICS, *more])
    return lines[: lines.index("run 0")]


def test_guesses_travel_with_the_atoms(files, tmp_path):
    """Atoms that drift through the ranks: the energy is conserved, and two ranks take no more steps than one,
    far less than without guesses."""
    atoms = grid((4, 3, 3), spacing=2.6, seed=5)
    drift = ["velocity all set 60 0 0 sum yes", "neighbor 0.3 bin", "neigh_modify every 1 delay 0"]
    lines = prepared(tmp_path, atoms, files["warm"], [*drift, "run 20", "run 100"])
    steps = {}
    for ranks in (1, 2):
        values, (_, steps[ranks]) = dynamics(tmp_path, lines, ranks)
        assert np.ptp(values[:, 1]) < 2e-3 * np.ptp(values[:, 2])
    assert steps[2] == pytest.approx(steps[1], rel=0.03)
    assert steps[1] < 0.75 * cold_steps(files["warm"], atoms)


def cold_steps(path: Path, atoms: Atoms) -> int:
    found = Potential(path).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc)
    return found.equilibration_steps


@pytest.mark.parametrize("ranks", [1, 3])
def test_restarts(files, tmp_path, ranks):
    """The trajectory goes on, from the charges that the atoms had."""
    atoms = grid((4, 3, 3), spacing=2.6, seed=5)
    whole, _ = dynamics(tmp_path, prepared(tmp_path, atoms, files["restart"], ["run 40"]), ranks)
    half = [*prepared(tmp_path, atoms, files["restart"], ["run 20"]), "write_restart half.restart"]
    _, first = dynamics(tmp_path, half, ranks)
    again = ["read_restart half.restart", "fix nve all nve", *DYNAMICS[3:], "run 20"]
    rest, steps = dynamics(tmp_path, again, ranks)
    np.testing.assert_allclose(rest[-1], whole[-1], rtol=0, atol=1e-6)
    assert steps[0] < first[0]
    begun, (at_once,) = dynamics(tmp_path, [*again[:-1], "run 0"], ranks)
    assert begun[0, 3] == pytest.approx(whole[2, 3], abs=1e-7)
    assert at_once < cold_steps(files["restart"], atoms)


def test_pair_styles_leave_nothing_behind(files, models, tmp_path):
    """Two of them have memories of their own; a model that needs none takes their place."""
    atoms = grid((3, 3, 3), spacing=2.6, seed=4)
    lines = [line for line in prepared(tmp_path, atoms, files["warm"], ["run 5"]) if "parts" not in line]
    both = [f"pair_coeff * * mlp {number} {files['warm']} O H" for number in (1, 2)]
    lines += ["pair_style hybrid/overlay mlp mlp", *both, "run 5", "info fixes", "print REPLACED"]
    done = run_script(tmp_path, [*lines, *pair(models["bpnn"]), "run 5", "info fixes"], 1)
    assert done.code == 0, done.output[-2000:]
    before, after = done.output.split("REPLACED", 1)
    assert "nearsight_memory," in before and "nearsight_memory_2," in before
    assert "nearsight_memory" not in after.split("REPLACED", 1)[-1]
