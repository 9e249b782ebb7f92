"""Speed of MACE in LAMMPS, µs/atom/step on one and two ranks, beside mace-torch of the same size.

Liquid water, cutoff 5 Å, l_max 3, correlation 3, random weights; medians of repeated runs of one input. Of
mace-torch, where an interpreter of its environment is given, the ASE calculator in single precision on one
core and 192 atoms (peers.py).

    python benchmarks/message_passing.py --mace PYTHON
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from harness import machine, measure_peer, microseconds, mlp, untrained_model, versions, water
from rich.console import Console
from rich.table import Table

from nearsight.models import MACEConfig

# Channels, interactions, irreps between them.
MODELS = {
    "one interaction, 32 channels": (32, 1, "0e"),
    "64 channels, L = 0": (64, 2, "0e"),
    "64 channels, L = 1": (64, 2, "0e + 1o"),
    "128 channels, L = 0": (128, 2, "0e"),
    "128 channels, L = 1": (128, 2, "0e + 1o"),
}


def measure(name: str, copies: int, python: str | None, repeats: int, folder: Path) -> dict[str, float]:
    """Medians of a model in every way, µs/atom/step."""
    channels, interactions, hidden = MODELS[name]
    config = MACEConfig(channels=channels, num_interactions=interactions, hidden=hidden)
    atoms, species = water(copies), ("H", "O")
    model = untrained_model(folder / f"{name}.pt", config, species)
    found: dict[str, float] = {}
    for precision in ("mixed", "double"):
        for ranks in (1, 2):
            case = mlp(name, atoms, species, model, precision)
            found[f"{precision}, {ranks} rank(s)"] = statistics.median(microseconds(case, ranks, repeats))
    if python and interactions == 2:
        options = ("--channels", str(channels), "--hidden", hidden)
        found["mace-torch"] = measure_peer("mace", python, *options)["microseconds_per_atom"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mace", metavar="PYTHON", help="interpreter that has mace-torch")
    parser.add_argument("--copies", type=int, default=2, help="192 * copies^3 atoms")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("message_passing.json"))
    options = parser.parse_args()

    console = Console(width=110)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            if options.only in name:
                with console.status(name):
                    rows[name] = measure(name, options.copies, options.mace, options.repeats, Path(folder))
    facts = {"machine": machine(), "versions": versions("nearsight", "lammps", "torch", "mpich")}
    options.output.write_text(json.dumps({**facts, "microseconds_per_atom": rows}, indent=1))

    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(title=f"MACE in LAMMPS, µs/atom/step, {192 * options.copies**3} atoms of water")
    for heading in ("model", *columns):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[c]:.1f}" if c in row else "" for c in columns))
    console.print(table)
    console.print(f"{facts['versions']}; written to {options.output}")


if __name__ == "__main__":
    main()
