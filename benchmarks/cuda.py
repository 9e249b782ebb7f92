"""Speed of the CUDA kernels: µs/atom/step of models on liquid water, through the C API, against the CPU.

Every step has other positions, uploads them and downloads forces, as LAMMPS would; the neighbor list is kept
by its skin of 1 Å. Medians of steps. PME of fixed charges and D3 are measured by themselves. Also measures
the card's copy bandwidth and its rates of FP32 and FP64 from registers. Writes JSON and prints a table. With
NEARSIGHT_CUDA=emulated it tests itself, slowly.

    python benchmarks/cuda.py --output cuda.json
    python benchmarks/cuda.py --copies 1 --models "ACSF small" --steps 3
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
from harness import machine, untrained_model, versions, water
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nearsight.lib import _core
from nearsight.models import ACEConfig, ACSFConfig, ANIConfig, BPNNConfig, DispersionConfig, MACEConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from core.c_api import Options, Results, load_model, open_library, system_of

SPECIES = ["O", "H"]
MODELS = {
    "ACSF small": BPNNConfig(descriptor=ACSFConfig(size="small")),
    "ANI": BPNNConfig(cutoff=5.1, descriptor=ANIConfig(), hidden=[160, 128, 96], activation="celu"),
    "ACE": BPNNConfig(cutoff=5.0, descriptor=ACEConfig(max_degree=[8, 7, 6]), hidden=[32]),
    "MACE 32 channels, one interaction": MACEConfig(channels=32, num_interactions=1, hidden="0e"),
    "MACE 64 channels, L = 0": MACEConfig(channels=64, num_interactions=2, hidden="0e"),
    "MACE 128 channels, L = 1": MACEConfig(channels=128, num_interactions=2, hidden="0e + 1o"),
}
PME, D3 = "PME of water's charges, rtol 1e-4", "D3(BJ), 30 and 20 Å"  # sums without a model
DEVICES = {"cpu": 0, "cuda": 1}


class Evaluator:
    """Energy and forces of one structure, again and again."""

    def __init__(self, library: ctypes.CDLL, model: Path, device: str, precision: str, atoms: ase.Atoms):
        self._library = library
        self._handle = ctypes.c_void_p()
        options = Options(ctypes.sizeof(Options), int(precision == "double"), DEVICES[device], 1, 1.0, -1)
        file = load_model(library, model)
        self._succeed(
            library.ns_evaluator_create(file, ctypes.byref(options), None, ctypes.byref(self._handle))
        )
        self._atoms = atoms
        self._species = np.array([SPECIES.index(s) for s in atoms.symbols], dtype=np.int32)
        self._rng = np.random.default_rng(1)

    def step(self) -> float:
        """Seconds of one evaluation."""
        positions = self._atoms.positions + self._rng.normal(0, 1e-3, (len(self._atoms), 3))
        forces = np.zeros_like(positions)
        cell = np.ascontiguousarray(self._atoms.cell.array)
        results = Results(struct_size=ctypes.sizeof(Results))
        results.forces = forces.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        system = system_of(positions, self._species, cell)
        started = time.perf_counter()
        status = self._library.ns_evaluate_system(self._handle, ctypes.byref(system), ctypes.byref(results))
        seconds = time.perf_counter() - started
        self._succeed(status)
        return seconds

    def close(self) -> None:
        self._library.ns_evaluator_free(self._handle)

    def _succeed(self, status: int) -> None:
        if status != 0:
            raise SystemExit(self._library.ns_last_error().decode())


def sum_without_model(name: str, atoms: ase.Atoms, device: str, precision: str) -> Callable[[], float]:
    """A function that returns the seconds of one evaluation, with the arrays of Python."""
    species = np.array([SPECIES.index(s) for s in atoms.symbols], dtype=np.int32)
    place, rng = (atoms.cell.array, [True] * 3), np.random.default_rng(1)
    if name == PME:
        numbers = np.array([-0.82, 0.41])[species]
        words = {"mixed": "single", "double": "double"}
        sums = _core.Pme(
            atoms.positions, numbers, *place, rtol=1e-4, precision=words[precision], device=device
        )
    else:
        numbers = species
        record = DispersionConfig(functional="pbe", labels="with").record(SPECIES)
        sums = _core.Dispersion(json.dumps(record), len(SPECIES), precision, device=device)

    def step() -> float:
        positions = atoms.positions + rng.normal(0, 1e-3, (len(atoms), 3))
        started = time.perf_counter()
        sums.evaluate(positions, numbers, *place)
        return time.perf_counter() - started

    return step


def measure(
    library: ctypes.CDLL, name: str, atoms: ase.Atoms, device: str, precision: str, steps: int
) -> float:
    """Median µs/atom/step; the first two steps, with lists and memory to find, are left out."""
    if name not in MODELS:
        step = sum_without_model(name, atoms, device, precision)
        return 1e6 * statistics.median([step() for _ in range(steps + 2)][2:]) / len(atoms)
    with tempfile.TemporaryDirectory() as folder:
        model = untrained_model(Path(folder) / "model.pt", MODELS[name], SPECIES)
        evaluator = Evaluator(library, model, device, precision, atoms)
        times = [evaluator.step() for _ in range(steps + 2)][2:]
        evaluator.close()
    return 1e6 * statistics.median(times) / len(atoms)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--copies", type=int, nargs="+", default=[2, 4, 8, 16], help="192 n³ atoms of water each"
    )
    parser.add_argument("--models", nargs="+", choices=[*MODELS, PME, D3], default=[*MODELS, PME, D3])
    parser.add_argument("--precisions", nargs="+", choices=["mixed", "double"], default=["mixed", "double"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cpu", action="store_true", help="one core beside it, for up to 12,288 atoms")
    parser.add_argument("--output", type=Path, default=Path("cuda.json"))
    arguments = parser.parse_args()

    library = open_library()
    peaks = _core.cuda_peaks()
    cases = [
        (name, copies, precision, device)
        for copies in arguments.copies
        for name in arguments.models
        for precision in arguments.precisions
        for device in (("cuda", "cpu") if arguments.cpu and copies <= 4 else ("cuda",))
    ]
    rows = []
    for name, copies, precision, device in track(cases, "measuring", console=Console(stderr=True)):
        atoms = water(copies)
        row = {"model": name, "atoms": len(atoms), "precision": precision, "device": device}
        row["microseconds"] = measure(library, name, atoms, device, precision, arguments.steps)
        rows.append(row)
        found = {
            "machine": machine(),
            "card": peaks,
            "versions": versions("nearsight", "torch"),
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(found, indent=1))

    table = Table(title=f"µs/atom/step, {peaks['name']}")
    for heading in ("model", "atoms", "precision", "device", "µs/atom", "ms/step"):
        table.add_column(heading, justify="left" if heading in ("model", "device") else "right")
    for row in rows:
        milliseconds = row["microseconds"] * row["atoms"] / 1e3
        table.add_row(
            row["model"],
            f"{row['atoms']:,}",
            row["precision"],
            row["device"],
            f"{row['microseconds']:.3f}",
            f"{milliseconds:.2f}",
        )
    Console().print(table)
    print(
        f"{peaks['bandwidth'] / 1e12:.2f} TB/s copied; from registers "
        f"{peaks['fp32'] / 1e12:.1f} TFLOP/s of FP32 "
        f"and {peaks['fp64'] / 1e12:.1f} of FP64"
    )


if __name__ == "__main__":
    main()
