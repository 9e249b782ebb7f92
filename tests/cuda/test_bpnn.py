"""Descriptors and networks on a device, against the CPU."""

import numpy as np
import pytest
import torch
from models_for_tests import random_structure, rarer_functions

from nearsight.export import save_model
from nearsight.interfaces.potential import Potential
from nearsight.models import (
    BPNN,
    ACEConfig,
    ACSFConfig,
    ANIConfig,
    BPNNConfig,
    LinearConfig,
    SOAPConfig,
)
from nearsight.models.automatic_functions import automatic_functions
from nearsight.models.networks import NetworkShape
from nearsight.neighbors import collate, make_graph

SPECIES = ["H", "O", "Si"]
CELL = np.array([[9.0, 0.0, 0.0], [1.2, 8.5, 0.0], [-0.8, 0.9, 9.5]])
CRYSTAL, SYMBOLS = random_structure(1, 50, CELL)


def every_kind(cutoff_function, inner_fraction=0.0):
    """Every kind of symmetry function; others for each species."""
    functions = rarer_functions(SPECIES) + [
        f.record() for f in automatic_functions(SPECIES, 5.0, "medium")["H"]
    ]
    of_species = {"H": functions, "O": functions[::2], "Si": []}
    of_species["Si"] = [f for f in functions if f["kind"] in ("radial", "angular_wide")]
    return ACSFConfig(
        cutoff_function=cutoff_function, inner_fraction=inner_fraction, symmetry_functions=of_species
    )


def every_activation():
    """A network of three layers, and more, for each species."""
    descriptor = ACSFConfig().build(4.0, SPECIES)
    activations = {
        "H": ("tanh", "silu", "logistic", "reversed_logistic", "linear"),
        "O": ("softplus", "relu", "gaussian", "cos", "exp_negative"),
        "Si": ("celu", "gelu", "tanh", "square", "linear"),
    }
    shapes = {s: NetworkShape((8, 33, 5, 17), names) for s, names in activations.items()}
    return BPNN(SPECIES, 4.0, descriptor, shapes)


def bpnn(members=1, **config):
    return lambda: BPNNConfig(**{"hidden": [9, 6]} | config).build(SPECIES, members)


MODELS = {
    "small": bpnn(),
    "large, cosine, wide networks": bpnn(
        descriptor=ACSFConfig(size="large", cutoff_function="cos"), hidden=[100, 20], activation="silu"
    ),
    "every function, tanh": bpnn(descriptor=every_kind("tanh3_normalized"), cutoff=5.0),
    "every function, exp": bpnn(descriptor=every_kind("exp", 0.3), cutoff=5.0, hidden=[3]),
    "every function, poly4": bpnn(descriptor=every_kind("poly4"), cutoff=5.0, states=2),
    "every activation": every_activation,
    "committee": bpnn(members=3, cutoff=4.5),
    "ani": bpnn(descriptor=ANIConfig(), cutoff=5.1, activation="celu"),
    "ani, exp, committee": bpnn(
        members=2,
        descriptor=ANIConfig(cutoff_function="exp", zeta=8.0, angles=3),
        cutoff=4.2,
        hidden=[70, 20],
    ),
    "ani, many functions": bpnn(
        descriptor=ANIConfig(radial_shifts=70, angular_shifts=14, angles=9), cutoff=4.0, states=2
    ),
    "soap": bpnn(descriptor=SOAPConfig(n_max=4, l_max=3), cutoff=4.0, directions=20),
    "soap, mixed species": bpnn(descriptor=SOAPConfig(n_max=3, l_max=8, species_channels=2), cutoff=4.0),
    "ace": bpnn(descriptor=ACEConfig(max_degree=[8, 6, 5]), cutoff=4.0),
    "linear": lambda: LinearConfig(
        architecture="linear", cutoff=3.5, descriptor=ACEConfig(max_degree=[6, 5, 4])
    ).build(SPECIES),
}


