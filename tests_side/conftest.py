"""The models of tests/ serve here, too."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch  # openmmtorch can only be imported after it
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def save_bpnn(path):
    """Write a BPNN with random weights for H and O."""
    from nearsight.export import save_model
    from nearsight.models import BPNNConfig, build_model

    torch.manual_seed(3)
    model = build_model(BPNNConfig(size="small", cutoff=4.0), ["H", "O"])
    save_model(
        path,
        model,
        reference_energies={"H": -13.6, "O": -430.0},
        reference_energies_source="given",
        provenance={},
    )
    return path


@pytest.fixture(scope="session", params=["embedded", "bpnn"])
def model(request, tmp_path_factory):
    from models_for_tests import save_embedded

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
            atoms = [
                topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
                for name in ("O", "H1", "H2")
            ]
            topology.addBond(atoms[0], atoms[1])
            topology.addBond(atoms[0], atoms[2])
            turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
            positions.extend(molecule @ turn + corner @ cell)
    topology.setPeriodicBoxVectors(cell * unit.nanometer)
    return topology, np.array(positions)
