"""`nearsight demo`: from the bundled reference data to molecular dynamics, with numbers and pictures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np

import nearsight
from nearsight.data import read_frames
from nearsight.demo.dynamics import LammpsRun, drift, oxygen_rdf, run_lammps_dynamics, run_openmm_dynamics
from nearsight.demo.engines import Answer, ask_all
from nearsight.demo.figures import plot_energy, plot_rdf
from nearsight.errors import NearsightError
from nearsight.training import load_config, train

_START = {"temperature": 300.0, "density": 1.0}  # state point of the dynamics, K and g/cm³


@dataclass(frozen=True)
class DemoLength:
    """How long the parts of the demo take; the defaults are what `make demo` runs."""

    train_minutes: float = 5.0  # wall time
    nvt_ps: float = 3.0
    nve_ps: float = 3.0
    openmm_ps: float = 3.0
    repeat: int = 2  # the box of 64 molecules is repeated so often in each direction


def data_folder() -> Path:
    """Return the folder with the bundled data and the configuration.

    Raises:
        NearsightError: the package was installed without them.
    """
    folder = Path(nearsight.__file__).parent / "share" / "water"
    if not (folder / "water.extxyz.xz").exists():
        raise NearsightError(f"the demo's data are not in {folder}: install nearsight again")
    return folder


def run_demo(output: Path, length: DemoLength, console: Any) -> dict[str, Any]:
    """Run the main job in `output`; return the numbers of its summary, which are also in summary.json.

    Raises:
        NearsightError: a part failed; what is finished stays in `output`.
    """
    started = time.monotonic()
    config = load_config(data_folder() / "train.yaml", [f"training.max_minutes={length.train_minutes}"])
    console.rule("1  Training")
    train(config, output / "train", console=console)
    model = output / "train" / "model.pt"

    console.rule("2  One configuration through every engine")
    start = starting_structure()
    agreement = {}
    for precision in ("mixed", "double"):
        folder = output / "engines" / precision
        folder.mkdir(parents=True, exist_ok=True)
        agreement[precision] = differences(ask_all(model, start, precision, folder))
    console.print(agreement_table(agreement))

    console.rule("3  Molecular dynamics")
    box = start.repeat(length.repeat)
    folder = output / "lammps"
    folder.mkdir(parents=True, exist_ok=True)
    with console.status(f"LAMMPS, {len(box)} atoms, 2 ranks: NVT {length.nvt_ps} ps, NVE {length.nve_ps} ps"):
        lammps = run_lammps_dynamics(model, box, folder, nvt_ps=length.nvt_ps, nve_ps=length.nve_ps)
    with console.status(f"OpenMM, {len(box)} atoms, 2 threads: {length.openmm_ps} ps"):
        openmm_frames = run_openmm_dynamics(model, lammps.last, ps=length.openmm_ps)

    r, g_lammps = oxygen_rdf(lammps.frames)
    _, g_openmm = oxygen_rdf(openmm_frames)
    plots = output / "plots"
    plots.mkdir(exist_ok=True)
    plot_energy(lammps, plots / "nve_energy.png")
    plot_rdf(r, {"LAMMPS": g_lammps, "OpenMM": g_openmm}, plots / "g_oo.png")
    summary = summarize(agreement, lammps, r, g_lammps, g_openmm) | {
        "atoms": len(box),
        "length": asdict(length),
        "minutes": (time.monotonic() - started) / 60,
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1))
    console.rule("Summary")
    console.print(summary_table(summary, output))
    return summary


def starting_structure() -> ase.Atoms:
    """Return the last bundled frame at the state point of the dynamics."""
    for frame in reversed(read_frames(data_folder() / "water.extxyz.xz")):
        if all(abs(float(frame.info.get(key, np.inf)) - value) < 0.01 for key, value in _START.items()):
            return ase.Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)
    raise NearsightError(f"the demo's data have no frame with {_START}: install nearsight again")


def differences(answers: dict[str, Answer]) -> dict[str, dict[str, float]]:
    """Return, per engine, the differences to the first answer."""
    oracle, *_ = answers.values()
    largest = float(np.abs(oracle.forces).max())
    return {
        name: {
            "energy_per_atom": abs(answer.energy - oracle.energy) / len(oracle.forces),  # eV/atom
            "forces": float(np.abs(answer.forces - oracle.forces).max()),  # eV/Å
            "relative_energy": abs(answer.energy / oracle.energy - 1.0),
            "relative_forces": float(np.abs(answer.forces - oracle.forces).max() / largest),
        }
        for name, answer in answers.items()
    }


def summarize(
    agreement: dict[str, Any], lammps: LammpsRun, r: np.ndarray, g_lammps: np.ndarray, g_openmm: np.ndarray
) -> dict[str, Any]:
    """Return the numbers of the summary."""
    line = drift(lammps.time_ps, lammps.energy, skip_ps=min(2.0, 0.5 * lammps.time_ps[-1]))
    return {
        "agreement": agreement,
        "nve_drift": line.slope,  # meV/atom/ps
        "nve_drift_error": line.error,
        "nve_fluctuation_mev_per_atom": line.fluctuation,
        "temperature": float(lammps.temperature.mean()),
        "lammps_us_per_atom_step": lammps.us_per_atom_step,
        "g_oo": {"r": r.tolist(), "lammps": g_lammps.tolist(), "openmm": g_openmm.tolist()},
        "g_oo_first_peak": {
            "lammps": [float(r[g_lammps.argmax()]), float(g_lammps.max())],
            "openmm": [float(r[g_openmm.argmax()]), float(g_openmm.max())],
        },
    }


def agreement_table(agreement: dict[str, dict[str, dict[str, float]]]) -> Any:
    """Return the table of differences between the engines."""
    from rich.table import Table

    table = Table(title="The same 192 atoms everywhere: difference to the PyTorch module in double")
    table.add_column("engine")
    for name in ("mixed: energy, eV/atom", "forces, eV/Å", "double: energy, relative", "forces, relative"):
        table.add_column(name, justify="right")
    for engine, mixed in agreement["mixed"].items():
        double = agreement["double"][engine]
        numbers = [
            mixed["energy_per_atom"],
            mixed["forces"],
            double["relative_energy"],
            double["relative_forces"],
        ]
        table.add_row(engine, *(f"{x:.1e}" for x in numbers))
    return table


def summary_table(summary: dict[str, Any], output: Path) -> Any:
    """Return the table that the demo ends with."""
    from rich.table import Table

    table = Table(
        title=f"nearsight demo: {summary['atoms']} atoms of water, {summary['minutes']:.1f} minutes"
    )
    table.add_column("what")
    table.add_column("result")
    worst = {
        precision: max((v for v in engines.values()), key=lambda v: v["forces"])
        for precision, engines in summary["agreement"].items()
    }
    peaks = summary["g_oo_first_peak"]
    rows = {
        "engines agree, mixed": "{energy_per_atom:.1e} eV/atom, {forces:.1e} eV/Å".format(**worst["mixed"]),
        "engines agree, double": f"forces to {worst['double']['relative_forces']:.1e} relative",
        "NVE drift": f"{summary['nve_drift']:.4f} ± {summary['nve_drift_error']:.4f} meV/atom/ps",
        "NVE fluctuation": f"{summary['nve_fluctuation_mev_per_atom']:.4f} meV/atom",
        "LAMMPS, 2 ranks": f"{summary['lammps_us_per_atom_step']:.1f} µs/atom/step",
        "temperature in NVE": f"{summary['temperature']:.0f} K",
        "g_OO first peak": ", ".join(f"{name} {g:.2f} at {r:.2f} Å" for name, (r, g) in peaks.items()),
        "model": str(output / "train" / "model.pt"),
        "plots": f"{output / 'train' / 'plots'}, {output / 'plots'}",
        "numbers": str(output / "summary.json"),
    }
    for row in rows.items():
        table.add_row(*row)
    return table
