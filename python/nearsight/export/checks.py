"""The check structures of a model file, with what the module gave for them at export."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearsight.couple import ChargedStructure, Dispersion, FrameCharger, edge_sums, evaluate
from nearsight.neighbors import make_graph

RELATIVE = 1e-10
ABSOLUTE = 1e-12  # eV, eV/Å; below it a number is round-off of larger ones that cancel
ROUNDING = 1e-14  # of a total energy with its reference energies
_SHORTEST = 1.0  # Å between atoms of a check structure
_QUANTITIES = ("energy", "forces", "virial")


def _scatter(rng: np.random.Generator, count: int, box: np.ndarray, periodic: bool) -> np.ndarray:
    """Return random positions [count, 3] in the box (rows: vectors), none too close to another."""
    images = (
        np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ box * periodic
    )
    positions = np.zeros((0, 3))
    while len(positions) < count:
        candidate = rng.random(3) @ box
        vectors = positions[:, None] + images - candidate
        if (np.linalg.norm(vectors, axis=2) > _SHORTEST).all():
            positions = np.vstack([positions, candidate])
    return positions


def structures(num_species: int, cutoff: float) -> list[dict[str, Any]]:
    """Return a triclinic cell smaller than two cutoffs, a cluster with a lone atom, and a molecule."""
    rng = np.random.default_rng(20240229)
    side = max(0.9 * cutoff, 3.0)
    cell = side * np.array([[1.0, 0.0, 0.0], [0.25, 0.95, 0.0], [-0.2, 0.3, 1.05]])
    cube = np.eye(3) * max(0.6 * cutoff, 3.0)
    cluster = np.vstack([_scatter(rng, 4, cube, False), [[0.0, 0.0, 20.0 + 3.0 * cutoff]]])
    open_cell = np.zeros((3, 3))
    frames = [
        ("triclinic", _scatter(rng, 8, cell, True), cell, True),
        ("lone atom", cluster, open_cell, False),
        ("molecule", _scatter(rng, 7, cube, False), open_cell, False),
    ]
    return [
        {
            "name": name,
            "positions": positions.tolist(),
            "species": rng.permutation(np.arange(len(positions)) % num_species).tolist(),
            "cell": box.tolist(),
            "pbc": [periodic] * 3,
        }
        for name, positions, box, periodic in frames
    ]


def add_charge(structure: dict[str, Any], couple: dict[str, Any]) -> dict[str, Any]:
    """Return the structure with a total charge in e, for couples with charges: the sum of fixed ones, else 1
    where the structure is periodic and 0 where it is not."""
    if couple["kind"] != "coulomb":
        return structure
    if couple["charges"] == "fixed":
        return structure | {"charge": sum(couple["values"][kind] for kind in structure["species"])}
    return structure | {"charge": 1.0 if all(structure["pbc"]) else 0.0}


def add_results(structure: dict[str, Any], module: nn.Module, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the structure with the module's readouts, energy (with references), forces, virial; with the
    dispersion of the metadata, where the model adds it."""
    keys = ("positions", "species", "cell", "pbc")
    graph = make_graph(*(structure[key] for key in keys), metadata["cutoff"]).to(dtype=torch.float64)
    charged = None
    if "charge" in structure:  # with the parameters that the core chooses
        with torch.no_grad():
            readouts = module(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        charges = ChargedStructure(*(structure[key] for key in keys), structure["charge"])
        charged = FrameCharger(metadata["couple"]).with_charges(charges, readouts)
    results = evaluate(module, graph, metadata["couple"], charged=charged)
    reference = sum(
        metadata["reference_energies"][metadata["species"][kind]] for kind in structure["species"]
    )
    energy, forces, virial = float(results.energy), results.forces, results.virial[0]
    record = metadata.get("dispersion", {"added_by": "host"})
    if record["added_by"] == "model":
        more = _dispersion(structure, record)
        energy, forces, virial = energy + more[0], forces + more[1], virial + more[2]
    return structure | {
        "readouts": {name: values.tolist() for name, values in results.readouts.items()},
        "energy": energy + reference,
        "reference_energy": reference,
        "forces": forces.tolist(),
        "virial": virial.tolist(),
    }


def _dispersion(structure: dict[str, Any], record: dict[str, Any]) -> tuple[float, Tensor, Tensor]:
    """Energy, forces and virial of the module in torch."""
    module = Dispersion(record)
    graph = make_graph(*(structure[key] for key in ("positions", "species", "cell", "pbc")), module.reach)
    vectors = graph.edge_vectors.requires_grad_(True)
    energy = module(graph.species, graph.edge_index, vectors).sum()
    (gradients,) = torch.autograd.grad(energy, vectors)
    forces, virial = edge_sums(gradients, graph)
    return float(energy.detach()), forces, virial[0].detach()


@contextlib.contextmanager
def _exact_core() -> Iterator[None]:
    """Interpolated radial functions and unfinished iterations differ by more than a check allows."""
    exact = {"NEARSIGHT_RADIALS": "analytic", "NEARSIGHT_RESIDUAL": "1e-13"}
    before = {name: os.environ.get(name) for name in exact}
    os.environ.update(exact)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def native_results(path: str, structure: dict[str, Any]) -> dict[str, Any]:
    """Return energy, forces and virial of the core, native where it has code for the model."""
    from nearsight.lib import _core

    with _exact_core():
        evaluator = _core.Evaluator(path, backend="auto", precision="double")
    return evaluator.evaluate(
        np.array(structure["positions"]),
        np.array(structure["species"], dtype=np.int32),
        np.array(structure["cell"]),
        np.array(structure["pbc"]),
        structure.get("charge"),
    )


def disagreement(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return a sentence on the first quantity that differs beyond the tolerance, or None."""
    for quantity in _QUANTITIES:
        a, b = np.asarray(expected[quantity]), np.asarray(found[quantity])
        largest = np.abs(a - b).max()
        size = np.abs(a - expected["reference_energy"] if quantity == "energy" else a).max()
        allowed = RELATIVE * size + ABSOLUTE + ROUNDING * np.abs(a).max()
        if not largest <= allowed:  # also when it is NaN
            name = expected["name"]
            return (
                f"{quantity} of the check structure '{name}' differs by {largest:.3g}, allowed {allowed:.3g}"
            )
    return None
