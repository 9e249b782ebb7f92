"""`device cuda` in LAMMPS against the CPU: ranks, ghosts, exchanged messages; emulated without a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lammps_harness import Case, Result, run_cases, run_script
from lammps_systems import cluster_in_a_corner, grid, lone_atoms, orthogonal
from test_lammps_committee import run, script, thermo
from test_lammps_ranks import close, mlp

CASES = {
    "triclinic": ("bpnn", grid((4, 3, 3)), ""),
    "box shorter than the cutoff": ("bpnn", grid((2, 1, 2), spacing=2.9), ""),
    "empty ranks": ("bpnn", cluster_in_a_corner(), ""),
    "lone atoms": ("bpnn", lone_atoms(), ""),
    "slab": ("bpnn", orthogonal((3, 3, 3), pbc=(True, True, False)), ""),
    "messages": ("mace2", grid((3, 3, 3)), ""),
    "messages, empty ranks": ("mace2", cluster_in_a_corner(), ""),
    "three messages": ("mace3", grid((3, 3, 3)), ""),
    "messages with ghosts": ("mace2", grid((3, 3, 3)), " messages halo"),
}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("NEARSIGHT_TEST_GPU"):
        monkeypatch.setenv("NEARSIGHT_CUDA", "emulated")


def cases_on(device: str, models: dict[str, Path]) -> list[Case]:
    words = f"precision double device {device}"
    return [Case(atoms, mlp(models[model], words + more)) for model, atoms, more in CASES.values()]


@pytest.fixture(scope="module")
def on_cpu(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    return run_cases(tmp_path_factory.mktemp("cpu"), cases_on("cpu", models))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_equals_the_cpu(models: dict[str, Path], on_cpu: list[Result], tmp_path: Path, ranks: int) -> None:
    for cpu, cuda in zip(on_cpu, run_cases(tmp_path, cases_on("cuda", models), ranks, timeout=500)):
        assert abs(cpu.energy - cuda.energy) < 1e-9
        for name in ("forces", "virial", "energies", "stresses"):
            close(getattr(cpu, name), getattr(cuda, name))


def test_dynamics_follow_those_of_the_cpu(models: dict[str, Path], tmp_path: Path) -> None:
    """Atoms move beyond the skin, and change their numbers where LAMMPS sorts them."""
    run = ("velocity all create 2000 1", "fix 1 all nve", "timestep 1e-3", "run 30")
    system = grid((3, 3, 3))
    cpu, cuda = (
        run_cases(
            tmp_path, [Case(system, mlp(models["bpnn"], f"precision double device {device}"), run=run)]
        )[0]
        for device in ("cpu", "cuda")
    )
    close(cpu.positions, cuda.positions)
    close(cpu.forces, cuda.forces)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_extrapolations(models: dict[str, Path], tmp_path: Path, precision: str) -> None:
    """The line of the log, and the number that compute pair gives, are the CPU's on any number of ranks."""
    dense, training = grid((3, 3, 3), spacing=1.9), grid((4, 4, 4), seed=9)
    for atoms, has_some in ((dense, True), (cluster_in_a_corner(), True), (training, False)):
        found = []
        for device, ranks in (("cpu", 1), ("cuda", 1), ("cuda", 2)):
            words = f"precision {precision} extrapolation warn 1 device {device}"
            output = run(tmp_path, script(models["committee"], "run 0", words=words), ranks, atoms).output
            lines = [line for line in output.splitlines() if " extrapolations, " in line]
            found.append((thermo(output)[-1, 9], lines))
        assert found[0] == found[1] == found[2]
        assert (found[0][0] > 0) == (len(found[0][1]) == 1) == has_some


@pytest.mark.skipif(bool(os.environ.get("NEARSIGHT_TEST_GPU")), reason="this machine has a GPU")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_machine_without_a_gpu(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    monkeypatch.delenv("NEARSIGHT_CUDA")
    lines = [
        "region box block 0 9 0 9 0 9",
        "create_box 2 box",
        "mass * 1.0",
        "create_atoms 1 random 9 1 box",
    ]
    pair = mlp(models["bpnn"], "device cuda")
    run = run_script(tmp_path, ["units metal", "newton on", *lines, *pair, "run 0"], ranks)
    assert run.code != 0
    assert "pair_style mlp: device cuda was asked for, but this" in run.output
