"""The form of a model that OpenMM-Torch runs: positions in, energy out, in pure torch operations.

Everything is computed in double, whatever the type of the positions, and the energy is returned in double;
gradients come back in the type of the positions. OpenMM-Torch freezes the module, which removes `.detach()`:
constants of differentiation are made under `torch.no_grad()` instead.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from nearsight.couple import (
    Charged,
    ChargedStructure,
    ChargeFrames,
    Dispersion,
    FrameCharger,
    System,
    build_couple,
)
from nearsight.couple.equilibration import MAX_DENSE, EquilibratedCouple
from nearsight.errors import ConfigError
from nearsight.export.elements import element_symbol
from nearsight.export.loading import LoadedModel, load
from nearsight.export.torchscript import script, to_bytes
from nearsight.molecules import read_molecules
from nearsight.neighbors import make_graph
from nearsight.neighbors.torch_neighbors import torch_neighbors
from nearsight.units import KJ_PER_MOL, NM


class SystemCharges(nn.Module):
    """What a couple with charges sees of one system, made anew from positions and cell.

    Args:
        structure: of which species, total charge and molecules are taken.
        parameters: of `_core.Pme`; None where nothing is periodic.
        field: (3,) V/Å.
    """

    def __init__(self, structure: ChargedStructure, parameters: dict[str, Any] | None, field: np.ndarray):
        super().__init__()
        self.periodic = parameters is not None
        parameters = parameters or {"splitting": 0.0, "cutoff": 0.0, "order": 0, "mesh": [0, 0, 0]}
        self.cutoff = float(parameters["cutoff"])
        numbers = {name: parameters[name] for name in ("splitting", "order", "mesh")}
        for name, value in numbers.items():
            self.register_buffer(name, torch.from_numpy(np.array([value])))
        self.register_buffer("total_charge", structure.known_charge)
        self.register_buffer("molecule", structure.molecule)
        self.register_buffer("reach", torch.tensor([self.cutoff], dtype=torch.float64))
        self.register_buffer("species", torch.tensor(structure.species, dtype=torch.int64))
        self.register_buffer("frame", torch.zeros(len(structure.species), dtype=torch.int64))
        self.register_buffer("field", torch.from_numpy(field))

    def forward(self, positions: Tensor, cell: Tensor) -> Charged:
        """Return the system; positions[n, 3] and cell[3, 3] in Å."""
        with torch.no_grad():
            if self.periodic:
                edges, shifts, _ = torch_neighbors(positions, cell, [True, True, True], self.cutoff)
                x, y, z = shifts.unbind(1)
                forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
                chosen = (edges[0] < edges[1]) | ((edges[0] == edges[1]) & forward)
                once = torch.nonzero(chosen).squeeze(1)
                pairs, shifts = edges.index_select(1, once), shifts.index_select(0, once)
            else:
                n = positions.size(0)
                pairs = torch.triu_indices(n, n, 1, device=positions.device)
                shifts = torch.zeros(pairs.size(1), 3, dtype=torch.int64, device=positions.device)
        frames = ChargeFrames(
            frame=self.frame,
            boxes=cell.unsqueeze(0),
            pbc=torch.full((1, 3), self.periodic, device=cell.device),
            splitting=self.splitting,
            cutoff=self.reach,
            order=self.order,
            mesh=self.mesh,
            image_atoms=pairs[1],
            image_shifts=shifts,
            pairs=torch.stack([pairs[0], torch.arange(pairs.size(1), device=cell.device)]),
        )
        return Charged(self.species, positions, self.total_charge, self.molecule, frames, None, self.field)


class TorchForceModule(nn.Module):
    """Energy of one system with fixed species, from its neighbor search to reference energies and units."""

    def __init__(self, model: LoadedModel, species: list[int], periodic: bool, charges: SystemCharges | None):
        super().__init__()
        metadata = model.metadata
        references = [metadata["reference_energies"][symbol] for symbol in metadata["species"]]
        self.model = model.module
        self.couple = build_couple(metadata["couple"])
        self.charges = charges
        record = metadata.get("dispersion")
        self.dispersion = Dispersion(record) if record and record["added_by"] == "model" else None
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
        charged: Charged | None = None
        if self.charges is not None:
            charged = self.charges(x, cell)
        energy = self.couple(readouts, System(self.frame, 1, charged)).sum()
        if self.dispersion is not None:
            edge_index, _, vectors = torch_neighbors(x, cell, [self.periodic] * 3, self.dispersion.reach)
            energy = energy + self.dispersion(self.species, edge_index, vectors).sum()
        return (energy + self.reference_energy) / self.ev_per_kj_mol


def torchforce_module(
    model: str | os.PathLike[str] | LoadedModel,
    elements: Sequence[str | int],
    *,
    periodic: bool,
    charge: float | None = None,
    molecules: ArrayLike | None = None,
    molecule_charges: ArrayLike | None = None,
    efield: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    cell: ArrayLike | None = None,
) -> torch.jit.ScriptModule:
    """Return the scripted module for the atoms of an OpenMM system, given in order by symbol or number.

    A model with electrostatics takes the total charge (e; None: 0, of fixed charges without a cell what they
    add up to), a uniform electric field efield[3] (V/nm), in a periodic system on fixed charges only, and in
    a periodic system positions[n, 3] and cell[3, 3] (Å) like those of the simulation, which the mesh is
    chosen for: it stays as it is, also in other boxes. Equilibrated charges take a dense matrix, of 512 atoms
    at most. In place of a total charge `molecules`, a whole number for each atom, keep charges of their own,
    `molecule_charges` in e in the ascending order of the numbers, or one for all; None: 0.

    Raises:
        ModelFileError: the model file cannot be used.
        ConfigError: an element is not known to the model, or what is given does not fit its electrostatics.
        EvaluationError: positions, cell or molecules cannot be used.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    known = loaded.metadata["species"]
    symbols = [element_symbol(element) for element in elements]
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        raise ConfigError(f"the model knows the species {', '.join(known)}, found {', '.join(unknown)}")
    species = [known.index(symbol) for symbol in symbols]
    charges = None
    if loaded.metadata["couple"]["kind"] == "coulomb":
        if charge is not None and molecules is not None:
            raise ConfigError("a total charge and molecules were given, which have charges: leave one out")
        given = read_molecules(molecules, molecule_charges, len(species))
        structure = ChargedStructure(positions, species, cell, [periodic] * 3, charge, given)
        charges = _system_charges(
            loaded, structure, np.zeros(3) if efield is None else np.array(efield, float)
        )
    else:
        _refuse_charges(charge, efield, molecules)
    return script(TorchForceModule(loaded, species, periodic, charges).eval())


