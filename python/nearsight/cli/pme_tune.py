"""``nearsight pme-tune``: what particle-mesh Ewald does for a structure at a requested accuracy."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    import numpy as np

    from nearsight.data import Frame

_DEFAULT_RTOL = 1e-4
_REPEATS = 3


class Precision(str, Enum):
    """Arithmetic of the mesh."""

    double = "double"
    single = "single"


class Charged(NamedTuple):
    """Charges of the atoms of a frame."""

    values: np.ndarray  # (n,) e
    widths: np.ndarray | None  # (n,) Å
    source: str  # where they come from


def command(
    structure: Annotated[
        Path, typer.Argument(help="a file with a periodic structure, in any format of data")
    ],
    rtol: Annotated[
        list[float],
        typer.Option("--rtol", help="relative error of the forces that is asked for; may be repeated"),
    ] = [],  # noqa: B006 typer copies it
    frame: Annotated[int, typer.Option("--frame", min=0, help="number of the frame in the file")] = 0,
    model: Annotated[
        Path | None, typer.Option("--model", help="model file with electrostatics, whose charges are taken")
    ] = None,
    charges: Annotated[
        list[str],
        typer.Option("--charges", metavar="SYMBOL=CHARGE", help="charge of an element, e, e.g. O=-0.8"),
    ] = [],  # noqa: B006
    cutoff: Annotated[
        float, typer.Option("--cutoff", min=0.0, help="of the short-ranged part, Å; 0: chosen")
    ] = 0.0,
    order: Annotated[int, typer.Option("--order", help="of the splines, 4 to 8; 0: chosen")] = 0,
    precision: Annotated[Precision, typer.Option("--precision", help="of the mesh")] = Precision.double,
    threads: Annotated[int, typer.Option("--threads", min=1, help="threads of the core")] = 1,
    measure: Annotated[
        bool, typer.Option(help="compare with Ewald's sum, which is slow for more than some thousand atoms")
    ] = True,
) -> None:
    """Show the parameters of particle-mesh Ewald (PME) for a structure, their error and their time.

    Nothing is written. Models choose the same parameters by themselves, from `long_range.rtol` of their
    configuration.

        nearsight pme-tune water.xyz --charges O=-0.8 --charges H=0.4 --rtol 1e-4 --rtol 1e-6
        nearsight pme-tune water.xyz --model model.pt

    Charges are those of --charges, of --model, or of the file; without any they are 1 or -1 e
    at random, as in training. rtol is the root mean square error of the forces relative to that of the
    forces; without it that of the model, or 1e-4.

    The table has the cutoff of the short-ranged part, the splitting α of erfc(αr)/r, points of the mesh along
    the lattice vectors, the order of the splines, the error that was estimated from these, the error that is
    measured against Ewald's sum, and the time of energies and forces.
    """
    from rich.console import Console

    from nearsight.data import read_frames
    from nearsight.errors import ConfigError

    frames = read_frames(structure)
    if frame >= len(frames):
        raise ConfigError(
            f"{structure} has {len(frames)} frame(s), counted from 0; there is no frame {frame}"
        )
    one = frames[frame]
    if not one.pbc.any():
        raise ConfigError(
            f"{one.source} has no periodic directions: its charges are summed over all pairs, and there is "
            "nothing to choose"
        )
    charged = _charges(one, model, charges)
    rtol = rtol or [_rtol_of(model)]
    arguments = (one.positions, charged.values, one.cell, one.pbc, charged.widths)
    exact = _exact(arguments, threads) if measure else None
    wishes = {"cutoff": cutoff, "order": order, "precision": precision.value, "threads": threads}
    rows = [_row(arguments, wanted, exact, wishes) for wanted in rtol]
    console = Console()
    console.print(f"{one.source}: {len(one)} atoms, {charged.source}", highlight=False)
    console.print(_table(rows, exact))


def _charges(frame: Frame, model: Path | None, given: list[str]) -> Charged:
    import numpy as np

    from nearsight import keys
    from nearsight.errors import ConfigError

    if model and given:
        raise ConfigError("--charges and --model both say what the charges are; give one of them")
    if given:
        values = _by_symbol(given)
        missing = sorted(set(frame.symbols) - set(values))
        if missing:
            raise ConfigError(f"{frame.source} has {', '.join(missing)}; give --charges for every element")
        return Charged(np.array([values[symbol] for symbol in frame.symbols]), None, "charges as given")
    if model:
        return _charges_of_model(frame, model)
    if keys.CHARGES in frame.labels:
        return Charged(frame.labels[keys.CHARGES], None, "charges of the file")
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(frame))
    return Charged(signs, None, "charges 1 and -1 e at random")


def _by_symbol(pairs: list[str]) -> dict[str, float]:
    from nearsight.errors import ConfigError

    values = {}
    for pair in pairs:
        symbol, _, number = pair.partition("=")
        try:
            values[symbol] = float(number)
        except ValueError:
            raise ConfigError(f"--charges {pair!r} must be SYMBOL=CHARGE, e.g. O=-0.8") from None
    return values


def _charges_of_model(frame: Frame, path: Path) -> Charged:
    import numpy as np

    from nearsight.data.frame import total_charge
    from nearsight.errors import ConfigError
    from nearsight.interfaces.potential import Potential

    potential = Potential(path)
    if potential.num_charges == 0:
        raise ConfigError(f"{path} has no electrostatics; take --charges, or another model")
    charge = total_charge(frame.info, frame.source)
    found = potential.compute(frame.positions, frame.symbols, frame.cell, frame.pbc, charge).charges
    channel = int((found**2).sum(0).argmax())  # as the model chooses its mesh
    widths = potential.metadata["couple"]["widths"]
    smeared = None if widths is None else np.array(widths)[potential.species_indices(frame.symbols)]
    which = f", channel {channel} of {found.shape[1]}" if found.shape[1] > 1 else ""
    return Charged(np.ascontiguousarray(found[:, channel]), smeared, f"charges of {path}{which}")


def _rtol_of(model: Path | None) -> float:
    from nearsight.export import read_metadata

    return _DEFAULT_RTOL if model is None else read_metadata(model)["couple"]["rtol"]


def _exact(arguments: tuple, threads: int) -> dict[str, Any]:
    """Results of Ewald's sum, with the time that it took, s."""
    from nearsight.lib import _core

    start = time.perf_counter()
    found = _core.ewald(*arguments, threads=threads)
    return found | {"seconds": time.perf_counter() - start}


