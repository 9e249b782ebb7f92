"""The run directory: what is said, measured and known about a run.

config.resolved.yaml    the configuration with all defaults
train.log               what the console showed
metrics.csv             one row per epoch, units in the second row
environment.json        versions, machine, command
split/*.txt             frame numbers of every set
checkpoints/            last.ckpt and best.ckpt
results.json            final errors of every set
plots/*.png             loss and errors per epoch, parity
model.pt                the exported model
error.log               traceback of the last failure
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

import nearsight

# Columns of metrics.csv with their units.
COLUMNS = {
    "epoch": "1",
    "step": "1",
    "learning_rate": "1",
    "training_loss": "1",
    "validation_loss": "1",
    "energy_rmse": "meV/atom",
    "energy_mae": "meV/atom",
    "forces_rmse": "meV/Å",
    "forces_mae": "meV/Å",
    "virial_rmse": "meV/atom",
    "virial_mae": "meV/atom",
    "elapsed": "s",
    "damping": "1",
}
_WIDTH = 110
_HEADER = "epoch      loss validation E meV/atom   F meV/Å W meV/atom      lr    time"
_PACKAGES = ("torch", "numpy", "ase", "scipy", "h5py", "pydantic")


class Logbook:
    """Writes to the console and to the run directory."""

    def __init__(self, folder: Path, console: Console | None = None):
        self.folder = folder
        self.console = console or _console()
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, *content: RenderableType) -> None:
        """Print to the console and append to train.log."""
        self.console.print(*content, highlight=False)
        with (self.folder / "train.log").open("a") as file:
            Console(file=file, width=_WIDTH).print(*content, highlight=False)

    def write_json(self, name: str, content: Any) -> None:
        """Write <name> into the run directory."""
        (self.folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def begin_epochs(self, last_epoch: int) -> None:
        """Start metrics.csv, or drop the rows after `last_epoch` when a run continues."""
        rows = [row for row in read_metrics(self.folder) if row["epoch"] <= last_epoch]
        with (self.folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerow(COLUMNS.values())
            writer.writerows([_cell(name, row.get(name)) for name in COLUMNS] for row in rows)
        self.say(_HEADER)

    def epoch(self, row: dict[str, float], is_best: bool) -> None:
        """Add a row to metrics.csv and a line to the console; absent columns stay empty."""
        with (self.folder / "metrics.csv").open("a", newline="") as file:
            csv.writer(file).writerow([_cell(name, row.get(name)) for name in COLUMNS])
        errors = [_number(row.get(f"{name}_rmse"), width) for name, width in _RMSE_WIDTHS.items()]
        rate = f"{row['learning_rate']:7.1e}" if "learning_rate" in row else f"{'-':>7}"
        minutes, seconds = divmod(int(row["elapsed"]), 60)
        self.say(
            f"{row['epoch']:5d} {row['training_loss']:9.2e} {row['validation_loss']:10.2e} "
            f"{' '.join(errors)} "
            f"{rate} {minutes:4d}:{seconds:02d}{' *' * is_best}"
        )

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float], None]]:
        """A progress bar on a terminal, else nothing; yields a function of a title and a fraction done."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            task = progress.add_task("", total=1.0)
            yield lambda title, done: progress.update(task, description=title, completed=done)


class SilentLogbook(Logbook):
    """Of the processes that leave talking and writing to the first one."""

    def __init__(self, folder: Path):
        self.folder, self.console = folder, Console(quiet=True)

    def say(self, *content: RenderableType) -> None:
        """Nothing."""

    def write_json(self, name: str, content: Any) -> None:
        """Nothing."""

    def begin_epochs(self, last_epoch: int) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, float], is_best: bool) -> None:
        """Nothing."""


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)  # not the 80 columns of a file


_RMSE_WIDTHS = {"energy": 10, "forces": 9, "virial": 10}


def _number(value: float | None, width: int) -> str:
    return f"{value:{width}.2f}" if value is not None else " " * (width - 1) + "-"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if name in ("epoch", "step") else f"{value:.10g}"


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv, without the units; empty cells are left out. Empty if there is no such file."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    integers = ("epoch", "step")
    return [
        {name: int(cell) if name in integers else float(cell) for name, cell in row.items() if cell}
        for row in rows
    ]


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and command of this process, which trains on a device."""
    versions = {"nearsight": nearsight.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
