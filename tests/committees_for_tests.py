"""Models and committees with random weights, whose features were fitted to some structures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from nearsight.export import save_model
from nearsight.models import BPNN, BPNNConfig
from nearsight.neighbors import Graph, make_graph

SPECIES = ["H", "O"]
CUTOFF = 4.5
ENERGIES = {"H": -13.0, "O": -431.0}


def graph_of(positions, species, cell, pbc=True, cutoff: float = CUTOFF) -> Graph:
    """Return the graph of a structure with species numbers."""
    return make_graph(positions, species, cell, [pbc] * 3 if isinstance(pbc, bool) else pbc, cutoff)


def random_model(seed: int, graphs: list[Graph], members: int = 1, **config) -> BPNN:
    """Return a model or committee whose statistics and ranges are those of the graphs."""
    torch.manual_seed(seed)
    model = BPNNConfig(**{"cutoff": CUTOFF, "hidden": [9, 6]} | config).build(SPECIES, members)
    model.fit_statistics(graphs, 0.5 + 0.1 * seed)
    for network in model.networks:
        nn.init.normal_(network.layers[-1].bias)
    return model


def save(path: Path, model: nn.Module, **changes) -> Path:
    """Write a model file."""
    arguments = {
        "reference_energies": ENERGIES,
        "reference_energies_source": "given",
        "provenance": {"date": "today"},
    }
    save_model(path, model, **(arguments | changes))
    return path
