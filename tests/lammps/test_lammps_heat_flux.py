"""compute centroid/stress/atom: LAMMPS' heat flux against differences, sums, ranks, units, hybrid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps_harness import ENERGY, LENGTH, PRESSURE_FACTOR, TIME, run_script, write_data
from lammps_systems import cluster_in_a_corner, grid, orthogonal

from nearsight.lib import _core

ROWS, COLUMNS = [0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1]  # xx yy zz xy xz yz yx zx zy
AMU_A2_PER_PS2 = 1.66053906660e-27 * 1e4 / 1.602176634e-19  # eV


def velocities(atoms: Atoms) -> np.ndarray:
    """Å/ps, each of about the size at room temperature."""
    return np.random.default_rng(3).normal(size=(len(atoms), 3)) * 5.0


def heat_flux(
    folder: Path, atoms: Atoms, pair: tuple[str, ...], ranks: int = 1, units: str = "metal"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LAMMPS' heat flux, of it the convected part, and the centroid stresses [n, 9], in eV, Å, ps."""
    write_data(folder / "data.0", atoms, ["O", "H"], units)
    speed = LENGTH[units] / TIME[units]
    rows = [f"{k} " + " ".join(map(repr, map(float, v))) for k, v in enumerate(velocities(atoms) / speed, 1)]
    with (folder / "data.0").open("a") as data:
        data.write("\nVelocities\n\n" + "\n".join(rows) + "\n")
    lines = [
        f"units {units}",
        "boundary " + " ".join("p" if p else "f" for p in atoms.pbc),
        "read_data data.0",
        f"neighbor {0.5 / LENGTH[units]!r} bin",
        *pair,
        "compute ke all ke/atom",
        "compute pe all pe/atom",
        "compute w all centroid/stress/atom NULL virial",
        "compute flux all heat/flux ke pe w",
        "thermo_style custom step " + " ".join(f"c_flux[{k}]" for k in range(1, 7)),
        "thermo_modify format float %.17g",
        "run 0",
        "write_dump all custom dump.0 id "
        + " ".join(f"c_w[{k}]" for k in range(1, 10))
        + " modify sort id format float %.17g",
    ]
    run = run_script(folder, lines, ranks)
    assert run.code == 0, run.output[-3000:]
    row = next(line.split() for line in run.output.splitlines() if line.split()[:1] == ["0"])
    flux = np.array(row[1:], dtype=float).reshape(2, 3) * ENERGY[units] * speed
    stresses = np.loadtxt(folder / "dump.0", skiprows=9)[:, 1:] / PRESSURE_FACTOR[units] * ENERGY[units]
    return flux[0], flux[1], stresses


def mlp(model: Path) -> tuple[str, str]:
    return "pair_style mlp precision double", f"pair_coeff * * {model} O H"


