"""Small scripted models with fixed random parameters, by docs/model_contract.md and docs/file_format.md."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from nearsight.keys import FORMAT_VERSION

SPECIES = ["H", "O"]
CUTOFF = 3.6  # Å


def _table(num_species: int, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(num_species, num_species, dtype=torch.float64, generator=generator))


class ManyBody(nn.Module):
    """One interaction layer: a pair term, an embedding of the density, and a dipole-like term with angles."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self.cutoff = CUTOFF
        self.pair = _table(len(SPECIES), seed)
        self.density = _table(len(SPECIES), seed + 1)
        self.vector = _table(len(SPECIES), seed + 2)

    def weight(self, edge_vectors: Tensor) -> Tensor:
        u = (edge_vectors * edge_vectors).sum(1) / self.cutoff**2
        return (1.0 - u) ** 3

    def local(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_rows: int) -> Tensor:
        i, j = edge_index[0], edge_index[1]
        fc = self.weight(edge_vectors)
        s, t = species[i], species[j]
        keep = (i < num_rows).to(edge_vectors.dtype)
        row = torch.clamp(i, max=max(num_rows - 1, 0))
        zeros = torch.zeros(num_rows, dtype=edge_vectors.dtype)
        pair = zeros.index_add(0, row, keep * fc * self.pair[s, t])
        rho = zeros.index_add(0, row, keep * fc * self.density[s, t])
        dipole = torch.zeros(num_rows, 3, dtype=edge_vectors.dtype).index_add(
            0, row, (keep * fc * self.vector[s, t]).unsqueeze(1) * edge_vectors
        )
        return pair + torch.sqrt(1.0 + rho * rho) + 0.3 * (dipole * dipole).sum(1)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        return {"energy": self.local(species, edge_index, edge_vectors, num_owned)}


class MessagePassing(nn.Module):
    """Two interaction layers: features of the neighbors depend on the neighbors' own surroundings."""

    def __init__(self, seed: int = 11) -> None:
        super().__init__()
        self.layer = ManyBody(seed)
        self.message = _table(len(SPECIES), seed + 6)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        i, j = edge_index[0], edge_index[1]
        features = torch.tanh(0.2 * self.layer.local(species, edge_index, edge_vectors, species.shape[0]))
        received = self.layer.weight(edge_vectors) * self.message[species[i], species[j]] * features[j]
        total = torch.zeros(species.shape[0], dtype=edge_vectors.dtype).index_add(0, i, received)
        return {"energy": (features + total * total)[:num_owned]}


class Committee(nn.Module):
    """Two members with two interaction layers each, side by side in the readout `energy`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MessagePassing(seed=11)
        self.second = MessagePassing(seed=51)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        members = [
            self.first(species, edge_index, edge_vectors, num_owned)["energy"],
            self.second(species, edge_index, edge_vectors, num_owned)["energy"],
        ]
        return {"energy": torch.stack(members, 1)}


class TwoStates(nn.Module):
    """Two diabatic states and their coupling; the couple takes an eigenvalue of the summed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ManyBody(seed=21)
        self.second = ManyBody(seed=31)
        self.coupling = ManyBody(seed=41)

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        columns = [
            self.first.local(species, edge_index, edge_vectors, num_owned),
            self.coupling.local(species, edge_index, edge_vectors, num_owned),
            self.second.local(species, edge_index, edge_vectors, num_owned),
        ]
        return {"hamiltonian": torch.stack(columns, 1)}


class NotFinite(nn.Module):
    """A finite energy whose derivative is NaN."""

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        bad = torch.sqrt((edge_vectors * 0.0).sum(1))
        return {"energy": torch.zeros(num_owned, dtype=edge_vectors.dtype).index_add(0, edge_index[0], bad)}


def write_model(
    path: Path, module: nn.Module, *, layers: int = 1, states: int = 1, **changes: object
) -> Path:
    """Write `module` with its metadata; `changes` replace entries of nearsight.json."""
    energy = states == 1
    metadata = {
        "format": "nearsight",
        "format_version": FORMAT_VERSION,
        "architecture": f"test-{type(module).__name__.lower()}",
        "hyperparameters": {},
        "species": SPECIES,
        "cutoff": CUTOFF,
        "num_interactions": layers,
        "readouts": [
            {"name": "energy", "columns": 1}
            if energy
            else {"name": "hamiltonian", "columns": states * (states + 1) // 2}
        ],
        "couple": {"kind": "sum"} if energy else {"kind": "eigenstate", "states": states, "state": 0},
        "reference_energies": {"H": -13.6, "O": -2043.0},
        "reference_energies_source": "given",
        "units": {"length": "angstrom", "energy": "eV"},
        "dtype": "float64",
        "native": False,
        "provenance": {},
        "versions": {"torch": torch.__version__},
    }
    text = json.dumps(metadata | changes)
    torch.jit.save(torch.jit.script(module), str(path), _extra_files={"nearsight.json": text})
    return path
