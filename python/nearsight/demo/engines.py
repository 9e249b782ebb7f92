"""One configuration through every door: Python, ASE, the C program, LAMMPS on 1 and 2 ranks, OpenMM."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import numpy as np

import nearsight
from nearsight.errors import NearsightError
from nearsight.interfaces.lammps import command_line, environment


@dataclass(frozen=True)
class Answer:
    """What one engine says about one configuration."""

    energy: float  # eV
    forces: np.ndarray  # (n, 3) eV/Å


def run_lammps(script: str, folder: Path, ranks: int) -> str:
    """Run a LAMMPS script in `folder`; return the text of its log.

    Raises:
        NearsightError: LAMMPS failed; the message names its last words.
    """
    (folder / "in.lammps").write_text(script)
    env = environment()
    command = command_line(ranks, ["-in", "in.lammps", "-log", "log.lammps", "-nocite"], env)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in words if "ERROR" in line] or words[-1:] or ["no output"]
        raise NearsightError(
            f"LAMMPS on {ranks} rank(s) failed: {errors[0].strip()}; see {folder}/log.lammps"
        )
    return (folder / "log.lammps").read_text()


def write_lammps_data(path: Path, atoms: ase.Atoms, species: list[str]) -> None:
    """Write a LAMMPS data file (units metal, atom_style atomic); types follow `species`."""
    ase.io.write(path, atoms, format="lammps-data", specorder=species, masses=True, atom_style="atomic")


def lammps_setup(model: Path, species: list[str], precision: str, data: str = "water.data") -> str:
    """Return the lines that every LAMMPS input of the demo begins with."""
    return (
        "units metal\natom_style atomic\nboundary p p p\nnewton on\n"
        f"read_data {data}\n"
        f"pair_style mlp precision {precision}\n"
        f'pair_coeff * * "{model.resolve()}" {" ".join(species)}\n'
    )


def ask_python(model: Path, atoms: ase.Atoms, precision: str) -> Answer:
    """Return what the PyTorch module in the file says; this is the oracle, in double."""
    from nearsight.couple import evaluate
    from nearsight.export import load
    from nearsight.neighbors import make_graph

    loaded = load(model)
    names = loaded.metadata["species"]
    graph = make_graph(
        atoms.positions,
        [names.index(symbol) for symbol in atoms.get_chemical_symbols()],
        atoms.cell.array,
        atoms.pbc,
        loaded.metadata["cutoff"],
    )
    results = evaluate(loaded.module, graph, loaded.metadata["couple"])
    energies = loaded.metadata["reference_energies"]
    reference = sum(energies[symbol] for symbol in atoms.get_chemical_symbols())
    return Answer(results.energy.item() + reference, results.forces.numpy())


def ask_ase(model: Path, atoms: ase.Atoms, precision: str) -> Answer:
    """Return what the ASE calculator says."""
    copy = atoms.copy()
    copy.calc = nearsight.Calculator(model, precision=precision)
    return Answer(copy.get_potential_energy(), copy.get_forces())


def ask_c_program(model: Path, atoms: ase.Atoms, precision: str, folder: Path) -> Answer:
    """Return what examples/c_api/energy_forces.c says."""
    frame = folder / "frame.xyz"
    lattice = " ".join(f"{x:.17g}" for x in atoms.cell.array.ravel())
    lines = [f"{s} {x:.17g} {y:.17g} {z:.17g}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions)]
    frame.write_text("\n".join([str(len(atoms)), f'Lattice="{lattice}" pbc="T T T"', *lines, ""]))
    program = Path(nearsight.__file__).parent / "lib" / "nearsight-energy-forces"
    output = subprocess.run([program, model, frame, precision], capture_output=True, text=True, check=False)
    if output.returncode:
        raise NearsightError(f"the C program failed: {output.stderr.strip()}")
    energy, *forces = output.stdout.splitlines()
    return Answer(float(energy), np.array([[float(x) for x in line.split()] for line in forces]))


def ask_lammps(model: Path, atoms: ase.Atoms, precision: str, folder: Path, ranks: int) -> Answer:
    """Return what `pair_style mlp` says on so many MPI ranks."""
    species = list(dict.fromkeys(atoms.get_chemical_symbols()))
    write_lammps_data(folder / "water.data", atoms, species)
    script = lammps_setup(model, species, precision) + (
        "dump forces all custom 1 forces.dump id fx fy fz\n"
        'dump_modify forces sort id format line "%d %.17g %.17g %.17g"\n'
        "run 0\n"
        'print "$(pe:%.17g)" file energy.txt\n'
    )
    run_lammps(script, folder, ranks)
    table = np.loadtxt(folder / "forces.dump", skiprows=9)
    return Answer(float((folder / "energy.txt").read_text()), table[:, 1:])


def ask_openmm(model: Path, atoms: ase.Atoms, precision: str) -> Answer:
    """Return what the compiled OpenMM force says on the Reference platform."""
    import openmm
    from openmm import unit

    from nearsight.interfaces.openmm import create_force
    from nearsight.units import KJ_PER_MOL, NM

    context = openmm.Context(
        openmm_system(
            atoms, create_force(model, atoms.get_chemical_symbols(), periodic=True, precision=precision)
        ),
        openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(atoms.positions / NM)
    state = context.getState(getEnergy=True, getForces=True)
    kj = unit.kilojoule_per_mole
    return Answer(
        state.getPotentialEnergy().value_in_unit(kj) * KJ_PER_MOL,
        state.getForces(asNumpy=True).value_in_unit(kj / unit.nanometer) * KJ_PER_MOL / NM,
    )


def openmm_system(atoms: ase.Atoms, force: object) -> object:
    """Return an OpenMM System of these atoms, periodic, with one force."""
    import openmm

    from nearsight.units import NM

    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / NM))
    system.addForce(force)
    return system


def ask_all(model: Path, atoms: ase.Atoms, precision: str, folder: Path) -> dict[str, Answer]:
    """Ask every engine about the same configuration; the first answer is the oracle."""
    doors: dict[str, Callable[[], Answer]] = {
        "Python (PyTorch, double)": lambda: ask_python(model, atoms, precision),
        "ASE": lambda: ask_ase(model, atoms, precision),
        "C program": lambda: ask_c_program(model, atoms, precision, folder),
        "LAMMPS, 1 rank": lambda: ask_lammps(model, atoms, precision, folder, 1),
        "LAMMPS, 2 ranks": lambda: ask_lammps(model, atoms, precision, folder, 2),
        "OpenMM": lambda: ask_openmm(model, atoms, precision),
    }
    return {name: ask() for name, ask in doors.items()}
