"""MACE models with charges and random weights; systems are those of `charge_models`."""

from __future__ import annotations

import torch

from nearsight.models import MACE, LongRangeConfig, MACEConfig, build_model

from .charge_models import CELLS, KINDS, SPECIES, case, graph_of

CONFIGS = {
    "local": {"channels": 5, "l_max": 2, "correlation": 2, "zbl": True},
    "layers": {
        "channels": 4,
        "num_interactions": 3,
        "l_max": 2,
        "correlation": 2,
        "density": True,
        "hidden": "0e + 0o + 1o",
        "radial": {"hidden": [8]},
    },
}


def random_mace(kind: str, name: str, rtol: float = 1e-4) -> MACE:
    """Random weights and scales, so that nothing cancels; charges of order 0.5 e."""
    torch.manual_seed(5)
    long_range = LongRangeConfig(**KINDS[kind], rtol=rtol)
    model = build_model(MACEConfig(cutoff=4.0, **CONFIGS[name]), SPECIES, long_range)
    model.fit_statistics([graph_of(case(cell, False, kind)) for cell in CELLS], 0.8)
    model.scale[1:].uniform_(0.5, 1.5)
    return model
