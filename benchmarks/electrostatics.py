"""Speed of electrostatics: given charges by PME, and models with charges against those without.

PME: energy and forces of the charges of liquid water (about 1k, 10k and 100k, no exclusions), ms per step, at
a measured relative error of the forces of at most `rtol`, beside LAMMPS, OpenMM and torch-pme (a folder on
PYTHONPATH will do; what cannot be imported is left out). Every program is tried with several cutoffs and
requests, and the fastest that is accurate enough counts; its settings are in the file. Charges hardly move,
so that all keep their lists of pairs; torch-pme is given one. What a new list costs the core is told apart.
Errors are against a mesh of rtol 1e-10, of the smallest system against Ewald's sum.

Models: a step of LAMMPS with 1,536 atoms of water, symmetry functions `medium` in mixed precision, without
charges and with charges of the environment at rtol 1e-4.

    OMP_NUM_THREADS=1 python benchmarks/electrostatics.py [--copies 2 4 8] [--only core]
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import electrostatics_peers as peers
import numpy as np
from electrostatics_peers import Charged, Trial, timed
from harness import machine, microseconds, mlp, untrained_model, versions, water
from rich.console import Console
from rich.table import Table

from nearsight.lib import _core
from nearsight.models import ACSFConfig, BPNNConfig, LongRangeConfig

CHARGES = {"H": 0.41, "O": -0.82}
MOST_FOR_EWALD = 2000  # charges
FINEST_SINGLE = 2e-6


def charged_water(copies: int) -> Charged:
    atoms = water(copies)
    charges = np.array([CHARGES[symbol] for symbol in atoms.symbols])
    arguments = (atoms.positions, charges, atoms.cell.array, atoms.pbc)
    forces = _core.Pme(*arguments, rtol=1e-10).evaluate(*arguments)["forces"]
    system = Charged(atoms, charges, forces)
    if len(atoms) > MOST_FOR_EWALD:
        return system
    exact = _core.ewald(*arguments)["forces"]
    return Charged(atoms, charges, exact, Charged(atoms, charges, exact).error(forces))


def core(system: Charged, rtol: float, cores: int) -> Iterator[Trial]:
    for precision in ("double", "single"):
        if precision == "single" and rtol < FINEST_SINGLE:
            continue
        pme = _core.Pme(*system.arguments, rtol=rtol, precision=precision, threads=cores)

        def step(pme: object = pme) -> dict:
            return pme.evaluate(*system.arguments, threads=cores)

        found = pme.parameters
        mesh = "x".join(map(str, found["mesh"]))
        settings = f"rtol {rtol:g}: cutoff {found['cutoff']:.1f} Å, order {found['order']}, mesh {mesh}"
        name = {"double": "core, double", "single": "core, mixed"}[precision]
        yield Trial(name, settings, system.error(step()["forces"]), timed(step))


PROGRAMS = {"core": core, "LAMMPS": peers.lammps, "OpenMM": peers.openmm, "torch-pme": peers.torch_pme}
MODULES = {"LAMMPS": "lammps", "OpenMM": "openmm", "torch-pme": "torchpme"}


def missing(program: str) -> str | None:
    """The reason why a program cannot be measured here."""
    try:
        importlib.import_module(MODULES.get(program, "nearsight"))
    except ImportError as error:
        return str(error)
    return None


def fastest(trials: Iterator[Trial], rtol: float, total: float) -> Iterator[dict]:
    """One row for each name: the fastest of those that are accurate enough."""
    best: dict[str, dict] = {}
    for trial in trials:
        if trial.error > rtol:
            best.setdefault(trial.name, {"name": trial.name, "ms": None})
            continue
        times = [1e3 * s for s in trial.seconds(total)]
        row = {
            "name": trial.name,
            "ms": statistics.median(times),
            "error": trial.error,
            "settings": trial.settings,
            "all": times,
        }
        known = best.get(trial.name, {"ms": None})["ms"]
        if known is None or row["ms"] < known:
            best[trial.name] = row
    yield from best.values()


def milliseconds_of_a_list(system: Charged, rtol: float, precision: str) -> float:
    """Positions in other cells ask for a new list."""
    pme = _core.Pme(*system.arguments, rtol=rtol, precision=precision)
    positions, *others = system.arguments
    places = (positions, positions + system.atoms.cell.array.sum(axis=0))
    times: tuple[list[float], list[float]] = ([], [])
    for count in range(20):
        start = time.perf_counter()
        pme.evaluate(places[count // 2 % 2], *others)
        times[count % 2].append(time.perf_counter() - start)
    new, kept = map(statistics.median, times)
    return 1e3 * (new - kept)


def measure_pme(options: argparse.Namespace, console: Console) -> Iterator[dict]:
    chosen = [name for name in PROGRAMS if not options.only or name in options.only]
    reasons = {name: missing(name) for name in chosen}
    for name, reason in reasons.items():
        if reason:
            console.print(f"{name} is left out: {reason}")
    for copies in options.copies if chosen else []:
        with console.status(f"{192 * copies**3} charges: reference"):
            system = charged_water(copies)
        for rtol in options.rtol:
            for cores in options.cores:
                for program in (name for name in chosen if not reasons[name]):
                    with console.status(
                        f"{len(system.charges)} charges, rtol {rtol:g}, {cores} core(s): {program}"
                    ):
                        found = list(fastest(PROGRAMS[program](system, rtol, cores), rtol, options.seconds))
                    about = {"charges": len(system.charges), "rtol": rtol, "cores": cores}
                    for row in found:
                        yield about | {"error_of_reference": system.error_of_forces} | row
            for precision in ("double", "single") if rtol >= FINEST_SINGLE else ("double",):
                cost = milliseconds_of_a_list(system, rtol, precision)
                yield (
                    {"charges": len(system.charges), "rtol": rtol, "cores": 1}
                    | {"name": f"core, {precision}: a new list", "ms": cost}
                )


def measure_models(options: argparse.Namespace, console: Console) -> list[dict]:
    atoms, species = water(2), ("H", "O")
    config = BPNNConfig(cutoff=6.0, descriptor=ACSFConfig(size="medium"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, long_range in (
            ("local", None),
            ("charges of the environment", LongRangeConfig(charges="environment", rtol=1e-4)),
        ):
            model = untrained_model(Path(folder) / f"{len(rows)}.pt", config, species, long_range)
            case = mlp(name, atoms, species, model, "mixed")
            row: dict = {"name": case.name, "atoms": len(atoms)}
            for ranks in options.cores:
                with console.status(f"{case.name}, {ranks} rank(s)"):
                    row[f"ranks{ranks}"] = statistics.median(microseconds(case, ranks, options.repeats))
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 4, 8], help="192 * copies^3 charges")
    parser.add_argument("--rtol", type=float, nargs="+", default=[1e-4, 1e-5, 1e-6])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=[*PROGRAMS, "models"])
    parser.add_argument("--seconds", type=float, default=0.5, help="of one timing, about")
    parser.add_argument("--repeats", type=int, default=5, help="of runs of models")
    parser.add_argument("--output", type=Path, default=Path("electrostatics.json"))
    options = parser.parse_args()
    console = Console()
    report: dict = {
        "machine": machine(),
        "versions": versions("nearsight", "lammps", "openmm", "torch-pme", "torch", "mpich"),
        "pme": [],
        "models": [],
    }
    for row in measure_pme(options, console):
        report["pme"].append(row)
        options.output.write_text(json.dumps(report, indent=1))  # whoever stops a long run keeps what it has
    if not options.only or "models" in options.only:
        report["models"] = measure_models(options, console)
        options.output.write_text(json.dumps(report, indent=1))

    table = Table(title=f"PME, ms per step, medians ({report['machine']['instruction_set']})")
    for heading in ("charges", "rtol", "cores", "program", "ms", "error"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for row in report["pme"]:
        ms = "-" if row["ms"] is None else f"{row['ms']:.2f}"
        error = f"{row['error']:.1e}" if "error" in row else ""
        about = (str(row["charges"]), f"{row['rtol']:g}", str(row["cores"]))
        table.add_row(*about, row["name"], ms, error)
    console.print(table, "-: never accurate enough")
    if report["models"]:
        columns = [f"ranks{ranks}" for ranks in options.cores]
        table = Table("model", *columns, title="LAMMPS, µs/atom/step, medians")
        for row in report["models"]:
            table.add_row(row["name"], *(f"{row[column]:.1f}" for column in columns))
        ratios = [report["models"][1][column] / report["models"][0][column] for column in columns]
        table.add_row("ratio", *(f"{ratio:.2f}" for ratio in ratios))
        console.print(table)
    console.print(f"{report['versions']}; written to {options.output}")


if __name__ == "__main__":
    main()
