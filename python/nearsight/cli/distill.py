"""``nearsight distill``: a model's labels for structures, to train another one on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearsight.cli import options

if TYPE_CHECKING:
    from nearsight.data import Frame
    from nearsight.interfaces.potential import Potential


def command(
    teacher: Annotated[Path, typer.Argument(help="model file that gives the labels")],
    structures: Annotated[list[Path], typer.Argument(help="in any format that training reads")],
    output: Annotated[Path, typer.Option("--output", "-o", help="extended XYZ file to write; must be new")],
    copies: Annotated[
        int, typer.Option("--copies", min=0, help="perturbed copies of every structure, beside itself")
    ] = 0,
    rattle: Annotated[
        float, typer.Option("--rattle", min=0.0, help="of copies: σ of every coordinate's displacement, Å")
    ] = 0.1,
    strain: Annotated[
        float,
        typer.Option("--strain", min=0.0, max=0.5, help="of copies in crystals: largest entry of the strain"),
    ] = 0.02,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the copies")] = 0,
    max_force: Annotated[
        float, typer.Option("--max-force", help="leave structures out where a force is larger, eV/Å")
    ] = 30.0,
    backend: options.BackendOption = options.Backend.auto,
    threads: options.Threads = 1,
    device: options.Device = "cpu",
    batch_atoms: options.BatchAtoms = None,
) -> None:
    """Label structures with a model, so that a smaller and faster one can learn from it.

    A teacher can label far more structures than a quantum-chemical method. A student learns the errors of its
    teacher as well, and nothing of what is far from these structures: test it on labels of the method.

        nearsight distill teacher.pt frames.xyz -o labels.xyz --copies 20 --threads 2
        nearsight train student.yaml -o data.training=labels.xyz --output student
        nearsight evaluate student/model.pt test.xyz

    Energies, forces, virials of periodic structures, and charges where the teacher learned physical ones, are
    written as training reads them; labels that the structures had are not. Energies contain the reference
    energies of the teacher. Small structures are evaluated together.
    """
    import numpy as np
    from rich.console import Console

    from nearsight import keys
    from nearsight.data import read_frames, write_extxyz
    from nearsight.data.perturbations import perturbed
    from nearsight.errors import ConfigError
    from nearsight.interfaces.potential import Potential

    if output.exists():
        raise ConfigError(f"{str(output)!r} is there already; choose another --output, or remove it.")
    potential = Potential(teacher, backend=backend.value, threads=threads, device=device)
    rng = np.random.default_rng(seed)
    frames = [
        near
        for frame in read_frames(structures)
        for near in (frame, *(perturbed(frame, rattle, strain, rng) for _ in range(copies)))
    ]
    labelled = label(potential, frames, batch_atoms)
    largest = np.array([np.abs(frame.labels[keys.FORCES]).max(initial=0.0) for frame in labelled])
    kept = [frame for frame, force in zip(labelled, largest) if force <= max_force]
    if not kept:
        raise ConfigError(
            f"all {len(labelled)} structures have forces above --max-force {max_force:g} eV/Å, the smallest "
            f"of their largest ones is {largest.min():.3g}; lower --rattle and --strain, or raise "
            "--max-force."
        )
    write_extxyz(output, kept)
    console = Console()
    console.print(f"{len(kept)} structures with labels of {teacher} are in {output}.")
    if len(kept) < len(labelled):
        console.print(
            f"{len(labelled) - len(kept)} with a force above {max_force:g} eV/Å were left out (--max-force)."
        )
    record = potential.metadata.get("dispersion")
    if record is not None:
        inside = "" if record["added_by"] == "model" else "out"
        console.print(f"Labels are with{inside} the D3 dispersion of the teacher.")


def label(potential: Potential, frames: list[Frame], batch_atoms: int | None = None) -> list[Frame]:
    """Return the frames with what a model says about them for labels."""
    from nearsight import keys
    from nearsight.interfaces.predictions import predict_all

    bare = [replace(frame, labels={}, label_keys={}) for frame in frames]
    labelled = []
    for frame, found in zip(bare, predict_all(potential, bare, batch_atoms)):
        if not frame.pbc.any():
            del found[keys.VIRIAL]
        labelled.append(replace(frame, labels=found))
    return labelled
