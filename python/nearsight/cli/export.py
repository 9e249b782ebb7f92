"""``nearsight export``: from a run or a model file to what a host loads."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Target(str, Enum):
    """What is written."""

    model = "model"
    torchforce = "torchforce"


def command(
    source: Annotated[
        Path, typer.Argument(help="run directory or checkpoint; for torchforce also a model file")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")],
    target: Annotated[
        Target, typer.Option("--target", help="model: for all hosts; torchforce: for OpenMM-Torch")
    ] = Target.model,
    structure: Annotated[
        Path | None,
        typer.Option("--structure", help="torchforce: file whose first frame has the system's atoms"),
    ] = None,
) -> None:
    """Write a model file, or a module for OpenMM-Torch.

    `nearsight train` exports its best epoch by itself; this exports an interrupted run or another
    checkpoint.

        nearsight export runs/first -o model.pt
        nearsight export runs/first/checkpoints/last.ckpt -o last.pt
        nearsight export model.pt -o water.pt --target torchforce --structure water.xyz
    """
    if target is Target.model:
        _export_model(source, output)
    else:
        _export_torchforce(source, output, structure)
    print(f"{output} written.")


def _export_model(source: Path, output: Path) -> None:
    from nearsight.training import export_checkpoint, find_checkpoint, read_checkpoint

    export_checkpoint(read_checkpoint(find_checkpoint(source)), output)


def _export_torchforce(source: Path, output: Path, structure: Path | None) -> None:
    from nearsight.data import read_frames
    from nearsight.data.frame import charges_given
    from nearsight.errors import ConfigError
    from nearsight.export import export_torchforce, load

    if structure is None:
        raise ConfigError("--target torchforce needs --structure, a file with the system's atoms.")
    frame = read_frames(structure)[0]
    if frame.pbc.any() != frame.pbc.all():
        raise ConfigError(f"{frame.source}: OpenMM wants all three directions periodic, or none.")
    model = load(source / "model.pt" if source.is_dir() else source)
    charge, molecules = None, None
    if model.metadata["couple"]["kind"] == "coulomb":
        charge, molecules = charges_given(frame.info, len(frame), frame.source)
    numbers, molecule_charges = molecules or (None, None)
    export_torchforce(
        output,
        model,
        frame.symbols,
        periodic=bool(frame.pbc.all()),
        charge=charge,
        molecules=numbers,
        molecule_charges=molecule_charges,
        positions=frame.positions,
        cell=frame.cell,
    )
