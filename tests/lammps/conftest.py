"""Fixtures of the LAMMPS tests: the models, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lammps_models import ManyBody, MessagePassing, TwoStates, write_model

from nearsight.export import save_model
from nearsight.interfaces.lammps_hook import plugin_dir
from nearsight.models import ModelConfig, build_model


@pytest.fixture(scope="session", autouse=True)
def _plugin() -> None:
    if not (Path(plugin_dir()) / "nearsightplugin.so").exists():
        pytest.skip(
            "the LAMMPS plugin is not built: the headers of LAMMPS or MPI were not found at configuration"
        )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files by name: three that only torchscript runs, and a BPNN that the native engine knows."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(7)
    bpnn = build_model(ModelConfig(cutoff=4.0, hidden=[10, 10]), ["H", "O"])
    save_model(
        folder / "bpnn.pt",
        bpnn,
        reference_energies={"H": -13.6, "O": -2043.0},
        reference_energies_source="given",
        provenance={},
    )
    return {
        "bpnn": folder / "bpnn.pt",
        "many_body": write_model(folder / "many_body.pt", ManyBody()),
        "messages": write_model(folder / "messages.pt", MessagePassing(), layers=2),
        "two_states": write_model(folder / "two_states.pt", TwoStates(), states=2),
    }
