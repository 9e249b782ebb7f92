"""Charges and dispersion with `device cuda` in LAMMPS: dispersion of several ranks on their CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from dispersion_for_tests import record_of
from lammps_harness import run_script
from lammps_systems import grid
from test_lammps_charges import assert_close, pair, run, script

from nearsight.export import save_model
from nearsight.models import BPNNConfig, LongRangeConfig, build_model

HARDNESS = {"charges": "equilibrated", "hardness": {"H": 9.0, "O": 11.0}, "residual": 1e-12}
CHARGES = {"environment": {"charges": "environment"}, "equilibrated": HARDNESS}
WARNING = "the dispersion of several ranks is computed on their CPUs"


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


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("pbc", [True, False, (True, True, False)], ids=["crystal", "cluster", "slab"])
def test_equals_the_cpu(model: Path, tmp_path: Path, pbc: object, ranks: int) -> None:
    atoms, found = grid((3, 2, 3), pbc=pbc, seed=4), {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        words = f"precision double charge -1.5 device {device}"
        fields = "charge 1 potential 1"
        found[device] = run(folder, script(folder, atoms, pair(model, words), fields=fields), ranks)
    for cuda, cpu in zip(found["cuda"], found["cpu"]):
        assert_close(cuda, cpu)


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_said_about_ranks(model: Path, tmp_path: Path, ranks: int) -> None:
    lines = script(tmp_path, grid((3, 2, 3), seed=4), pair(model, "charge 1 device cuda"))
    done = run_script(tmp_path, lines, ranks)
    assert done.code == 0
    assert done.output.count(WARNING) == ranks - 1
