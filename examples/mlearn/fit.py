"""Fit linear ACE models of the mlearn elements (Zuo et al., J. Phys. Chem. A 124, 731, 2020).

    python examples/mlearn/fit.py DATA --output runs/mlearn

DATA holds <element>_train.extxyz.xz and <element>_test.extxyz.xz; every element found is fitted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nearsight.training import load_config, train

# Published MAE on the test sets: energy in meV/atom, force components in eV/Å.
PEERS = {
    "Ni": {"GAP": (0.42, 0.02), "MTP": (0.48, 0.01)},
    "Cu": {"GAP": (0.46, 0.01), "MTP": (0.41, 0.01)},
    "Li": {"GAP": (0.49, 0.01), "MTP": (0.49, 0.01)},
    "Mo": {"GAP": (2.24, 0.09), "MTP": (2.83, 0.09)},
    "Si": {"GAP": (2.91, 0.07), "MTP": (2.21, 0.06)},
    "Ge": {"GAP": (2.06, 0.05), "MTP": (1.79, 0.05)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the files")
    parser.add_argument("--output", type=Path, default=Path("runs/mlearn"), help="run directories")
    parser.add_argument("--override", "-o", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    found = {path.name.split("_")[0]: path for path in sorted(options.data.glob("*_train.extxyz*"))}
    if not found:
        parser.error(f"{options.data} holds no file <element>_train.extxyz.xz")
    rows = [fit(element, path, options) for element, path in found.items()]
    table = Table(box=SIMPLE)
    for column in (
        "element",
        "model",
        "E MAE, meV/atom",
        "E RMSE",
        "F MAE, eV/Å",
        "F RMSE",
        "wall s",
        "CPU s",
    ):
        table.add_column(column, justify="left" if column in ("element", "model") else "right")
    for element, row in zip(found, rows):
        table.add_row(element, *row)
        for name, (energy, forces) in PEERS.get(element, {}).items():
            table.add_row("", name, f"{energy:.2f}", "", f"{forces:.2f}", "", "", "")
    Console().print(table)


def fit(element: str, path: Path, options: argparse.Namespace) -> list[str]:
    """Train one model and return its cells of the table."""
    config = load_config(
        Path(__file__).with_name("train.yaml"),
        [
            f"data.training={path.resolve()}",
            f"data.validation={path.resolve().with_name(path.name.replace('_train', '_test'))}",
            *options.override,
        ],
    )
    wall, cpu = time.perf_counter(), time.process_time()
    train(config, options.output / element)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    errors = json.loads((options.output / element / "results.json").read_text())["validation"]
    energy, forces = errors["energy"], errors["forces"]
    return [
        f"ACE {config.model.descriptor.size}",
        *(f"{energy[kind]:.2f}" for kind in ("mae", "rmse")),
        *(f"{forces[kind] / 1000:.4f}" for kind in ("mae", "rmse")),
        *(f"{seconds:.0f}" for seconds in (wall, cpu)),
    ]


if __name__ == "__main__":
    main()
