"""Derivatives by LAMMPS' own differences, units, and the pair style beside others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps_harness import ENERGY, LENGTH, TIME, Case, Result, run_cases, run_script, write_data
from lammps_systems import grid, orthogonal


def mlp(model: Path, words: str = "precision double") -> tuple[str, str]:
    return f"pair_style mlp {words}", f"pair_coeff * * {model} O H"


@pytest.mark.parametrize(("model", "ranks"), [("bpnn", 1), ("messages", 2), ("mace3", 2), ("two_states", 2)])
def test_fix_numdiff(models: dict[str, Path], tmp_path: Path, model: str, ranks: int) -> None:
    """Forces and the virial tensor of a triclinic cell against LAMMPS' central differences of the energy."""
    atoms = grid((3, 3, 2))
    write_data(tmp_path / "data.0", atoms, ["O", "H"])
    lines = [
        "units metal",
        "atom_modify map yes",
        "read_data data.0",
        *mlp(models[model]),
        "fix forces all numdiff 1 1e-4",
        "fix virial all numdiff/virial 1 1e-4",
        "compute virial all pressure NULL pair",
        "variable error atom sqrt((fx-f_forces[1])^2+(fy-f_forces[2])^2+(fz-f_forces[3])^2)",
        "variable size atom sqrt(fx^2+fy^2+fz^2)",
        "compute error all reduce max v_error",
        "compute size all reduce max v_size",
        "thermo_style custom step c_error c_size "
        + " ".join(f"c_virial[{k}] f_virial[{m}]" for k, m in zip(range(1, 7), (1, 2, 3, 6, 5, 4))),
        "thermo_modify format float %.15g",
        "run 0",
    ]
    run = run_script(tmp_path, lines, ranks)
    assert run.code == 0, run.output
    rows = [line.split() for line in run.output.splitlines() if line.split()[:1] == ["0"]]
    error, size, *virials = [float(x) for x in rows[-1][1:]]
    assert error < 1e-7 * max(size, 1.0)  # round-off of reference energies is 1e-12 eV, a step 1e-4 Å
    analytic, numeric = np.array(virials).reshape(6, 2).T
    np.testing.assert_allclose(analytic, numeric, rtol=0, atol=1e-6 * np.abs(analytic).max())


@pytest.fixture(scope="module")
def in_units(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, Result]:
    """The same system in all units: at the start, and after 10 fs of NVE from rest."""
    atoms, cases = grid((4, 3, 3)), {}
    for units in ENERGY:
        for model in ("bpnn", "messages"):
            cases[units, model, "start"] = Case(atoms, mlp(models[model]), units=units)
        step = 0.00025 / TIME[units]
        nve = ("fix 1 all nve", f"timestep {step!r}", "run 40")
        cases[units, "bpnn", "end"] = Case(atoms, mlp(models["bpnn"]), units=units, run=nve)
    return dict(zip(cases, run_cases(tmp_path_factory.mktemp("units"), list(cases.values()), 2)))


@pytest.mark.parametrize("model", ["bpnn", "messages"])
@pytest.mark.parametrize("units", ["real", "si", "electron"])
def test_units(in_units: dict, units: str, model: str) -> None:
    """LAMMPS' own constants take no part, so what is left is round-off, of positions first of all."""
    metal, other = in_units["metal", model, "start"], in_units[units, model, "start"]
    for name in ("energy", "forces", "energies", "virial", "stresses"):
        unit = ENERGY[units] / LENGTH[units] if name == "forces" else ENERGY[units]
        expected, found = getattr(metal, name), getattr(other, name) * unit
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("units", ["real", "si", "electron"])
def test_units_in_motion(in_units: dict, units: str) -> None:
    """The accelerations differ as LAMMPS' factors from force / mass do (ftm2v, 7e-8 between metal and si)."""
    start, metal, other = (
        in_units[key]
        for key in (("metal", "bpnn", "start"), ("metal", "bpnn", "end"), (units, "bpnn", "end"))
    )
    moved = np.abs(metal.positions - start.positions).max()
    assert moved > 0.01
    np.testing.assert_allclose(other.positions * LENGTH[units], metal.positions, rtol=0, atol=5e-7 * moved)
    fallen = start.energy - metal.energy
    assert fallen > 0.01
    np.testing.assert_allclose(other.energy * ENERGY[units], metal.energy, rtol=0, atol=5e-7 * fallen)


