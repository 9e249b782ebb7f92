"""Multiply-adds that a MACE model needs, and how many the machine can do."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from nearsight.models.irreps import irrep
from nearsight.models.mace import MACE

_RANK = 1e-7  # of the first layer's radial functions, as the native engine has them in mixed precision


def fma_peak() -> float | None:
    """10^9 operations in single precision per second of one core, from registers; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "fma_peak")
        source = str(Path(__file__).with_name("fma_peak.c"))
        subprocess.run([compiler, "-O2", "-march=native", source, "-o", program], check=True)
        return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def multiply_adds(model: MACE, neighbors: float, num_species: int) -> float:
    """Multiply-adds of energy and forces per atom.

    Counted are, with K channels and without padding: for every edge, path and channel the interpolation of
    the radial function (6, in reverse 12), its products with the n1 components of the source and their sums
    over n1 x n3 couplings (n1 + n1 n3, in reverse 3 n1 + 2 n1 n3 + 1); of the first layer the same sums for
    its few independent radial functions; every map of channels twice, K^2 for each component; three for each
    monomial and channel. Geometry, harmonics, couplings, readouts and sums of forces are left out.
    """
    total = 0.0
    for number, layer in enumerate(model.layers):
        channels, sizes = layer.channels, {p: _size(names) for p, names in layer.names.items()}
        maps = sizes["output"] + _size(layer.common)
        maps += sizes["message"] * (len(layer.select.weights) > 0) + sizes["input"] * (
            len(layer.up.weights) > 0
        )
        if number == 0:
            harmonics, rank = (model.l_max + 1) ** 2, _independent_functions(model)
            edge = rank * (6 + harmonics + 12 + 2 * harmonics + 1)
            total += 2 * harmonics * rank * num_species * channels
        else:
            edge = channels * sum(19 + 4 * n1 + 3 * n1 * n3 for _, n1, n3 in layer.paths)
            maps += sum(n3 for _, _, n3 in layer.paths)
        total += neighbors * edge + 2 * maps * channels**2 + 3 * len(layer.terms) * channels
    return total


def _size(names: list[str]) -> int:
    return sum(irrep(name).size for name in names)


@torch.no_grad()
def _independent_functions(model: MACE) -> int:
    distances = torch.linspace(0.1, 0.999 * model.cutoff, 256, dtype=torch.float64)
    edge = torch.zeros(2, len(distances), dtype=torch.int64)
    basis, envelope = model.basis(distances, edge[0], edge)
    return int(np.linalg.matrix_rank(model.layers[0].radial(basis, envelope).double().numpy(), rtol=_RANK))
