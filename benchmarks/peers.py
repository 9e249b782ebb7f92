"""Speed of other programs' potentials for water in their own environment, µs/atom of energy and forces.

Runs in an environment that has torchani, deepmd-kit or mace-torch; needs ase, neither nearsight nor LAMMPS.
The program's own neighbor search, median of the calls. Prints one line of JSON. Called by
descriptor_models.py and message_passing.py.

    export OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1
    python benchmarks/peers.py torchani water.xyz
    python benchmarks/peers.py deepmd water.xyz
    python benchmarks/peers.py mace water.xyz --channels 128 --hidden "0e + 1o"
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np


def torchani_step(atoms: ase.Atoms, options: argparse.Namespace) -> Callable[[], object]:
    """ANI-2x's architecture with 8 members and random weights, in single precision."""
    import torch
    import torchani

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = torchani.arch.simple_ani(
        ["H", "C", "N", "O", "S", "F", "Cl"],
        lot="wb97x-631gd",
        ensemble_size=8,
        repulsion=False,
        neighborlist="cell_list",
    )
    numbers = torch.tensor(atoms.numbers)[None]
    cell, pbc = torch.tensor(atoms.cell.array, dtype=torch.float32), torch.tensor(atoms.pbc)
    positions = torch.tensor(atoms.get_positions(wrap=True), dtype=torch.float32)[None]

    def step() -> object:
        coordinates = positions.clone().requires_grad_()
        energy = model((numbers, coordinates), cell=cell, pbc=pbc).energies.sum()
        return torch.autograd.grad(energy, coordinates)[0]

    return step


def deepmd_step(atoms: ase.Atoms, _options: argparse.Namespace) -> Callable[[], object]:
    """A compressed se_e2_a model (6 Å, 25-50-100, 240-240-240), trained for a few steps on random labels."""
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    types = [0 if symbol == "O" else 1 for symbol in atoms.symbols]
    rng = np.random.default_rng(0)
    (root / "data" / "set.000").mkdir(parents=True)
    np.savetxt(root / "data" / "type.raw", types, fmt="%d")
    for key, value in {
        "coord": atoms.get_positions(wrap=True),
        "box": atoms.cell.array,
        "force": rng.normal(size=(len(atoms), 3)),
        "energy": np.zeros(1),
    }.items():
        np.save(root / "data" / "set.000" / f"{key}.npy", np.tile(np.ravel(value), (2, 1)))
    descriptor = {
        "type": "se_e2_a",
        "rcut": 6.0,
        "rcut_smth": 0.5,
        "sel": [60, 110],
        "neuron": [25, 50, 100],
        "axis_neuron": 16,
        "seed": 1,
    }
    fitting = {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1}
    settings = {
        "model": {"type_map": ["O", "H"], "descriptor": descriptor, "fitting_net": fitting},
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-4, "decay_steps": 10},
        "loss": {"type": "ener"},
        "training": {
            "training_data": {"systems": ["data"], "batch_size": 1},
            "numb_steps": 20,
            "seed": 1,
            "disp_freq": 10,
            "save_freq": 20,
        },
    }
    (root / "input.json").write_text(json.dumps(settings))
    program = Path(sys.executable).with_name("dp")
    for words in ("train input.json", "freeze -o raw.pb", "compress -i raw.pb -o model.pb -t input.json"):
        subprocess.run([str(program), *words.split()], cwd=root, check=True, capture_output=True)
    from deepmd.infer import DeepPot

    model = DeepPot(str(root / "model.pb"))
    positions, cell = atoms.get_positions(wrap=True).reshape(1, -1), atoms.cell.array.reshape(1, 9)

    def step() -> object:
        return folder, model.eval(positions, cell, types)

    return step


def mace_step(atoms: ase.Atoms, options: argparse.Namespace) -> Callable[[], object]:
    """A ScaleShiftMACE with random weights, through its ASE calculator."""
    import torch
    from mace.calculators import MACECalculator
    from mace_torch_training import make_model

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    model = make_model(
        sorted(set(atoms.numbers.tolist())), options.channels, options.hidden, options.interactions
    )
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float32")

    def step() -> object:
        calculator.reset()
        return calculator.get_forces(atoms)

    return step


STEPS = {"torchani": torchani_step, "deepmd": deepmd_step, "mace": mace_step}
PACKAGES = {
    "torchani": ("torchani", "torch"),
    "deepmd": ("deepmd-kit", "tensorflow-cpu"),
    "mace": ("mace-torch", "e3nn", "torch"),
}


def seconds_of(step: Callable[[], object]) -> float:
    """Seconds by the clock of one call."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", choices=list(STEPS))
    parser.add_argument("structure", type=Path, help="any file that ase reads")
    parser.add_argument("--channels", type=int, default=64, help="of mace")
    parser.add_argument("--hidden", default="0e + 1o", help="of mace")
    parser.add_argument("--interactions", type=int, default=2, help="of mace")
    parser.add_argument("--threads", type=int, default=1, help="of torch; others read the environment")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="fewer repeats, but two, if they take longer"
    )
    options = parser.parse_args()

    atoms = ase.io.read(options.structure)
    step = STEPS[options.program](atoms, options)
    if seconds_of(step) < 0.1 * options.seconds:
        step()  # the second call of a scripted module optimizes it
    seconds: list[float] = []
    while len(seconds) < options.repeats and (len(seconds) < 2 or sum(seconds) < options.seconds):
        seconds.append(seconds_of(step))
    result = {
        "microseconds_per_atom": 1e6 * statistics.median(seconds) / len(atoms),
        "all": [1e6 * s / len(atoms) for s in seconds],
        "versions": {package: version(package) for package in PACKAGES[options.program]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
