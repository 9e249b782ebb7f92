"""Training steps of MACE, in structures times atoms per second: native, our torch module, and mace-torch.

A step is what `nearsight train` does: energies and forces of a batch, the gradient of their loss, AdamW and
the moving average. Two cores are two processes that divide the frames of a batch. Every line has the median
of the steps and the fastest one, by the clock and, for machines that do other things too, of the processor
(of the first process). With --device a GPU takes the native cases, too. The file must not be compressed.
Takes three minutes.

    export OMP_NUM_THREADS=1
    python benchmarks/message_passing_training.py train_300K.extxyz --mace-torch PYTHON_WITH_MACE
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import ase
import ase.io
import torch

from nearsight.data import read_frames
from nearsight.data.reference_energies import reference_energies
from nearsight.models import MACEConfig, build_model, training_module
from nearsight.models.mace_native import NativeMACE
from nearsight.training.batches import make_batch
from nearsight.training.config import LossConfig, TrainingConfig
from nearsight.training.devices import choose_device
from nearsight.training.first_order import FirstOrder
from nearsight.training.loss import make_loss
from nearsight.training.processes import Processes, join_processes

CUTOFF = 5.0  # Å
CASES = {  # backend, precision
    "native, mixed": ("native", "mixed"),
    "native, double": ("native", "double"),
    "torch, double": ("torch", "double"),
}
Times = dict[str, list[float]]  # of steps, by the clock and of the processor, s


def training_step(
    options: argparse.Namespace, config: MACEConfig, case: str, processes: Processes
) -> Callable[[], float]:
    """Return a function that does a step on the first frames of a file."""
    size = options.batch
    frames = read_frames([options.file])[:size]
    species = sorted({symbol for frame in frames for symbol in frame.symbols})
    reference = reference_energies(frames, species, "least_squares")
    settings = TrainingConfig(batch_size=size, loss=LossConfig(forces=10.0))
    torch.manual_seed(0)
    model = build_model(config, species)
    batches = [make_batch(frame, species, CUTOFF, reference) for frame in frames]
    model.fit_statistics([batch.graph for batch in batches], 1.0)
    backend, precision = CASES[case]
    device = choose_device(options.device, processes)
    module = training_module(model.to(device), backend, 1, precision)
    loss = make_loss(settings.loss, frames, reference)
    optimizer = FirstOrder(settings, model, module, loss, processes)
    mine = [batches[k] for k in processes.share(size)]
    if isinstance(module, NativeMACE):  # as in a run
        mine = [replace(batch, stored=(module.stored(batch.graph.to(device=device)),)) for batch in mine]
    return lambda: optimizer.step(mine, size, 200, 0.1)


def seconds(step: Callable[[], float], repeats: int) -> Times:
    """Times of steps."""
    for _ in range(3):
        step()
    gc.freeze()
    clock, processor = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        step()
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    return {"clock": clock, "processor": processor}


def measure(options: argparse.Namespace, processes: Processes) -> None:
    """Measure the cases in this process, or in these that share the batch, and print a line of JSON."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # as in a run
    torch.utils.deterministic.fill_uninitialized_memory = False
    config = MACEConfig(
        cutoff=CUTOFF,
        channels=options.channels,
        hidden=options.hidden,
        num_interactions=options.interactions,
    )
    found = {}
    for case in options.cases:
        repeats = options.peer_repeats if case == "torch, double" else options.repeats
        found[case] = seconds(training_step(options, config, case, processes), repeats)
    if processes.first:
        print(json.dumps(found), flush=True)


def result_of(command: list[str]) -> dict:
    """The line of JSON that a command prints."""
    # e3nn 0.4 reads a table of its own that newer torch does not load otherwise.
    environment = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))


def shared(options: argparse.Namespace) -> list[str]:
    """Options that all programs of this benchmark have."""
    names = ("channels", "hidden", "interactions")
    return [f"--{name}={getattr(options, name)}" for name in names]


def native(
    options: argparse.Namespace, processes: int, batch: int, cases: list[str], device: str = "cpu"
) -> dict[str, Times]:
    """Measure cases in that many processes."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [*start, __file__, str(options.file), "--measure", f"--batch={batch}", *shared(options)]
    command += [f"--device={device}"]
    command += [f"--repeats={options.repeats}", f"--peer-repeats={options.peer_repeats}", "--cases", *cases]
    return result_of(command)


def mace_torch(options: argparse.Namespace) -> dict:
    """What mace_torch_training.py prints."""
    frames = ase.io.read(options.file, f":{options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        ase.io.write(f"{folder}/batch.xyz", frames, format="extxyz")
        script = Path(__file__).with_name("mace_torch_training.py")
        command = [options.mace_torch, str(script), f"{folder}/batch.xyz", *shared(options)]
        return result_of([*command, f"--repeats={options.peer_repeats}"])


def report(name: str, atoms: int, times: Times) -> None:
    """Print one line."""
    parts = [
        f"{what} {1e3 * median(of):.1f} ({1e3 * min(of):.1f}) ms, {atoms / median(of):.0f} "
        f"({atoms / min(of):.0f}) atoms/s"
        for what, of in times.items()
    ]
    print(f"{name:44s} {'; '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="frames with energies and forces")
    parser.add_argument("--batch", type=int, default=5, help="twice as many are measured, too")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--hidden", default="0e + 1o")
    parser.add_argument("--interactions", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cuda or cuda:1: the native cases on a GPU, too")
    parser.add_argument("--mace-torch", metavar="PYTHON", help="interpreter that has mace-torch")
    parser.add_argument("--repeats", type=int, default=150)
    parser.add_argument("--peer-repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--measure", action="store_true", help="only the cases, in this process, as JSON")
    options = parser.parse_args()
    if options.measure:
        with join_processes() as processes:
            measure(options, processes)
        return
    print(f"torch {torch.__version__}; median (least) of steps by the clock and of the processor")
    atoms_of = {
        batch: sum(len(frame) for frame in read_frames([options.file])[:batch])
        for batch in (options.batch, 2 * options.batch)
    }
    for batch, atoms in atoms_of.items():
        for processes in (1, 2):
            one = batch == options.batch and processes == 1
            cases = [case for case in options.cases if one or CASES[case][0] == "native"]
            for name, times in native(options, processes, batch, cases).items():
                report(f"batch {batch}, {processes} core(s): {name}", atoms, times)
        if options.device != "cpu":
            cases = [case for case in options.cases if CASES[case][0] == "native"]
            for name, times in native(options, 1, batch, cases, options.device).items():
                report(f"batch {batch}, {options.device}: {name}", atoms, times)
    if options.mace_torch:
        found = mace_torch(options)
        print(found.pop("versions"))
        for name, times in found.items():
            report(f"batch {options.batch}, 1 core(s): mace-torch, {name}", atoms_of[options.batch], times)


if __name__ == "__main__":
    main()
