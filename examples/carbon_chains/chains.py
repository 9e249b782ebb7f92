"""Charges along carbon chains C10H2 and C10H3+: reference and models.

In C10H3+ one end has a second hydrogen. Within the cutoff of a model the hydrogen at the other end has the
neighbors of those of C10H2, but another charge. Prints, for the test frames, mean charges of the far-end
hydrogens in both, and errors; draws chains.png, mean charges along the chain.

    python chains.py carbon_chain_128.extxyz.xz --indices test.txt
    python chains.py carbon_chain_128.extxyz.xz equilibrated=one/model.pt environment=other/model.pt

The first form writes the numbers of the frames that are marked as test frames, for training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nearsight.data import Frame, read_frames
from nearsight.export import load
from nearsight.interfaces.potential import Potential
from nearsight.interfaces.predictions import predict
from nearsight.neighbors import make_graph
from nearsight.training.metrics import Metrics
from nearsight.training.plots import new_figure

NAMES = {12: "C10H2", 13: "C10H3+"}  # by the number of atoms
LOCAL = ", before projection"


def far_ends(frame: Frame) -> list[int]:
    """Hydrogens whose carbon has no other: both of C10H2, one of C10H3+."""
    symbols = np.array(frame.symbols)
    hydrogens, carbons = np.flatnonzero(symbols == "H"), np.flatnonzero(symbols == "C")
    distances = np.linalg.norm(frame.positions[hydrogens, None] - frame.positions[carbons], axis=2)
    nearest = distances.argmin(axis=1)
    return [int(h) for h, c in zip(hydrogens, nearest) if (nearest == c).sum() == 1]


def along(frame: Frame, charges: np.ndarray, start: int) -> np.ndarray:
    """Charges of a far-end hydrogen, of the carbons from there on, and the mean of the other hydrogens."""
    symbols = np.array(frame.symbols)
    left, here, found = set(np.flatnonzero(symbols == "C")), start, [charges[start]]
    while left:
        here = min(left, key=lambda atom: np.linalg.norm(frame.positions[atom] - frame.positions[here]))
        left.remove(here)
        found.append(charges[here])
    others = [atom for atom in np.flatnonzero(symbols == "H") if atom != start]
    return np.array([*found, charges[others].mean()])


def profiles(frames: list[Frame], charges: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean charges along the chain from a far end, of both molecules, e."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES.values()}
    for frame, q in zip(frames, charges):
        found[NAMES[len(frame)]] += [along(frame, q, start) for start in far_ends(frame)]
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def local_charges(path: str, frames: list[Frame]) -> list[np.ndarray]:
    """Charges of a model of charges of the environment, before they are made to add up."""
    model, found = load(path), []
    for frame in frames:
        kinds = [model.metadata["species"].index(symbol) for symbol in frame.symbols]
        graph = make_graph(frame.positions, kinds, frame.cell, frame.pbc, model.metadata["cutoff"])
        readouts = model.module(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        found.append(readouts["charge"][:, 0].detach().numpy())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", help="NAME=FILE")
    parser.add_argument("--indices", type=Path, help="file for the numbers of the test frames")
    parser.add_argument("--output", type=Path, default=Path("chains.png"))
    options = parser.parse_args()

    everything = read_frames([options.data])
    numbers = [number for number, frame in enumerate(everything) if frame.info["split"] == "test"]
    if options.indices:
        options.indices.write_text("\n".join(map(str, numbers)) + "\n")
    if options.models:
        compare([everything[number] for number in numbers], options.models, options.output)


def compare(frames: list[Frame], models: list[str], output: Path) -> None:
    """Print tables and draw the figure; models are NAME=FILE."""
    curves = {"reference": profiles(frames, [frame.labels["charges"] for frame in frames])}
    errors = Table("model", "energy, meV/atom", "forces, meV/Å", "charges, me", title="RMSE, test frames")
    for name, path in (text.split("=", 1) for text in models):
        potential, metrics = Potential(path), Metrics()
        results = [predict(potential, frame) for frame in frames]
        for frame, result in zip(frames, results):
            metrics.add(frame, result)
        rmse = [metrics.targets[target].rmse for target in ("energy", "forces", "charges")]
        errors.add_row(name, *(f"{number:.1f}" for number in rmse))
        curves[name] = profiles(frames, [result["charges"] for result in results])
        if potential.metadata["couple"]["charges"] == "environment":
            curves[name + LOCAL] = profiles(frames, local_charges(path, frames))
    table = Table("", *NAMES.values(), "difference", "of the reference's", title="Far-end hydrogens, e")
    differences = {}
    for name, curve in curves.items():
        neutral, charged = (curve[molecule][0] for molecule in NAMES.values())
        differences[name] = charged - neutral
        share = differences[name] / differences["reference"]
        table.add_row(name, f"{neutral:.4f}", f"{charged:.4f}", f"{differences[name]:.4f}", f"{share:.0%}")
    console = Console()
    console.print(table, errors)
    draw(curves, output)


def draw(curves: dict[str, dict[str, np.ndarray]], output: Path) -> None:
    """Draw mean charges along the chains."""
    figure, axes = new_figure(12.0, 4.5, ncols=2)
    labels = ["H", *(f"C{number}" for number in range(1, 11)), "H"]
    for axis, molecule in zip(axes, NAMES.values()):
        axis.plot(curves["reference"][molecule], "ko-", label="reference")
        for number, name in enumerate(name for name in curves if LOCAL not in name and name != "reference"):
            axis.plot(curves[name][molecule], f"C{number}.--", label=name)
            if (raw := name + LOCAL) in curves:
                axis.plot(curves[raw][molecule], f"C{number}:", label=raw)
        axis.set(title=molecule, ylabel="charge (e)", xlabel="from the far end to the other")
        axis.set_xticks(range(len(labels)), labels)
    axes[0].legend()
    figure.savefig(output)


if __name__ == "__main__":
    main()
