"""Rounds 1 and 2: geometries from MD with the current nearsight model. No labels yet.

This is the "active learning" half of the data set. A model trained on round 0 alone has only seen
geometries a classical force field makes; run it, and it drifts to geometries where it is wrong.
Labelling those and training again repairs the model exactly where it needs it. So this script

  * starts trajectories from labelled or unlabelled frames, rescaled to the wanted density,
  * runs Langevin dynamics at fixed volume (0.5 fs steps) with the model's forces,
  * saves a frame every --interval ps, and
  * watches for breakdown after every step: a force above --max-force, or an O-H bond outside
    --bond-range. It then stops that trajectory and saves frames from shortly before the breakdown
    (config_type=breakdown). These are the most useful ones: the model has begun to fail there, yet
    the geometry is still sane enough for the reference method to converge.

Examples:

  python sample_model.py model.pt round0_labelled.extxyz round1_frames.extxyz --round 1
  python sample_model.py model.pt round1_labelled.extxyz round2_frames.extxyz --round 2 --seed 2

Label the result with label.py. A finished trajectory is skipped when the command is run again.
"""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from pathlib import Path

import ase
import numpy as np
from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from frames import append_frame, box_length, format_frame, keep_complete, oh_lengths, whole_molecules

import nearsight

STEP_FS = 0.5


def at_density(atoms: ase.Atoms, density: float) -> ase.Atoms:
    """Move the molecules, each as a rigid body, into the box of the wanted density."""
    old_cell = atoms.cell.array
    new_cell = np.eye(3) * box_length(len(atoms) // 3, density)
    molecules = whole_molecules(atoms.positions, old_cell).reshape(-1, 3, 3)
    oxygen = molecules[:, :1]
    shifted = molecules - oxygen + oxygen @ np.linalg.solve(old_cell, new_cell)
    return ase.Atoms(atoms.symbols, shifted.reshape(-1, 3), cell=new_cell, pbc=True)


def breakdown(atoms: ase.Atoms, max_force: float, bond_range: tuple[float, float]) -> str | None:
    """Why this geometry is no longer sane, or None when it is."""
    force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if not force <= max_force:  # written so that NaN counts as broken
        return f"force {force:.1f} eV/Å"
    bonds = oh_lengths(atoms.positions, atoms.cell.array)
    if not (bonds.min() >= bond_range[0] and bonds.max() <= bond_range[1]):
        return f"O-H bond {bonds.min():.2f} to {bonds.max():.2f} Å"
    return None


def run_trajectory(
    atoms: ase.Atoms, temperature: float, options: argparse.Namespace, rng: np.random.Generator
) -> tuple[list[tuple[str, np.ndarray]], str | None]:
    """Frames as (config_type, positions), and the reason if the trajectory broke down."""
    thermal = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(thermal[:, None] * rng.normal(size=(len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        STEP_FS * units.fs,
        temperature_K=temperature,
        friction=0.01 / units.fs,
        fixcm=False,  # drift of the box does no harm here, and fixcm=True biases small systems
        rng=rng,
    )
    every = round(options.interval * 1000 / STEP_FS)
    back = round(options.lookback / STEP_FS)
    recent: deque[np.ndarray] = deque(maxlen=back + 1)  # the last sane geometries
    saved: list[tuple[str, np.ndarray]] = []
    for step in range(1, options.frames * every + 1):
        recent.append(atoms.positions.copy())
        dynamics.run(1)
        reason = breakdown(atoms, options.max_force, options.bond_range)
        if reason is not None:
            # The last sane geometry and one `lookback` fs earlier, for two stages of the failure.
            early = [recent[0]] if len(recent) > back else []
            return saved + [
                ("breakdown", p) for p in [*early, recent[-1]]
            ], f"{reason} at {step * STEP_FS} fs"
        if step % every == 0:
            saved.append(("liquid", atoms.positions.copy()))
    return saved, None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="model file, as nearsight.Calculator takes it")
    parser.add_argument("start", type=Path, help="extended XYZ frames of water to start from")
    parser.add_argument("output", type=Path, help="extended XYZ file to append to")
    parser.add_argument("--round", type=int, required=True, help="round number written to the frames")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300, 350, 450], help="K")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.94, 1.0, 1.06], help="g/cm3")
    parser.add_argument(
        "--frames",
        type=int,
        default=10,
        help="frames per trajectory; with the nine default trajectories this gives 90",
    )
    parser.add_argument("--interval", type=float, default=0.25, help="ps between saved frames")
    parser.add_argument(
        "--lookback",
        type=float,
        default=5.0,
        help="fs before the last sane step at which a second breakdown frame is taken",
    )
    parser.add_argument("--max-force", type=float, default=30.0, help="eV/Å; above this the run is broken")
    parser.add_argument(
        "--bond-range",
        type=float,
        nargs=2,
        default=(0.7, 1.6),
        metavar=("LOW", "HIGH"),
        help="Å; an O-H bond outside means the run is broken",
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    images = [a for a in read(options.start, ":") if a.info.get("config_type") == "liquid"]
    # A rattled frame is far from equilibrium and would start the dynamics with a jolt.
    images = [a for a in images if a.info.get("rattle", 0.0) == 0.0]
    done = {frame_id.rsplit("-", 1)[0] for frame_id in keep_complete(options.output)}
    calculator = nearsight.Calculator(options.model)
    pairs = list(itertools.product(options.temperatures, options.densities))
    for index, (temperature, density) in enumerate(pairs):
        prefix = f"r{options.round}-t{index:02d}"
        if prefix in done:
            continue
        rng = np.random.default_rng([options.seed, options.round, index])
        # Prefer a start of about the right temperature, so that little time is lost settling.
        distance = [abs(float(a.info.get("temperature", temperature)) - temperature) for a in images]
        close = np.flatnonzero(np.asarray(distance) <= min(distance) + 60.0)
        atoms = at_density(images[int(rng.choice(close))], density)
        atoms.calc = calculator
        frames, reason = run_trajectory(atoms, temperature, options, rng)
        text = ""
        for number, (config_type, positions) in enumerate(frames):
            info = {
                "frame_id": f"{prefix}-{number:03d}",
                "config_type": config_type,
                "round": options.round,
                "source": "nearsight",
                "temperature": round(temperature),
                "density": float(density),
                "rattle": 0.0,
            }
            whole = whole_molecules(positions, atoms.cell.array)
            text += format_frame(atoms.get_chemical_symbols(), whole, atoms.cell.array, info)
        if text:
            append_frame(options.output, text)  # whole trajectories only, so a rerun can skip by prefix
        outcome = "ran to the end" if reason is None else f"broke: {reason}"
        print(
            f"{prefix}: {temperature:.0f} K, {density:.2f} g/cm3, {len(frames)} frames, {outcome}", flush=True
        )


if __name__ == "__main__":
    main()
