"""PME in torch for training: time of energy, forces and virial, and of the gradient of a loss of them.

    OMP_NUM_THREADS=1 python benchmarks/electrostatics_torch.py [--rtol 1e-4] [--output times.json]

Liquid water, ms per frame, one thread: the least CPU time of seven runs. Beside it energy and forces of the
core with the same parameters, and the time to make a frame from them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nearsight.couple import ChargeFrames, Electrostatics, charge_frame, join_charge_frames
from nearsight.demo.job import starting_structure
from nearsight.lib import _core

CASES = [(1, 1), (1, 10), (2, 1)]  # copies of 192 atoms along each direction, frames in a batch
CUTOFFS = [0.0, 6.0]  # Å; 0: the core's choice
RUNS = 7


def least(call: Callable[[], object]) -> float:
    """CPU time, ms."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def derivatives(
    positions: Tensor, charges: Tensor, frames: ChargeFrames, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Energy, and its derivatives by positions, charges and strain."""
    strain = torch.zeros_like(frames.boxes, requires_grad=True)
    energy = Electrostatics()(positions, charges, frames, None, strain)
    inputs = (positions, charges, strain)
    return energy, *torch.autograd.grad(energy.sum(), inputs, create_graph=create_graph)


def step(positions: Tensor, charges: Tensor, frames: ChargeFrames) -> Tensor:
    """Gradient by the charges of a loss of energy, forces, potentials and virial, these included."""
    energy, by_position, by_charge, by_strain = derivatives(positions, charges, frames, True)
    loss = sum((value**2).sum() for value in (energy, by_position, by_charge, by_strain))
    return torch.autograd.grad(loss, charges)[0]


def measure(copies: int, batch: int, rtol: float, cutoff: float) -> dict:
    """One row."""
    atoms = starting_structure().repeat(copies)
    system = (atoms.positions, np.where(atoms.numbers == 8, -0.8, 0.4), atoms.cell.array, atoms.pbc)
    pme = _core.Pme(*system, rtol=rtol, cutoff=cutoff)
    one = charge_frame(system[0], system[2], system[3], pme)
    frames = join_charge_frames([one] * batch)
    positions = torch.from_numpy(np.tile(system[0], (batch, 1))).requires_grad_(True)
    charges = torch.from_numpy(np.tile(system[1], batch)).unsqueeze(1).requires_grad_(True)
    found = pme.parameters
    return {
        "atoms": len(atoms),
        "batch": batch,
        "cutoff": round(found["cutoff"], 2),
        "order": found["order"],
        "mesh": "×".join(map(str, found["mesh"])),
        "core": least(lambda: pme.evaluate(*system)),
        "set-up": least(lambda: charge_frame(system[0], system[2], system[3], pme)),
        "E, F, W": least(lambda: derivatives(positions, charges, frames)) / batch,
        "step": least(lambda: step(positions, charges, frames)) / batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rtol", type=float, default=1e-4)
    parser.add_argument("--output", type=Path, default=Path("electrostatics_torch.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(*case, options.rtol, cutoff) for case in CASES for cutoff in CUTOFFS]
    options.output.write_text(json.dumps({"rtol": options.rtol, "torch": torch.__version__, "rows": rows}))
    table = Table(*rows[0], title=f"ms per frame, rtol {options.rtol:g}, torch {torch.__version__}")
    for row in rows:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
