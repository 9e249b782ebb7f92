"""The form of a model that OpenMM-Torch runs: positions in, energy out, in pure torch operations.

Everything is computed in double, whatever the type of the positions, and the energy is returned in double;
gradients come back in the type of the positions. OpenMM-Torch freezes the module, which removes `.detach()`:
constants of differentiation are made under `torch.no_grad()` instead.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nearsight.couple import build_couple
from nearsight.errors import ConfigError
from nearsight.export.elements import element_symbol
from nearsight.export.loading import LoadedModel, load
from nearsight.export.torchscript import script, to_bytes
from nearsight.neighbors.torch_neighbors import torch_neighbors
from nearsight.units import KJ_PER_MOL, NM


class TorchForceModule(nn.Module):
    """Energy of one system with fixed species: neighbor search, model, couple, reference energies, units."""

    def __init__(self, model: LoadedModel, species: list[int], periodic: bool):
        super().__init__()
        metadata = model.metadata
        references = [metadata["reference_energies"][symbol] for symbol in metadata["species"]]
        self.model = model.module
        self.couple = build_couple(metadata["couple"])
        self.cutoff = float(metadata["cutoff"])
        self.periodic = periodic
        self.angstrom_per_nm = NM  # TorchScript knows attributes, not global constants
        self.ev_per_kj_mol = KJ_PER_MOL
        self.reference_energy = sum(references[kind] for kind in species)
        self.register_buffer("species", torch.tensor(species, dtype=torch.int64))
        self.register_buffer("frame", torch.zeros(len(species), dtype=torch.int64))

    def forward(self, positions: Tensor, boxvectors: Tensor | None = None) -> Tensor:
        """Return the energy in kJ/mol, a scalar in double.

        positions[n, 3] and boxvectors[3, 3] (rows) are in nm; positions need not be wrapped. Box vectors are
        needed if and only if the module was made for a periodic system.
        """
        x = positions.to(torch.float64) * self.angstrom_per_nm
        if x.size(0) != self.species.size(0):
            raise ValueError(f"this module was made for {self.species.size(0)} atoms, found {x.size(0)}")
        cell = torch.eye(3, dtype=torch.float64, device=x.device)
        if boxvectors is not None:
            cell = boxvectors.to(torch.float64) * self.angstrom_per_nm
        if self.periodic != (boxvectors is not None):
            raise ValueError("box vectors are needed if and only if the module was made with periodic=True")
        edge_index, _, vectors = torch_neighbors(x, cell, [self.periodic] * 3, self.cutoff)
        readouts = self.model(self.species, edge_index, vectors, self.species.size(0))
        energy = self.couple(readouts, self.frame, 1)
        return (energy.sum() + self.reference_energy) / self.ev_per_kj_mol


def torchforce_module(
    model: str | os.PathLike[str] | LoadedModel, elements: Sequence[str | int], *, periodic: bool
) -> torch.jit.ScriptModule:
    """Return the scripted module for the atoms of an OpenMM system, given in order by symbol or number.

    Raises:
        ModelFileError: the model file cannot be used.
        ConfigError: an element is not known to the model.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    known = loaded.metadata["species"]
    symbols = [element_symbol(element) for element in elements]
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        raise ConfigError(f"the model knows the species {', '.join(known)}, found {', '.join(unknown)}")
    module = TorchForceModule(loaded, [known.index(symbol) for symbol in symbols], periodic)
    return script(module.eval())


def export_torchforce(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | LoadedModel,
    elements: Sequence[str | int],
    *,
    periodic: bool,
) -> None:
    """Write the module of `torchforce_module` to a file for openmmtorch.TorchForce(path)."""
    Path(path).write_bytes(to_bytes(torchforce_module(model, elements, periodic=periodic), {}))
