"""``nearsight lammps``: LAMMPS with the environment that it and the plugin need."""

from __future__ import annotations

from typing import Annotated

import typer

from nearsight.interfaces.lammps import launch


def command(
    args: Annotated[list[str], typer.Argument(help="arguments of lmp, after --", metavar="-- -in INPUT …")],
    ranks: Annotated[int, typer.Option("-n", "--ranks", help="number of MPI ranks")] = 1,
) -> None:
    """Run LAMMPS with `pair_style mlp`, in several processes if asked for.

    What comes after -- is for lmp:

        nearsight lammps -n 2 -- -in in.water

    OMP_NUM_THREADS in the environment is the number of threads in each process.
    """
    raise typer.Exit(launch(ranks, args))
