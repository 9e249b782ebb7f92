"""``nearsight dispersion``: D3 alone, as a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    functional: Annotated[str, typer.Option("--functional", help="whose parameters are taken, e.g. pbe")],
    species: Annotated[list[str], typer.Option("--species", help="an element; repeat, or H,C,N,O")],
    output: Annotated[Path, typer.Option("--output", "-o", help="model file to write")],
    cutoff: Annotated[float, typer.Option("--cutoff", help="of pairs, Å")] = 30.0,
    coordination_cutoff: Annotated[
        float, typer.Option("--coordination-cutoff", help="of coordination numbers, Å")
    ] = 20.0,
    smoothing: Annotated[float, typer.Option("--smoothing", help="width of both ends, Å; 0: sharp")] = 2.0,
) -> None:
    """Write D3(BJ) dispersion as a model file that every host runs, beside another potential for instance.

    The published tables are read from the package tad-dftd3, which comes with
    pip install 'nearsight[dispersion]'.

        nearsight dispersion --functional pbe --species H,C,N,O -o d3.pt
    """
    from pydantic import ValidationError

    from nearsight.errors import ConfigError
    from nearsight.export import save_model
    from nearsight.models import DispersionConfig, NoLocalEnergy

    symbols = [symbol for text in species for symbol in text.replace(",", " ").split()]
    if len(set(symbols)) < len(symbols) or not symbols:
        raise ConfigError(f"--species names every element once, found {' '.join(symbols) or 'none'}.")
    try:
        config = DispersionConfig(
            functional=functional,
            labels="with",
            cutoff=cutoff,
            coordination_cutoff=coordination_cutoff,
            smoothing=smoothing,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigError(
            f"{where + ': ' if where else ''}{problem['msg'].removeprefix('Value error, ')}."
        ) from None
    save_model(
        output,
        NoLocalEnergy(symbols),
        reference_energies=dict.fromkeys(symbols, 0.0),
        reference_energies_source="none",
        provenance={},
        dispersion=config.record(symbols),
    )
    print(f"{output} written.")