@pytest.fixture(scope="module")
def hybrid(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """A system of O, H and Ar: the whole, its two parts alone, with both kinds of models."""
    whole = orthogonal((4, 4, 3), pbc=(True, True, False))
    argon = np.arange(len(whole)) % 4 == 0
    whole.symbols[argon] = "Ar"
    lj = ("lj/cut 5.0", "pair_coeff {} {} lj/cut 0.0104 3.4")
    cases = {}
    for model in ("bpnn", "messages"):
        overlay = (
            f"pair_style hybrid/overlay mlp precision double {lj[0]}",
            f"pair_coeff * * mlp {models[model]} O H NULL",
            "pair_coeff * 3 lj/cut 0.01 3.0",
        )
        cases[f"{model} overlay"] = Case(whole, overlay, elements=("O", "H", "Ar"))
        cases[f"{model} alone"] = Case(whole[~argon], mlp(models[model]))
    lj_alone = ("pair_style lj/cut 5.0", "pair_coeff * * 0.0 3.0", "pair_coeff * 3 0.01 3.0")
    cases["lj"] = Case(whole, lj_alone, elements=("O", "H", "Ar"))
    found = run_cases(tmp_path_factory.mktemp("hybrid"), list(cases.values()), 2)
    return dict(zip(cases, found)) | {"argon": argon}


@pytest.mark.parametrize("model", ["bpnn", "messages"])
def test_hybrid_overlay_adds(hybrid: dict, model: str) -> None:
    both, alone, lj = hybrid[f"{model} overlay"], hybrid[f"{model} alone"], hybrid["lj"]
    seen = ~hybrid["argon"]
    for name in ("forces", "energies", "stresses"):
        expected = getattr(lj, name).copy()
        expected[seen] += getattr(alone, name)
        np.testing.assert_allclose(getattr(both, name), expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(both.energy, alone.energy + lj.energy, rtol=1e-12)
    np.testing.assert_allclose(
        both.virial, alone.virial + lj.virial, rtol=0, atol=1e-10 * np.abs(both.virial).max()
    )


def test_two_models_in_one_run(models: dict[str, Path], tmp_path: Path) -> None:
    """hybrid/overlay with the pair style twice; per-atom and global values are sums."""
    atoms = grid((4, 3, 3))
    both = (
        "pair_style hybrid/overlay mlp precision double mlp precision double",
        f"pair_coeff * * mlp 1 {models['bpnn']} O H",
        f"pair_coeff * * mlp 2 {models['messages']} O H",
    )
    cases = [Case(atoms, both), Case(atoms, mlp(models["bpnn"])), Case(atoms, mlp(models["messages"]))]
    two, first, second = run_cases(tmp_path, cases)
    np.testing.assert_allclose(two.energy, first.energy + second.energy, rtol=1e-12)
    np.testing.assert_allclose(two.forces, first.forces + second.forces, rtol=0, atol=1e-11)
    np.testing.assert_allclose(two.stresses, first.stresses + second.stresses, rtol=0, atol=1e-11)


def test_hybrid_scaled(models: dict[str, Path], tmp_path: Path) -> None:
    atoms = grid((4, 3, 3))
    scaled = (
        "pair_style hybrid/scaled 0.25 mlp precision double",
        f"pair_coeff * * mlp {models['bpnn']} O H",
    )
    quarter, whole = run_cases(tmp_path, [Case(atoms, scaled), Case(atoms, mlp(models["bpnn"]))])
    for name in ("energy", "forces", "energies", "virial", "stresses"):
        expected = 0.25 * getattr(whole, name)
        np.testing.assert_allclose(
            getattr(quarter, name), expected, rtol=0, atol=1e-12 * np.abs(expected).max()
        )


@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_mixed_precision_is_close_to_double(models: dict[str, Path], tmp_path: Path, backend: str) -> None:
    atoms = grid((4, 3, 3))
    words = [f"backend {backend} precision {p}" for p in ("double", "mixed")]
    double, mixed = run_cases(tmp_path, [Case(atoms, mlp(models["bpnn"], w)) for w in words])
    assert 0 < abs(mixed.energy - double.energy) < 1e-6 * len(atoms)
    np.testing.assert_allclose(mixed.forces, double.forces, rtol=0, atol=1e-5)


def test_both_backends_agree(models: dict[str, Path], tmp_path: Path) -> None:
    atoms = Atoms(grid((4, 3, 3)))
    words = [f"backend {b} precision double" for b in ("native", "torchscript")]
    native, scripted = run_cases(tmp_path, [Case(atoms, mlp(models["bpnn"], w)) for w in words], 2)
    for name in ("energy", "forces", "energies", "virial", "stresses"):
        expected = getattr(scripted, name)
        np.testing.assert_allclose(
            getattr(native, name), expected, rtol=0, atol=1e-10 * np.abs(expected).max()
        )
