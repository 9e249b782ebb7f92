"""``nearsight import``: models of other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearsight.cli.evaluate import label_keys

if TYPE_CHECKING:
    from nearsight.importers import Imported

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Import models of other programs.")

Output = Annotated[Path, typer.Option("--output", "-o", help="model file to write")]
Reference = Annotated[
    Path | None,
    typer.Option("--reference", help="structures with energies (eV) and forces (eV/Å) of the other program"),
]
Key = Annotated[
    list[str],
    typer.Option("--key", metavar="LABEL=KEY", help="name of a label in the reference, energy=its_energy"),
]


@app.command("n2p2")
def n2p2(
    folder: Annotated[Path, typer.Argument(help="has input.nn, scaling.data and weights.NNN.data")],
    output: Output,
    length_unit: Annotated[str, typer.Option("--length-unit", help="bohr, angstrom or nm")] = "bohr",
    energy_unit: Annotated[
        str, typer.Option("--energy-unit", help="hartree, eV, kcal/mol or kJ/mol")
    ] = "hartree",
    cflength: Annotated[
        float | None,
        typer.Option("--cflength", help="length unit per Å, as given to LAMMPS, instead of --length-unit"),
    ] = None,
    cfenergy: Annotated[
        float | None,
        typer.Option("--cfenergy", help="energy unit per eV, as given to LAMMPS, instead of --energy-unit"),
    ] = None,
    reference: Reference = None,
    key: Key = [],  # noqa: B006 typer copies it
) -> None:
    """Import a potential of n2p2 or RuNNer (2G: one short-range network per element).

    All symmetry function types, cutoff and activation functions of n2p2 are known. Training keywords are
    ignored; keywords that would change the energy and are not known are an error. At the end the file is
    compared with the scripted module and, with --reference, with what the other program gave.

        nearsight import n2p2 H2O_RPBE-D3 -o water.pt
        nearsight import n2p2 Cu2S_PBE -o cu2s.pt --length-unit angstrom --energy-unit eV
    """
    from nearsight.errors import ConfigError
    from nearsight.importers.n2p2 import import_n2p2
    from nearsight.units import ENERGY_UNITS, LENGTH_UNITS

    for option, unit, units in (("length", length_unit, LENGTH_UNITS), ("energy", energy_unit, ENERGY_UNITS)):
        if unit not in units:
            raise ConfigError(f"--{option}-unit is {unit!r}, expected one of {', '.join(units)}")
    imported = import_n2p2(
        folder, cflength or 1.0 / LENGTH_UNITS[length_unit], cfenergy or 1.0 / ENERGY_UNITS[energy_unit]
    )
    write(imported, output, reference, key)


@app.command("ani")
def ani(
    model: Annotated[Path, typer.Argument(help="the .info file of a model, or the folder that holds it")],
    output: Output,
    members: Annotated[
        str | None, typer.Option("--members", help="numbers of members from 0, as 0,1; default: all")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="structures with energies and forces of the other program"),
    ] = None,
    key: Key = [],  # noqa: B006
    reference_unit: Annotated[
        str, typer.Option("--reference-unit", help="of the energies in the reference: hartree or eV")
    ] = "hartree",
) -> None:
    """Import an ANI model (ANI-1x, -1ccx, -2x) from the files of the public model zoo, in NeuroChem's format.

    The ensemble becomes one file; energies and forces are the mean of its members. At the end the file is
    compared with the scripted module and, with --reference, with what the other program gave.

        nearsight import ani ani-2x_8x -o ani2x.pt
        nearsight import ani ani-2x_8x.info -o member0.pt --members 0

    For a model of torchani see `nearsight.importers.from_torchani`.
    """
    from nearsight.errors import ConfigError
    from nearsight.importers.neurochem import import_ani
    from nearsight.units import HARTREE

    units = {"hartree": HARTREE, "eV": 1.0}
    if reference_unit not in units:
        raise ConfigError(f"--reference-unit is {reference_unit!r}, expected {' or '.join(units)}")
    try:
        chosen = [int(word) for word in members.split(",")] if members else None
    except ValueError:
        raise ConfigError(f"--members is {members!r}, expected numbers such as 0,1") from None
    write(import_ani(model, chosen), output, reference, key, units[reference_unit])


@app.command("mace")
def mace(
    model: Annotated[Path, typer.Argument(help="file that mace-torch's training wrote")],
    output: Output,
    trust: Annotated[
        bool, typer.Option("--trust", help="run the code that a file of this kind may have in it")
    ] = False,
    species: Annotated[
        str | None, typer.Option("--species", help="elements to take, as H,C,O; default: all")
    ] = None,
    head: Annotated[str | None, typer.Option("--head", help="of a model with several heads")] = None,
    python: Annotated[
        str,
        typer.Option(
            "--python", help="the Python that has mace-torch; default: this one", show_default=False
        ),
    ] = sys.executable,
    reference: Reference = None,
    key: Key = [],  # noqa: B006
) -> None:
    """Import a model of mace-torch.

    Such a file is a pickle, which runs any code that its author put into it: --trust says that you know
    where it is from. Another process reads it, with the Python that has mace-torch, and hands back numbers
    only. The converted model is compared with what mace-torch gives for a molecule of twelve atoms.

        nearsight import mace MACE.model -o water.pt --species H,O --trust
        nearsight import mace foundation.model -o all.pt --head Default --python ~/mace/bin/python --trust
    """
    from nearsight.errors import ConfigError
    from nearsight.importers.mace_torch import import_mace

    if not trust:
        raise ConfigError(
            f"{model} is a pickle, and reading one runs any code that its author put into it: if you know "
            "where it is from, say so with --trust"
        )
    chosen = [word.strip() for word in species.split(",")] if species else None
    write(import_mace(model, species=chosen, head=head, python=python), output, reference, key)


def write(
    imported: Imported, output: Path, reference: Path | None, key: list[str], reference_unit: float = 1.0
) -> None:
    """Write the model file and print notes and the largest deviations; `reference_unit` in eV."""
    import numpy as np

    from nearsight.data import read_frames
    from nearsight.export import read_metadata
    from nearsight.importers.imported import reference_check, self_check

    imported.save(output)
    for note in imported.notes:
        print(f"Note: {note}")
    print(f"{output} written.")
    if read_metadata(output)["native"]:
        print(f"Largest deviation of the native core from the scripted module: {self_check(output)}")
    if reference:
        frames = read_frames(reference, label_keys(key))
        for frame in frames:
            frame.labels = {name: np.multiply(value, reference_unit) for name, value in frame.labels.items()}
        print(f"Largest deviation from {reference} ({len(frames)} frames): {reference_check(output, frames)}")
