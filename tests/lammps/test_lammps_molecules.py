"""Molecules that keep charges of their own in LAMMPS: ranks, dynamics, restarts, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from core.charge_models import random_model
from core.equilibrated_files import equilibrated
from core.test_charge_models import save
from lammps_harness import PRESSURE_FACTOR
from lammps_systems import cluster_in_a_corner, grid
from test_lammps_charges import BALANCED, CLUSTER, CRYSTAL, SLAB, fails, pair, run, script
from test_lammps_equilibration import DYNAMICS, cold_steps, dynamics

from nearsight import Potential

FIELDS = "charge 1 potential 1"
NAMES = np.array([1, 2, 5, 9])  # molecule IDs, with gaps


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("molecules")
    return {
        "equilibrated": equilibrated(folder, "fine", residual=1e-13)[1],
        "warm": equilibrated(folder, "warm")[1],
        "environment": save(folder / "environment.pt", random_model("environment")),
    }


def molecules_of(atoms: Atoms) -> np.ndarray:
    """Of every molecule atoms everywhere, so that it is on all ranks."""
    return NAMES[np.random.default_rng(8).integers(0, 4, len(atoms))]


def full_style(
    folder: Path, lines: list[str], ids: np.ndarray, q: np.ndarray, style: str = "full"
) -> list[str]:
    """The script with atoms that have molecule IDs, and charges with atom_style full."""
    head, rows = (folder / "data.0").read_text().split("Atoms # atomic\n\n")
    text = f"{head}Atoms # {style}\n\n"
    for (number, kind, *x), molecule, charge in zip(map(str.split, rows.splitlines()), ids, q):
        more = f" {float(charge)!r}" if style == "full" else ""
        text += f"{number} {molecule} {kind}{more} {' '.join(x)}\n"
    (folder / "data.0").write_text(text)
    return [line.replace("atom_style atomic", f"atom_style {style}") for line in lines]


@pytest.mark.parametrize(
    ("kind", "pbc", "words", "ranks", "more"),
    [
        *(
            ("equilibrated", pbc, "q", ranks, ())
            for pbc in (CRYSTAL, CLUSTER, SLAB)
            for ranks in (1, 2, 3, 4)
        ),
        ("equilibrated", CRYSTAL, "q", 4, BALANCED),
        *(("equilibrated", CRYSTAL, words, ranks, ()) for words in ("0", "-0.25") for ranks in (1, 3)),
        *(("environment", CRYSTAL, "q", ranks, ()) for ranks in (1, 4)),
    ],
)
def test_everything_equals_the_core(files, tmp_path, kind, pbc, words, ranks, more):
    compare(files[kind], tmp_path, grid((3, 2, 3), pbc=pbc, seed=4), words, ranks, more)


def test_ranks_without_atoms(files, tmp_path):
    compare(files["equilibrated"], tmp_path, cluster_in_a_corner(), "q", 4, ())


def compare(path, tmp_path, atoms, words, ranks, more):
    """LAMMPS on so many ranks and the core in one process."""
    ids, q = molecules_of(atoms), np.random.default_rng(9).normal(size=len(atoms)).round(3)
    style = "full" if words == "q" else "molecular"
    styles = pair(path, f"precision double charge molecules {words}")
    lines = full_style(tmp_path, script(tmp_path, atoms, styles, "metal", FIELDS, more), ids, q, style)
    thermo, rows = run(tmp_path, lines, ranks)
    names = np.unique(ids)
    charges = [q[ids == name].sum() for name in names] if words == "q" else float(words)
    given = {"molecules": ids, "molecule_charges": charges}
    expected = Potential(path).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc, **given)
    assert thermo[0] == pytest.approx(expected.energy, rel=1e-11)
    assert thermo[1] == pytest.approx(expected.electrostatic_energy, rel=1e-9)
    virial = np.array(thermo[5:]) * thermo[3] / PRESSURE_FACTOR["metal"]
    found = {"forces": rows[:, :3], "charges": rows[:, 3:4], "potentials": rows[:, 4:5]}
    wanted = {name: getattr(expected, name) for name in found}
    found["virial"], wanted["virial"] = virial, expected.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    for name, values in found.items():
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=1e-9 * scale, err_msg=name)
    sums = [rows[ids == name, 3].sum() for name in names]
    np.testing.assert_allclose(sums, np.broadcast_to(charges, len(names)), rtol=0, atol=1e-12)


def test_dynamics(files, tmp_path):
    """The energy is conserved, guesses travel with the atoms, and molecules keep their charges."""
    atoms = grid((4, 3, 3), spacing=2.6, seed=5)
    drift = ["velocity all set 60 0 0 sum yes", "neighbor 0.3 bin", "neigh_modify every 1 delay 0"]
    sums = ["fix q all pair 1 mlp charge 1", "compute m all chunk/atom molecule"]
    sums += ["compute s all reduce/chunk m sum f_q", "fix out all ave/time 20 1 20 c_s mode vector file sums"]
    lines = script(tmp_path, atoms, pair(files["warm"], "charge molecules -0.25"), more=[*DYNAMICS, *drift])
    lines = full_style(tmp_path, lines[: lines.index("run 0")], molecules_of(atoms), [0] * 36, "molecular")
    lines.remove("compute parts all pair mlp")
    steps = {}
    for ranks in (1, 2):
        values, (_, steps[ranks]) = dynamics(tmp_path, [*lines, *sums, "run 20", "run 100"], ranks)
        assert np.ptp(values[:, 1]) < 2e-3 * np.ptp(values[:, 2])
    assert steps[2] == pytest.approx(steps[1], rel=0.05)
    assert steps[1] < 0.75 * cold_steps(files["warm"], atoms)
    rows = [row.split() for row in (tmp_path / "sums").read_text().splitlines() if not row.startswith("#")]
    found = np.array([float(row[1]) for row in rows if int(row[0]) <= 9 and len(row) == 2 and "." in row[1]])
    assert len(found) >= 4 * 6
    np.testing.assert_allclose(found[found != 0], -0.25, rtol=0, atol=1e-5)  # printed with six digits


def test_restart_files_keep_the_words(files, tmp_path):
    atoms = grid((3, 3, 3), seed=4)
    for word in ("q", "-0.25"):
        lines = script(
            tmp_path, atoms, pair(files["equilibrated"], f"precision double charge molecules {word}")
        )
        lines = full_style(tmp_path, lines, molecules_of(atoms), np.full(27, 0.1))
        first, _ = run(tmp_path, [*lines[:-1], "write_restart model.restart", "print DONE"])
        second, _ = run(tmp_path, ["read_restart model.restart", *lines[7:]])
        assert second[0] == pytest.approx(first[0], rel=1e-13)


@pytest.mark.parametrize(
    ("words", "style", "message"),
    [
        ("molecules", "full", "takes a number, the charge of each molecule in e, or q, the sum of the "
         "charges of its atoms, and found nothing"),
        ("molecules Q", "full", "or q, the sum of the charges of its atoms, and found Q"),
        ("molecules 0", "atomic", "'charge molecules' needs atoms with molecule IDs, and atom_style atomic "
         "has none; use atom_style molecular or full"),
        ("molecules q", "molecular", "'charge molecules q' needs atoms with charges, and atom_style "
         "molecular has none; use atom_style full, or give a number in place of q"),
        ("molecules 0", "full", "atom 5 has molecule ID 0, but with 'charge molecules' every atom that the "
         "model sees needs a molecule, from 1"),
    ],
)  # fmt: skip
def test_what_is_refused(files, tmp_path, words, style, message):
    atoms = grid((3, 3, 3), spacing=2.6, seed=4)
    ids = molecules_of(atoms)
    ids[4] = 0
    lines = script(tmp_path, atoms, pair(files["warm"], f"charge {words}"))
    if style != "atomic":
        lines = full_style(tmp_path, lines, ids, np.zeros(27), style)
    fails(tmp_path, message, lines, ranks=2)


def test_models_without_electrostatics(models, tmp_path):
    lines = script(tmp_path, grid((3, 3, 3), seed=4), pair(models["bpnn"], "charge molecules 0"))
    fails(tmp_path, "'charge' is for models with electrostatics, and", lines)
