"""Models with dispersion in LAMMPS: against the core in one call, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from dispersion_for_tests import record_of
from lammps_harness import ENERGY, LENGTH, PRESSURE_FACTOR, Case, run_cases, run_script
from lammps_systems import cluster_in_a_corner, grid
from test_lammps_charges import BALANCED, fails, script
from test_lammps_charges import run as run_lines

from nearsight import Potential
from nearsight.export import save_model
from nearsight.models import BPNNConfig, LongRangeConfig, MACEConfig, NoLocalEnergy, build_model

NETWORKS = BPNNConfig(cutoff=4.0, hidden=[8])
MESSAGES = MACEConfig(cutoff=3.6, channels=4, num_interactions=2, l_max=1, correlation=2)
CRYSTAL, CLUSTER, SLAB, WIRE = True, False, (True, True, False), (False, True, False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dispersion")
    charges = LongRangeConfig(charges="environment")
    models = {
        "bpnn": (build_model(NETWORKS, ["H", "O"]), record_of(["H", "O"])),
        "mace": (build_model(MESSAGES, ["H", "O"]), record_of(["H", "O"])),
        "charged": (build_model(NETWORKS, ["H", "O"], charges), record_of(["H", "O"])),
        "alone": (NoLocalEnergy(["H", "O"]), record_of(["H", "O"])),
        "by host": (build_model(NETWORKS, ["H", "O"]), record_of(["H", "O"], added_by="host")),
        "local": (build_model(NETWORKS, ["H", "O"]), None),
    }
    torch.manual_seed(5)
    for name, (model, record) in models.items():
        save_model(
            folder / f"{name}.pt",
            model,
            reference_energies={"H": -13.6, "O": -2043.0},
            reference_energies_source="given",
            provenance={},
            dispersion=record,
        )
    return {name: folder / f"{name}.pt" for name in models}


def pair(path: Path, words: str = "precision double") -> list[str]:
    return [f"pair_style mlp {words}", f"pair_coeff * * '{path}' O H"]


def check(result, atoms: Atoms, path: Path, units: str, by_atom: bool = True) -> None:
    expected = Potential(path).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc)
    energy, force = ENERGY[units], ENERGY[units] / LENGTH[units]
    assert result.energy * energy == pytest.approx(expected.energy, rel=1e-11)
    np.testing.assert_allclose(result.energies * energy, expected.energies, rtol=1e-11)
    scale = np.abs(expected.forces).max()
    np.testing.assert_allclose(result.forces * force, expected.forces, rtol=0, atol=1e-10 * scale)
    six = expected.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    np.testing.assert_allclose(result.virial * energy, six, rtol=0, atol=1e-10 * np.abs(six).max())
    if by_atom:
        np.testing.assert_allclose(
            -result.stresses * energy, expected.virials, rtol=0, atol=1e-10 * scale * 10
        )


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_everything_equals_the_core(files, tmp_path, ranks):
    """Boxes of all kinds, tilted and shorter than cutoffs, ranks without atoms, other units and layouts."""
    tilted = grid((3, 2, 3), seed=4)
    tilted.set_cell(tilted.cell.array + np.tril([[0.0], [2.0], [-1.5]] * np.ones(3), -1), scale_atoms=True)
    systems = [grid((3, 2, 3), pbc=pbc, seed=4) for pbc in (CRYSTAL, CLUSTER, SLAB, WIRE)]
    systems += [tilted, cluster_in_a_corner()]
    cases = [Case(atoms, pair(files["bpnn"])) for atoms in systems]
    cases.append(Case(systems[0], pair(files["alone"])))
    cases.append(Case(systems[0], pair(files["mace"])))
    cases.append(Case(systems[0], pair(files["bpnn"]), units="electron"))
    cases.append(Case(systems[0], pair(files["bpnn"]), after_read=BALANCED))
    results = run_cases(tmp_path, cases, ranks)
    for case, result in zip(cases, results):
        name = next(name for name in ("bpnn", "alone", "mace") if str(files[name]) in case.pair[1])
        check(result, case.atoms, files[name], case.units)


@pytest.mark.parametrize("ranks", [1, 3])
def test_with_charges(files, tmp_path, ranks):
    atoms = grid((3, 2, 3), seed=4)
    lines = script(tmp_path, atoms, pair(files["charged"], "precision double charge 0.5"))
    thermo, rows = run_lines(tmp_path, lines, ranks)
    expected = Potential(files["charged"]).compute(atoms.positions, atoms.symbols, atoms.cell, True, 0.5)
    assert thermo[0] == pytest.approx(expected.energy, rel=1e-11)
    assert thermo[1] == pytest.approx(expected.electrostatic_energy, rel=1e-10)
    np.testing.assert_allclose(rows[:, :3], expected.forces, atol=1e-10 * np.abs(expected.forces).max())
    virial = np.array(thermo[5:]) * thermo[3] / PRESSURE_FACTOR["metal"]
    six = expected.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    np.testing.assert_allclose(virial, six, atol=1e-10 * np.abs(six).max())


def test_a_run_with_kept_lists(files, tmp_path):
    """The same trajectory on one rank and on four, with the dispersion energy as a value of compute pair."""
    atoms = grid((4, 3, 3), spacing=2.6, seed=5)
    more = ["velocity all create 900 1", "timestep 0.0002", "fix nve all nve",
            "thermo_style custom step etotal ke c_parts[9]", "thermo_modify format float %.14g norm no",
            "thermo 10", "run 60"]  # fmt: skip
    found = []
    for ranks in (1, 4):
        done = run_script(tmp_path, script(tmp_path, atoms, pair(files["bpnn"]), more=more)[:-3], ranks)
        assert done.code == 0, done.output[-2000:]
        rows = [line.split() for line in done.output.splitlines()]
        found.append([[float(x) for x in row] for row in rows if len(row) == 4 and row[0].isdigit()])
    one, four = np.array(found)
    assert len(one) == 7
    np.testing.assert_allclose(four, one, rtol=1e-9)
    assert np.ptp(one[:, 1]) < 1e-3 * np.ptp(one[:, 2])
    start = Potential(files["bpnn"]).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc)
    assert one[0, 3] == pytest.approx(start.dispersion_energy, rel=1e-10)
    assert np.ptp(one[:, 3]) > 0


def test_alone_beside_another_model(files, tmp_path):
    """hybrid/overlay of a local model and dispersion is the model that contains it; types may be left out."""
    atoms = grid((3, 3, 3), spacing=2.6, seed=4)
    styles = [
        "pair_style hybrid/overlay mlp precision double mlp precision double",
        f"pair_coeff * * mlp 1 '{files['local']}' O H",
        f"pair_coeff * * mlp 2 '{files['alone']}' O H",
    ]
    hydrogens = [*styles[:2], f"pair_coeff * * mlp 2 '{files['alone']}' NULL H"]
    both, some = run_cases(tmp_path, [Case(atoms, styles), Case(atoms, hydrogens)], 2)
    more, less = (
        Potential(files["alone"]).compute(part.positions, part.symbols, part.cell, part.pbc)
        for part in (atoms, atoms[atoms.symbols == "H"])
    )
    local = Potential(files["local"]).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc)
    assert both.energy == pytest.approx(local.energy + more.energy, rel=1e-12)
    np.testing.assert_allclose(both.forces, local.forces + more.forces, rtol=0, atol=1e-11)
    expected = local.forces.copy()
    expected[atoms.symbols == "H"] += less.forces
    np.testing.assert_allclose(some.forces, expected, rtol=0, atol=1e-11)


OVERLAY = "pair_style hybrid/overlay mlp dispersion/d3 bj pbe 10.0 8.0"


def overlay(path: Path, elements: str = "O H") -> list[str]:
    return [OVERLAY, f"pair_coeff * * mlp '{path}' {elements}", "pair_coeff * * dispersion/d3 O H"]


def test_dispersion_twice_is_refused(files, tmp_path):
    lines = script(tmp_path, grid((3, 3, 3), spacing=2.6, seed=4), overlay(files["bpnn"]))
    fails(tmp_path, "contains the D3(BJ) dispersion of pbe, so that pair_style dispersion/d3 would count it "
          "twice; remove dispersion/d3", lines)  # fmt: skip


def test_the_log_says_who_adds_it(files, tmp_path):
    atoms = grid((3, 3, 3), spacing=2.6, seed=4)
    cases = [
        (pair(files["bpnn"]), "D3(BJ) dispersion of pbe is in the energy"),
        (pair(files["by host"]), "D3(BJ) dispersion of pbe is not in the model: add it, for instance by "
         "pair_style hybrid/overlay mlp dispersion/d3 bj pbe 30.0 20.0"),
        (overlay(files["by host"]), "D3(BJ) dispersion of pbe is not in the model: dispersion/d3 adds it"),
    ]  # fmt: skip
    for result, (_, message) in zip(run_cases(tmp_path, [Case(atoms, lines) for lines, _ in cases]), cases):
        assert message in " ".join(result.log.split())


def test_a_heat_flux_is_refused(files, tmp_path):
    more = [
        "compute s all centroid/stress/atom NULL",
        "compute t all reduce sum c_s[1]",
        "thermo_style custom c_t",
    ]
    lines = script(tmp_path, grid((3, 3, 3), seed=4), pair(files["bpnn"]), more=more)
    fails(tmp_path, "energy is a sum over atoms without dispersion, and", lines)


def test_restart_files(files, tmp_path):
    atoms = grid((3, 3, 3), seed=4)
    lines = script(tmp_path, atoms, pair(files["bpnn"]))
    first, _ = run_lines(tmp_path, [*lines[:-1], "write_restart model.restart", "print DONE"])
    second, _ = run_lines(tmp_path, ["read_restart model.restart", *lines[7:]])
    assert second[0] == pytest.approx(first[0], rel=1e-13)
