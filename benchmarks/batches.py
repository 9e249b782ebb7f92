"""Small structures one by one and in batches: µs/atom of energies, forces and virials, from Python.

The first frames of files of small molecules, with untrained models; medians of runs in turn. In brackets the
process's own time, all threads together, which others on the machine change less.

    python benchmarks/batches.py $NEARSIGHT_DATA/rmd17/ethanol_test_01.extxyz.xz --threads 1 2
    python benchmarks/batches.py molecules.xyz --device cuda --batch-atoms 8192 32768 131072
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from harness import untrained_model
from rich.console import Console
from rich.table import Table

from nearsight.data import Frame, read_frames
from nearsight.interfaces.potential import Potential
from nearsight.models import ACEConfig, BPNNConfig, MACEConfig, PaiNNConfig

MODELS = {
    "ACSF": BPNNConfig(hidden=[25, 25]),
    "ACE": BPNNConfig(cutoff=4.5, hidden=[25, 25], descriptor=ACEConfig()),
    "MACE 32 channels, one interaction": MACEConfig(cutoff=5.0, channels=32),
    "MACE 64 channels, two interactions": MACEConfig(cutoff=5.0, channels=64, num_interactions=2),
    "PaiNN, TorchScript": PaiNNConfig(cutoff=5.0, channels=32),
}


def measure(potential: Potential, frames: list[Frame], sizes: list[int], runs: int) -> dict[int, list[float]]:
    """Wall and process time of each bound on the atoms of a batch, µs/atom; 0: one by one."""
    atoms = sum(map(len, frames))
    found = {size: ([], []) for size in sizes}
    for run in range(runs + 1):
        for size, (wall, own) in found.items():
            started, worked = time.perf_counter(), time.process_time()
            potential.compute_batch(frames, batch_atoms=size)
            if run > 0:  # the first one warms up
                wall.append(1e6 * (time.perf_counter() - started) / atoms)
                own.append(1e6 * (time.process_time() - worked) / atoms)
    return {size: [statistics.median(times) for times in both] for size, both in found.items()}


def main() -> None:
    """Print a table for each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--batch-atoms", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", default="mixed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for file in options.files:
        frames = read_frames([file])[: options.frames]
        species = sorted({symbol for frame in frames for symbol in frame.symbols})
        title = f"{len(frames)} frames of {Path(file).name}, µs/atom (own time)"
        sizes = [0, *options.batch_atoms]
        table = Table("model", "threads", "one by one", *map(str, options.batch_atoms), title=title)
        with tempfile.TemporaryDirectory() as folder:
            for name in options.models:
                path = untrained_model(Path(folder) / "model.pt", MODELS[name], species)
                for threads in options.threads:
                    kind = {"precision": options.precision, "device": options.device}
                    found = measure(Potential(path, threads=threads, **kind), frames, sizes, options.runs)
                    times = (f"{wall:.2f} ({own:.2f})" for wall, own in found.values())
                    table.add_row(name, str(threads), *times)
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
