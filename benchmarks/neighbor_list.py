"""Time of a full neighbor list at the density of water: the core against matscipy and vesin, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/neighbor_list.py [--output neighbor_list.json]

All give centers, neighbors, shifts and vectors (ijSD) to Python; vesin is not asked to sort by center, the
core and matscipy do so. Contenders take turns; a figure is the median of at least five runs and half a second
each. Times are CPU times of the process, so that a busy machine distorts them less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matscipy.neighbours import neighbour_list
from rich.console import Console
from rich.table import Table
from vesin import NeighborList

import nearsight
from nearsight.lib import _core

CUTOFF = 6.0  # Å
ATOMS_PER_VOLUME = 0.1003  # Å⁻³, water at 1 g/cm³
SIZES = (192, 1536, 12288, 98304)
NAMES = ("nearsight", "matscipy", "vesin")
PBC = np.array([True, True, True])


def water_like(num_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """A jittered lattice in random order, so that no points are on top of each other, and its cell."""
    rng = np.random.default_rng(0)
    length = (num_atoms / ATOMS_PER_VOLUME) ** (1 / 3)
    edge = int(np.ceil(num_atoms ** (1 / 3)))
    lattice = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    chosen = rng.permutation(lattice)[:num_atoms]
    return (chosen + rng.uniform(-0.3, 0.3, chosen.shape)) * (length / edge), length * np.eye(3)


def contenders(positions: np.ndarray, cell: np.ndarray) -> dict[str, Callable[[], tuple]]:
    """Calls that return (center, neighbor, shifts, vectors)."""
    vesin = NeighborList(cutoff=CUTOFF, full_list=True, n_threads=1)

    def ours() -> tuple:
        edge_index, shifts, vectors = _core.neighbor_list(positions, cell, PBC, CUTOFF)
        return edge_index[0], edge_index[1], shifts, vectors

    return {
        "nearsight": ours,
        "matscipy": lambda: neighbour_list("ijSD", positions=positions, cell=cell, pbc=PBC, cutoff=CUTOFF),
        "vesin": lambda: vesin.compute(positions, cell, True, "ijSD"),
    }


def medians(calls: dict[str, Callable[[], tuple]]) -> dict[str, float]:
    """Median CPU seconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    while min(map(len, times.values())) < 5 or min(map(sum, times.values())) < 0.5:
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def measure() -> list[dict]:
    """One row per size: atoms, pairs per atom, microseconds per atom of each contender."""
    rows = []
    for num_atoms in SIZES:
        calls = contenders(*water_like(num_atoms))
        pairs = {len(call()[0]) for call in calls.values()}
        if len(pairs) != 1:
            raise SystemExit(f"the programs disagree about the number of pairs of {num_atoms} atoms: {pairs}")
        seconds = medians(calls)
        rows.append(
            {
                "atoms": num_atoms,
                "pairs_per_atom": pairs.pop() / num_atoms,
                "us_per_atom": {name: 1e6 * seconds[name] / num_atoms for name in NAMES},
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("neighbor_list.json"))
    options = parser.parse_args()
    rows = measure()
    report = {
        "unit": f"µs/atom: full list within {CUTOFF} Å at {ATOMS_PER_VOLUME} atoms/Å³, one thread",
        "versions": {"nearsight": nearsight.__version__}
        | {p: version(p) for p in ("matscipy", "vesin", "numpy")},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "rows": rows,
    }
    options.output.write_text(json.dumps(report, indent=1))
    table = Table("atoms", "pairs/atom", *NAMES, title=report["unit"])
    for row in rows:
        table.add_row(
            str(row["atoms"]),
            f"{row['pairs_per_atom']:.1f}",
            *(f"{row['us_per_atom'][name]:.2f}" for name in NAMES),
        )
    Console().print(table)
    print(", ".join(f"{program} {number}" for program, number in report["versions"].items()))


if __name__ == "__main__":
    main()
