"""``nearsight lammps``: LAMMPS with the environment that it and the plugin need."""

from __future__ import annotations

from typing import Annotated

import typer

from nearsight.interfaces.lammps import launch


def command(
    args: Annotated[list[str], typer.Argument(help="arguments of lmp, after --", metavar="-- -in INPUT …")],
    ranks: Annotated[int, typer.Option("-n", "--ranks", help="number of MPI ranks")] = 1,
) -> None:
    """Run LAMMPS: nearsight lammps -n 2 -- -in in.water. Set OMP_NUM_THREADS for threads in each rank."""
    raise typer.Exit(launch(ranks, args))
