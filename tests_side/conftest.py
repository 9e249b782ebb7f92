"""The models of tests/ serve here, too."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  openmmtorch can only be imported after it
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


@pytest.fixture(scope="session", params=["embedded", "bpnn"])
def model(request, tmp_path_factory):
    from models_for_tests import save_bpnn, save_embedded

    path = tmp_path_factory.mktemp("model") / f"{request.param}.pt"
    return {"embedded": save_embedded, "bpnn": save_bpnn}[request.param](path)


@pytest.fixture(scope="session")
def water():
    """Topology of 16 water molecules in a triclinic box, and disordered positions in nm."""
    generator = np.random.default_rng(7)
    topology = app.Topology()
    chain = topology.addChain()
    molecule = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])
    cell = np.array([[0.9, 0.0, 0.0], [0.2, 0.85, 0.0], [-0.3, 0.25, 0.8]])
    positions = []
    for corner in itertools.product((0, 0.33, 0.67), (0, 0.33, 0.67), (0, 0.5)):
        if len(positions) < 48:
            residue = topology.addResidue("HOH", chain)
            oxygen = topology.addAtom("O", app.element.oxygen, residue)
            for name in ("H1", "H2"):
                topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
            turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
            positions.extend(molecule @ turn + corner @ cell)
    topology.setPeriodicBoxVectors(cell * unit.nanometer)
    return topology, np.array(positions)
