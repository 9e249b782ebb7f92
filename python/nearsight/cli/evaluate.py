"""``nearsight evaluate``: a model file against reference data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearsight.cli import options

if TYPE_CHECKING:
    from nearsight.data import Frame
    from nearsight.interfaces.potential import Potential


def command(
    model: Annotated[Path, typer.Argument(help="model file")],
    data: Annotated[list[Path], typer.Argument(help="reference data, in any format that training reads")],
    plots: Annotated[
        Path | None,
        typer.Option("--plots", help="folder for parity plots, errors.json and predictions.xyz"),
    ] = None,
    key: Annotated[
        list[str],
        typer.Option("--key", metavar="LABEL=KEY", help="name of a label, e.g. energy=dft_energy"),
    ] = [],  # noqa: B006 typer copies it
    runner_units: Annotated[
        list[str],
        typer.Option(
            "--runner-units",
            metavar="QUANTITY=UNIT",
            help="of input.data files, e.g. length=angstrom, energy=eV",
        ),
    ] = [],  # noqa: B006
    backend: options.BackendOption = options.Backend.auto,
    threads: options.Threads = 1,
    device: options.Device = "cpu",
    batch_atoms: options.BatchAtoms = None,
) -> None:
    """Measure the errors of a model on reference data: RMSE, MAE and largest, also per species.

    Energies and virials are compared per atom, everything in double precision. Of models with charges also
    those, dipoles of frames without periodic directions, and Born effective charges, with R². Where the model
    file says that labels contain dispersion, or do not, so do the predictions that they are compared with.

        nearsight evaluate model.pt test.xyz --plots out
        nearsight evaluate model.pt train.xyz test.h5 --key energy=energy --key forces=forces
        nearsight evaluate model.pt input.data --runner-units length=angstrom --runner-units energy=eV
    """
    from rich.console import Console

    from nearsight.data import read_frames, write_extxyz
    from nearsight.interfaces.potential import Potential
    from nearsight.interfaces.predictions import predict_all
    from nearsight.training.metrics import Metrics, metrics_table

    potential = Potential(model, backend=backend.value, threads=threads, device=device)
    frames = read_frames(data, label_keys(key), runner_units=_runner_units(runner_units))
    correct = _correction(potential)
    predictions = [
        correct(found, frame) for frame, found in zip(frames, predict_all(potential, frames, batch_atoms))
    ]
    metrics = Metrics()
    for frame, prediction in zip(frames, predictions):
        metrics.add(frame, prediction)
    console = Console()
    console.print(f"{len(frames)} frames, {potential.backend} backend")
    if metrics.targets:
        console.print(metrics_table(f"Errors of {model}", {"all": metrics}))
    else:
        console.print("No labels were found in the data: there is nothing to compare with (see --key).")
    if (other := _other_sign(frames, predictions)) is not None:
        console.print(
            f"With the other sign of all charges the R² of dipoles is {other:.4f}: energies and forces of "
            "neutral systems do not say it (docs/electrostatics.md)."
        )
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
        (plots / "errors.json").write_text(json.dumps(metrics.as_dict(), indent=2, ensure_ascii=False) + "\n")
        write_extxyz(plots / "predictions.xyz", frames, predictions)
        _plot(plots, model, frames, predictions)
        console.print(f"Parity plots, errors.json and predictions.xyz are in {plots}.")


def label_keys(pairs: list[str]) -> dict[str, str]:
    """Return the keys of labels from options `--key LABEL=KEY`; raises ConfigError."""
    from nearsight.errors import ConfigError
    from nearsight.keys import FILE_KEYS

    found = {}
    for pair in pairs:
        label, equals, name = pair.partition("=")
        if label not in FILE_KEYS or not equals or not name:
            raise ConfigError(f"--key {pair!r} must be LABEL=KEY with a label of {', '.join(FILE_KEYS)}.")
        found[label] = name
    return found


def _runner_units(pairs: list[str]) -> dict[str, str]:
    from nearsight.errors import ConfigError
    from nearsight.units import ENERGY_UNITS, LENGTH_UNITS

    legal = {"length": LENGTH_UNITS, "energy": ENERGY_UNITS}
    units = {}
    for pair in pairs:
        quantity, _, unit = pair.partition("=")
        if unit not in legal.get(quantity, ()):
            choices = " or ".join(f"{name}={'|'.join(names)}" for name, names in legal.items())
            raise ConfigError(f"--runner-units {pair!r} must be {choices}.")
        units[quantity] = unit
    return units


def _correction(potential: Potential) -> Callable[[dict[str, Any], Frame], dict[str, Any]]:
    """Return what gives predictions for a frame dispersion, or takes it away, as its labels have it."""
    from nearsight import keys
    from nearsight.couple import LabelDispersion

    record = potential.metadata.get("dispersion")
    inside = record is not None and record["added_by"] == "model"
    if record is None or inside == (record["labels"] == "with"):
        return lambda found, frame: found
    sign, dispersion = -1.0 if inside else 1.0, LabelDispersion(record, potential.species)

    def correct(found: dict[str, Any], frame: Frame) -> dict[str, Any]:
        more = dispersion(frame.positions, frame.symbols, frame.cell, frame.pbc)
        changed = (keys.ENERGY, keys.FORCES, keys.VIRIAL)
        return found | {name: found[name] + sign * more[name] for name in changed}

    return correct


def _other_sign(frames: list[Frame], predictions: list[dict[str, Any]]) -> float | None:
    """R² of dipoles if all charges had the other sign, where it is the better one."""
    from nearsight import keys
    from nearsight.training.metrics import Metrics

    both = (Metrics(), Metrics())
    for metrics, sign in zip(both, (1.0, -1.0)):
        for frame, found in zip(frames, predictions):
            if keys.DIPOLE in found:
                metrics.add(frame, {keys.DIPOLE: sign * found[keys.DIPOLE]})
    found, other = (metrics.targets[keys.DIPOLE].r2 if metrics.targets else None for metrics in both)
    return other if found is not None and other > found else None


def _plot(folder: Path, model: Path, frames: list[Frame], predictions: list[dict[str, Any]]) -> None:
    from nearsight.data import ReferenceEnergies
    from nearsight.export import read_metadata
    from nearsight.training.plots import plot_parity

    metadata = read_metadata(model)
    reference = ReferenceEnergies(metadata["reference_energies"], metadata["reference_energies_source"])
    plot_parity(folder, frames, predictions, reference, title=model.name)
