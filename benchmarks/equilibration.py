"""Speed of equilibrated charges: water in one process, from a cold start and from step to step.

3,072 atoms of liquid water on paths with the frequencies and amplitudes of its vibrations, librations and
translations at 300 K, steps of 0.5 fs; an untrained model (symmetry functions `medium`, mixed precision)
whose hydrogens and oxygens differ by 6 V. Cold is the first step of an evaluator without its set-up of the
mesh, warm the median of later ones. Reported: steps of conjugate gradients, ms of processor time of a whole
evaluation, of the electrostatics and of their parts.

    OMP_NUM_THREADS=1 python benchmarks/equilibration.py [--residual 1e-4 1e-6 1e-8] [--molecules]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ase
import numpy as np
import torch
from harness import machine, versions
from rich.console import Console
from rich.table import Table

from nearsight import Potential
from nearsight.demo.job import starting_structure
from nearsight.export import save_model
from nearsight.models import ACSFConfig, BPNNConfig, LongRangeConfig, build_model

SPECIES = ["H", "O"]
STEP = 0.5  # fs
# Root mean square displacements of hydrogen by classical oscillators at 300 K, Å, and their frequencies,
# rad/fs: stretches, bends, librations (two directions), translations.
MOTIONS = ((0.025, 0.65), (0.05, 0.31), (0.18, 0.12), (0.2, 0.02))
OXYGEN = 0.1  # of these displacements, but of translations, which are alike


def model_file(path: Path, residual: float) -> Path:
    torch.manual_seed(0)
    hardness, widths = {"H": 12.0, "O": 12.0}, {"H": 0.31, "O": 0.66}
    long_range = LongRangeConfig(
        charges="equilibrated", hardness=hardness, widths=widths, residual=residual, rtol=1e-4
    )
    model = build_model(BPNNConfig(cutoff=6.0, descriptor=ACSFConfig(size="medium")), SPECIES, long_range)
    for network, electronegativity in zip(model.networks, (3.0, 9.0)):
        network.scale.fill_(0.1)
        with torch.no_grad():
            network.layers[-1].bias[..., 1] += electronegativity / model.output_scale[1]
    source = {"reference_energies": dict.fromkeys(SPECIES, 0.0), "reference_energies_source": "none"}
    save_model(path, model, **source, provenance={})
    return path


def paths(atoms: ase.Atoms, steps: int) -> Iterator[np.ndarray]:
    """Positions of every step."""
    rng = np.random.default_rng(0)
    shape, oxygen = atoms.positions.shape, np.array([s == "O" for s in atoms.symbols])[:, None]
    waves = []
    for number, (displacement, rate) in enumerate(MOTIONS):
        share = np.where(oxygen & (number < len(MOTIONS) - 1), OXYGEN, 1.0)
        amplitude = np.sqrt(2 / 3) * displacement * share  # of a component
        waves.append((amplitude, rate * rng.uniform(0.9, 1.1, shape), rng.uniform(0, 2 * np.pi, shape)))
    for step in range(steps):
        moves = (size * (np.sin(rate * STEP * step + phase) - np.sin(phase)) for size, rate, phase in waves)
        yield atoms.positions + sum(moves)


def measure(atoms: ase.Atoms, path: Path, steps: int, precision: str, molecules: bool) -> list[dict]:
    numbers = np.arange(len(atoms)) // 3 if molecules else None
    potential = Potential(path, precision=precision, skin=1.0)
    species, rows = potential.species_indices(atoms.symbols), []
    for positions in paths(atoms, steps):
        start = time.process_time(), time.perf_counter()
        found = potential.compute_indices(positions, species, atoms.cell.array, atoms.pbc, molecules=numbers)
        busy, passed = time.process_time() - start[0], time.perf_counter() - start[1]
        parts = {name: s * busy / passed for name, s in found.electrostatic_seconds.items()}
        seconds = {"evaluation": busy, "electrostatics": parts.pop("total"), **parts}
        rows.append({"steps": found.equilibration_steps, **{name: 1e3 * s for name, s in seconds.items()}})
    warm = {name: statistics.median(row[name] for row in rows[10:]) for name in rows[0]}
    return [{"start": "cold", **rows[0]}, {"start": "warm", **warm}]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--residual", type=float, nargs="+", default=[1e-4, 1e-6, 1e-8])
    parser.add_argument("--precision", choices=["mixed", "double"], default="mixed")
    parser.add_argument("--molecules", action="store_true", help="every molecule of water stays neutral")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeat", type=int, nargs=3, default=[4, 2, 2], help="of 192 atoms")
    parser.add_argument("--output", type=Path, default=Path("equilibration.json"))
    options = parser.parse_args()
    atoms, console, rows = starting_structure().repeat(options.repeat), Console(), []
    with tempfile.TemporaryDirectory() as folder:
        for residual in options.residual:
            with console.status(f"residual {residual:g}"):
                path = model_file(Path(folder) / "model.pt", residual)
                found = measure(atoms, path, options.steps, options.precision, options.molecules)
            rows += [{"residual": residual, **row} for row in found]
    report = {
        "machine": machine(),
        "versions": versions("nearsight", "torch"),
        "atoms": len(atoms),
        "molecules": options.molecules,
        "rows": rows,
    }
    options.output.write_text(json.dumps(report, indent=1))
    table = Table(*rows[0], title=f"{len(atoms)} atoms, ms ({report['machine']['instruction_set']})")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    console.print(table, f"{report['versions']}; written to {options.output}")


if __name__ == "__main__":
    main()
