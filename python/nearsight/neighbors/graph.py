"""The graph that a model sees: atoms and the directed edges between them, of one frame or of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """Atoms and edges; no ghosts: a periodic image is an edge to the atom itself with the image's vector."""

    species: Tensor  # [M] int64, index into the model's species list
    edge_index: Tensor  # [2, E] int64, center and neighbor, sorted by center
    edge_vectors: Tensor  # [E, 3] Å, r_j - r_i
    frame: Tensor  # [M] int64, number of the frame of each atom
    num_frames: int = 1

    @property
    def num_atoms(self) -> int:
        """Number of atoms of all frames."""
        return self.species.numel()

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Graph:
        """Return the graph with edge vectors of another type, or everything on another device."""
        return replace(
            self,
            species=self.species.to(device),
            edge_index=self.edge_index.to(device),
            edge_vectors=self.edge_vectors.to(device, dtype),
            frame=self.frame.to(device),
        )


def make_graph(
    positions: ArrayLike, species: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float
) -> Graph:
    """Return the graph of one frame in float64.

    positions[n, 3] in Å need not be wrapped; species[n] are indices into the model's species list; the rows
    of cell[3, 3] are lattice vectors; pbc[3] says which of them are periodic.
    """
    from nearsight.lib import _core  # the compiled core; graphs from elsewhere do without it

    edge_index, _, edge_vectors = _core.neighbor_list(
        np.asarray(positions, dtype=np.float64),
        np.asarray(cell, dtype=np.float64),
        np.asarray(pbc, dtype=bool),
        cutoff,
    )
    kinds = torch.as_tensor(np.asarray(species), dtype=torch.int64)
    return Graph(kinds, torch.from_numpy(edge_index), torch.from_numpy(edge_vectors), torch.zeros_like(kinds))


def collate(graphs: Sequence[Graph]) -> Graph:
    """Join graphs to one batch; their frames are numbered in order."""
    atoms = np.cumsum([0] + [g.num_atoms for g in graphs])
    frames = np.cumsum([0] + [g.num_frames for g in graphs])
    return Graph(
        species=torch.cat([g.species for g in graphs]),
        edge_index=torch.cat([g.edge_index + int(start) for g, start in zip(graphs, atoms)], dim=1),
        edge_vectors=torch.cat([g.edge_vectors for g in graphs]),
        frame=torch.cat([g.frame + int(start) for g, start in zip(graphs, frames)]),
        num_frames=int(frames[-1]),
    )
