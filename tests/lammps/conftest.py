"""Fixtures of the LAMMPS tests: the models, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lammps_models import Committee, ManyBody, MessagePassing, TwoStates, write_model
from lammps_systems import grid

from nearsight.export import save_model
from nearsight.interfaces.lammps_hook import plugin_dir
from nearsight.models import BPNNConfig, MACEConfig, PaiNNConfig, build_model
from nearsight.neighbors import make_graph


@pytest.fixture(scope="session", autouse=True)
def _plugin() -> None:
    if not (Path(plugin_dir()) / "nearsightplugin.so").exists():
        pytest.skip(
            "the LAMMPS plugin is not built: the headers of LAMMPS or MPI were not found at configuration"
        )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files by name: BPNNs that the native engine knows, the committee with training ranges, and others
    that torchscript runs."""
    folder = tmp_path_factory.mktemp("models")
    config = BPNNConfig(cutoff=4.0, hidden=[10, 10])
    seen = grid((4, 4, 4), seed=9)  # the training set of the committee
    graph = make_graph(seen.positions, seen.symbols == "O", seen.cell.array, seen.pbc, config.cutoff)
    torch.manual_seed(7)
    natives = {"bpnn": build_model(config, ["H", "O"]), "committee": config.build(["H", "O"], members=3)}
    natives["committee"].fit_statistics([graph], 1.0)
    others = {
        "painn2": PaiNNConfig(cutoff=3.6, channels=4, num_basis=6, num_interactions=2),
        "painn3": PaiNNConfig(cutoff=3.0, channels=4, num_basis=6, num_interactions=3),
        "mace2": MACEConfig(cutoff=3.6, channels=4, num_interactions=2),
    }
    everything = natives | {name: build_model(other, ["H", "O"]) for name, other in others.items()}
    for name, model in everything.items():
        save_model(
            folder / f"{name}.pt",
            model,
            reference_energies={"H": -13.6, "O": -2043.0},
            reference_energies_source="given",
            provenance={},
        )
    changes = {"readouts": [{"name": "energy", "columns": 2}], "couple": {"kind": "sum", "members": 2}}
    return {
        "committee": folder / "committee.pt",
        "committee of messages": write_model(folder / "two.pt", Committee(), layers=2, **changes),
        "bpnn": folder / "bpnn.pt",
        **{name: folder / f"{name}.pt" for name in others},
        "many_body": write_model(folder / "many_body.pt", ManyBody()),
        "messages": write_model(folder / "messages.pt", MessagePassing(), layers=2),
        "two_states": write_model(folder / "two_states.pt", TwoStates(), states=2),
    }
