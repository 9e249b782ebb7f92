"""Charges and dispersion with `device cuda` in LAMMPS, against the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from dispersion_for_tests import record_of
from lammps_systems import grid
from test_lammps_charges import assert_close, pair, run, script

from nearsight.export import save_model
from nearsight.models import BPNNConfig, LongRangeConfig, build_model

HARDNESS = {"charges": "equilibrated", "hardness": {"H": 9.0, "O": 11.0}, "residual": 1e-12}
CHARGES = {"environment": {"charges": "environment"}, "equilibrated": HARDNESS}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("NEARSIGHT_TEST_GPU"):
        monkeypatch.setenv("NEARSIGHT_CUDA", "emulated")


@pytest.fixture(scope="module", params=CHARGES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("cuda") / "model.pt"
    networks = build_model(
        BPNNConfig(cutoff=4.0, hidden=[8]), ["H", "O"], LongRangeConfig(**CHARGES[request.param])
    )
    save_model(
        path,
        networks,
        reference_energies={"H": -13.6, "O": -2043.0},
        reference_energies_source="given",
        provenance={},
        dispersion=record_of(["H", "O"]),
    )
    return path


def on_both(
    model: Path, folder: Path, atoms: Atoms, ranks: int, precision: str = "double", more: tuple[str, ...] = ()
) -> list[tuple[list[float], np.ndarray]]:
    """What `run` returns, on the device and on the CPU: thermo values, and forces, charges and potentials."""
    results = []
    for device in ("cuda", "cpu"):
        (folder / device).mkdir()
        words = pair(model, f"precision {precision} charge -1.5 device {device}")
        lines = script(folder / device, atoms, words, fields="charge 1 potential 1", more=more)
        results.append(run(folder / device, lines, ranks))
    return results


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("pbc", [True, False, (True, True, False)], ids=["crystal", "cluster", "slab"])
def test_equals_the_cpu(model: Path, tmp_path: Path, pbc: object, ranks: int) -> None:
    for cuda, cpu in zip(*on_both(model, tmp_path, grid((3, 2, 3), pbc=pbc, seed=4), ranks)):
        np.testing.assert_allclose(cuda, cpu, rtol=0, atol=1e-10 * np.abs(cpu).max())


@pytest.mark.parametrize("ranks", [1, 3])
def test_dynamics(model: Path, tmp_path: Path, ranks: int) -> None:
    """Lists are kept and made anew, and atoms change their ranks."""
    steps = ("velocity all create 2000 1", "fix 1 all nve", "timestep 1e-3", "run 30")
    for cuda, cpu in zip(*on_both(model, tmp_path, grid((3, 2, 3), seed=4), ranks, more=steps)):
        assert_close(cuda, cpu)


@pytest.mark.parametrize("ranks", [1, 3])
def test_mixed_precision(model: Path, tmp_path: Path, ranks: int) -> None:
    (_, cuda), (_, cpu) = on_both(model, tmp_path, grid((3, 2, 3), seed=4), ranks, "mixed")
    np.testing.assert_allclose(cuda[:, :3], cpu[:, :3], rtol=0, atol=1e-4)
    np.testing.assert_allclose(cuda[:, 3], cpu[:, 3], rtol=0, atol=1e-5)
