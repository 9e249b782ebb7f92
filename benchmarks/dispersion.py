"""Speed of D3(BJ): `nearsight dispersion` in `pair_style mlp` beside LAMMPS' `pair_style dispersion/d3`.

Liquid water of 192 · copies³ atoms, both with cutoffs of 30 and 20 Å, on one rank and on two; µs/atom/step,
medians of repeated runs. Atoms hardly move, so that lists of pairs are kept. Also what both say of the
energy, where ours ends sharply, too.

    OMP_NUM_THREADS=1 python benchmarks/dispersion.py [--copies 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from harness import Case, machine, mlp, seconds_per_step, versions, water
from rich.console import Console
from rich.table import Table

from nearsight import Potential
from nearsight.demo.engines import run_lammps
from nearsight.export import save_model
from nearsight.models import DispersionConfig, NoLocalEnergy

SPECIES = ("O", "H")
CUTOFFS = {"cutoff": 30.0, "coordination_cutoff": 20.0}
LAMMPS = "neigh_modify one 20000 page 200000\npair_style dispersion/d3 bj pbe 30.0 20.0\npair_coeff * * O H\n"


def write_model(path: Path, **options: float) -> Path:
    config = DispersionConfig(functional="pbe", labels="with", **CUTOFFS, **options)
    save_model(
        path,
        NoLocalEnergy(SPECIES),
        reference_energies=dict.fromkeys(SPECIES, 0.0),
        reference_energies_source="none",
        provenance={},
        dispersion=config.record(SPECIES),
    )
    return path


def energy_in_lammps(case: Case, folder: Path) -> float:
    setup, files = case.input(case.atoms)
    for name, text in files.items():
        (folder / name).write_text(text)
    thermo = "thermo_style custom step pe\nthermo_modify format float %.10g norm no\nrun 0\n"
    rows = [line.split() for line in run_lammps(setup + thermo, folder, 1).splitlines()]
    number = next(k for k, row in enumerate(rows) if row[:2] == ["Step", "PotEng"])
    return float(rows[number + 1][1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("dispersion.json"))
    options = parser.parse_args()

    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, sharp = write_model(folder / "d3.pt"), write_model(folder / "sharp.pt", smoothing=0.0)
        for copies in options.copies:
            atoms = water(copies)
            other = Case("LAMMPS dispersion/d3", atoms, SPECIES, LAMMPS)
            expected = Potential(sharp).compute(atoms.positions, atoms.symbols, atoms.cell, True).energy
            difference = energy_in_lammps(other, folder) / expected - 1
            for case in (*(mlp("nearsight", atoms, SPECIES, model, p) for p in ("mixed", "double")), other):
                for ranks in (1, 2):
                    steps = 2 if case is other else 10
                    found = seconds_per_step(*case.input(atoms), ranks, steps, options.repeats)
                    times = [1e6 * seconds / len(atoms) for seconds in found]
                    rows.append({"atoms": len(atoms), "name": case.name, "ranks": ranks, "all": times})
                    rows[-1] |= {"microseconds": statistics.median(times)}
            console.print(f"{len(atoms)} atoms: energies differ by {difference:.1e}")
    table = Table("atoms", "", "ranks", "µs/atom/step")
    for row in rows:
        table.add_row(str(row["atoms"]), row["name"], str(row["ranks"]), f"{row['microseconds']:.3g}")
    console.print(table)
    record = {"machine": machine(), "versions": versions("nearsight", "lammps"), "rows": rows}
    options.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
