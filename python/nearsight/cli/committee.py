"""``nearsight committee``: several models as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    models: Annotated[list[Path], typer.Argument(help="model files of one architecture, at least two")],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")],
) -> None:
    """Merge models into a committee: its energy is their mean, their disagreement tells how sure it is.

    Members are models of one configuration, trained from different seeds:

        for k in 1 2 3 4; do nearsight train train.yaml -o seed=$k --output runs/$k; done
        nearsight committee runs/*/model.pt -o committee.pt

    They need the same species, descriptor and network shapes. They share one neighbor list and one
    descriptor, so that a committee costs little more than one model.
    """
    from nearsight.export.committee import merge_models

    agreement = merge_models(models, output)
    print(
        f"{output} written, {agreement.members} members. On the check structures they give the results of "
        f"the single files to {agreement.energy:.1e} eV and {agreement.forces:.1e} eV/Å."
    )
