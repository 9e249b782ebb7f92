"""The energies of untrained message-passing models begin at the mean energies of the species."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from message_passing_models import CUTOFF, SPECIES, graph_of, make, molecule

from nearsight.couple import evaluate
from nearsight.models import LongRangeConfig, MACEConfig, PaiNNConfig, build_model


@pytest.mark.parametrize("config", [MACEConfig, PaiNNConfig])
def test_only_energies_are_scaled_and_shifted_to_the_data(config):
    """Charges are 0.1 e times the outputs, weights of their projection the outputs."""
    torch.manual_seed(1)
    charges = LongRangeConfig(charges="latent", channels=2, weighted=True)
    model = build_model(config(cutoff=CUTOFF, channels=4), SPECIES, charges)
    graph = graph_of(*molecule(), CUTOFF)
    arguments = (graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    model.fit_statistics([graph], 1.0)
    before = model(*arguments)
    model.fit_statistics([graph], 0.7)
    model.set_mean_energies(dict.fromkeys(SPECIES, 1.0))
    after = model(*arguments)
    assert model.scale.tolist() == [0.7, 0.1, 0.1, 1.0]
    assert [part.shape[1:] for part in after.values()] == [(), (2,), (1,)]
    spread = after["energy"] - after["energy"][:1]
    assert not torch.equal(spread, before["energy"] - before["energy"][:1])
    for name in ("charge", "charge_weight"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["two interactions", "painn"])
def test_mean_energies(name):
    model = make(name)
    graphs = [graph_of(*molecule(seed), CUTOFF) for seed in range(4)]
    energies = {"H": 1.0, "C": -2.0, "O": 3.5}
    model.fit_statistics(graphs, 0.7)
    model.set_mean_energies(energies)
    assert float(model.scale) == 0.7
    found = torch.cat([evaluate(model, graph, model.couple).readouts["energy"] for graph in graphs]).numpy()
    species = torch.cat([graph.species for graph in graphs]).numpy()
    means = [found[species == kind].mean() for kind in range(len(SPECIES))]
    np.testing.assert_allclose(means, list(energies.values()), atol=1e-11)


def test_a_species_without_atoms_begins_like_the_others():
    model = make("one interaction")
    positions, _ = molecule()
    graph = graph_of(positions, np.array([0, 0, 0, 1, 1, 1]), CUTOFF)
    model.fit_statistics([graph], 1.0)
    shift = model.shift.numpy()
    assert shift[2] == pytest.approx(shift[:2].mean(), rel=1e-12)
