"""Merge labelled rounds into one compressed data set and print a summary.

Isolated atoms come first, then the rounds in the given order, each sorted by frame_id: labelling
finishes frames in no fixed order, and a fixed order makes the file reproducible. Frames with a force beyond
--max-force are left out: a liquid at these temperatures never visits them, and a few dominate an error.
"""

from __future__ import annotations

import argparse
import lzma
from io import StringIO
from pathlib import Path

import numpy as np
from ase.io import read
from frames import iter_blocks


def summarise(text: str, e0: dict[str, float]) -> None:
    """One line per round: counts, energy above the free atoms, forces and charges."""
    images = [a for a in read(StringIO(text), ":", format="extxyz") if len(a) > 1]
    print("round  frames  breakdown  atoms  E-E0 mean   spread  |F| median     max  max|q|  O-H range")
    print("                                 (eV/atom) (meV/at)     (eV/Å)  (eV/Å)     (e)        (Å)")
    for label in [*sorted({int(a.info["round"]) for a in images}), "all"]:
        chosen = [a for a in images if label == "all" or int(a.info["round"]) == label]
        binding = [
            (a.info["REF_energy"] - sum(e0[s] for s in a.get_chemical_symbols())) / len(a) for a in chosen
        ]
        force = np.linalg.norm(np.concatenate([a.arrays["REF_forces"] for a in chosen]), axis=1)
        charge = np.abs(np.concatenate([a.arrays["REF_charges"] for a in chosen]))
        # Nearest O of every H, so that a broken molecule does not count as a long bond.
        bonds = np.concatenate(
            [a.get_all_distances(mic=True)[a.numbers == 1][:, a.numbers == 8].min(axis=1) for a in chosen]
        )
        broken = sum(a.info["config_type"] == "breakdown" for a in chosen)
        print(
            f"{label!s:>5} {len(chosen):7d} {broken:10d} {len(chosen[0]):6d} {np.mean(binding):10.4f} "
            f"{1000 * np.std(binding):8.2f} {np.median(force):11.3f} {force.max():7.2f} {charge.max():7.3f} "
            f" {bonds.min():.2f}-{bonds.max():.2f}"
        )


def largest_force(block: str) -> float:
    """Largest norm of a force in one frame, eV/Å."""
    return float(np.linalg.norm(read(StringIO(block), format="extxyz").arrays["REF_forces"], axis=1).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", type=Path, nargs="+", help="labelled files, in round order")
    parser.add_argument("--isolated-atoms", type=Path, required=True, help="file written by label.py")
    parser.add_argument("--output", type=Path, default=Path("water.extxyz.xz"))
    parser.add_argument("--max-force", type=float, default=20.0, help="eV/Å")
    options = parser.parse_args()

    atoms = read(options.isolated_atoms, ":")
    e0 = {a.get_chemical_symbols()[0]: float(a.info["REF_energy"]) for a in atoms}
    blocks = list(iter_blocks(options.isolated_atoms))
    for path in options.rounds:
        blocks += sorted(iter_blocks(path))
    left_out = {frame_id for frame_id, block in blocks if largest_force(block) > options.max_force}
    print(f"left out, with a force above {options.max_force} eV/Å: {', '.join(sorted(left_out)) or 'none'}")
    blocks = [(frame_id, block) for frame_id, block in blocks if frame_id not in left_out]
    ids = [frame_id for frame_id, _ in blocks]
    if len(set(ids)) != len(ids):
        parser.error(f"frame_id used twice: {sorted({i for i in ids if ids.count(i) > 1})}")
    text = "".join(block for _, block in blocks)
    options.output.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    summarise(text, e0)
    print(f"{options.output}: {len(ids)} frames, {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
