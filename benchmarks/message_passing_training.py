"""Training steps of MACE, in structures times atoms per second: native, our torch module, and mace-torch.

A step is what `nearsight train` does: energies and forces of a batch, the gradient of their loss, AdamW and
the moving average. Reported are the fastest step by the clock and, for machines that do other things too, the
one with the least time of the processor. The file must not be compressed.

    export OMP_NUM_THREADS=1
    python benchmarks/message_passing_training.py train_300K.extxyz --mace-torch PYTHON_WITH_MACE
    torchrun --nproc-per-node 2 benchmarks/message_passing_training.py train_300K.extxyz   # two cores
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import torch

from nearsight.data import read_frames
from nearsight.data.reference_energies import reference_energies
from nearsight.models import MACEConfig, build_model, training_module
from nearsight.models.mace_native import NativeMACE
from nearsight.training.batches import make_batch
from nearsight.training.config import LossConfig, TrainingConfig
from nearsight.training.first_order import FirstOrder
from nearsight.training.loss import make_loss
from nearsight.training.processes import Processes, join_processes

CUTOFF = 5.0  # Å
CASES = {  # backend, precision
    "native, mixed": ("native", "mixed"),
    "native, double": ("native", "double"),
    "torch, double": ("torch", "double"),
}


def training_step(
    file: Path, size: int, config: MACEConfig, case: str, processes: Processes, threads: int
) -> tuple[Callable[[], float], int]:
    """Return a function that does a step on the first frames of a file, and how many atoms they have."""
    frames = read_frames([file])[:size]
    species = sorted({symbol for frame in frames for symbol in frame.symbols})
    reference = reference_energies(frames, species, "least_squares")
    options = TrainingConfig(batch_size=size, loss=LossConfig(forces=10.0))
    torch.manual_seed(0)
    model = build_model(config, species)
    batches = [make_batch(frame, species, CUTOFF, reference) for frame in frames]
    model.fit_statistics([batch.graph for batch in batches], 1.0)
    backend, precision = CASES[case]
    module = training_module(model, backend, threads, precision)
    loss = make_loss(options.loss, frames, reference)
    optimizer = FirstOrder(options, model, module, loss, processes)
    mine = [batches[k] for k in processes.share(size)]
    if isinstance(module, NativeMACE):  # as in a run
        mine = [replace(batch, stored=(module.stored(batch.graph),)) for batch in mine]
    return lambda: optimizer.step(mine, size, 200, 0.1), sum(len(frame) for frame in frames)


def seconds(step: Callable[[], float], repeats: int) -> dict[str, float]:
    """Least time of a step by the clock and of the processor, s."""
    step()
    step()
    clock, processor = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        step()
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    return {"clock": min(clock), "processor": min(processor)}


def measure_mace_torch(python: str, file: Path, options: argparse.Namespace) -> dict:
    """What mace_torch_training.py prints."""
    frames = ase.io.read(file, f":{options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        ase.io.write(f"{folder}/batch.xyz", frames, format="extxyz")
        script = Path(__file__).with_name("mace_torch_training.py")
        command = [python, str(script), f"{folder}/batch.xyz", "--channels", str(options.channels)]
        command += ["--hidden", options.hidden, "--repeats", str(options.peer_repeats)]
        # e3nn 0.4 reads a table of its own that newer torch does not load otherwise.
        environment = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="frames with energies and forces")
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--hidden", default="0e + 1o")
    parser.add_argument("--interactions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the native code, and of PyTorch")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--mace-torch", metavar="PYTHON", help="interpreter that has mace-torch")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--peer-repeats", type=int, default=5)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    with join_processes() as processes:
        measure(options, processes)


def measure(options: argparse.Namespace, processes: Processes) -> None:
    """Measure and print all cases."""
    config = MACEConfig(
        cutoff=CUTOFF,
        channels=options.channels,
        hidden=options.hidden,
        num_interactions=options.interactions,
    )
    for case in options.cases:
        step, atoms = training_step(options.file, options.batch, config, case, processes, options.threads)
        time_of = seconds(step, options.repeats if case != "torch, double" else options.peer_repeats)
        if processes.first:
            report(f"{case}, {processes.size} process(es), {options.threads} thread(s)", atoms, time_of)
    if options.mace_torch and processes.first:
        for name, time_of in measure_mace_torch(options.mace_torch, options.file, options).items():
            report(f"mace-torch, {name}", atoms, time_of)


def report(name: str, atoms: int, time_of: dict[str, float]) -> None:
    """Print one line."""
    rates = ", ".join(f"{1e3 * s:.1f} ms of the {what} ({atoms / s:.0f}/s)" for what, s in time_of.items())
    print(f"{name}: {rates}", flush=True)


if __name__ == "__main__":
    main()
