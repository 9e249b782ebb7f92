"""Training steps per second on one core, of every descriptor: native against pure torch, in one process.

A step is the gradient of the loss of energies, forces and virials of a batch of two frames of water (192
atoms each, random labels) by the parameters of networks with two hidden layers of 25. As in a run, what does
not depend on trained parameters is evaluated once: in `evaluated` the features, in `stored` their derivatives
as well. A run stores those of symmetry functions and ANI where they fit into training.cache_gb. `native` is
the faster one, `torch` is training.backend torch, with double backward. Shortest CPU times.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py --output training_speed.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import machine, versions, water
from rich.console import Console
from rich.table import Table

from nearsight import keys
from nearsight.couple import evaluate
from nearsight.data import Frame, ReferenceEnergies
from nearsight.models import ACEConfig, ACSFConfig, ANIConfig, BPNNConfig, SOAPConfig, training_module
from nearsight.training.batches import Batch, join, make_batch
from nearsight.training.loss import Loss
from nearsight.training.stored import StoredModule, store_frame

BATCH_SIZE = 2  # the default of a run

SPECIES = ["H", "O"]
LOSS = Loss(*(dict.fromkeys((keys.ENERGY, keys.FORCES, keys.VIRIAL), 1.0) for _ in range(2)))
MODELS = {
    "ACSF small": BPNNConfig(descriptor=ACSFConfig(size="small")),
    "ACSF medium": BPNNConfig(descriptor=ACSFConfig(size="medium")),
    "ACSF large": BPNNConfig(descriptor=ACSFConfig(size="large")),
    "ANI": BPNNConfig(descriptor=ANIConfig(), cutoff=5.1),
    "SOAP": BPNNConfig(descriptor=SOAPConfig(n_max=6, l_max=4), cutoff=5.0),
    "SOAP, 2 channels": BPNNConfig(descriptor=SOAPConfig(n_max=6, l_max=4, species_channels=2), cutoff=5.0),
    "ACE small": BPNNConfig(descriptor=ACEConfig(size="small"), cutoff=5.0),
}


COLUMNS = (
    "features",
    "torch",
    "evaluated",
    "stored",
    "native over torch",
    "kB stored per atom",
    "storing, steps",
)


def labelled_water(cutoff: float, seed: int) -> Batch:
    """A frame of slightly displaced atoms with random labels."""
    atoms = water(1)
    rng = np.random.default_rng(seed)
    atoms.rattle(0.02, rng=rng)
    frame = Frame(atoms.positions, atoms.get_chemical_symbols(), atoms.cell.array, atoms.pbc)
    frame.labels = {
        keys.ENERGY: 0.0,
        keys.FORCES: rng.normal(size=(len(atoms), 3)),
        keys.VIRIAL: rng.normal(size=(3, 3)),
    }
    return make_batch(frame, SPECIES, cutoff, ReferenceEnergies(dict.fromkeys(SPECIES, 0.0), "none"))


def shortest(step: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time of a step in seconds; other work on the machine only adds to it."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure(config: BPNNConfig, repeats: int) -> dict[str, float]:
    """Steps per second of each way, and what storing costs."""
    torch.manual_seed(0)
    model = config.build(SPECIES)
    frames = [labelled_water(config.cutoff, seed) for seed in range(BATCH_SIZE)]
    batch = join(frames)
    native = training_module(model, "native", 1)
    model.fit_statistics([batch.graph], 1.0, source=native)
    parameters = list(model.parameters())

    def speed(module: Callable, repeats: int) -> float:
        def step() -> object:
            results = evaluate(module, batch.graph, model.couple, create_graph=True)
            return torch.autograd.grad(LOSS(results, batch).sum(), parameters)

        return 1 / shortest(step, repeats)

    found = {"features": max(network.columns.numel() for network in model.networks)}
    found["torch"] = speed(model, max(3, repeats // 4))
    if native.trained:
        found["evaluated"] = found["native"] = speed(native, repeats)
    else:
        started = time.process_time()
        stored = [store_frame(native, frame.graph, derivatives=True) for frame in frames]
        storing = time.process_time() - started
        features = [replace(frame, derivatives=None) for frame in stored]
        found["evaluated"] = speed(StoredModule(native, features), repeats)
        found["stored"] = speed(StoredModule(native, stored), repeats)
        found["native"] = max(found["evaluated"], found["stored"])
        nbytes = sum(frame.derivatives.values.nbytes for frame in stored)
        found["kB stored per atom"] = nbytes / 1000 / batch.graph.num_atoms
        found["storing, steps"] = storing * found["evaluated"]
    found["native over torch"] = found["native"] / found["torch"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)

    found = {name: measure(MODELS[name], options.repeats) for name in options.models}
    table = Table(title="Training steps per second, 2 x 192 atoms, one core", title_justify="left")
    table.add_column("descriptor")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, values in found.items():
        table.add_row(name, *(f"{values[column]:.3g}" if column in values else "-" for column in COLUMNS))
    Console(width=150).print(table)
    facts = {"machine": machine(), "versions": versions("nearsight", "torch", "numpy")}
    print(json.dumps(facts, indent=1))
    if options.output:
        options.output.write_text(json.dumps({**facts, "steps_per_second": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
