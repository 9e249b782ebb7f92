"""Models with charges and random weights, and systems for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from nearsight.couple import FrameCharger
from nearsight.models import BPNNConfig, LongRangeConfig, MACEConfig, build_model
from nearsight.neighbors import make_graph

from .charged_systems import OPEN, PERIODIC, SLAB

SPECIES = ["H", "O"]
REFERENCE_ENERGIES = {"H": -13.0, "O": -431.0}
FIXED = {"H": 0.4, "O": -0.8}
KINDS = {
    "fixed": {"charges": "fixed", "values": FIXED},
    "environment": {"charges": "environment"},
    "weighted": {"charges": "environment", "weighted": True, "widths": {"H": 0.0, "O": 0.5}},
    "latent": {"charges": "latent", "channels": 2, "weighted": True},
}
MACE_CONFIGS = {
    "mace": {"channels": 5, "l_max": 2, "correlation": 2, "zbl": True},
    "mace with messages": {
        "channels": 4,
        "num_interactions": 2,
        "l_max": 2,
        "correlation": 2,
        "density": True,
        "hidden": "0e + 0o + 1o",
        "radial": {"hidden": [8]},
    },
}
ARCHITECTURES = ["bpnn", *MACE_CONFIGS]
CELLS = {"open": OPEN, "orthorhombic": PERIODIC, "triclinic": PERIODIC, "slab": SLAB}


class Case(NamedTuple):
    """Arguments of evaluators."""

    positions: np.ndarray  # [n, 3] Å
    species: np.ndarray  # [n] int32
    cell: np.ndarray  # [3, 3] Å
    pbc: list[bool]
    charge: float  # e


def random_model(kind: str, rtol: float = 1e-4, architecture: str = "bpnn", **config):
    """Random weights, statistics and scales, so that nothing cancels; charges of order 0.5 e.

    `config`: of BPNN.
    """
    torch.manual_seed(11)
    long_range = LongRangeConfig(**KINDS[kind], rtol=rtol)
    if architecture != "bpnn":
        model = build_model(MACEConfig(cutoff=4.0, **MACE_CONFIGS[architecture]), SPECIES, long_range)
        model.fit_statistics([graph_of(case(cell, False, kind)) for cell in CELLS], 0.8)
        model.scale[1:].uniform_(0.5, 1.5)
        return model
    model = build_model(BPNNConfig(**{"cutoff": 4.0, "hidden": [8, 6]} | config), SPECIES, long_range)
    for network in model.networks:
        network.shift.normal_()
        network.scale.uniform_(0.5, 1.5)
    model.output_scale.uniform_(0.5, 1.5)
    return model


def case(cell: str, charged: bool, kind: str, spacing: float = 2.3) -> Case:
    """Twelve atoms on a jittered grid; fixed charges are neutral with twice as many H as O."""
    rng = np.random.default_rng(17)
    grid = np.stack(np.meshgrid(range(3), range(2), range(2), indexing="ij"), -1).reshape(-1, 3)
    box = spacing * np.diag([3.0, 2.1, 2.2])
    if cell == "triclinic":
        box[1, 0], box[2, 0], box[2, 1] = 1.3, -0.9, 0.7
    fractions = (grid + rng.uniform(-0.12, 0.12, grid.shape)) / [3, 2, 2]
    species = np.array([0, 0, 1] * 4, dtype=np.int32)
    if charged:
        species[0] = 1
    total = sum(FIXED[SPECIES[z]] for z in species) if kind == "fixed" else -1.5 * charged
    return Case(fractions @ box, rng.permutation(species), box, CELLS[cell], total)


def graph_of(one: Case, cutoff: float = 4.0):
    return make_graph(*one[:4], cutoff)


def charged_of(model, one: Case):
    """As the core sees the case: with the parameters that it chooses."""
    graph = graph_of(one, model.cutoff)
    with torch.no_grad():
        readouts = model(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    return FrameCharger(model.couple).with_charges(*one, readouts)
