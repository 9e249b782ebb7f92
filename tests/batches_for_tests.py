"""Models of every engine and structures of every kind, to be evaluated in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from committees_for_tests import graph_of
from models_for_tests import SPECIES, random_structure

from nearsight.data import Frame
from nearsight.export import save_model
from nearsight.interfaces.potential import Potential, Results
from nearsight.models import (
    ACEConfig,
    ACSFConfig,
    BPNNConfig,
    MACEConfig,
    PaiNNConfig,
    SOAPConfig,
    build_model,
)

CUTOFF = 4.0  # Å
SLANTED = np.array([[7.0, 0.0, 0.0], [1.2, 6.5, 0.0], [-0.8, 0.9, 7.5]])
OPEN = np.zeros((3, 3))

CONFIGS = {
    "acsf": BPNNConfig(cutoff=CUTOFF, hidden=[9, 6], descriptor=ACSFConfig(size="medium")),
    "soap": BPNNConfig(cutoff=CUTOFF, hidden=[9, 6], descriptor=SOAPConfig(n_max=4, l_max=3), directions=20),
    "ace": BPNNConfig(cutoff=CUTOFF, hidden=[9, 6], descriptor=ACEConfig(max_degree=[8, 6, 5])),
    "committee": BPNNConfig(cutoff=CUTOFF, hidden=[9, 6]),
    "one interaction": MACEConfig(cutoff=CUTOFF, channels=4, zbl=True),
    "two interactions": MACEConfig(cutoff=CUTOFF, channels=4, num_interactions=2),
    "painn": PaiNNConfig(cutoff=CUTOFF, channels=6, num_basis=5),
}


def save(name: str, path: Path) -> Path:
    """Write one of the models above, with random weights."""
    torch.manual_seed(3)
    config = CONFIGS[name]
    if isinstance(config, BPNNConfig):
        model = config.build(list(SPECIES), 3 if name == "committee" else 1)
        positions, symbols = random_structure(1, 40, 8.5 * np.eye(3))
        numbers = [SPECIES.index(symbol) for symbol in symbols]
        model.fit_statistics([graph_of(positions, numbers, 8.5 * np.eye(3), cutoff=CUTOFF)], 0.5)
        for network in model.networks:
            torch.nn.init.normal_(network.layers[-1].bias)
    else:
        model = build_model(config, list(SPECIES))
    energies = {"H": -13.6, "O": -430.0, "Si": -101.0}
    save_model(path, model, reference_energies=energies, reference_energies_source="given", provenance={})
    return path


def frame(seed: int, count: int, cell, pbc=True, symbols=None) -> Frame:
    """Atoms in a cell, some of them outside of it."""
    positions, found = random_structure(seed, count, cell)
    shifts = np.random.default_rng(seed).integers(-2, 3, (count, 3)) * np.broadcast_to(pbc, 3)
    return Frame(
        positions + shifts @ np.asarray(cell),
        symbols or found,
        np.array(cell),
        np.broadcast_to(pbc, 3),
        source=f"structure {seed}",
    )


def frames() -> list[Frame]:
    """Crystals, a slab, a wire, cells much smaller than the cutoff, molecules, single atoms."""
    unknown = SLANTED.copy()
    unknown[2] = np.nan  # a row of an open direction may hold anything
    slab = frame(2, 9, SLANTED, [True, True, False])
    slab.cell = unknown
    far = frame(7, 6, 5.0 * np.eye(3), pbc=False)
    far.positions[3:] += [300.0, -200.0, 100.0]
    return [
        frame(1, 14, SLANTED),
        slab,
        frame(3, 4, np.diag([4.0, 4.0, 3.0]), [False, False, True]),
        frame(4, 2, np.array([[0.0, 2.2, 2.2], [2.2, 0.0, 2.2], [2.2, 2.2, 0.0]])),
        frame(5, 1, 2.1 * np.eye(3)),
        Frame(np.zeros((1, 3)), ["O"], OPEN, [False] * 3, source="atom"),
        frame(6, 8, 5.0 * np.eye(3), pbc=False),
        far,
        frame(8, 3, 3.0 * np.eye(3), pbc=False, symbols=["H", "H", "H"]),
        frame(9, 11, SLANTED, symbols=["Si"] * 11),
        Frame(np.zeros((1, 3)), ["H"], OPEN, [False] * 3, source="another atom"),
    ]


ARRAYS = ("energies", "forces", "virial", "virials", "member_energies", "member_forces", "member_virials")


def assert_same(found: Results, expected: Results, relative: float) -> None:
    """Each result within `relative` of its largest number."""
    assert abs(found.energy - expected.energy) < relative * max(1.0, abs(expected.energy))
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is not None:
            assert one.shape == other.shape, name
            scale = max(1.0, np.abs(other).max())
            np.testing.assert_allclose(one, other, rtol=0, atol=relative * scale, err_msg=name)


def compare(potential: Potential, relative: float, **wanted: bool) -> None:
    """All frames in one batch, and in batches of some, against one by one."""
    structures = frames()
    alone = [potential.compute_frame(each, **wanted) for each in structures]
    assert max(np.abs(each.forces).max() for each in alone) > 0.1
    for most in (10_000, 15):
        for one, other in zip(potential.compute_batch(structures, batch_atoms=most, **wanted), alone):
            assert_same(one, other, relative)