def _refuse_charges(charge: float | None, efield: ArrayLike | None, molecules: ArrayLike | None) -> None:
    given = {"a total charge": charge, "a molecule": molecules, "an electric field": efield}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} was given, but the model has no electrostatics: leave it out")


def _system_charges(loaded: LoadedModel, structure: ChargedStructure, efield: np.ndarray) -> SystemCharges:
    """`efield` in V/nm."""
    charger = FrameCharger(loaded.metadata["couple"])
    charger.check_total(structure)
    if isinstance(charger.couple, EquilibratedCouple) and len(structure.species) > MAX_DENSE:
        raise ConfigError(
            f"torchforce solves for equilibrated charges with a dense matrix, of at most {MAX_DENSE} atoms, "
            f"found {len(structure.species)}: take the force of nearsight.openmm, which does without"
        )
    if efield.any() and structure.is_periodic and not charger.couple.fixed:
        raise ConfigError(
            "an electric field acts along periodic directions on fixed charges only: leave efield out, or "
            "take periodic=False"
        )
    parameters = None
    if structure.is_periodic:
        if structure.positions is None or structure.cell is None:
            raise ConfigError(
                "the mesh of a periodic system is chosen for a structure: give positions and cell of one"
            )
        graph = make_graph(*structure[:4], loaded.metadata["cutoff"])
        with torch.no_grad():
            readouts = loaded.module(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
        parameters = charger.choose(structure, readouts).parameters
    return SystemCharges(structure, parameters, efield / NM)


def export_torchforce(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | LoadedModel,
    elements: Sequence[str | int],
    *,
    periodic: bool,
    charge: float | None = None,
    molecules: ArrayLike | None = None,
    molecule_charges: ArrayLike | None = None,
    efield: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    cell: ArrayLike | None = None,
) -> None:
    """Write the module of `torchforce_module` to a file for openmmtorch.TorchForce(path)."""
    module = torchforce_module(
        model,
        elements,
        periodic=periodic,
        charge=charge,
        molecules=molecules,
        molecule_charges=molecule_charges,
        efield=efield,
        positions=positions,
        cell=cell,
    )
    Path(path).write_bytes(to_bytes(module, {}))
