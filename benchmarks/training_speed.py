"""Training steps per second on one core, of every descriptor: native against pure torch, in one process.

A step is the gradient of the loss of energies, forces and virials of water (192 atoms, random labels) by the
parameters of networks with two hidden layers of 25. `evaluated`: the core evaluates the descriptor;
`stored`: products with derivatives that were stored once, as in a run whose training set fits
training.cache_gb; `torch`: training.backend torch, with double backward. Medians of CPU time.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py --output training_speed.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
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
from nearsight.training.batches import Batch, make_batch
from nearsight.training.loss import Loss
from nearsight.training.stored import StoredModule, store_frame

SPECIES = ["H", "O"]
LOSS = Loss(*(dict.fromkeys((keys.ENERGY, keys.FORCES, keys.VIRIAL), 1.0) for _ in range(2)))
MODELS = {
    "ACSF small": BPNNConfig(descriptor=ACSFConfig(size="small")),
    "ACSF medium": BPNNConfig(descriptor=ACSFConfig(size="medium")),
    "ACSF large": BPNNConfig(descriptor=ACSFConfig(size="large")),
    "ANI": BPNNConfig(descriptor=ANIConfig(), cutoff=5.1),
    "SOAP 6, 4": BPNNConfig(descriptor=SOAPConfig(n_max=6, l_max=4), cutoff=5.0),
    "ACE small": BPNNConfig(descriptor=ACEConfig(size="small"), cutoff=5.0),
}


def labelled_water(cutoff: float) -> Batch:
    """One frame with random labels."""
    atoms = water(1)
    rng = np.random.default_rng(0)
    frame = Frame(atoms.positions, atoms.get_chemical_symbols(), atoms.cell.array, atoms.pbc)
    frame.labels = {
        keys.ENERGY: 0.0,
        keys.FORCES: rng.normal(size=(len(atoms), 3)),
        keys.VIRIAL: rng.normal(size=(3, 3)),
    }
    return make_batch(frame, SPECIES, cutoff, ReferenceEnergies(dict.fromkeys(SPECIES, 0.0), "none"))


def median_seconds(step: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a step; the first one is left out."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[1:])


def measure(config: BPNNConfig, repeats: int) -> dict[str, float]:
    """Frames per second of each way, and what storing costs."""
    torch.manual_seed(0)
    model = config.build(SPECIES)
    batch = labelled_water(config.cutoff)
    native = training_module(model, "native", 1)
    model.fit_statistics([batch.graph], 1.0, source=native)
    parameters = list(model.parameters())

    def step(module: Callable) -> Callable[[], object]:
        def take() -> object:
            results = evaluate(module, batch.graph, model.couple, create_graph=True)
            return torch.autograd.grad(LOSS(results, batch).sum(), parameters)

        return take

    started = time.process_time()
    stored = store_frame(native, batch.graph, derivatives=True)
    storing = time.process_time() - started
    speeds = {
        "stored": 1 / median_seconds(step(StoredModule(native, [stored])), repeats),
        "evaluated": 1 / median_seconds(step(native), repeats),
        "torch": 1 / median_seconds(step(model), max(2, repeats // 4)),
    }
    return speeds | {
        "evaluated over torch": speeds["evaluated"] / speeds["torch"],
        "stored over torch": speeds["stored"] / speeds["torch"],
        "storing, steps": storing * speeds["evaluated"],
        "stored kB per atom": stored.derivatives.values.nbytes / 1000 / batch.graph.num_atoms,
        "features": max(native.descriptor.sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)

    found = {name: measure(MODELS[name], options.repeats) for name in options.models}
    table = Table(title="Training steps per second, 192 atoms, one core", title_justify="left")
    columns = list(next(iter(found.values())))
    for column in ("descriptor", *columns):
        table.add_column(column, justify="left" if column == "descriptor" else "right")
    for name, values in found.items():
        table.add_row(name, *(f"{values[column]:.3g}" for column in columns))
    Console(width=150).print(table)
    facts = {"machine": machine(), "versions": versions("nearsight", "torch", "numpy")}
    print(json.dumps(facts, indent=1))
    if options.output:
        options.output.write_text(json.dumps({**facts, "frames_per_second": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
