"""The ranges that training writes into the model, and what is said about features and pairs that it lacks."""

import io
import json

import numpy as np
import pytest
import rich.console
import torch
import yaml
from training_toy import CUTOFF, boxes

from nearsight.data import write_extxyz
from nearsight.export.describe import describe
from nearsight.export.model_file import read_metadata, read_ranges
from nearsight.export.ranges import training_ranges
from nearsight.interfaces.potential import Potential
from nearsight.models import ACSFConfig, BPNNConfig
from nearsight.neighbors import make_graph
from nearsight.training import load_config, plots, train
from nearsight.training.coverage import survey

SPECIES = ["Ne", "Ar"]
ANGLE = {"eta": 0.05, "r_shift": 0.0, "lambda": 1.0, "zeta": 2.0, "cutoff": CUTOFF}


def radial(neighbor, eta=0.5, cutoff=CUTOFF):
    return {"kind": "radial", "neighbors": [neighbor], "eta": eta, "r_shift": 0.0, "cutoff": cutoff}


def model_with(functions):
    descriptor = ACSFConfig(symmetry_functions=functions)
    return BPNNConfig(cutoff=CUTOFF, hidden=[4], descriptor=descriptor).build(SPECIES)


def graphs(count=6):
    return [
        make_graph(f.positions, [SPECIES.index(s) for s in f.symbols], f.cell, f.pbc, CUTOFF)
        for f in boxes(count)
    ]


def test_ranges_are_those_of_all_graphs():
    model = model_with({"Ne": [radial("Ne"), radial("Ar")], "Ar": [radial("Ne"), radial("Ar")]})
    everything = graphs()
    model.fit_statistics(everything[:1], 1.0)
    assert survey(model, everything, model) == []
    for kind, network in enumerate(model.networks):
        x = torch.cat([model.features(graph)[kind] for graph in everything])
        assert torch.equal(network.minimum, x.amin(0)) and torch.equal(network.maximum, x.amax(0))


def test_pairs_that_the_descriptor_does_not_see():
    functions = {"Ne": [radial("Ne")], "Ar": [radial("Ne"), radial("Ar")]}
    assert survey(model_with(functions), graphs(), model_with(functions)) == [
        "The descriptor of Ne does not see Ar, which the training set has within the cutoff: give it "
        "functions for this pair."
    ]
    # A pair that only angular functions with a third atom see.
    functions["Ne"] += [{"kind": "angular_narrow", "neighbors": ["Ar", "Ne"], **ANGLE}]
    model = model_with(functions)
    assert survey(model, graphs(), model) == []


def test_features_with_one_value():
    short = [radial("Ar", eta=k, cutoff=0.5) for k in range(7)]
    model = model_with({"Ne": [radial("Ne"), radial("Ar"), *short], "Ar": [radial("Ne"), radial("Ar")]})
    names = model.descriptor.labels("Ne")[2:]
    assert survey(model, graphs(), model) == [
        "Training ranges of Ne: 9 features, of which 7 have one value only: "
        f"{'; '.join(names[:5])}; and 2 more."
    ]
    model.fit_ranges([])
    assert [str(r) for r in training_ranges(SPECIES, model.weights(), model.labels())] == [
        "Ne: not known",
        "Ar: not known",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose descriptor lacks a pair, with a constant feature; more frames than statistics take."""
    folder = tmp_path_factory.mktemp("coverage")
    write_extxyz(folder / "data.xyz", boxes(210))
    functions = {"Ne": [radial("Ne"), radial("Ne", cutoff=0.5)], "Ar": [radial("Ne"), radial("Ar")]}
    config = {
        "data": {
            "training": str(folder / "data.xyz"),
            "validation": 10,
            "reference_energies": "least_squares",
        },
        "model": {"cutoff": CUTOFF, "hidden": [4], "descriptor": {"symmetry_functions": functions}},
        "training": {"epochs": 1, "batch_size": 100},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_parity", lambda *_, **__: [])
        patch.setattr(plots, "plot_history", lambda *_: None)
        train(load_config(folder / "train.yaml", []), folder / "run")
    return folder / "run"


def test_the_log_says_it(run):
    log = " ".join((run / "train.log").read_text().split())
    assert "The descriptor of Ne does not see Ar, which the training set has within the cutoff" in log
    name = read_ranges(run / "model.pt")[1]["Ne"][1]
    assert f"Training ranges of Ne: 2 features, of which 1 have one value only: {name}." in log


def test_info_says_it(run):
    path = run / "model.pt"
    console = rich.console.Console(width=110, record=True, file=io.StringIO())
    console.print(describe(read_metadata(path), training_ranges(SPECIES, *read_ranges(path))))
    text = " ".join(console.export_text().split())
    name = read_ranges(path)[1]["Ne"][1]
    assert f"training ranges Ne: 2 features, of which 1 have one value only: {name}" in text
    assert "Ar: 2 features" in text


def test_no_training_frame_extrapolates(run):
    """Ranges are those of all training frames, not only of those that give the statistics."""
    potential = Potential(run / "model.pt")
    numbers = np.loadtxt(run / "split" / "training.txt", dtype=int)
    frames = boxes(210)
    for number in numbers:
        frame = frames[number]
        found = potential.compute(frame.positions, frame.symbols, frame.cell, frame.pbc, extrapolations=True)
        assert found.extrapolations == []