def _row(
    arguments: tuple, rtol: float, exact: dict[str, Any] | None, wishes: dict[str, Any]
) -> dict[str, Any]:
    """Parameters, errors and time in s of one request."""
    import numpy as np

    from nearsight.lib import _core

    pme = _core.Pme(*arguments, rtol=rtol, **wishes)
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        found = pme.evaluate(*arguments, threads=wishes["threads"])
        seconds.append(time.perf_counter() - start)
    parameters = pme.parameters
    row = parameters | {"rtol": rtol, "seconds": min(seconds), "measured": None}
    row["estimated"] = parameters["force_error"] / parameters["force_scale"]
    if exact:
        errors = np.linalg.norm(found["forces"] - exact["forces"], axis=1)
        row["measured"] = np.sqrt(np.mean(errors**2)) / parameters["force_scale"]
    return row


def _table(rows: list[dict[str, Any]], exact: dict[str, Any] | None) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    caption = f"Ewald's sum took {1000 * exact['seconds']:.3g} ms." if exact else None
    table = Table(box=SIMPLE, caption=caption, caption_justify="left")
    columns = ("rtol", "cutoff, Å", "α, 1/Å", "mesh", "order", "estimated", "measured", "time, ms")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        measured = "-" if row["measured"] is None else f"{row['measured']:.1e}"
        table.add_row(
            f"{row['rtol']:.0e}",
            f"{row['cutoff']:.2f}",
            f"{row['splitting']:.4f}",
            "×".join(map(str, row["mesh"])),
            str(row["order"]),
            f"{row['estimated']:.1e}",
            measured,
            f"{1000 * row['seconds']:.3g}",
        )
    return table
