"""Runs LAMMPS on several ranks and reads back what it computed, with all digits.

Many cases share one start of LAMMPS: each is read, run and written between two `clear`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

from nearsight.interfaces.lammps import command_line, environment
from nearsight.units import BOHR, ELEMENTARY_CHARGE, HARTREE, KCAL_PER_MOL

# LAMMPS' own factor between pressure and energy / volume, to undo it exactly (Force::nktv2p).
PRESSURE_FACTOR = {"metal": 1.6021765e6, "real": 68568.415, "si": 1.0, "electron": 2.94210108e13}
# LAMMPS' units in eV, Å, amu and ps.
ENERGY = {"metal": 1.0, "real": KCAL_PER_MOL, "si": 1 / ELEMENTARY_CHARGE, "electron": HARTREE}
LENGTH = {"metal": 1.0, "real": 1.0, "si": 1e10, "electron": BOHR}
MASS = {"metal": 1.0, "real": 1.0, "si": 1 / 1.66053906660e-27, "electron": 1.0}
TIME = {"metal": 1.0, "real": 1e-3, "si": 1e12, "electron": 1e-3}
VOIGT = ("xx", "yy", "zz", "xy", "xz", "yz")  # LAMMPS' order


@dataclass
class Case:
    """One system and what LAMMPS shall do with it; the masses follow the order of `elements`."""

    atoms: Atoms
    pair: Sequence[str]
    elements: Sequence[str] = ("O", "H")  # of LAMMPS types 1, 2, …
    units: str = "metal"
    atom_style: str = "atomic"
    before_box: Sequence[str] = ()
    after_read: Sequence[str] = ()
    run: Sequence[str] = ("run 0",)
    boundary: str = ""  # default: p and f after atoms.pbc


@dataclass
class Result:
    """Results of one case, atoms in the order of their ids, units as in the run; stresses are energies."""

    energy: float
    virial: np.ndarray  # [6] in the order of VOIGT
    forces: np.ndarray  # [n, 3]
    energies: np.ndarray  # [n]
    stresses: np.ndarray  # [n, 6] LAMMPS' per-atom stress × volume, as energy: minus the virial
    positions: np.ndarray  # [n, 3]
    log: str  # what LAMMPS printed


@dataclass
class Run:
    """A finished LAMMPS process."""

    code: int
    output: str
    folder: Path
    results: list[Result] = field(default_factory=list)


def write_data(path: Path, atoms: Atoms, elements: Sequence[str], units: str = "metal") -> None:
    """Write a data file; the rows of the cell must already be lower triangular, as LAMMPS wants them."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = (atoms.cell.array / LENGTH[units]).tolist()
    assert np.allclose(atoms.cell.array, np.tril(atoms.cell.array))
    lines = ["test system", "", f"{len(atoms)} atoms", f"{len(elements)} atom types", ""]
    lines += [f"0 {ax!r} xlo xhi", f"0 {by!r} ylo yhi", f"0 {cz!r} zlo zhi"]
    if bx or cx or cy:
        lines.append(f"{bx!r} {cx!r} {cy!r} xy xz yz")
    lines += ["", "Masses", ""]
    masses = {"H": 1.008, "O": 15.999, "Ar": 39.95}
    lines += [f"{t} {masses.get(e, 20.0) / MASS[units]!r}" for t, e in enumerate(elements, 1)]
    lines += ["", "Atoms # atomic", ""]
    types = [list(elements).index(s) + 1 for s in atoms.get_chemical_symbols()]
    lines += [
        f"{k} {t} " + " ".join(map(repr, map(float, r)))
        for k, (t, r) in enumerate(zip(types, atoms.positions / LENGTH[units]), 1)
    ]
    path.write_text("\n".join(lines) + "\n")


def case_input(case: Case, index: int) -> list[str]:
    """The input script of one case; its data file is data.<index>."""
    boundary = case.boundary or " ".join("p" if p else "f" for p in case.atoms.pbc)
    return [
        "clear",
        f"units {case.units}",
        f"atom_style {case.atom_style}",
        f"boundary {boundary}",
        *case.before_box,
        f"read_data data.{index}",
        f"neighbor {0.5 / LENGTH[case.units]!r} bin",
        *case.after_read,
        *case.pair,
        "compute energy all pe/atom pair",
        "compute stress all stress/atom NULL pair",
        "compute pressure all pressure NULL pair",
        "compute pe all pe pair",
        "thermo_style custom step c_pe vol " + " ".join(f"c_pressure[{k}]" for k in range(1, 7)),
        "thermo_modify format float %.17g norm no",
        *case.run,
        f"write_dump all custom dump.{index} id x y z fx fy fz c_energy "
        + " ".join(f"c_stress[{k}]" for k in range(1, 7))
        + " modify sort id format float %.17g",
        f'print "CASE {index} DONE"',
    ]


def run_script(
    folder: Path, lines: Sequence[str], ranks: int = 1, args: Sequence[str] = (), timeout: float = 120
) -> Run:
    """Run an input script; a non-zero exit is the caller's to judge."""
    (folder / "in.test").write_text("\n".join(lines) + "\n")
    env = environment()
    env["MPIR_CVAR_CH4_PROGRESS_THROTTLE"] = "1"  # waiting ranks sleep: there may be fewer cores than ranks
    command = command_line(ranks, ["-in", "in.test", "-log", "none", "-nocite", *args], env)
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=timeout)
    return Run(done.returncode, done.stdout + done.stderr, folder)


def run_cases(folder: Path, cases: Sequence[Case], ranks: int = 1, timeout: float = 120) -> list[Result]:
    """Run all cases in one start of LAMMPS."""
    lines: list[str] = []
    for k, case in enumerate(cases):
        write_data(folder / f"data.{k}", case.atoms, case.elements, case.units)
        lines += case_input(case, k)
    run = run_script(folder, lines, ranks, timeout=timeout)
    assert run.code == 0, run.output[-3000:]
    parts = run.output.split("CASE ")
    return [_read_case(folder / f"dump.{k}", parts[k], case.units) for k, case in enumerate(cases)]


def _read_case(dump: Path, output: str, units: str) -> Result:
    thermo = [line.split() for line in output.splitlines()]
    # The last line of numbers of the thermo table: step, energy, volume, pressure tensor.
    _, energy, volume, *pressure = [float(x) for x in [row for row in thermo if _is_thermo(row)][-1]]
    rows = np.loadtxt(dump, skiprows=9, ndmin=2)
    factor = PRESSURE_FACTOR[units]
    return Result(
        log=output,
        energy=energy,
        virial=np.array(pressure) * volume / factor,
        positions=rows[:, 1:4],
        forces=rows[:, 4:7],
        energies=rows[:, 7],
        stresses=rows[:, 8:14] / factor,
    )


def _is_thermo(row: Sequence[str]) -> bool:
    try:
        return len([float(x) for x in row]) == 9
    except ValueError:
        return False
