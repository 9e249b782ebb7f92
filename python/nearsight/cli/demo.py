"""``nearsight demo``: the main job on bundled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    output: Annotated[
        Path, typer.Option("--output", help="folder for everything that the demo writes")
    ] = Path("demo-run"),
    minutes: Annotated[float, typer.Option("--minutes", help="training time")] = 5.0,
    nvt: Annotated[float, typer.Option("--nvt", help="ps of LAMMPS at constant temperature")] = 3.0,
    nve: Annotated[float, typer.Option("--nve", help="ps of LAMMPS at constant energy")] = 3.0,
    openmm: Annotated[float, typer.Option("--openmm", help="ps of OpenMM at constant temperature")] = 3.0,
    repeat: Annotated[int, typer.Option("--repeat", help="copies of 64 molecules in each direction")] = 2,
) -> None:
    """Train on liquid water, run LAMMPS, OpenMM and ASE with the model, compare them, and plot.

    To look around quickly:

        nearsight demo --minutes 1 --nvt 0.5 --nve 0.5 --openmm 0.5 --output quick

    Without options it takes about 12 minutes on two cores.
    """
    from rich.console import Console

    from nearsight.demo import DemoLength, run_demo

    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # not the 80 columns of a file
    run_demo(output, DemoLength(minutes, nvt, nve, openmm, repeat), console)
