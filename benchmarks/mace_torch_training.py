"""Training steps of mace-torch; runs in its own environment, called by message_passing_training.py.

Prints one line of JSON: the versions, and for each precision the times of all steps by the clock and of the
processor, s.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np
import torch
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric

CUTOFF = 5.0  # Å


def make_model(numbers: list[int], channels: int, hidden: str, interactions: int) -> torch.nn.Module:
    """A ScaleShiftMACE with random weights of the size of the other cases."""
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    irreps = " + ".join(f"{channels}x{irrep.strip()}" for irrep in hidden.split("+"))
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=interactions,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(irreps),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=16.0,
        atomic_numbers=numbers,
        correlation=3,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def seconds(dtype: torch.dtype, options: argparse.Namespace) -> dict[str, list[float]]:
    """Times of steps by the clock and of the processor, s."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    frames = ase.io.read(options.file, ":")
    numbers = sorted({int(number) for frame in frames for number in frame.numbers})
    table = tools.AtomicNumberTable(numbers)
    keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    configs = [data.config_from_atoms(frame, key_specification=keys) for frame in frames]
    samples = [data.AtomicData.from_config(config, z_table=table, cutoff=CUTOFF) for config in configs]
    batch = next(iter(torch_geometric.dataloader.DataLoader(samples, batch_size=len(samples))))
    model = make_model(numbers, options.channels, options.hidden, options.interactions)
    loss_of = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=10.0)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    content = batch.to_dict()
    clock, processor = [], []
    for _ in range(options.repeats + 2):
        started = time.perf_counter(), time.process_time()
        adam.zero_grad(set_to_none=True)
        loss = loss_of(pred=model(content, training=True, compute_force=True), ref=batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        adam.step()
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    return {"clock": clock[2:], "processor": processor[2:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a batch as extended XYZ")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--hidden", default="0e + 1o")
    parser.add_argument("--interactions", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {"single": torch.float32, "double": torch.float64}
    versions = f"mace-torch {version('mace-torch')}, torch {torch.__version__}"
    print(json.dumps({"versions": versions} | {name: seconds(kind, options) for name, kind in kinds.items()}))


if __name__ == "__main__":
    main()
