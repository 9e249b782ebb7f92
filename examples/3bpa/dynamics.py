"""Dynamics of one molecule in LAMMPS: does it stay intact, and is its energy conserved?

Langevin dynamics from the first frame of a file, then constant energy. Writes dynamics.png and prints the
longest bond and the closest contact in sums of covalent radii, and the drift of the total energy.

    python dynamics.py runs/3bpa/model.pt train_300K.extxyz --temperature 1200 --nvt 100 --nve 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.data import covalent_radii

from nearsight.data import read_frames
from nearsight.demo.dynamics import drift
from nearsight.demo.engines import lammps_setup, run_lammps, write_lammps_data
from nearsight.training.plots import new_figure

BOX = 40.0  # Å, larger than the molecule and the cutoff together
BONDED = 1.25  # sums of covalent radii, in the first frame
BROKEN = 1.75  # ... from which on a bond has not just been stretched by the temperature
SAMPLES = 100  # steps from one configuration to the next


def relative_distances(atoms: ase.Atoms) -> np.ndarray:
    """Return the distances of all pairs [n, n] in sums of their covalent radii, infinite on the diagonal."""
    radii = covalent_radii[atoms.numbers]
    distances = atoms.get_all_distances() / (radii[:, None] + radii)
    np.fill_diagonal(distances, np.inf)
    return distances


def bonds_and_contacts(frames: list[ase.Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Return, of every frame, the longest of the first frame's bonds and the closest of its other pairs."""
    bonded = relative_distances(frames[0]) < BONDED
    everything = np.array([relative_distances(frame) for frame in frames])
    return everything[:, bonded].max(axis=1), everything[:, ~bonded].min(axis=1)


def run(model: Path, atoms: ase.Atoms, folder: Path, options: argparse.Namespace) -> list[ase.Atoms]:
    """Run both parts in `folder`; return configurations of the first. The second leaves nve.txt."""
    species = list(dict.fromkeys(atoms.get_chemical_symbols()))
    atoms = ase.Atoms(atoms.symbols, atoms.positions, cell=[BOX] * 3, pbc=True)
    atoms.center()
    write_lammps_data(folder / "molecule.data", atoms, species)
    nvt, nve = (round(1000 * ps / options.timestep) for ps in (options.nvt, options.nve))
    kelvin, seed = options.temperature, options.seed
    run_lammps(
        lammps_setup(model, species, options.precision, "molecule.data")
        + f"""
neighbor 1.0 bin
neigh_modify every 5 delay 0 check yes
timestep {options.timestep / 1000}
velocity all create {kelvin} {seed} mom yes rot yes dist gaussian
thermo 10000
fix bath all langevin {kelvin} {kelvin} 0.1 {seed} zero yes
fix integrate all nve
dump sample all custom {SAMPLES} sample.dump id type xu yu zu
dump_modify sample sort id
run {nvt}
undump sample
unfix bath
reset_timestep 0
variable time equal step*dt
variable total equal etotal
fix record all print 10 "${{time}} ${{total}}" file nve.txt screen no title "# ps eV"
thermo_modify format float %.8f
run {nve}
""",
        folder,
        ranks=1,
    )
    frames = ase.io.read(folder / "sample.dump", index=":", format="lammps-dump-text")
    for frame in frames:
        frame.symbols = atoms.symbols
        frame.pbc = False
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("frames", type=Path, help="file whose first frame is the start")
    parser.add_argument("--temperature", type=float, default=1200.0, help="K")
    parser.add_argument("--nvt", type=float, default=100.0, help="ps with a thermostat")
    parser.add_argument("--nve", type=float, default=20.0, help="ps at constant energy")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--precision", choices=["mixed", "double"], default="mixed")
    parser.add_argument("--seed", type=int, default=1, help="of velocities and thermostat")
    parser.add_argument("--output", type=Path, default=Path("dynamics"))
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    start = read_frames(options.frames)[0]
    atoms = ase.Atoms(start.symbols, start.positions)
    longest, closest = bonds_and_contacts(run(options.model, atoms, options.output, options))
    intact = longest.max() < BROKEN and closest.min() > BONDED
    times = np.arange(len(longest)) * SAMPLES * options.timestep / 1000
    nve_ps, energy = np.loadtxt(options.output / "nve.txt").T
    found = drift(nve_ps, energy / len(atoms))

    figure, (left, right) = new_figure(10.0, 4.0, ncols=2)
    left.plot(times, longest, lw=0.5, label="longest bond")
    left.plot(times, closest, lw=0.5, label="closest other pair")
    left.set(xlabel="time (ps)", ylabel="distance / sum of covalent radii")
    left.set_title(f"{options.temperature:g} K")
    left.legend()
    right.plot(nve_ps, 1e3 * (energy - energy.mean()) / len(atoms), lw=0.5)
    right.set(xlabel="time (ps)", ylabel="E − ⟨E⟩ (meV/atom)", title=f"constant energy, {options.precision}")
    figure.savefig(options.output / "dynamics.png")
    print(f"{options.temperature:g} K, {times[-1]:g} ps: {'intact' if intact else 'NOT intact'}")
    print(f"longest bond {longest.max():.3f}, closest other pair {closest.min():.3f} sums of covalent radii")
    print(
        f"{options.precision}: drift {found.slope:.5f} ± {found.error:.5f} meV/atom/ps in {nve_ps[-1]:g} ps, "
        f"rms {found.fluctuation:.4f} meV/atom"
    )


if __name__ == "__main__":
    main()
