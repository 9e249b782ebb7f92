"""Speed of `pair_style mlp` in LAMMPS: µs/atom/step of both backends, start-up time and memory.

Liquid water boxes of 192, 1,536 and 12,288 atoms on 1 and 2 ranks, a model of the bundled demo's kind. Atoms
hardly move (time step 1e-6 ps), so an untrained model does for timing. Medians of repeated runs of one input;
the first steps are left out. Writes JSON and prints a table.

    python benchmarks/lammps_speed.py --model demo-run/train/model.pt
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import ase
from harness import (
    cost_of_a_run,
    lammps_data,
    machine,
    seconds_per_step,
    untrained_model,
    versions,
    water,
)
from rich.console import Console
from rich.table import Table

import nearsight
from nearsight.demo.engines import lammps_setup
from nearsight.lib import _core
from nearsight.models import ACSFConfig, BPNNConfig

SPECIES = ["O", "H"]


def model_seconds_per_step(
    model: Path, atoms: ase.Atoms, backend: str, ranks: int, steps: int, repeats: int
) -> list[float]:
    setup = lammps_setup(model, SPECIES, "mixed").replace(
        "precision mixed", f"precision mixed backend {backend}"
    )
    return seconds_per_step(setup, {"water.data": lammps_data(atoms, SPECIES)}, ranks, steps, repeats)


def start_up(model: Path | None, repeats: int) -> dict[str, float]:
    """Wall time (s) and peak memory (MB) of one rank, 192 atoms, a few steps; None: plain LAMMPS."""
    setup = lammps_setup(model or Path("none"), SPECIES, "mixed")
    if model is None:
        setup = setup[: setup.index("pair_style")] + "pair_style zero 6.0\npair_coeff * *\n"
    files = {"water.data": lammps_data(water(1), SPECIES)}
    times, memory = zip(*(cost_of_a_run(setup, files, 0) for _ in range(repeats)))
    return {"seconds": statistics.median(times), "megabytes": statistics.median(memory)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="model file with species O and H; default: untrained")
    parser.add_argument("--size", default="small", help="preset of the untrained model")
    parser.add_argument(
        "--copies", type=int, nargs="+", default=[1, 2, 4], help="box sizes, 192 * copies^3 atoms"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("lammps_speed.json"))
    options = parser.parse_args()

    console = Console()
    with tempfile.TemporaryDirectory() as name:
        config = BPNNConfig(descriptor=ACSFConfig(size=options.size))
        model = (options.model or untrained_model(Path(name) / "model.pt", config, SPECIES)).resolve()
        rows = []
        for copies in options.copies:
            atoms = water(copies)
            for backend in ("native", "torchscript"):
                steps = max(2, (100_000 if backend == "native" else 2_000) // len(atoms))
                for ranks in (1, 2):
                    with console.status(f"{len(atoms)} atoms, {backend}, {ranks} rank(s)"):
                        seconds = model_seconds_per_step(model, atoms, backend, ranks, steps, options.repeats)
                    rows.append(
                        {
                            "atoms": len(atoms),
                            "backend": backend,
                            "ranks": ranks,
                            "us_per_atom_step": 1e6 * statistics.median(seconds) / len(atoms),
                            "all": [1e6 * s / len(atoms) for s in seconds],
                        }
                    )
        start = {"plain": start_up(None, 5), "native": start_up(model, 5)}
    report = {
        "machine": machine(),
        "versions": versions("nearsight", "lammps", "torch", "mpich"),
        "speed": rows,
        "start_up": start,
    }
    options.output.write_text(json.dumps(report, indent=1))

    table = Table(title=f"pair_style mlp, mixed precision, {_core.instruction_set()}: µs/atom/step, medians")
    for heading in (
        "atoms",
        "native, 1 rank",
        "2 ranks",
        "torchscript, 1 rank",
        "2 ranks",
        "ratio on one core",
    ):
        table.add_column(heading, justify="right")
    found = {(r["atoms"], r["backend"], r["ranks"]): r["us_per_atom_step"] for r in rows}
    for atoms in sorted({r["atoms"] for r in rows}):
        numbers = [found[atoms, b, n] for b in ("native", "torchscript") for n in (1, 2)]
        table.add_row(str(atoms), *(f"{x:.1f}" for x in numbers), f"{numbers[2] / numbers[0]:.0f}")
    console.print(table)
    extra = {key: start["native"][key] - start["plain"][key] for key in ("seconds", "megabytes")}
    console.print(
        f"Start-up with one evaluation: {extra['seconds']:.2f} s and {extra['megabytes']:.0f} MB above plain "
        f"LAMMPS; "
        f"nearsight {nearsight.__version__}; written to {options.output}"
    )


if __name__ == "__main__":
    main()
