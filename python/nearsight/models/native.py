"""Training on the native symmetry functions: the core's forward, reverse and tangent as a torch function.

Symmetry functions have no parameters, so a step needs G(r), the forces' part Jᵀc with J = dG/dr, and for the
gradient of the loss with respect to c the tangent J v. Each is linear in its last argument, and so they are
one another's derivatives. Second derivatives with respect to positions (Hessians) are not given: take
backend "torch".
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.errors import ConfigError
from nearsight.models.bpnn import BPNN

_LIBRARY = "libnearsight_ops.so"
_KINDS = ("radial", "angular_narrow", "angular_wide")
_CUTOFF_FUNCTIONS = ("cos", "tanh3", "poly1", "poly2", "poly3", "poly4")


@cache
def load_ops() -> Any:
    """Load the compiled ops once and return `torch.ops.nearsight`.

    Raises:
        ConfigError: the library was not built or does not fit this torch.
    """
    folder = Path(find_spec("nearsight").submodule_search_locations[0])  # type: ignore[union-attr,index]
    path = folder / "lib" / _LIBRARY
    if not path.exists():
        raise ConfigError(
            f"the native backend needs {_LIBRARY}, which was not built (torch was missing at build time): "
            "install nearsight again, or take backend torch"
        )
    try:
        torch.ops.load_library(path)
    except (OSError, ctypes.ArgumentError) as error:
        raise ConfigError(
            f"{_LIBRARY} does not load with torch {torch.__version__} ({error}): install nearsight again"
        ) from error
    return torch.ops.nearsight


@dataclass(frozen=True)
class _Arguments:
    """What the three ops share; see csrc/torch_ops/acsf_ops.cpp."""

    functions: Tensor
    num_species: int
    cutoff_function: int
    species: Tensor
    offsets: Tensor
    neighbors: Tensor
    vectors: Tensor
    width: int
    num_threads: int

    def call(self, name: str, given: Tensor, shape: tuple[int, int]) -> Tensor:
        output = torch.zeros(shape, dtype=torch.float64)
        getattr(load_ops(), name)(
            self.functions,
            self.num_species,
            self.cutoff_function,
            self.species,
            self.offsets,
            self.neighbors,
            self.vectors,
            given.contiguous(),
            output,
            self.num_threads,
        )
        return output


class _Reverse(torch.autograd.Function):
    """cotangents [n, width] -> Jᵀc [E, 3]; its derivative along v is J v."""

    @staticmethod
    def forward(ctx: Any, cotangents: Tensor, arguments: _Arguments) -> Tensor:
        ctx.arguments = arguments
        return arguments.call("acsf_reverse", cotangents, (arguments.vectors.size(0), 3))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor, None]:
        a = ctx.arguments
        return a.call("acsf_tangent", directions, (a.species.numel(), a.width)), None


class _Features(torch.autograd.Function):
    """edge vectors [E, 3] -> symmetry functions [n, width]."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, arguments: _Arguments) -> Tensor:
        ctx.arguments = arguments
        return arguments.call("acsf_forward", vectors, (arguments.species.numel(), arguments.width))

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, None]:
        return _Reverse.apply(cotangents, ctx.arguments), None


class NativeBPNN(nn.Module):
    """A BPNN whose symmetry functions are evaluated by the core; it shares the networks of the given module.

    The core's threads are its own and sleep between calls; results do not depend on their number.
    """

    def __init__(self, model: BPNN, num_threads: int | None = None):
        super().__init__()
        load_ops()
        self.model = model
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        number = {symbol: k for k, symbol in enumerate(model.species)}
        functions = model.hyperparameters["symmetry_functions"]
        rows = [
            [
                _KINDS.index(f["kind"]),
                number[center],
                number[f["neighbors"][0]],
                number[f["neighbors"][1]] if len(f["neighbors"]) == 2 else -1,
                f["eta"],
                f["r_shift"],
                f.get("lambda", 0.0),
                f.get("zeta", 0.0),
                f["cutoff"],
            ]
            for center in model.species
            for f in functions[center]
        ]
        self.functions = torch.tensor(rows, dtype=torch.float64)
        self.sizes = [len(functions[symbol]) for symbol in model.species]
        self.cutoff_function = _CUTOFF_FUNCTIONS.index(model.hyperparameters["cutoff_function"])

    def table(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return the symmetry functions [num_owned, most functions]; a species' own come first."""
        counts = torch.bincount(edge_index[0], minlength=num_owned)
        offsets = torch.zeros(num_owned + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=offsets[1:])
        vectors = edge_vectors.to(torch.float64)
        arguments = _Arguments(
            functions=self.functions,
            num_species=len(self.sizes),
            cutoff_function=self.cutoff_function,
            species=species.to(torch.int32),
            offsets=offsets,
            neighbors=edge_index[1].to(torch.int32),
            vectors=vectors.detach().contiguous(),
            width=max(self.sizes),
            num_threads=self.num_threads,
        )
        return _Features.apply(vectors, arguments)

    def features(self, graph: Any) -> list[Tensor]:
        """Return, per species, the symmetry functions [n, functions] of its atoms in the graph, unscaled."""
        table = self.table(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        return [table[graph.species == kind][:, :size] for kind, size in enumerate(self.sizes)]

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """See docs/model_contract.md; all atoms must be owned."""
        table = self.table(species, edge_index, edge_vectors, num_owned)
        scale = self.model.output_scale
        outputs = torch.zeros(num_owned, scale.numel(), dtype=torch.float64)
        for kind, (network, size) in enumerate(zip(self.model.networks, self.sizes)):
            atoms = torch.nonzero(species == kind).squeeze(1)
            rows = table.index_select(0, atoms)[:, :size]
            outputs = outputs.index_add(0, atoms, network(rows) * scale)
        return {self.model.readout: outputs.squeeze(1) if self.model.readout == "energy" else outputs}


def training_module(model: nn.Module, backend: str = "auto", num_threads: int | None = None) -> nn.Module:
    """Return a module with the model's parameters and forward, evaluated by `backend`.

    "torch" is the model itself; "native" takes the descriptor from the compiled core (float64, CPU, first
    derivatives with respect to positions only); "auto" is native where it exists. `num_threads` are those of
    the native descriptor, by default all cores that the process may use.

    Raises:
        ConfigError: native was asked for and is not available.
    """
    if backend == "torch":
        return model
    if backend not in ("auto", "native"):
        raise ConfigError(f"training backend is {backend!r}, expected auto, native or torch")
    if isinstance(model, BPNN):
        try:
            return NativeBPNN(model, num_threads)
        except ConfigError:
            if backend == "native":
                raise
    elif backend == "native":
        raise ConfigError(
            f"there is no native training for {getattr(model, 'architecture', type(model).__name__)!r}: "
            "take backend torch"
        )
    return model
