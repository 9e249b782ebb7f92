"""Forces between point charges by other programs, for electrostatics.py: what can be tried, errors, times."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from harness import seconds_per_step

from nearsight.demo.engines import run_lammps
from nearsight.lib import _core
from nearsight.units import COULOMB, KJ_PER_MOL, NM

CUTOFFS = (6.0, 9.0, 12.0)  # Å


@dataclass(frozen=True)
class Charged:
    """Charges in an orthorhombic cell, and the forces on them."""

    atoms: ase.Atoms
    charges: np.ndarray  # [n] e
    forces: np.ndarray  # [n, 3] eV/Å
    error_of_forces: float | None = None  # where it is known

    @property
    def arguments(self) -> tuple:
        return self.atoms.positions, self.charges, self.atoms.cell.array, self.atoms.pbc

    def error(self, forces: np.ndarray) -> float:
        return float(np.linalg.norm(forces - self.forces) / np.linalg.norm(self.forces))


@dataclass(frozen=True)
class Trial:
    """One way to find the forces, with its error."""

    name: str
    settings: str
    error: float
    seconds: Callable[[float], list[float]]  # of steps, which take about so many seconds in total


def timed(step: Callable[[], object], steps: int = 1) -> Callable[[float], list[float]]:
    """Repeat a call that makes so many steps."""

    def seconds(total: float) -> list[float]:
        step()
        times: list[float] = []
        while len(times) < 5 or sum(times) * steps < total:
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) / steps)
        return times

    return seconds


def _lammps_data(system: Charged) -> str:
    lines = [f"charges\n\n{len(system.charges)} atoms\n1 atom types"]
    lines += [
        f"0 {length!r} {axis}lo {axis}hi" for length, axis in zip(system.atoms.cell.lengths().tolist(), "xyz")
    ]
    lines += ["\nMasses\n\n1 10.0\n\nAtoms # charge\n"]
    places = system.atoms.get_positions(wrap=True).tolist()
    for number, (q, place) in enumerate(zip(system.charges.tolist(), places), 1):
        lines.append(f"{number} 1 {q!r} " + " ".join(map(repr, place)))
    return "\n".join(lines) + "\n"


def lammps(system: Charged, rtol: float, cores: int) -> Iterator[Trial]:
    """A whole step of NVE with pair_style coul/long and kspace_style pppm."""
    files = {"atoms.data": _lammps_data(system)}
    dump = "neighbor 1.0 bin\nrun 0\nwrite_dump all custom out fx fy fz modify sort id format float %.12g\n"
    for cutoff in CUTOFFS:
        for request in (0.3, 1.0, 3.0):
            setup = (
                "units metal\natom_style charge\nnewton on\nread_data atoms.data\n"
                f"pair_style coul/long {cutoff}\npair_coeff * *\nkspace_style pppm {request * rtol:g}\n"
            )
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "atoms.data").write_text(files["atoms.data"])
                run_lammps(setup + dump, Path(folder), cores)
                error = system.error(np.loadtxt(Path(folder) / "out", skiprows=9))

            def seconds(total: float, setup: str = setup) -> list[float]:
                probe = statistics.median(seconds_per_step(setup, files, cores, 2, 2))
                return seconds_per_step(setup, files, cores, max(2, math.ceil(0.2 * total / probe)), 5)

            yield Trial("LAMMPS pppm", f"pppm {request * rtol:g}, cutoff {cutoff:g} Å", error, seconds)


def openmm(system: Charged, rtol: float, cores: int) -> Iterator[Trial]:
    """A step of Verlet's integrator with NonbondedForce on the CPU platform, which is in single precision."""
    import openmm as mm

    for cutoff in CUTOFFS:
        for request in (0.5, 1.5, 5.0):
            model, force = mm.System(), mm.NonbondedForce()
            for q in system.charges.tolist():
                model.addParticle(10.0)
                force.addParticle(q, 1.0, 0.0)
            model.setDefaultPeriodicBoxVectors(*(system.atoms.cell.array / NM))
            force.setNonbondedMethod(mm.NonbondedForce.PME)
            force.setCutoffDistance(cutoff / NM)
            force.setEwaldErrorTolerance(request * rtol)
            model.addForce(force)
            integrator = mm.VerletIntegrator(1e-9)
            platform = mm.Platform.getPlatformByName("CPU")
            context = mm.Context(model, integrator, platform, {"Threads": str(cores)})
            context.setPositions(system.atoms.positions / NM)
            forces = context.getState(getForces=True).getForces(asNumpy=True)
            error = system.error(forces.value_in_unit(forces.unit) * KJ_PER_MOL / NM)
            settings = f"tolerance {request * rtol:g}, cutoff {cutoff:g} Å"

            def step(integrator: object = integrator, _context: object = context) -> None:
                integrator.step(10)

            yield Trial("OpenMM CPU PME", settings, error, timed(step, 10))


def _torch_step(system: Charged, dtype: str, cutoff: float, smearing: float, spacing: float) -> Callable:
    """Return forces by autograd; the list of pairs is made here."""
    import torch
    import torchpme

    positions, charges, cell, pbc = system.arguments
    edges, _, vectors = _core.neighbor_list(positions, cell, pbc, cutoff)
    half = edges[0] < edges[1]
    shifts = vectors[half] - positions[edges[1, half]] + positions[edges[0, half]]
    pairs = torch.from_numpy(edges[:, half].T.astype(np.int64))
    kind = getattr(torch, dtype)
    offsets, q, box = (torch.from_numpy(a).to(kind) for a in (shifts, charges[:, None], cell))
    potential = torchpme.CoulombPotential(smearing=smearing)
    calculator = torchpme.P3MCalculator(potential, mesh_spacing=spacing, interpolation_nodes=5)
    calculator.to(dtype=kind)

    def step() -> np.ndarray:
        r = torch.from_numpy(positions).to(kind).requires_grad_()
        distances = (r[pairs[:, 1]] - r[pairs[:, 0]] + offsets).norm(dim=1)
        energy = (q * calculator(q, box, r, pairs, distances)).sum()
        return -COULOMB * torch.autograd.grad(energy, r)[0].double().numpy()

    return step


def torch_pme(system: Charged, rtol: float, cores: int) -> Iterator[Trial]:
    """P3M; its time is without that of the list of pairs."""
    import torch

    torch.set_num_threads(cores)
    for dtype in ("float32", "float64"):
        for cutoff in CUTOFFS[:2]:
            smearing = cutoff / math.sqrt(2.0 * math.log(3.0 / rtol))
            for spacing in (1.2 * smearing, 0.9 * smearing, 0.6 * smearing):
                step = _torch_step(system, dtype, cutoff, smearing, spacing)
                settings = f"{dtype}, cutoff {cutoff:g} Å, smearing {smearing:.2f}, spacing {spacing:.2f} Å"
                yield Trial("torch-pme P3M", settings, system.error(step()), timed(step))
