"""Energies of dimers against their distance: reference and models.

Prints errors of the test frames by class (C charged, P polar, A apolar) and draws curves.png, the interaction
energies E - E_A - E_B, with the fragments' energies E_A and E_B of the reference.

    python curves.py dimers_train.extxyz dimers_test.extxyz charges=charges/model.pt local=local/model.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nearsight.data import Frame, read_frames
from nearsight.interfaces.potential import Potential
from nearsight.interfaces.predictions import predict
from nearsight.training.plots import new_figure


def errors(frames: list[Frame], results: list[dict[str, Any]]) -> tuple[float, float]:
    """RMSE of energies in meV per dimer, and of force components in meV/Å."""
    energy = [found["energy"] - frame.labels["energy"] for frame, found in zip(frames, results)]
    forces = [(found["forces"] - frame.labels["forces"]).ravel() for frame, found in zip(frames, results)]
    return tuple(1e3 * float(np.sqrt(np.mean(np.square(each)))) for each in (energy, np.concatenate(forces)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("training", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("models", nargs="+", help="NAME=FILE")
    parser.add_argument("--output", type=Path, default=Path("curves.png"))
    options = parser.parse_args()

    training, test = read_frames([options.training]), read_frames([options.test])
    frames = sorted(training + test, key=lambda frame: frame.info["distance"])
    tested = {frame.source for frame in test}
    models = {name: Potential(file) for name, file in (text.split("=", 1) for text in options.models)}
    table = Table("class", "model", "energy, meV per dimer", "forces, meV/Å", title="RMSE of the test frames")
    classes = sorted({frame.info["label"] for frame in frames})
    figure, axes = new_figure(12.0, 7.0, nrows=2, ncols=(len(classes) + 1) // 2)
    for label, axis in zip(classes, axes.flat):
        mine = [frame for frame in frames if frame.info["label"] == label]
        distances = np.array([frame.info["distance"] for frame in mine])
        alone = np.array([frame.labels["energy"] - frame.info["inter_energy"] for frame in mine])
        is_test = np.array([frame.source in tested for frame in mine])
        reference = np.array([frame.info["inter_energy"] for frame in mine])
        axis.plot(distances[~is_test], reference[~is_test], "o", color="0.6", label="reference, training")
        axis.plot(distances[is_test], reference[is_test], "o", color="k", label="reference, test")
        for name, potential in models.items():
            results = [predict(potential, frame) for frame in mine]
            found = [result["energy"] for result in results]
            axis.plot(distances, found - alone, label=name)
            energy, forces = errors(
                [frame for frame, chosen in zip(mine, is_test) if chosen],
                [result for result, chosen in zip(results, is_test) if chosen],
            )
            table.add_row(label, name, f"{energy:.1f}", f"{forces:.1f}")
        axis.set(title=label, xlabel="distance (Å)", ylabel="interaction energy (eV)")
    axes.flat[0].legend()
    figure.savefig(options.output)
    Console().print(table)


if __name__ == "__main__":
    main()
