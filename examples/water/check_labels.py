"""Compare GFN2-xTB forces and virial with central differences of the energy on one frame.

Uses the same `compute` as label.py, so what is checked is what is stored. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from ase.io import read
from frames import format_frame
from label import compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=Path, help="extended XYZ file")
    parser.add_argument("--index", type=int, default=0, help="which frame of the file")
    parser.add_argument("--step", type=float, default=1e-3, help="displacement in Å")
    parser.add_argument("--strain", type=float, default=2e-4, help="strain step")
    parser.add_argument(
        "--components", type=int, default=6, help="number of force components, drawn at random"
    )
    options = parser.parse_args()

    atoms = read(options.frames, options.index)
    started = time.monotonic()
    labels = compute(atoms)
    print(f"frame {atoms.info['frame_id']}: {time.monotonic() - started:.1f} s per label")
    print(f"net force |sum F| = {np.abs(labels['forces'].sum(0)).max():.1e} eV/Å, ", end="")
    print(f"net charge = {labels['charges'].sum():.1e} e")
    if "REF_energy" in atoms.info:
        worst = np.abs(labels["forces"] - atoms.arrays["REF_forces"]).max()
        shift = labels["energy"] - atoms.info["REF_energy"]
        print(f"stored label again: energy {shift:+.1e} eV, forces {worst:.1e} eV/Å")

    chosen = np.random.default_rng(0).choice(3 * len(atoms), options.components, replace=False)
    for atom, axis in (divmod(int(k), 3) for k in chosen):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * options.step
            energies.append(compute(moved)["energy"])
        numeric = -(energies[0] - energies[1]) / (2 * options.step)
        analytic = labels["forces"][atom, axis]
        print(
            f"force {atoms.symbols[atom]}{atom} {'xyz'[axis]}: analytic {analytic:+.6f}, "
            f"numeric {numeric:+.6f}, difference {analytic - numeric:+.1e} eV/Å",
            flush=True,
        )

    for i, j in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * options.strain / 2  # symmetric: half on each side of the diagonal
            strain[j, i] += sign * options.strain / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(compute(strained)["energy"])
        numeric = -(energies[0] - energies[1]) / (2 * options.strain)
        analytic = labels["virial"][i, j]
        print(
            f"virial {'xyz'[i]}{'xyz'[j]}: analytic {analytic:+.5f}, numeric {numeric:+.5f}, "
            f"difference {analytic - numeric:+.1e} eV",
            flush=True,
        )

    symbols, cell = atoms.get_chemical_symbols(), atoms.cell.array
    turned = atoms.copy()
    turned.positions += 3.21  # a rigid shift must change nothing
    print(f"rigid shift: energy changes by {compute(turned)['energy'] - labels['energy']:+.1e} eV")
    size = len(format_frame(symbols, atoms.positions, cell, {}, labels["forces"], labels["charges"]))
    print(f"one frame is {size / 1024:.1f} KiB of text before compression")


if __name__ == "__main__":
    main()