@pytest.mark.parametrize(("model", "ranks"), [("bpnn", 1), ("many_body", 3)])
def test_heat_flux_is_the_time_derivative_of_the_energy_moment(
    models: dict[str, Path], tmp_path: Path, model: str, ranks: int
) -> None:
    """d/dt sum_i r_i e_i of an open cluster, by central differences of positions along the velocities."""
    atoms = orthogonal((3, 3, 3), pbc=False)
    total, convected, _ = heat_flux(tmp_path, atoms, mlp(models[model]), ranks)
    evaluator = _core.Evaluator(str(models[model]))
    species = np.array([evaluator.species.index(s) for s in atoms.symbols], dtype=np.int32)
    x, v = atoms.positions, velocities(atoms)

    def energies(t: float) -> dict[str, np.ndarray]:
        return evaluator.evaluate(x + t * v, species, np.zeros((3, 3)), [False] * 3)

    def moment(t: float) -> np.ndarray:
        return energies(t)["energies"] @ (x + t * v)

    differences = [(moment(h) - moment(-h)) / (2 * h) for h in (2e-4, 1e-4)]
    result, mass = energies(0), np.where(np.array(atoms.get_chemical_symbols()) == "O", 15.999, 1.008)
    kinetic = 0.5 * mass * (v * v).sum(1) * AMU_A2_PER_PS2
    power = (result["forces"] * v).sum(1)  # of the forces: dE_kin/dt
    expected = (4 * differences[1] - differences[0]) / 3 + kinetic @ v + power @ x
    # Without the convected part, in which the reference energies of thousands of eV hide everything else.
    np.testing.assert_allclose(convected, (result["energies"] + kinetic) @ v, rtol=1e-7)
    virial_part, size = total - convected, np.abs(total - convected).max()
    difference_part = expected - (result["energies"] + kinetic) @ v
    np.testing.assert_allclose(virial_part, difference_part, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("system", [grid((4, 3, 3)), cluster_in_a_corner(), grid((2, 1, 2), spacing=2.9)])
def test_ranks_agree_and_atoms_add_up(models: dict[str, Path], tmp_path: Path, system: Atoms) -> None:
    """Triclinic, with ranks that own nothing, in a box shorter than the cutoff; against Python as well."""
    evaluator = _core.Evaluator(str(models["bpnn"]))
    species = np.array([evaluator.species.index(s) for s in system.symbols], dtype=np.int32)
    expected = evaluator.evaluate(
        system.positions, species, system.cell.array, system.pbc.tolist(), centroid=True
    )
    size = np.abs(expected["centroid_virials"]).max()
    for ranks in (1, 2, 3, 4):
        _, _, stresses = heat_flux(tmp_path, system, mlp(models["bpnn"]), ranks)
        np.testing.assert_allclose(-stresses, expected["centroid_virials"], rtol=0, atol=1e-11 * size)
    np.testing.assert_allclose(-stresses.sum(0), expected["virial"][ROWS, COLUMNS], rtol=0, atol=1e-10 * size)


@pytest.mark.parametrize("units", ["real", "si", "electron"])
def test_units(models: dict[str, Path], tmp_path: Path, units: str) -> None:
    """Stresses and their flux to round-off; the convected part as LAMMPS' constants of the kinetic energy."""
    atoms, pair = grid((3, 3, 3)), mlp(models["bpnn"])
    metal, other = heat_flux(tmp_path, atoms, pair), heat_flux(tmp_path, atoms, pair, units=units)
    np.testing.assert_allclose(other[2], metal[2], rtol=0, atol=1e-12 * np.abs(metal[2]).max())
    np.testing.assert_allclose(other[0] - other[1], metal[0] - metal[1], rtol=1e-9)
    np.testing.assert_allclose(other[1], metal[1], rtol=1e-7)


def test_hybrid_overlay_adds(models: dict[str, Path], tmp_path: Path) -> None:
    """Beside a pair potential, whose centroid form LAMMPS makes itself."""
    atoms = grid((4, 3, 3))
    lj = ("pair_coeff * * {}0.01 1.5",)
    both = (
        "pair_style hybrid/overlay mlp precision double lj/cut 4.0",
        f"pair_coeff * * mlp {models['bpnn']} O H",
        lj[0].format("lj/cut "),
    )
    alone = heat_flux(tmp_path, atoms, mlp(models["bpnn"]))[2]
    pairs = heat_flux(tmp_path, atoms, ("pair_style lj/cut 4.0", lj[0].format("")))[2]
    found = heat_flux(tmp_path, atoms, both, 2)[2]
    np.testing.assert_allclose(found, alone + pairs, rtol=0, atol=1e-11 * np.abs(found).max())


@pytest.mark.parametrize("model", ["messages", "mace2", "painn3", "two_states"])
def test_models_without_it_are_refused(models: dict[str, Path], tmp_path: Path, model: str) -> None:
    """On four ranks, some of which own nothing."""
    with pytest.raises(AssertionError) as caught:
        heat_flux(tmp_path, cluster_in_a_corner(), mlp(models[model]), 4)
    sentence = (
        "pair_style mlp: compute centroid/stress/atom needs a model with one interaction layer whose energy "
        f"is a sum over atoms without dispersion, and {models[model]} is none; use compute stress/atom"
    )
    assert sentence in " ".join(str(caught.value).split())
