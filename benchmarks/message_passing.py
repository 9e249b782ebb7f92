"""Speed of MACE on one core and on two: in LAMMPS and in ASE, beside mace-torch of the same size.

Cutoff 5 Å, l_max 3, correlation 3, random weights; medians of repeated runs. Water of 192 and 1,536 atoms,
and a molecule of 27: 3BPA where the reference data are (NEARSIGHT_DATA, or ../shared/data beside the
project), else nine water molecules. In LAMMPS µs/atom/step on one and two ranks; beside their ratio what two
runs of one rank at once reach, which is all that the machine has to give. In ASE µs/atom of energy and
forces in mixed precision, and of mace-torch in single precision, where an interpreter of its environment is
given (peers.py).

    python benchmarks/message_passing.py --mace PYTHON               # 10 to 15 minutes
    python benchmarks/message_passing.py --systems "192 water" --only "64 channels" --repeats 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
from ase.neighborlist import neighbor_list
from harness import Case, machine, measure_peer, mlp, untrained_model, versions, water
from operations import fma_peak, multiply_adds
from rich.console import Console
from rich.table import Table

import nearsight
from nearsight.demo.engines import run_lammps
from nearsight.errors import NearsightError
from nearsight.interfaces.ase import Calculator
from nearsight.models import MACEConfig, build_model

# Channels, interactions, irreps between them.
MODELS = {
    "1 interaction, 32": (32, 1, "0e"),
    "64 channels, L = 0": (64, 2, "0e"),
    "64 channels, L = 1": (64, 2, "0e + 1o"),
    "128 channels, L = 0": (128, 2, "0e"),
    "128 channels, L = 1": (128, 2, "0e + 1o"),
}
COLUMNS = {
    "mixed 1": "mixed\n1 rank",
    "mixed 2": "\n2 ranks",
    "mixed ratio": "\nratio",
    "bound": "two runs\nat once",
    "double 1": "double\n1 rank",
    "double 2": "\n2 ranks",
    "double ratio": "\nratio",
    "ase 1": "ASE\n1 core",
    "ase 2": "\n2 cores",
    "mace-torch 1": "mace-torch\n1 core",
    "mace-torch 2": "\n2 cores",
}
DIGITS = {"mixed ratio": 2, "bound": 2, "double ratio": 2}
SYSTEMS = ("192 water", "1536 water", "27 molecule")


def molecule() -> ase.Atoms:
    """Return 27 atoms in vacuum, in a box that LAMMPS takes for a periodic one."""
    data = Path(os.environ.get("NEARSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    file = data / "3bpa" / "train_300K.extxyz.xz"
    if file.exists():
        atoms = ase.io.read(file, 0)
    else:
        atoms = water(1)
        oxygen = [i for i, symbol in enumerate(atoms.symbols) if symbol == "O"]
        near = sorted(oxygen, key=lambda i: atoms.get_distance(oxygen[0], i, mic=True))[:9]
        hydrogen = [i for i, symbol in enumerate(atoms.symbols) if symbol == "H"]
        bonded = [
            j for i in near for j in sorted(hydrogen, key=lambda j: atoms.get_distance(i, j, mic=True))[:2]
        ]
        vectors = atoms.get_distances(oxygen[0], near + bonded, mic=True, vector=True)
        atoms = ase.Atoms([atoms.symbols[i] for i in near + bonded], vectors)
    bare = ase.Atoms(atoms.symbols, atoms.positions)
    bare.center(vacuum=12.0)
    return bare


def structure(system: str) -> ase.Atoms:
    """Return the atoms of one of SYSTEMS."""
    return {"192 water": lambda: water(1), "1536 water": lambda: water(2), "27 molecule": molecule}[system]()


@dataclass(frozen=True)
class Timing:
    """How long, and how often, to measure."""

    seconds: float  # of one repeat in LAMMPS
    repeats: int
    mace: str | None  # interpreter


def measure(
    atoms: ase.Atoms, name: str, timing: Timing, folder: Path, peers: dict[str, str]
) -> dict[str, float]:
    """Return µs/atom of a model in every way, ratios of two ranks to one, multiply-adds per atom.

    Versions in the environment of mace-torch are added to `peers`.
    """
    channels, interactions, hidden = MODELS[name]
    species = tuple(sorted(set(atoms.get_chemical_symbols())))
    config = MACEConfig(channels=channels, num_interactions=interactions, hidden=hidden)
    file = untrained_model(folder / "model.pt", config, species)
    neighbors = len(neighbor_list("i", atoms, config.cutoff)) / len(atoms)
    found = {"multiply-adds": multiply_adds(build_model(config, list(species)), neighbors, len(species))}
    for precision in ("mixed", "double"):
        case = mlp(name, atoms, species, file, precision)
        steps = max(2, int(timing.seconds / statistics.median(case.seconds(1, 2, 3))))
        for ranks in (1, 2):
            found[f"{precision} {ranks}"] = _median(case, ranks, steps * ranks, timing)
        found[f"{precision} ratio"] = found[f"{precision} 1"] / found[f"{precision} 2"]
        if precision == "mixed":
            found["bound"] = 2 * found["mixed 1"] / _two_at_once(case, steps, timing)
    for threads in (1, 2):
        found[f"ase {threads}"] = ase_microseconds(atoms, file, threads, timing)
        if timing.mace:
            options = ("--channels", str(channels), "--hidden", hidden, "--interactions", str(interactions))
            options += ("--repeats", str(timing.repeats), "--seconds", "15")
            peer = measure_peer("mace", timing.mace, atoms, *options, threads=threads)
            found[f"mace-torch {threads}"] = peer["microseconds_per_atom"]
            peers |= peer["versions"]
    return found


def _median(case: Case, ranks: int, steps: int, timing: Timing) -> float:
    return 1e6 * statistics.median(case.seconds(ranks, steps, timing.repeats)) / len(case.atoms)


def _two_at_once(case: Case, steps: int, timing: Timing) -> float:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(_median, case, 1, steps, timing) for _ in range(2)]
        return statistics.mean(run.result() for run in both)


def ase_microseconds(atoms: ase.Atoms, file: Path, threads: int, timing: Timing) -> float:
    """Median over the calls of the ASE calculator, µs/atom."""
    calculator = Calculator(file, precision="mixed", threads=threads)
    seconds: list[float] = []
    while len(seconds) <= timing.repeats or sum(seconds) < timing.seconds:
        calculator.reset()
        started = time.perf_counter()
        calculator.get_forces(atoms)
        seconds.append(time.perf_counter() - started)
    return 1e6 * statistics.median(seconds[1:]) / len(atoms)


def ml_iap() -> str:
    """Say whether this LAMMPS could run mace-torch through ML-IAP."""
    script = "units metal\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\npair_style mliap unified model.pt 0\n"
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_lammps(script, Path(folder), 1)
    except NearsightError as problem:
        reason = str(problem).split("ERROR: ")[-1].split(" (src/")[0].split("; see ")[0]
        return f"mace-torch through ML-IAP is not measured: LAMMPS says '{reason}'"
    return "mace-torch through ML-IAP is not measured, although this LAMMPS has ML-IAP with Python"


def table(system: str, rows: dict[str, dict[str, float]], peak: float | None) -> Table:
    """Return what was measured of a system."""
    result = Table(title=f"{system}, µs/atom")
    result.add_column("model", no_wrap=True)
    for heading in (*COLUMNS.values(), "% of\npeak", "times\nmace-torch"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        texts = [f"{row[c]:.{DIGITS.get(c, 1)}f}" if c in row else "" for c in COLUMNS]
        part = f"{100 * fraction(row, peak):.0f}" if peak else ""
        times = f"{row['mace-torch 1'] / row['mixed 1']:.0f}" if "mace-torch 1" in row else ""
        result.add_row(name, *texts, part, times)
    return result


def fraction(row: dict[str, float], peak: float) -> float:
    """Return the part of the peak that one rank in mixed precision reaches."""
    return 2 * row["multiply-adds"] / (row["mixed 1"] * 1e-6) / (peak * 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mace", metavar="PYTHON", help="interpreter that has mace-torch")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one repeat")
    parser.add_argument("--output", type=Path, default=Path("message_passing.json"))
    options = parser.parse_args()

    console = Console(width=150)
    timing = Timing(options.seconds, options.repeats, options.mace)
    peak = fma_peak()
    peers: dict[str, str] = {}
    report: dict[str, object] = {
        "machine": {**machine(), "fma_peak_gflops": peak},
        "versions": {"nearsight": nearsight.__version__, **versions("lammps", "torch", "mpich", "ase")},
        "versions_beside_mace_torch": peers,
        "ml_iap": ml_iap(),
    }
    for system in options.systems:
        atoms, rows = structure(system), {}
        for name in MODELS:
            if options.only in name:
                with console.status(f"{system}, {name}"), tempfile.TemporaryDirectory() as folder:
                    rows[name] = measure(atoms, name, timing, Path(folder), peers)
        report[system] = {"formula": atoms.get_chemical_formula(), "models": rows}
        console.print(table(system, rows, peak))
        options.output.write_text(json.dumps(report, indent=1))
    console.print(f"{report['machine']}, {report['versions']}, beside mace-torch {peers}; {report['ml_iap']}")
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()
