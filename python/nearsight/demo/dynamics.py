"""Molecular dynamics of the demo: LAMMPS on two ranks (NVT, NVE), then OpenMM at the same state point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.geometry.rdf import get_rdf

from nearsight.demo.engines import lammps_setup, openmm_system, run_lammps, write_lammps_data
from nearsight.units import NM

TIMESTEP_FS = 0.5
_SAMPLE_STEPS = 100  # steps between the configurations that g(r) is made of


@dataclass(frozen=True)
class Drift:
    """Slope of the total energy in NVE, by least squares, after a part that is left out."""

    slope: float  # meV/atom/ps
    error: float  # standard error of the slope
    fluctuation: float  # root mean square about the line, meV/atom


@dataclass(frozen=True)
class LammpsRun:
    """What the LAMMPS run of the demo gives."""

    time_ps: np.ndarray  # of NVE
    energy: np.ndarray  # total energy in NVE, eV/atom
    temperature: np.ndarray  # in NVE, K
    frames: list[ase.Atoms]  # of the second half of NVT
    last: ase.Atoms
    us_per_atom_step: float  # wall time of both ranks together, in NVE


def drift(time_ps: np.ndarray, energy: np.ndarray, skip_ps: float = 0.0) -> Drift:
    """Return the drift of `energy` (eV/atom), leaving out times below `skip_ps`."""
    keep = time_ps >= skip_ps
    t, e = time_ps[keep], 1e3 * energy[keep]
    (slope, offset), covariance = np.polyfit(t, e, 1, cov="unscaled")
    residual = e - slope * t - offset
    variance = (residual**2).sum() / max(1, len(t) - 2)
    return Drift(slope, float(np.sqrt(variance * covariance[0, 0])), float(residual.std()))


def run_lammps_dynamics(
    model: Path,
    atoms: ase.Atoms,
    folder: Path,
    *,
    nvt_ps: float,
    nve_ps: float,
    temperature: float = 300.0,
    ranks: int = 2,
    precision: str = "mixed",
    timestep_fs: float = TIMESTEP_FS,
) -> LammpsRun:
    """Equilibrate at `temperature` (K), then run at constant energy."""
    species = list(dict.fromkeys(atoms.get_chemical_symbols()))
    write_lammps_data(folder / "water.data", atoms, species)
    nvt, nve = (round(1000 * ps / timestep_fs) for ps in (nvt_ps, nve_ps))
    script = (
        lammps_setup(model, species, precision)
        + f"""
neighbor 1.0 bin
neigh_modify every 5 delay 0 check yes
timestep {timestep_fs / 1000}
velocity all create {temperature} 4928 dist gaussian
thermo 500
fix integrate all nvt temp {temperature} {temperature} 0.05
run {nvt // 2}
dump sample all custom {_SAMPLE_STEPS} sample.dump id type xu yu zu
dump_modify sample sort id
run {nvt - nvt // 2}
undump sample
unfix integrate
reset_timestep 0
fix integrate all nve
variable time equal step*dt
variable total equal etotal
variable temperature equal temp
fix record all print 10 "${{time}} ${{total}} ${{temperature}}" file nve.txt screen no title "# ps eV K"
thermo_modify format float %.8f
run {nve}
write_dump all custom last.dump id type xu yu zu modify sort id
"""
    )
    log = run_lammps(script, folder, ranks)
    record = np.loadtxt(folder / "nve.txt")
    loops = [float(line.split()[3]) for line in log.splitlines() if line.startswith("Loop time of")]
    return LammpsRun(
        time_ps=record[:, 0],
        energy=record[:, 1] / len(atoms),
        temperature=record[:, 2],
        frames=_read_dump(folder / "sample.dump", species),
        last=_read_dump(folder / "last.dump", species)[-1],
        us_per_atom_step=1e6 * loops[-1] / nve / len(atoms),
    )


def _read_dump(path: Path, species: Sequence[str]) -> list[ase.Atoms]:
    frames = ase.io.read(path, index=":", format="lammps-dump-text")
    for frame in frames:
        # ASE takes the type for the atomic number.
        frame.symbols = [species[number - 1] for number in frame.numbers]
    return frames


def run_openmm_dynamics(
    model: Path,
    atoms: ase.Atoms,
    *,
    ps: float,
    temperature: float = 300.0,
    threads: int = 2,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[ase.Atoms]:
    """Run Langevin dynamics at `temperature` (K) from `atoms`; return configurations of the second half."""
    import openmm
    from openmm import unit

    from nearsight.interfaces.openmm import create_force

    force = create_force(model, atoms.get_chemical_symbols(), periodic=True, threads=threads)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 5.0, TIMESTEP_FS / 1000)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(
        openmm_system(atoms, force), integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(atoms.positions / NM)
    context.setVelocitiesToTemperature(temperature, 1)
    samples = round(1000 * ps / TIMESTEP_FS) // _SAMPLE_STEPS
    frames = []
    for sample in range(samples):
        integrator.step(_SAMPLE_STEPS)
        progress((sample + 1) / samples)
        if sample < samples // 2:
            continue
        state = context.getState(getPositions=True)
        frame = atoms.copy()
        frame.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        frames.append(frame)
    return frames


def oxygen_rdf(
    frames: Sequence[ase.Atoms], r_max: float = 6.0, bins: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Return r (Å) and the mean g_OO(r) over the frames."""
    curves = []
    for frame in frames:
        oxygen = frame[[s == "O" for s in frame.get_chemical_symbols()]]
        oxygen.wrap()
        g, r = get_rdf(oxygen, r_max, bins)
        curves.append(g)
    return r, np.mean(curves, axis=0)