def statistics_of(model):
    frames = [(CRYSTAL, SYMBOLS), random_structure(7, 40, CELL)]
    numbers = [[SPECIES.index(s) for s in symbols] for _, symbols in frames]
    return collate([make_graph(x, n, CELL, [True] * 3, model.cutoff) for (x, _), n in zip(frames, numbers)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the file of a model, written when it is first wanted."""
    folder, files = tmp_path_factory.mktemp("models"), {}

    def save(name):
        if name not in files:
            torch.manual_seed(3)
            model = MODELS[name]()
            if name != "linear":
                model.fit_statistics([statistics_of(model)], 0.5)
            with torch.no_grad():
                for network in model.networks:
                    torch.nn.init.normal_(network.layers[-1].bias)
                    if name == "linear":
                        torch.nn.init.normal_(network.layers[-1].weight, std=0.01)
            files[name] = folder / f"{len(files)}.pt"
            save_model(
                files[name],
                model,
                reference_energies=dict.fromkeys(SPECIES, 0.0),
                reference_energies_source="given",
                provenance={},
            )
        return files[name]

    return save


def cluster():
    """One species absent, one atom without neighbors, an atom with one."""
    positions, symbols = random_structure(2, 12, 6.0 * np.eye(3))
    positions = np.vstack([positions, [[40.0, 0.0, 0.0], [80.0, 0.0, 0.0], [81.5, 0.5, 0.0]]])
    return {"positions": positions, "atoms": ["O" if s == "Si" else s for s in symbols] + ["O", "H", "H"]}


def pure():
    """More than 128 neighbors, more than 32 of them in each shell, all of the same species."""
    symbols = ["Si"] * len(CRYSTAL)
    return {"positions": 0.75 * CRYSTAL, "atoms": symbols, "cell": 0.75 * CELL, "pbc": True}


SYSTEMS = {
    "crystal": lambda: {"positions": CRYSTAL, "atoms": SYMBOLS, "cell": CELL, "pbc": True},
    "cluster": cluster,
    "pure": pure,
}


def compute(path, system, precision, device, **wanted):
    return Potential(path, precision=precision, device=device).compute(**SYSTEMS[system](), **wanted)


def assert_close(found, expected, relative):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * scale)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu_in_double(saved, name, system):
    expected = compute(saved(name), system, "double", "cpu")
    found = compute(saved(name), system, "double", "cuda")
    assert np.abs(expected.forces).max() > 1e-3
    assert_close(found.energies, expected.energies, 1e-10)
    assert_close(found.forces, expected.forces, 1e-10)
    assert_close(found.virial, expected.virial, 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu_in_mixed_precision(saved, name):
    exact = compute(saved(name), "crystal", "double", "cpu")
    expected = compute(saved(name), "crystal", "mixed", "cpu")
    found = compute(saved(name), "crystal", "mixed", "cuda")
    scale = max(1.0, np.abs(exact.forces).max())
    assert np.abs(found.forces - expected.forces).max() < 2e-5 * scale
    # About as far from the truth as the CPU is, which takes directions from vectors in double.
    error, of_cpu = (np.abs(r.forces - exact.forces).max() for r in (found, expected))
    assert error < 4.0 * of_cpu + 1e-7 * scale


@pytest.mark.parametrize("name", MODELS)
def test_threads_in_any_order_give_the_same_bits(saved, name, monkeypatch):
    results = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", order)
        results.append(compute(saved(name), "crystal", "double", "cuda"))
    assert np.array_equal(results[0].energies, results[1].energies)
    assert np.array_equal(results[0].forces, results[1].forces)


@pytest.mark.parametrize("name", ["committee", "ani, exp, committee"])
def test_members_one_by_one(saved, name):
    expected = compute(saved(name), "crystal", "double", "cpu", members=True)
    found = compute(saved(name), "crystal", "double", "cuda", members=True)
    assert_close(found.member_energies, expected.member_energies, 1e-10)
    assert_close(found.member_forces, expected.member_forces, 1e-10)


@pytest.mark.parametrize("name", ["every function, exp", "ani", "soap", "committee"])
def test_tiles_change_no_bit(saved, name, monkeypatch):
    whole = compute(saved(name), "crystal", "double", "cuda", members=name == "committee")
    monkeypatch.setenv("NEARSIGHT_EMULATED_BYTES", str(1 << 20))  # tiles of 32 rows
    tiled = compute(saved(name), "crystal", "double", "cuda", members=name == "committee")
    assert np.array_equal(whole.energies, tiled.energies)
    assert np.array_equal(whole.forces, tiled.forces)


def test_more_species_than_a_launch_takes(tmp_path):
    symbols = [
        "H",
        "He",
        "Li",
        "Be",
        "B",
        "C",
        "N",
        "O",
        "F",
        "Ne",
        "Na",
        "Mg",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Ar",
    ]
    torch.manual_seed(1)
    descriptor = SOAPConfig(n_max=2, l_max=1, species_channels=2)
    model = BPNNConfig(descriptor=descriptor, cutoff=3.0, hidden=[4]).build(symbols)
    path = tmp_path / "many.pt"
    save_model(
        path,
        model,
        reference_energies=dict.fromkeys(symbols, 0.0),
        reference_energies_source="given",
        provenance={},
    )
    system = {"positions": CRYSTAL[:40], "atoms": (3 * symbols)[:40], "cell": CELL, "pbc": True}
    expected, found = (Potential(path, device=device).compute(**system) for device in ("cpu", "cuda"))
    assert_close(found.energies, expected.energies, 1e-10)
    assert_close(found.forces, expected.forces, 1e-10)
