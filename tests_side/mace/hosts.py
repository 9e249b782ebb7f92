"""Energy, forces and stress of a system by mace-torch, and by nearsight in each of its hosts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np
import openmm
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from comparison import Numbers
from mace.calculators import MACECalculator
from side import energy_forces, make_context

from nearsight import openmm as nearsight_openmm
from nearsight.couple import evaluate
from nearsight.importers.imported import Imported
from nearsight.interfaces.potential import Potential
from nearsight.neighbors import make_graph
from nearsight.units import KJ_PER_MOL

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lammps"))
from lammps_harness import Case, run_cases

_ORDER = [0, 1, 2, 5, 4, 3]  # LAMMPS' components of a symmetric tensor in ASE's order
_TIMEOUT = 900.0  # seconds for one start of LAMMPS


def _stress(virial, atoms: ase.Atoms) -> np.ndarray:
    """ASE's stress from a virial (3, 3); zero where nothing is periodic."""
    return -np.asarray(virial) / atoms.cell.volume if atoms.pbc.all() else np.zeros((3, 3))


def of_mace_torch(model: torch.nn.Module, atoms: ase.Atoms, head: str | None) -> Numbers:
    """By mace-torch's calculator, in double."""
    heads = {} if head is None else {"head": head}
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", **heads)
    calculator.calculate(atoms, properties=["energy", "forces", "stress"])
    found = calculator.results
    stress = voigt_6_to_full_3x3_stress(found["stress"]) * atoms.pbc.all()
    return Numbers(found["energy"], found["forces"], stress)


def of_module(imported: Imported, atoms: ase.Atoms) -> Numbers:
    """By the torch module."""
    model, symbols = imported.model, atoms.get_chemical_symbols()
    kinds = [model.species.index(symbol) for symbol in symbols]
    graph = make_graph(atoms.positions, kinds, atoms.cell.array, atoms.pbc, model.cutoff)
    results = evaluate(model, graph, model.couple)
    energy = float(results.energy) + sum(imported.reference_energies[symbol] for symbol in symbols)
    return Numbers(energy, results.forces.numpy(), _stress(results.virial[0], atoms))


def of_potential(potential: Potential, atoms: ase.Atoms) -> Numbers:
    """By a backend in Python."""
    found = potential.compute(
        atoms.positions, atoms.get_chemical_symbols(), atoms.cell.array, list(atoms.pbc)
    )
    return Numbers(found.energy, found.forces, _stress(found.virial, atoms))


def of_openmm(path: Path, atoms: ase.Atoms, precision: str) -> Numbers:
    """By the compiled force; the stress is that of the Context's State, since OpenMM's forces give none."""
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    periodic = bool(atoms.pbc.all())
    if periodic:
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10.0))
    system.addForce(
        nearsight_openmm.create_force(
            path, atoms.get_chemical_symbols(), periodic=periodic, precision=precision
        )
    )
    context = make_context(system, atoms.positions / 10.0)
    energy, forces = energy_forces(context)
    state = context.getState(positions=True)
    virial = nearsight_openmm.SystemPotential(system).compute(state).virial
    return Numbers(energy * KJ_PER_MOL, forces * KJ_PER_MOL / 10.0, _stress(virial, atoms))


def _boxed(atoms: ase.Atoms) -> ase.Atoms:
    """The atoms with a box, open where nothing is periodic, as LAMMPS wants it."""
    if atoms.pbc.all():
        return atoms
    moved = atoms.copy()
    moved.set_cell([40.0, 40.0, 40.0])
    moved.positions += 17.0
    return moved


def of_lammps(
    folder: Path, jobs: Sequence[tuple[Path, Sequence[str], ase.Atoms, str]], ranks: int
) -> list[Numbers]:
    """By one start of LAMMPS for all jobs: model file, its elements, system, precision."""
    cases = [
        Case(
            _boxed(atoms),
            (f"pair_style mlp precision {precision}", f"pair_coeff * * {path} {' '.join(elements)}"),
            elements,
        )
        for path, elements, atoms, precision in jobs
    ]
    return [
        Numbers(found.energy, found.forces, _stress(voigt_6_to_full_3x3_stress(found.virial[_ORDER]), atoms))
        for found, (_, _, atoms, _) in zip(run_cases(folder, cases, ranks, _TIMEOUT), jobs)
    ]
