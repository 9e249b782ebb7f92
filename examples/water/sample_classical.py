"""Round 0: geometries of liquid water from classical flexible-water MD (OpenMM). No labels yet.

The force field is SPC/Fw (Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006)), built here term by
term. SPC/Fw has long O-H bonds (1.012 Å at rest, about 1.03 Å in the liquid) while a free GFN2-xTB
molecule has 0.959 Å, so half of the runs use a `short` variant: rest length 0.97 Å and bond and angle
springs half as stiff. Together the two variants cover the O-H range a GFN2-trained model will visit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openmm
from frames import append_frame, box_length, format_frame, keep_complete, whole_molecules
from openmm import unit

KCAL = 4.184  # kJ/mol
# Published SPC/Fw values. Springs are for V = k/2 (x - x0)^2, which is also OpenMM's convention.
BOND_K = 1059.162 * KCAL * 100.0  # kcal/mol/Å2 -> kJ/mol/nm2
BOND_R0 = 0.1012  # nm
ANGLE_K = 75.90 * KCAL  # kJ/mol/rad2
ANGLE_0 = np.deg2rad(113.24)
SIGMA = 0.3165492  # nm
EPSILON = 0.1554253 * KCAL
CHARGE_O, CHARGE_H = -0.82, 0.41
MASS_O, MASS_H = 15.9994, 1.008

VARIANTS = {"spcfw": (BOND_R0, 1.0), "short": (0.097, 0.5)}  # rest length in nm, spring scale
STEP_PS = 0.0005  # O-H stretches need 0.5 fs


def build_system(n_molecules: int, edge_nm: float, variant: str) -> openmm.System:
    """The force field of one box: springs inside molecules, Lennard-Jones and PME between them."""
    r0, scale = VARIANTS[variant]
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors([edge_nm, 0, 0], [0, edge_nm, 0], [0, 0, edge_nm])
    bonds, angles, nonbonded = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.NonbondedForce(),
    )
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    nonbonded.setCutoffDistance(0.6)  # the box is only 1.2 nm wide
    for molecule in range(n_molecules):
        o, h1, h2 = 3 * molecule, 3 * molecule + 1, 3 * molecule + 2
        for mass, charge, epsilon in ((MASS_O, CHARGE_O, EPSILON), *[(MASS_H, CHARGE_H, 0.0)] * 2):
            system.addParticle(mass)
            nonbonded.addParticle(charge, SIGMA, epsilon)
        bonds.addBond(o, h1, r0, BOND_K * scale)
        bonds.addBond(o, h2, r0, BOND_K * scale)
        angles.addAngle(h1, o, h2, ANGLE_0, ANGLE_K * scale)
        for pair in ((o, h1), (o, h2), (h1, h2)):
            nonbonded.addException(*pair, 0.0, 1.0, 0.0)
    for force in (bonds, angles, nonbonded):
        system.addForce(force)
    return system


def grid_start(n_molecules: int, edge: float, rng: np.random.Generator) -> np.ndarray:
    """Molecules with random orientations on a cubic grid, in Å."""
    side = int(np.ceil(n_molecules ** (1 / 3)))
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n_molecules]
    half = ANGLE_0 / 2
    template = np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    rotations = np.linalg.qr(rng.normal(size=(n_molecules, 3, 3)))[0]
    return ((cells[:, None] + 0.5) * edge / side + 0.97 * template @ rotations).reshape(-1, 3)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="extended XYZ file to append to; rerun to continue")
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.94, 1.06], help="g/cm3")
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=[600, 500, 420, 360, 310, 280],
        help="K, visited in this order, so put the hottest first to melt the start grid",
    )
    parser.add_argument("--per-segment", type=int, default=3, help="frames per temperature and run")
    parser.add_argument(
        "--settle", type=float, default=4.0, help="ps before the first frame of a temperature"
    )
    parser.add_argument("--spacing", type=float, default=2.0, help="ps between frames, so they decorrelate")
    parser.add_argument(
        "--rattle",
        type=float,
        nargs=2,
        default=[0.02, 0.06],
        metavar=("LOW", "HIGH"),
        help="last frame of each segment gets random displacements of this size in Å",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    done = keep_complete(options.output)
    runs = [(density, variant) for density in options.densities for variant in VARIANTS]
    per_run = len(options.temperatures) * options.per_segment
    total = len(runs) * per_run
    symbols = ["O", "H", "H"] * options.molecules
    for run, (density, variant) in enumerate(runs):
        ids = [f"r0-{run * per_run + i:04d}" for i in range(per_run)]
        if done.issuperset(ids):
            continue
        rng = np.random.default_rng([options.seed, run])
        edge = box_length(options.molecules, density)
        cell = np.eye(3) * edge
        integrator = openmm.LangevinMiddleIntegrator(options.temperatures[0], 5.0, STEP_PS)
        integrator.setRandomNumberSeed(options.seed * 1000 + run + 1)
        context = openmm.Context(
            build_system(options.molecules, edge / 10, variant),
            integrator,
            openmm.Platform.getPlatformByName("CPU"),
            {"Threads": str(options.threads)},
        )
        context.setPositions(grid_start(options.molecules, edge, rng) / 10)
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
        context.setVelocitiesToTemperature(options.temperatures[0], run + 1)
        index = 0
        for temperature in options.temperatures:
            integrator.setTemperature(temperature)
            integrator.step(round((options.settle - options.spacing) / STEP_PS))
            for segment_index in range(options.per_segment):
                integrator.step(round(options.spacing / STEP_PS))
                state = context.getState(getPositions=True)
                positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
                last = segment_index == options.per_segment - 1
                rattle = float(rng.uniform(*options.rattle)) if last else 0.0
                positions = positions + rattle * rng.normal(size=positions.shape)
                info = {
                    "frame_id": ids[index],
                    "config_type": "liquid",
                    "round": 0,
                    "source": variant,
                    "temperature": round(temperature),
                    "density": f"{density:.2f}",
                    "rattle": f"{rattle:.4f}",
                }
                if ids[index] not in done:
                    text = format_frame(symbols, whole_molecules(positions, cell), cell, info)
                    append_frame(options.output, text)
                index += 1
                print(f"\rround 0: {run * per_run + index}/{total} frames", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
