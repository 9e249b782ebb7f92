"""Operations and bytes of the CUDA kernels of MACE, per atom, and what a card's rates make of them.

Counted from the model's tables, with padded channels: FLOP (a multiply-add is two), bytes to and from the
card's memory if nothing is read twice, and bytes that come from the L2 cache beside these: what neighbors
read of each other. The bound is the longest of the three at the rates of an H200: 67 TFLOP/s in single
precision, 4.8 TB/s of memory, 5.5 TB/s of L2. Weights of radial functions, which a block reads again for
every few edges, are counted apart: they fit into L1.

    python benchmarks/cuda_operations.py --neighbors 52
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from rich.console import Console
from rich.table import Table

from nearsight.models import MACEConfig, build_model
from nearsight.models.irreps import irrep

MODELS = {
    "one interaction, 32 channels": (32, 1, "0e"),
    "64 channels, L = 0": (64, 2, "0e"),
    "128 channels, L = 1": (128, 2, "0e + 1o"),
}
FLOPS, MEMORY, CACHE = 67e12, 4.8e12, 5.5e12  # per second
NUMBER = 4  # bytes
CHUNKS = {"sums": 8, "adjoints": 4}  # edges that share a reading of the weights of radial functions


def size(names: list[str]) -> int:
    return sum(irrep(name).size for name in names)


def count(model, neighbors: float, num_species: int, functions: int) -> dict[str, list[float]]:
    """{kernel: [FLOP, bytes of memory, of L2, of L1]} of energy and forces of one atom."""
    record, weights = model.record(), dict(model.weights())
    channels = -(-record["channels"] // 32) * 32
    harmonics = (record["l_max"] + 1) ** 2
    found: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)

    def add(kernel: str, multiply_adds: float, *numbers: float) -> None:
        for k, amount in enumerate((2 * multiply_adds, *(NUMBER * n for n in numbers))):
            found[kernel][k] += amount

    def linear(inner: float, outer: float) -> None:
        """Rows of numbers that go through a matrix of channels each, and back."""
        per_row = channels * max(inner, outer)
        add("products with matrices", 2 * per_row * channels, 2 * channels * (inner + outer))

    for t, layer in enumerate(record["layers"]):
        inputs, messages, outputs = (size(layer[part]) for part in ("input", "message", "output"))
        if t == 0:
            moments = harmonics * num_species * functions
            add("moments", neighbors * functions * (6 + harmonics), neighbors * 5 + moments)
            add(
                "moments, reverse",
                neighbors * functions * (12 + 2 * harmonics + 1),
                neighbors * (5 + 4) + moments,
                0,
                neighbors * 6 * functions,
            )
            add(
                "products with matrices",
                2 * messages * num_species * functions * channels,
                2 * (moments + messages * channels),
            )
        else:
            degrees = [[irrep(path[0]).size, irrep(path[2]).size] for path in layer["paths"]]
            paths = len(degrees)
            sums = sum(n3 for _, n3 in degrees)
            radial = functions * paths
            edge = neighbors * (harmonics + functions)
            rows = radial * channels * neighbors
            add("functions of edges", neighbors * 12 * functions, neighbors * (5 + harmonics + 2 * functions))
            add(
                "sums over edges",
                neighbors * channels * (radial + sum(n1 + n1 * n3 for n1, n3 in degrees)),
                edge + (inputs + sums) * channels,
                neighbors * inputs * channels,
                rows / CHUNKS["sums"],
            )
            add(
                "adjoints of edges",
                neighbors * channels * (2 * radial + sum(3 * n1 + 2 * n1 * n3 for n1, n3 in degrees)),
                edge + neighbors * (functions + 2 * harmonics + 2) + (inputs + sums) * channels,
                neighbors * inputs * channels,
                (rows + neighbors * sums * channels) / CHUNKS["adjoints"],
            )
            add(
                "adjoints of sources",
                neighbors * channels * (radial + sum(n3 + n1 * n3 for n1, n3 in degrees)),
                edge + (inputs + sums) * channels,
                neighbors * sums * channels,
                rows / CHUNKS["sums"],
            )
            linear(sums, messages)
            linear(inputs, inputs)
        linear(outputs, outputs)
        if f"layers.{t}.skip.0e" in weights:
            linear(outputs, outputs)
        terms = weights[f"layers.{t}.product.terms"][:, 1:5].to(torch.int64).tolist()
        leaves = {(c, *f) for c, *f in terms if f[0] >= 0}
        middles = {(c, *[x for x in f if x >= 0][:2]) for c, *f in terms if sum(x >= 0 for x in f) > 1}
        roots = {(c, next(x for x in f if x >= 0)) for c, *f in terms}
        every = len(leaves) + len(middles) + len(roots)
        shared = len({(c, *f) for c, *f in terms}) / 4  # four atoms read a weight
        add("polynomials", every * channels, (messages + outputs) * channels, shared * channels)
        add(
            "polynomials, reverse",
            (2 * len(leaves) + 3 * len(middles) + 3 * len(roots)) * channels,
            (2 * messages + outputs) * channels,
            shared * channels,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--neighbors", type=float, default=52.0)
    parser.add_argument("--functions", type=int, default=24, help="of the compressed radial networks")
    arguments = parser.parse_args()
    columns = ("model", "kernel", "kFLOP", "kB", "kB of L2", "kB of L1", "bound, ns", "by")
    table = Table(*columns, title="per atom")
    for name, (channels, layers, hidden) in MODELS.items():
        config = MACEConfig(cutoff=5.0, channels=channels, num_interactions=layers, hidden=hidden)
        counts = count(build_model(config, ["H", "O"]), arguments.neighbors, 2, arguments.functions)
        total = 0.0
        for kernel, amounts in counts.items():
            flop, memory, cache, _ = amounts
            times = {"FLOP": flop / FLOPS, "memory": memory / MEMORY, "L2": (memory + cache) / CACHE}
            limit = max(times, key=times.get)
            total += times[limit]
            cells = [f"{x / 1000:.1f}" for x in amounts]
            table.add_row(name, kernel, *cells, f"{1e9 * times[limit]:.2f}", limit)
        flop = sum(amounts[0] for amounts in counts.values())
        table.add_row(name, "all", f"{flop / 1000:.1f}", "", "", "", f"{1e9 * total:.1f}", "")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
